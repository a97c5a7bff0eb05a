"""
Tests for L{mailgate.directives.values}.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import (
    Parser,
    capabilities,
    flag,
    lines,
    longSeconds,
    number,
    oneOf,
    path,
    paths,
    repeatedWords,
    seconds,
    size,
    text,
    words,
)

FOLDER = "/etc/mailgate"


class ParserCase(SynchronousTestCase):
    """Assertions about parsers."""

    def assertParses(self, parser: Parser, *pairs: tuple[str, Any]) -> None:
        for value, expected in pairs:
            self.assertEqual(parser(value, FOLDER), expected, value)

    def assertRefuses(self, parser: Parser, *values: str, message: str = "") -> None:
        for value in values:
            error = self.assertRaises(ValueError, parser, value, FOLDER)
            self.assertIn(message, str(error), value)
            self.assertNotEqual(str(error), "", value)


class GrammarTests(ParserCase):
    """Values are read as nginx reads them."""

    def test_flag(self):
        """A flag is on or off, in any case."""
        self.assertParses(flag, ("on", True), ("OFF", False), ("On", True))

    def test_flagRefused(self):
        """Other words are refused, with nginx's words."""
        self.assertRefuses(flag, "yes", "1", "true", "", "on off", message='must be "on" or "off"')

    def test_number(self):
        """A number is decimal and not negative."""
        self.assertParses(number, ("0", 0), ("5", 5), ("007", 7))

    def test_numberRefused(self):
        """Signs, fractions, other bases, digits that are not ASCII, and very long numbers are refused."""
        self.assertRefuses(number, "-1", "+1", "1.5", "0x10", "", "five", "\u0661", "1" * 13, "1_000", " 1")

    def test_size(self):
        """A size has the unit k or m, in any case."""
        self.assertParses(
            size, ("0", 0), ("4096", 4096), ("4k", 4096), ("4K", 4096), ("10m", 10485760), ("1M", 1048576)
        )

    def test_sizeRefused(self):
        """The unit g, fractions, blanks, and a unit without a number are refused."""
        self.assertRefuses(size, "1g", "1.5k", "4 k", "k", "-1", "", "1kk", "4kb", message="4k or 10m")

    def test_seconds(self):
        """A time has units in descending order; a number without a unit is seconds."""
        self.assertParses(
            seconds,
            ("0", 0.0),
            ("60", 60.0),
            ("30s", 30.0),
            ("1h30m", 5400.0),
            ("1w2d3h4m5s6ms", 604800 + 2 * 86400 + 3 * 3600 + 240 + 5.006),
            ("1w 2d", 777600.0),
            ("1h30", 3630.0),
            ("1h 30", 3630.0),
        )

    def test_milliseconds(self):
        """C{ms} is milliseconds, not minutes followed by s."""
        self.assertParses(seconds, ("500ms", 0.5), ("1500ms", 1.5), ("5m", 300.0), ("5m500ms", 300.5))

    def test_longSeconds(self):
        """Times in whole seconds accept months and years, but no milliseconds; M is not m."""
        day = 86400
        self.assertParses(longSeconds, ("90", 90), ("1h30m", 5400), ("2M", 60 * day), ("1w1d", 8 * day), ("1h30", 3630))
        self.assertParses(longSeconds, ("1y 1M1m1s", 395 * day + 61))
        message = "must be a time in whole seconds, such as 30s"
        self.assertRefuses(longSeconds, "500ms", "1m1M", "1M1y", "1Y", "-1", "1.5h", "", "s", "1" * 10, message=message)

    def test_secondsRefused(self):
        """Years, months, fractions, signs, repeated or unordered units, and a unit without a number are refused."""
        self.assertRefuses(
            seconds, "1y", "1M", "30m1h", "1h1h", "-1s", "1.5s", "s", "", "soon", "1" * 10, message="30s, 1h30m"
        )
        self.assertRefuses(seconds, "1s30", "30 5s", "500ms1s", "5ms5", "1s1s", "1d1w", "1H", "1S", "5MS", "\u0663s")

    def test_oneOf(self):
        """One of some words, in any case."""
        self.assertParses(oneOf("off", "on", "only"), ("only", "only"), ("ONLY", "only"))

    def test_oneOfRefused(self):
        """The message about another word lists the valid words, with the most similar one."""
        self.assertRefuses(oneOf("off", "on", "only"), "onyl", message="one of off, on, only; did you mean only?")
        self.assertRefuses(oneOf("off", "on"), "", "on off")

    def test_words(self):
        """Words are separated by blanks, and returned once each, in the order of the declaration."""
        parse = words("plain", "login", "cram-md5")
        self.assertParses(
            parse,
            ("plain", ("plain",)),
            ("CRAM-MD5 Plain", ("plain", "cram-md5")),
            ("login login", ("login",)),
            ("login\n  plain", ("plain", "login")),
        )

    def test_repeatedWords(self):
        """A repeated word is found, in any case; other kinds of values have no repeated words."""
        parse = words("plain", "login")
        self.assertEqual(list(repeatedWords(parse, "plain LOGIN Plain\n  plain")), ["Plain", "plain"])
        self.assertEqual(list(repeatedWords(parse, "plain login")), [])
        self.assertEqual(list(repeatedWords(text, "plain plain")), [])

    def test_wordsKeepTheirSpelling(self):
        """A word is returned in the case of its declaration."""
        self.assertParses(words("TLSv1.2", "TLSv1.3"), ("tlsv1.3", ("TLSv1.3",)))

    def test_wordsRefused(self):
        """The message about an unknown word has the nearest known one."""
        parse = words("plain", "login")
        self.assertRefuses(parse, "plain lgoin", message='"lgoin" is unknown; use some of plain, login; did you mean')
        self.assertRefuses(parse, "", message="a value is missing; use some of plain, login")

    def test_text(self):
        """One line, with blanks inside it, and with percent signs."""
        self.assertParses(text, ("a b", "a b"), (" x ", "x"), ("100%sure", "100%sure"), ("Größe", "Größe"))

    def test_textRefused(self):
        """Empty values, two lines, and characters that could end a line of a protocol are refused."""
        self.assertRefuses(text, "", "  ", message="a value is missing")
        self.assertRefuses(text, "a\nb", message="must be a single line")
        self.assertRefuses(text, "a\rb", "a\0b", "a\x7fb", "a\tb", message="contains a control character")

    def test_lines(self):
        """One item per line; blanks are part of an item, empty lines are ignored."""
        self.assertParses(lines, ("SIZE 104857600", ("SIZE 104857600",)), ("\n  a b\n\n  c\n", ("a b", "c")))
        self.assertRefuses(lines, "", "\n \n", message="a value is missing")

    def test_paths(self):
        """A relative path starts at the folder of the ini file; a path may contain blanks; C{~} is the home folder."""
        self.patch(os, "environ", {**os.environ, "HOME": "/home/joe"})
        self.assertParses(path, ("a/b.pem", "/etc/mailgate/a/b.pem"), ("/x y", "/x y"), ("~/k.pem", "/home/joe/k.pem"))
        self.assertParses(paths, ("a\n/b", ("/etc/mailgate/a", "/b")))
        self.assertRefuses(path, "", "a\nb", "a\0b")
        self.assertRefuses(paths, "", "a\n\0b")

    def test_capabilities(self):
        """One capability per line, with its parameters."""
        parse = capabilities("PIPELINING")
        self.assertParses(
            parse, ("PIPELINING\nSIZE 1000\nX-pipelining y", ("PIPELINING", "SIZE 1000", "X-pipelining y"))
        )

    def test_capabilitiesOnALine(self):
        """Several capabilities on a line, as in nginx, are refused with an explanation."""
        parse = capabilities("PIPELINING")
        self.assertRefuses(
            parse, "PIPELINING 8BITMIME", "SIZE 1\npipelining DSN", message="write one capability per line"
        )

    def test_capabilitiesOfBackends(self):
        """The word C{backend} comes first, on the first line; where nothing follows, the usual ones do."""
        parse = capabilities("PIPELINING", usual=("TOP", "UIDL"))
        self.assertEqual(parse("BACKEND", "/"), ("backend", "TOP", "UIDL"))
        self.assertEqual(parse("\nbackend\nSIZE 5\nDSN", "/"), ("backend", "SIZE 5", "DSN"))
        self.assertEqual(parse("backend SIZE 5\nDSN", "/"), ("backend", "SIZE 5", "DSN"))
        self.assertEqual(capabilities()("backend", "/"), ("backend",))
        self.assertRefuses(parse, "TOP\nbackend", "TOP backend", "backend\nbackend", message="must be the first word")

    def test_noCapabilities(self):
        """The word C{none} alone is an empty list."""
        self.assertEqual(capabilities(usual=("TOP",))("None", "/"), ())
        self.assertEqual(capabilities()("none\nTOP", "/"), ("none", "TOP"))

    def test_capabilitiesRefused(self):
        """A capability is printable ASCII."""
        self.assertRefuses(
            capabilities(), "Größe", "a\rb", "a\0", message="contains characters other than printable ASCII"
        )
        self.assertRefuses(capabilities(), "")

    def test_capabilitiesInQuotes(self):
        """Quotes, as in nginx, are refused: clients would receive them."""
        refused = '"IMAP4rev1" "IDLE"', 'IMAP4rev1\n"SIZE 1000"'
        self.assertRefuses(capabilities(), *refused, message="write one capability per line, without quotes")
