"""
Tests for L{mailgate.directives.problems}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import knownDirectives
from mailgate.directives.problems import ConfigurationError, Lines, Problem, nearest


class ProblemTests(SynchronousTestCase):
    """The text of a problem."""

    def test_place(self):
        """File and line are written as compilers write them; an unknown line is left out."""
        problem = Problem("x.ini", "is wrong", "mail", "timeout", "5x", 7)
        self.assertEqual(str(problem), "x.ini:7: [mail] timeout = 5x: is wrong")
        self.assertEqual(str(Problem("x.ini", "is empty")), "x.ini: is empty")

    def test_escaped(self):
        """Control characters of the file do not reach a terminal, and a problem is one line; letters stay."""
        problem = Problem("x.ini", 'is no "\x9b"', "server \x1b[31mé", "xclient", "on\r\u202e\xa0”", 7)
        self.assertEqual(str(problem), 'x.ini:7: [server \\x1b[31mé] xclient = on\\r\\u202e\\xa0”: is no "\\x9b"')


class LinesTests(SynchronousTestCase):
    """The line of a problem."""

    lines = Lines({("mail", ""): [(1, "")], ("mail", "listen"): [(2, ""), (3, "143"), (5, "993 ssl")]})

    def test_find(self):
        """The line is that of the item, or else of the option, or else of the section; 0 if none is known."""
        for place, line in (
            (("mail", "listen", "993 ssl"), 5),
            (("mail", "listen", "143 | 993"), 2),
            (("mail", "listen"), 2),
            (("mail", "timeout"), 1),
            (("server x", "timeout"), 0),
        ):
            self.assertEqual(self.lines.find(*place), line, place)

    def test_locate(self):
        """An error gets missing lines, and keeps the others."""
        error = ConfigurationError(
            [Problem("f", "m", "mail", "listen"), Problem("f", "m", "mail", line=9), Problem("f", "m")]
        )
        error.locate(self.lines)
        self.assertEqual([problem.line for problem in error.problems], [2, 9, 0])
        self.assertEqual(str(error), "f:2: [mail] listen: m\nf:9: [mail]: m\nf: m")


class NearestTests(SynchronousTestCase):
    """Tests for L{nearest}."""

    def test_options(self):
        """An abbreviation is preferred to a similar word; case does not matter."""
        known = list(knownDirectives("server"))
        for word, meant in (
            ("ssl_cert", "ssl_certificate"),
            ("ssl_key", "ssl_certificate_key"),
            ("ssl_cert_key", "ssl_certificate_key"),
            ("ssl_proto", "ssl_protocols"),
            ("Timeout", "timeout"),
            ("timeuot", "timeout"),
            ("xlient", "xclient"),
            ("listne", "listen"),
            ("server_nam", "server_name"),
            ("imap_capability", "imap_capabilities"),
            ("auth_http_headers", "auth_http_header"),
        ):
            self.assertEqual(nearest(word, known), f"; did you mean {meant}?")

    def test_nothing(self):
        """A word that resembles no known one, or is too short for an abbreviation, gets no suggestion."""
        for word in ("zzzz", "s", "", "_", "ss"):
            self.assertEqual(nearest(word, ["ssl", "timeout"] if word != "ss" else ["timeout"]), "")

    def test_near(self):
        """A typing error is recognised."""
        self.assertEqual(nearest("timeuot", ["listen", "timeout"]), "; did you mean timeout?")

    def test_case(self):
        """A word in another case is recognised, and suggested in the right case."""
        self.assertEqual(nearest("MAIL", ["mailgate", "mail"]), "; did you mean mail?")
        self.assertEqual(nearest("tlsv1.3", ["TLSv1.2", "TLSv1.3"]), "; did you mean TLSv1.3?")

    def test_far(self):
        """Without a similar word there is no suggestion."""
        self.assertEqual(nearest("xyzzy", ["listen", "timeout"]), "")
        self.assertEqual(nearest("x", []), "")


class ShownTests(SynchronousTestCase):
    """Tests for L{Problem} and L{ConfigurationError}."""

    def test_everything(self):
        """A problem is one line with file, section, option and value."""
        problem = Problem("a.ini", "must be a time", "server imap", "timeout", "5x")
        self.assertEqual(str(problem), "a.ini: [server imap] timeout = 5x: must be a time")

    def test_nothingMore(self):
        """Missing parts of a problem are left out."""
        self.assertEqual(
            str(Problem("a.ini", "is not UTF-8 text; save it as UTF-8")), "a.ini: is not UTF-8 text; save it as UTF-8"
        )
        self.assertEqual(str(Problem("a.ini", "is missing", "mail", "x")), "a.ini: [mail] x: is missing")

    def test_severalLines(self):
        """A value of several lines is shown on one line."""
        self.assertEqual(
            str(Problem("a.ini", "no", "s", "listen", "\n143\n993 ssl")), "a.ini: [s] listen = 143 | 993 ssl: no"
        )

    def test_emptyValue(self):
        """An empty value is shown as empty."""
        self.assertEqual(
            str(Problem("a.ini", "a value is missing", "s", "o", "")), "a.ini: [s] o = : a value is missing"
        )

    def test_error(self):
        """The exception has all problems, and its text has a line for each."""
        problems = [Problem("a.ini", "one"), Problem("a.ini", "two")]
        error = ConfigurationError(problems)
        self.assertEqual(error.problems, tuple(problems))
        self.assertEqual(str(error), "a.ini: one\na.ini: two")
