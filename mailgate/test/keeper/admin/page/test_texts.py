"""
Tests for L{mailgate.keeper.admin.page.texts}: how values read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.page.texts import (
    NONE,
    amount,
    count,
    duration,
    moment,
    rate,
    share,
    unquoted,
    visible,
    wait,
    words,
)
from mailgate.log.journal import printable

CASES: dict[Callable[[Any], str], dict[Any, str]] = {
    count: {0: "0", 8214: "8,214", 1234567: "1,234,567"},
    rate: {0: "0", 0.04: "0.0", 4.13: "4.1", 9.96: "10", 41.4: "41", 12345: "12,345"},
    wait: {0: "0 ms", 0.0012: "1.2 ms", 0.012: "12 ms", 0.99: "990 ms", 0.9996: "1.0 s", 1.44: "1.4 s", 200: "200 s"},
    duration: {
        0: "0 s",
        59.9: "59 s",
        60: "1 min",
        61: "1 min 1 s",
        3600: "1 h",
        11520: "3 h 12 min",
        90000: "1 d 1 h",
    },
    amount: {
        0: "0 B",
        999: "999 B",
        1000: "1.0 kB",
        12288: "12 kB",
        999999: "1.0 MB",
        3.1e6: "3.1 MB",
        5e18: "5000 PB",
    },
    share: {0: "0 %", 0.004: "0.4 %", 0.82: "82 %", 1: "100 %"},
}


class NumberTests(SynchronousTestCase):
    """Numbers."""

    def test_numbers(self) -> None:
        """Each kind has a unit that fits, and as many digits as tell something."""
        for write, cases in CASES.items():
            for value, text in cases.items():
                self.assertEqual(write(value), text, (write.__name__, value))

    def test_noNumber(self) -> None:
        """What is not known, or no number, has a dash. It raises nothing: another release may send anything."""
        values: tuple[Any, ...] = (None, "12", True, [], {}, float("nan"), float("inf"), 10**400, 1e300)
        for write in CASES:
            for value in values:
                self.assertEqual(write(value), NONE, (write.__name__, value))
        self.assertEqual(duration(-1), NONE)


class UnquotedTests(SynchronousTestCase):
    """Texts that the gateway has escaped for quotes."""

    def test_printable(self) -> None:
        """The page shows the quotes and backslashes of a text as they are. What would be hidden stays escaped, once."""
        raw = 'said "no\\" \u202e\x1b\n'
        self.assertEqual(visible(unquoted(printable(raw.encode()))), 'said "no\\" \\u202e\\x1b\\n')

    def test_others(self) -> None:
        """Other values stay what they are."""
        values: tuple[Any, ...] = (None, 5, [], "plain")
        for value in values:
            self.assertEqual(unquoted(value), value)


class MomentTests(SynchronousTestCase):
    """Times."""

    def test_forms(self) -> None:
        """Times are in UTC, whatever their zone; seconds since 1970 are times too."""
        for value in ("2026-11-28T10:02:11Z", "2026-11-28T10:02:11.204Z", "2026-11-28T11:02:11+01:00", 1795860131):
            self.assertEqual(moment(value), "2026-11-28 10:02:11", value)

    def test_notValid(self) -> None:
        """Others stay texts, with nothing hidden."""
        self.assertEqual(moment("soon\n"), "soon\\u{a}")
        self.assertEqual(moment(1e300), "1e+300")
        self.assertEqual(moment(None), NONE)


class VisibleTests(SynchronousTestCase):
    """Texts of the network."""

    def test_usual(self) -> None:
        """Letters of all languages, signs and spaces stay as they are."""
        for text in ("joe@example.org", "<img src=x>", "مستخدم@مثال", "张伟", "a b", "é", "\U0001f600", "back\\slash"):
            self.assertEqual(visible(text), text)

    def test_hidden(self) -> None:
        """Control characters, line ends, and marks that turn or hide text are written out."""
        for char in "\x00\x07\x1b\n\r\t\x7f\x85\xad\u061c\u200b\u200e\u202e\u2066\u2028\u2029\ufeff\ue000\U000e0041":
            self.assertEqual(visible(f"a{char}b"), f"a\\u{{{ord(char):x}}}b")

    def test_surrogate(self) -> None:
        """Half of a surrogate pair, which UTF-8 lacks, is written out."""
        self.assertEqual(visible("\ud800"), "\\u{d800}")

    def test_none(self) -> None:
        """Nothing has a dash."""
        self.assertEqual(visible(None), NONE)
        self.assertEqual(visible(""), NONE)
        self.assertEqual(visible(0), "0")

    def test_words(self) -> None:
        """Lists and objects become one text."""
        self.assertEqual(words(["*:993 ssl", "[::]:993"]), "*:993 ssl, [::]:993")
        self.assertEqual(words({"a": 1, "b\n": "\x1b"}), "a 1, b\\u{a} \\u{1b}")
        self.assertEqual(words([]), NONE)
        self.assertEqual(words({}), NONE)
        self.assertEqual(words("imap"), "imap")
