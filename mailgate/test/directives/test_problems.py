"""
Tests for L{mailgate.directives.problems}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import knownDirectives
from mailgate.directives.problems import ConfigurationError, Lines, Problem, nearest


class ProblemTests(SynchronousTestCase):
    """How a problem is told."""

    def test_place(self):
        """File and line are written as compilers write them; a line that is not known is left out."""
        problem = Problem("x.ini", "is wrong", "mail", "timeout", "5x", 7)
        self.assertEqual(str(problem), "x.ini:7: [mail] timeout = 5x: is wrong")
        self.assertEqual(str(Problem("x.ini", "is empty")), "x.ini: is empty")

    def test_escaped(self):
        """What was pasted into the file moves no terminal's cursor, and a problem is one line; letters stay."""
        problem = Problem("x.ini", 'is no "\x9b"', "server \x1b[31mé", "xclient", "on\r\u202e\xa0”", 7)
        self.assertEqual(str(problem), 'x.ini:7: [server \\x1b[31mé] xclient = on\\r\\u202e\\xa0”: is no "\\x9b"')


class LinesTests(SynchronousTestCase):
    """Where something stands."""

    lines = Lines({("mail", ""): [(1, "")], ("mail", "listen"): [(2, ""), (3, "143"), (5, "993 ssl")]})

    def test_find(self):
        """The line is that of the item, or else of the option, or else of the section; 0 where there is none."""
        for place, line in (
            (("mail", "listen", "993 ssl"), 5),
            (("mail", "listen", "143 | 993"), 2),
            (("mail", "listen"), 2),
            (("mail", "timeout"), 1),
            (("server x", "timeout"), 0),
        ):
            self.assertEqual(self.lines.find(*place), line, place)

    def test_locate(self):
        """An error gets the lines that it lacks, and no others."""
        error = ConfigurationError(
            [Problem("f", "m", "mail", "listen"), Problem("f", "m", "mail", line=9), Problem("f", "m")]
        )
        error.locate(self.lines)
        self.assertEqual([problem.line for problem in error.problems], [2, 9, 0])
        self.assertEqual(str(error), "f:2: [mail] listen: m\nf:9: [mail]: m\nf: m")


class NearestTests(SynchronousTestCase):
    """Tests for L{nearest}."""

    def test_options(self):
        """An abbreviation goes before what only looks alike; another case is no other word."""
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
        """What is like nothing, or has too few letters to be an abbreviation, has no neighbour."""
        for word in ("zzzz", "s", "", "_", "ss"):
            self.assertEqual(nearest(word, ["ssl", "timeout"] if word != "ss" else ["timeout"]), "")

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


class ShownTests(SynchronousTestCase):
    """Tests for L{Problem} and L{ConfigurationError}."""

    def test_everything(self):
        """A problem is one line that names file, section, option and value."""
        problem = Problem("a.ini", "must be a time", "server imap", "timeout", "5x")
        self.assertEqual(str(problem), "a.ini: [server imap] timeout = 5x: must be a time")

    def test_nothingMore(self):
        """What a problem has no idea of it does not mention."""
        self.assertEqual(
            str(Problem("a.ini", "is not UTF-8 text; save it as UTF-8")), "a.ini: is not UTF-8 text; save it as UTF-8"
        )
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
