"""
Tests for L{mailgate.directives}.
"""

from __future__ import annotations

import os
from typing import Any

from attrs import exceptions, frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import (
    ConfigurationError,
    Level,
    ListenAddress,
    Parser,
    Problem,
    ServerSettings,
    capabilities,
    directive,
    directives,
    flag,
    hostPort,
    isHostName,
    lines,
    longSeconds,
    nearest,
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


@frozen
class Sample:
    """A settings class."""

    patience: float = directive("patience", seconds, 60.0)
    key: str = directive("key", text, "", Level.MAILGATE, secret=True)
    other: int = 3


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
    """Values are read as nginx reads them (nginx-mail.md, section 1)."""

    def test_flag(self):
        """A flag is on or off, in any case."""
        self.assertParses(flag, ("on", True), ("OFF", False), ("On", True))

    def test_flagRefused(self):
        """Nothing else is a flag, and the words of nginx say so."""
        self.assertRefuses(flag, "yes", "1", "true", "", "on off", message='must be "on" or "off"')

    def test_number(self):
        """A number is a decimal that is not negative."""
        self.assertParses(number, ("0", 0), ("5", 5), ("007", 7))

    def test_numberRefused(self):
        """A sign, a fraction, another base, digits that are not ASCII and absurd lengths are no number."""
        self.assertRefuses(number, "-1", "+1", "1.5", "0x10", "", "five", "\u0661", "1" * 13, "1_000", " 1")

    def test_size(self):
        """A size has k and m, in any case, as its units."""
        self.assertParses(
            size, ("0", 0), ("4096", 4096), ("4k", 4096), ("4K", 4096), ("10m", 10485760), ("1M", 1048576)
        )

    def test_sizeRefused(self):
        """There is no g, no fraction, no blank and no bare unit."""
        self.assertRefuses(size, "1g", "1.5k", "4 k", "k", "-1", "", "1kk", "4kb", message="4k or 10m")

    def test_seconds(self):
        """A time has units in descending order; without one it is seconds."""
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
        """C{ms} are not minutes and a stray s."""
        self.assertParses(seconds, ("500ms", 0.5), ("1500ms", 1.5), ("5m", 300.0), ("5m500ms", 300.5))

    def test_longSeconds(self):
        """Where whole seconds are counted there are months and years, and no milliseconds; M is not m."""
        day = 86400
        self.assertParses(longSeconds, ("90", 90), ("1h30m", 5400), ("2M", 60 * day), ("1w1d", 8 * day), ("1h30", 3630))
        self.assertParses(longSeconds, ("1y 1M1m1s", 395 * day + 61))
        message = "must be a time in whole seconds, such as 30s"
        self.assertRefuses(longSeconds, "500ms", "1m1M", "1M1y", "1Y", "-1", "1.5h", "", "s", "1" * 10, message=message)

    def test_secondsRefused(self):
        """No years or months, no fraction, no sign, no units out of order or twice, and no bare unit."""
        self.assertRefuses(
            seconds, "1y", "1M", "30m1h", "1h1h", "-1s", "1.5s", "s", "", "soon", "1" * 10, message="30s, 1h30m"
        )
        self.assertRefuses(seconds, "1s30", "30 5s", "500ms1s", "5ms5", "1s1s", "1d1w", "1H", "1S", "5MS", "\u0663s")

    def test_oneOf(self):
        """One of some words, in any case."""
        self.assertParses(oneOf("off", "on", "only"), ("only", "only"), ("ONLY", "only"))

    def test_oneOfRefused(self):
        """Another word is answered with the words there are, and the one that was probably meant."""
        self.assertRefuses(oneOf("off", "on", "only"), "onyl", message="one of off, on, only; did you mean only?")
        self.assertRefuses(oneOf("off", "on"), "", "on off")

    def test_words(self):
        """Words are split at blanks and come in the order of the declaration, each once, however they are written."""
        parse = words("plain", "login", "cram-md5")
        self.assertParses(
            parse,
            ("plain", ("plain",)),
            ("CRAM-MD5 Plain", ("plain", "cram-md5")),
            ("login login", ("login",)),
            ("login\n  plain", ("plain", "login")),
        )

    def test_repeatedWords(self):
        """A word that is written again, in whichever case, is found each time; other values have none."""
        parse = words("plain", "login")
        self.assertEqual(list(repeatedWords(parse, "plain LOGIN Plain\n  plain")), ["Plain", "plain"])
        self.assertEqual(list(repeatedWords(parse, "plain login")), [])
        self.assertEqual(list(repeatedWords(text, "plain plain")), [])

    def test_wordsKeepTheirSpelling(self):
        """A word whose capitals matter has those of its declaration."""
        self.assertParses(words("TLSv1.2", "TLSv1.3"), ("tlsv1.3", ("TLSv1.3",)))

    def test_wordsRefused(self):
        """An unknown word is named, with the nearest known one."""
        parse = words("plain", "login")
        self.assertRefuses(parse, "plain lgoin", message='"lgoin" is unknown, the words are plain, login; did you mean')
        self.assertRefuses(parse, "", message="a value is missing: some of plain, login")

    def test_text(self):
        """One line, blanks inside it and a percent sign included."""
        self.assertParses(text, ("a b", "a b"), (" x ", "x"), ("100%sure", "100%sure"), ("Größe", "Größe"))

    def test_textRefused(self):
        """Not none, not two, and nothing that could go on to break a line of a protocol."""
        self.assertRefuses(text, "", "  ", message="a value is missing")
        self.assertRefuses(text, "a\nb", message="takes one line")
        self.assertRefuses(text, "a\rb", "a\0b", "a\x7fb", "a\tb", message="holds a control character")

    def test_lines(self):
        """One item a line, blanks belonging to it; empty lines are none."""
        self.assertParses(lines, ("SIZE 104857600", ("SIZE 104857600",)), ("\n  a b\n\n  c\n", ("a b", "c")))
        self.assertRefuses(lines, "", "\n \n", message="a value is missing")

    def test_paths(self):
        """A relative path starts at the ini file's folder, a path may hold blanks, C{~} is the home folder."""
        self.patch(os, "environ", {**os.environ, "HOME": "/home/joe"})
        self.assertParses(path, ("a/b.pem", "/etc/mailgate/a/b.pem"), ("/x y", "/x y"), ("~/k.pem", "/home/joe/k.pem"))
        self.assertParses(paths, ("a\n/b", ("/etc/mailgate/a", "/b")))
        self.assertRefuses(path, "", "a\nb", "a\0b")
        self.assertRefuses(paths, "", "a\n\0b")

    def test_capabilities(self):
        """One capability a line, with its parameters."""
        parse = capabilities("PIPELINING")
        self.assertParses(
            parse, ("PIPELINING\nSIZE 1000\nX-pipelining y", ("PIPELINING", "SIZE 1000", "X-pipelining y"))
        )

    def test_capabilitiesOnALine(self):
        """Who writes several on a line, as nginx wants them, is told of the difference rather than misunderstood."""
        parse = capabilities("PIPELINING")
        self.assertRefuses(
            parse, "PIPELINING 8BITMIME", "SIZE 1\npipelining DSN", message="write one capability a line"
        )

    def test_capabilitiesRefused(self):
        """What goes onto the wire is printable ASCII."""
        self.assertRefuses(capabilities(), "Größe", "a\rb", "a\0", message="is not printable ASCII")
        self.assertRefuses(capabilities(), "")

    def test_capabilitiesInQuotes(self):
        """Quotes are nginx's, and would go onto the wire."""
        refused = '"IMAP4rev1" "IDLE"', 'IMAP4rev1\n"SIZE 1000"'
        self.assertRefuses(capabilities(), *refused, message="write one capability a line, without quotes")


class HostPortTests(SynchronousTestCase):
    """Tests for L{hostPort}."""

    def test_forms(self):
        """Names, IPv4 addresses, bracketed IPv6 addresses and unix sockets; brackets do not stay."""
        for value, expected in (
            ("mx.example.com:25", ("mx.example.com", 25)),
            ("10.0.0.1:65535", ("10.0.0.1", 65535)),
            ("[::1]:143", ("::1", 143)),
            ("[::ffff:10.0.0.1]:1", ("::ffff:10.0.0.1", 1)),
            ("unix:/run/imap.sock", ("unix:/run/imap.sock", 0)),
            ("a-b.1.example.:1", ("a-b.1.example.", 1)),
        ):
            self.assertEqual(hostPort(value), expected)

    def test_refused(self):
        """No port, an unbracketed IPv6 address, a relative socket, a URL, blanks and nothing at all are refused."""
        for value in ("", "host", ":25", "::1:25", "[::1]", "[host]:1", "unix:run", "http://h:1", "a b:1", "h:", "h:x"):
            error = self.assertRaises(ValueError, hostPort, value)
            self.assertIn("host:port", str(error))

    def test_socketPath(self):
        """The path of a unix socket is no longer than the kernel takes, in bytes."""
        self.assertEqual(hostPort("unix:/" + "x" * 106), ("unix:/" + "x" * 106, 0))
        for place in ("/" + "x" * 107, "/" + "é" * 54):
            self.assertIn("at most 107 bytes", str(self.assertRaises(ValueError, hostPort, f"unix:{place}")))

    def test_ports(self):
        """Ports are 1 to 65535."""
        for value in ("h:0", "h:65536", "[::1]:99999"):
            self.assertIn("invalid port", str(self.assertRaises(ValueError, hostPort, value)))


class NearestTests(SynchronousTestCase):
    """Tests for L{nearest}."""

    def test_near(self):
        """A slip of the pen is recognised."""
        self.assertEqual(nearest("timeuot", ["listen", "timeout"]), "; did you mean timeout?")

    def test_case(self):
        """So is what differs in case alone, and it is told as it is written."""
        self.assertEqual(nearest("MAIL", ["mailgate", "mail"]), "; did you mean mail?")
        self.assertEqual(nearest("tlsv1.3", ["TLSv1.2", "TLSv1.3"]), "; did you mean TLSv1.3?")

    def test_far(self):
        """Where nothing is near, nothing is guessed."""
        self.assertEqual(nearest("xyzzy", ["listen", "timeout"]), "")
        self.assertEqual(nearest("x", []), "")


class DirectiveTests(SynchronousTestCase):
    """Tests for L{directive} and L{directives}."""

    def test_declared(self):
        """A settings class tells its directives, with the attribute each belongs to; other attributes are none."""
        patience, key = directives(Sample)
        self.assertEqual((patience.name, patience.field, patience.group), ("patience", "patience", Sample))
        self.assertEqual(patience.parse("1m", FOLDER), 60.0)
        self.assertEqual((key.name, key.secret), ("key", True))

    def test_levels(self):
        """A directive stands in [mail] and [server] unless it says otherwise."""
        patience, key = directives(Sample)
        self.assertEqual(patience.levels, {Level.MAIL, Level.SERVER})
        self.assertEqual(key.levels, {Level.MAILGATE})

    def test_defaults(self):
        """The class itself needs no arguments."""
        self.assertEqual(Sample().patience, 60.0)

    def test_secret(self):
        """The value of a secret directive is not in the repr, the others are."""
        shown = repr(Sample(patience=7.0, key="sesame"))
        self.assertNotIn("sesame", shown)
        self.assertIn("7.0", shown)


class ProblemTests(SynchronousTestCase):
    """Tests for L{Problem} and L{ConfigurationError}."""

    def test_everything(self):
        """A problem is one line that names file, section, option and value."""
        problem = Problem("a.ini", "must be a time", "server imap", "timeout", "5x")
        self.assertEqual(str(problem), "a.ini: [server imap] timeout = 5x: must be a time")

    def test_nothingMore(self):
        """What a problem has no idea of it does not mention."""
        self.assertEqual(str(Problem("a.ini", "is not UTF-8 text")), "a.ini: is not UTF-8 text")
        self.assertEqual(str(Problem("a.ini", "is missing", "mail", "x")), "a.ini: [mail] x: is missing")

    def test_severalLines(self):
        """A value of several lines is shown on one."""
        self.assertEqual(
            str(Problem("a.ini", "no", "s", "listen", "\n143\n993 ssl")), "a.ini: [s] listen = 143 | 993 ssl: no"
        )

    def test_emptyValue(self):
        """A value that is empty was nevertheless given."""
        self.assertEqual(
            str(Problem("a.ini", "a value is missing", "s", "o", "")), "a.ini: [s] o = : a value is missing"
        )

    def test_error(self):
        """The exception holds all problems, and its text a line for each."""
        problems = [Problem("a.ini", "one"), Problem("a.ini", "two")]
        error = ConfigurationError(problems)
        self.assertEqual(error.problems, tuple(problems))
        self.assertEqual(str(error), "a.ini: one\na.ini: two")


class HostNameTests(SynchronousTestCase):
    """L{isHostName}."""

    def test_names(self):
        """RFC 1123's names, a dot at the end included, and those with underscores."""
        for name in (
            "a",
            "localhost",
            "mail.example.com",
            "mail.example.com.",
            "1.2.a",
            "x--y",
            "a" * 63,
            "xn--tst-qla.de",
            "mail_auth",
            "a_b.c_d.example",
            "_a",
            "a_",
            "1_a",
            "_" * 62 + "a",
        ):
            self.assertTrue(isHostName(name), name)
            self.assertEqual(hostPort(f"{name}:143"), (name, 143))

    def test_others(self):
        """No address or what the system takes for one, no empty label or one too long, nothing that is no name."""
        others = (
            "",
            ".",
            "a..b",
            ".a",
            "-a",
            "a-",
            "a%b",
            "a_/b",
            "a_\0b",
            "a_\tb",
            "_-",
            "1_2",
            "_",
            "127.1",
            "_" * 63 + "a",
            "a_..b",
            "a b",
            "1.2.3.4",
            "1",
            "a.1",
            "a" * 64,
            "é",
            "a\n",
        )
        for name in (*others, "a." * 127 + "ab"):
            self.assertFalse(isHostName(name), name)
            if name:
                self.assertRaises(ValueError if name != "1.2.3.4" else AssertionError, self.parse, name)

    def parse(self, name):
        """Take C{name} for a host, with a port."""
        hostPort(f"{name}:143")
        raise AssertionError("taken")


class ListenAddressTests(SynchronousTestCase):
    """Tests for L{ListenAddress}."""

    def test_str(self):
        """An address is shown as an operator writes it."""
        for address, shown in (
            (ListenAddress("0.0.0.0", 143), "0.0.0.0:143"),
            (ListenAddress("::", 993, ssl=True), "[::]:993"),
            (ListenAddress("unix:/run/x", 0), "unix:/run/x"),
        ):
            self.assertEqual(str(address), shown)


class ServerSettingsTests(SynchronousTestCase):
    """Tests for L{ServerSettings}."""

    def server(self, *addresses: ListenAddress, **groups: Any) -> ServerSettings:
        return ServerSettings(
            "imap", "imap", addresses, {type(group): group for group in groups.values()}, file="a.ini"
        )

    def test_groups(self):
        """Settings are found by their class."""
        sample = Sample(patience=1.0)
        self.assertIs(self.server(sample=sample)[Sample], sample)

    def test_defaults(self):
        """A class that nothing was read into gives its defaults."""
        self.assertEqual(self.server()[Sample], Sample())

    def test_speaksTLS(self):
        """One address that speaks TLS from the first byte is enough."""
        plain, ssl = ListenAddress("::1", 1), ListenAddress("::1", 2, ssl=True)
        self.assertTrue(self.server(plain, ssl).speaksTLS)
        self.assertFalse(self.server(plain).speaksTLS)
        self.assertFalse(self.server().speaksTLS)

    def test_problem(self):
        """It says where a problem of its own stands."""
        self.assertEqual(str(self.server().problem("x", "is odd", "1")), "a.ini: [server imap] x = 1: is odd")

    def test_repr(self):
        """The groups, which may hold secrets, are not in the repr."""
        self.assertNotIn("patience", repr(self.server(sample=Sample())))

    def test_frozen(self):
        """Settings do not change once they are read."""
        for name in ("name", "listen", "groups"):
            with self.assertRaises(exceptions.FrozenInstanceError):
                setattr(self.server(), name, None)
