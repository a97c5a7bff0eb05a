"""
Tests for L{mailgate.nginx.values}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.nginx.values import PATHS, Paths, fitsIni, written

PLACES = Paths("/etc/nginx", "/usr/share/nginx", "/var/log/nginx/error.log")


class WrittenTests(SynchronousTestCase):
    """Tests for L{written}."""

    def assertWritten(self, name: str, *cases: tuple[str | tuple[str, ...], str]) -> None:
        for args, expected in cases:
            given = (args,) if isinstance(args, str) else args
            self.assertEqual(written(name, given, PLACES), [expected], given)

    def assertRefused(self, name: str, *args: str) -> str:
        return str(self.assertRaises(ValueError, written, name, args, PLACES))

    def test_alone(self):
        """
        One word is the value, with its blanks; several words are separated by blanks, and so cannot contain blanks.
        """
        self.assertWritten("server_name", ("a b", "a b"))
        self.assertWritten("frob", (("a", "b"), "a b"))
        self.assertIn("blank", self.assertRefused("frob", "a", "b c"))

    def test_words(self):
        """A word with a blank does not become two words."""
        self.assertIn("blank", self.assertRefused("imap_auth", "plain login"))
        self.assertIn("blank", self.assertRefused("ssl_protocols", "TLSv1.2\tTLSv1.3"))

    def test_paths(self):
        """Paths of files start at nginx.conf's folder; C{~} is not the home folder there."""
        for name in PATHS:
            self.assertWritten(name, ("a b.pem", "/etc/nginx/a b.pem"), ("/x/y", "/x/y"), ("~/k", "/etc/nginx/~/k"))

    def test_data(self):
        """PEM data become one line; values that OpenSSL loads itself are unchanged."""
        self.assertWritten("ssl_certificate_key", ("data:a\nb\r\nc\n", r"data:a\nb\nc\n"))
        self.assertWritten("ssl_certificate_key", ("engine:pkcs11:x", "engine:pkcs11:x"), ("store:x", "store:x"))

    def test_errorLog(self):
        """Paths of logs start at the prefix; a level is always added; the parts of debug become debug."""
        self.assertWritten(
            "error_log",
            ("a.log", "/usr/share/nginx/a.log error"),
            (("/a.log", "info"), "/a.log info"),
            ("stderr", "stderr error"),
            (("syslog:server=unix:/dev/log", "warn"), "syslog:server=unix:/dev/log warn"),
            (("/a.log", "info", "json"), "/a.log info json"),
            (("/a.log", "debug_mail"), "/a.log debug"),
            (("/a.log", "debug_mail", "debug_core"), "/a.log debug"),
            # nginx refuses these, and so does the parser of mailgate.
            (("/a.log", "debug_frob"), "/a.log debug_frob"),
        )
        self.assertIn("memory", self.assertRefused("error_log", "memory:32m", "debug"))
        self.assertIn("blank", self.assertRefused("error_log", "/a b"))
        for levels in (
            ("info", "jsno"),
            ("json", "info"),
            ("info", "json", "json"),
            ("info", "debug_mail"),
            ("debug_mail", "info"),
            ("debug", "debug_mail"),
        ):
            self.assertIn("after the level", self.assertRefused("error_log", "/a", *levels))

    def test_listen(self):
        """An address needs a port: without one nginx uses any free port."""
        for address in ("143", "*:143", "127.0.0.1:143", "[::]:143", "host:1-3", "unix:/run/x"):
            self.assertWritten("listen", ((address, "ssl"), f"{address} ssl"))
        for address in ("127.0.0.1", "localhost", "[::1]", "*"):
            self.assertIn("no port", self.assertRefused("listen", address))
        self.assertIn("blank", self.assertRefused("listen", "unix:/run/x", "a b"))

    def test_header(self):
        """The value of a header is one text; a name with a blank would move its end into the value."""
        self.assertWritten("auth_http_header", (("X", "a = b;#"), "X a = b;#"), (("X", ""), "X"), (("X", " a "), "X a"))
        self.assertIn("blank", self.assertRefused("auth_http_header", "X Y", "a"))

    def test_variables(self):
        """A variable of mailgate becomes the text that it is in nginx; nothing else changes."""
        for value, expected in (
            ("$remote_addr", "${dollar}remote_addr"),
            ("${protocol}s", "${dollar}{protocol}s"),
            ("$ssl_server_name-$session_id", "${dollar}ssl_server_name-${dollar}session_id"),
            ("${dollar}", "${dollar}{dollar}"),
            ("$remote_address", "$remote_address"),
            ("$host $ $$ 5$", "$host $ $$ 5$"),
            ("$$server_port", "$${dollar}server_port"),
            ("${protocol", "${protocol"),
        ):
            self.assertWritten("auth_http_header", (("X", value), f"X {expected}"))
        self.assertWritten("server_name", ("$protocol", "$protocol"))

    def test_command(self):
        """Paths of files in commands of OpenSSL start at nginx.conf's folder."""
        self.assertWritten(
            "ssl_conf_command",
            (("Options", "-SessionTicket"), "Options -SessionTicket"),
            (("VerifyCAFile", "ca.pem"), "VerifyCAFile /etc/nginx/ca.pem"),
            (("dhparameters", "/dh.pem"), "dhparameters /dh.pem"),
        )


class FitsIniTests(SynchronousTestCase):
    """Tests for L{fitsIni}."""

    def test_good(self):
        """An ini file can hold all values that begin and end with a visible character."""
        for item in ("a", "a = b", "a ; b # c", "50%s %(x)s", "[a]", "=", "é", "data:a\\n"):
            fitsIni(item, False)

    def test_bad(self):
        """
        Line ends, blanks at the ends (also those of Unicode), empty values, and bytes that are not UTF-8 would change.
        """
        for item in ("", " a", "a ", "a\u00a0", "\u3000a", "a\nb", "a\rb", "a\tb", "\x00", "\x7f", "\udce9"):
            self.assertRaises(ValueError, fitsIni, item, True)

    def test_comments(self):
        """A value that begins like a comment is a value after the name of its option."""
        for item in ("#a", ";a"):
            fitsIni(item, True)
            self.assertRaises(ValueError, fitsIni, item, False)
