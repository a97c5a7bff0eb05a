"""Tests for L{mailgate.cli.top.text}."""

from __future__ import annotations

import unicodedata

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.columns import fit, width
from mailgate.cli.top.text import ASCII, UNICODE, Look, Span, clean, lineOf, plain, spark, steady, wrap
from mailgate.test.cli.top.pages import HOSTILE


class CleanTests(SynchronousTestCase):
    """Texts from the network."""

    def test_hostile(self) -> None:
        """No character controls the terminal, has no width, or changes the direction of text."""
        for name in HOSTILE:
            for marks in (UNICODE, ASCII):
                text = clean(name, marks)
                self.assertTrue(text.isprintable(), text)
                for char in text:
                    self.assertNotIn(unicodedata.category(char)[0], "CZ" if char != " " else "", text)
                self.assertEqual(steady(text, marks), text)
            self.assertTrue(clean(name, ASCII).isascii())

    def test_escapes(self) -> None:
        """What is escaped can be read."""
        self.assertEqual(clean(HOSTILE[0], UNICODE), r"\x1b[2J\x1b]0;title\x07\x9b31m")
        self.assertEqual(clean("a\u200bb", UNICODE), r"a\u200bb")
        self.assertEqual(clean("ü王", ASCII), r"\xfc\u738b")
        self.assertEqual(clean('"\\', UNICODE), r"\"\\")

    def test_marks(self) -> None:
        """Accents become one character; of many marks on one character two stay."""
        self.assertEqual(clean("e\u0301", UNICODE), "é")
        self.assertEqual(clean("x" + "\u0301" * 3, UNICODE), "x\u0301\u0301\\u0301")

    def test_others(self) -> None:
        """Values that are no texts are short."""
        for value, expected in ((None, "-"), ("", "-"), (7, "7"), (True, "True"), ({"a": 1}, "-"), ([1], "-")):
            self.assertEqual(clean(value, UNICODE), expected)

    def test_long(self) -> None:
        """A long text is cut before it is escaped."""
        self.assertEqual(clean("x" * 300, UNICODE), "x" * 256 + "...")
        self.assertEqual(clean("abcdef", UNICODE, 3), "abc...")

    def test_steady(self) -> None:
        """Quotes of own texts stay as they are."""
        self.assertEqual(steady('say "a\\b"\x1b', UNICODE), 'say "a\\b"\\x1b')


class LineTests(SynchronousTestCase):
    """Texts that take exactly their cells."""

    def test_fit(self) -> None:
        """Cut, or with blanks; a wide character that does not fit leaves a blank."""
        for text, cells, expected in (("abc", 5, "abc  "), ("abcdef", 4, "abc…"), ("王王王", 4, "王… "), ("a", 0, "")):
            self.assertEqual(fit(text, cells, UNICODE.rest), expected)
            self.assertEqual(width(fit(text, cells, UNICODE.rest)), cells)
        self.assertEqual(fit("7", 3, UNICODE.rest, True), "  7")
        self.assertEqual(fit("abcdef", 4, ASCII.rest), "abc~")

    def test_lineOf(self) -> None:
        """Parts are cut at the end of the line, and keep their looks."""
        line = lineOf([Span("abc", Look.BAD), Span("def")], 5, UNICODE)
        self.assertEqual(line, (Span("abc", Look.BAD), Span("d…")))
        self.assertEqual(lineOf([Span("a")], 3, UNICODE, Look.BAR), (Span("a"), Span("  ", Look.BAR)))
        self.assertEqual(plain(lineOf([Span("a")], 3, UNICODE)), "a")

    def test_wrap(self) -> None:
        """Lines end at blanks; a long word is broken; an indent is kept."""
        self.assertEqual(list(wrap("aa bb cc", 5)), ["aa bb", "cc"])
        self.assertEqual(list(wrap("abcdefgh", 3)), ["abc", "def", "gh"])
        self.assertEqual(list(wrap("  aa bb cc", 6)), ["  aa", "  bb", "  cc"])
        self.assertEqual(list(wrap("", 10)), [""])
        for cells in range(1, 20):
            for text in ("   王王王 abc " * 5, " " * 30 + "x", "a" * 50):
                self.assertTrue(all(width(line) <= max(cells, 2) for line in wrap(text, cells)))


class SparkTests(SynchronousTestCase):
    """Small plots."""

    def test_levels(self) -> None:
        """The highest value has the highest level, 0 the lowest; a gap is a blank."""
        self.assertEqual(spark([0, 1, 2, None, 7], 5, UNICODE), "▁▂▃ █")
        self.assertEqual(spark([0, 7], 2, ASCII), "_#")

    def test_small(self) -> None:
        """What is not 0 is seen beside a much larger value."""
        self.assertEqual(spark([0, 0.001, 1000], 3, UNICODE), "▁▂█")

    def test_length(self) -> None:
        """The latest values are at the right."""
        self.assertEqual(spark([1, 2, 7], 2, UNICODE), "▃█")
        self.assertEqual(spark([7], 3, UNICODE), "  █")
        self.assertEqual(spark([], 2, UNICODE), "  ")
        self.assertEqual(spark([1], 0, UNICODE), "")
        self.assertEqual(spark([0, 0], 2, UNICODE), "▁▁")
