"""
Tests of the syntax of the ini file, and of reporting all mistakes at once.
"""

from __future__ import annotations

import os

from mailgate.config import load, parse
from mailgate.directives import ConfigurationError
from mailgate.frontend.settings import DialogueSettings
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.support.configcase import AUTH, IMAP, KNOWN, MAIL, ConfigCase
from mailgate.test.support.nowhere import NOWHERE


class SyntaxTests(ConfigCase):
    """The syntax of the file."""

    def test_comments(self):
        """A line that begins with # or ; is a comment, also between the lines of a value."""
        text = MAIL + "# a = b\n; c\n[server x]\nlisten =\n  127.0.0.1:143\n  # the other\n  127.0.0.1:993\n"
        self.assertEqual([address.port for address in self.server(text).listen], [143, 993])

    def test_blankLines(self):
        """Empty lines are ignored, also between the lines of a value."""
        text = MAIL + "\n\n[server x]\n\nlisten =\n\n  127.0.0.1:143\n\n  127.0.0.1:993\n\n\nprotocol = imap\n\n"
        self.assertEqual([address.port for address in self.server(text).listen], [143, 993])

    def test_noInlineComments(self):
        """A # after a value is part of the value: a password may contain one."""
        self.assertEqual(self.server(MAIL + IMAP + "server_name = a#b")[DialogueSettings].serverName, "a#b")
        self.assertFaults(
            MAIL + "[server x]\nlisten = 127.0.0.1:143 # imap",
            "4: [server x] listen = 127.0.0.1:143 # imap: a comment after a value is part of the value:"
            " put it on a line of its own",
        )

    def test_percent(self):
        """A percent sign has no special meaning."""
        self.assertEqual(self.server(MAIL + IMAP + "server_name = 100%sure")[DialogueSettings].serverName, "100%sure")
        self.assertEqual(self.server(MAIL + IMAP + "server_name = %(x)s")[DialogueSettings].serverName, "%(x)s")

    def test_delimiter(self):
        """Only the first = separates option and value; a colon does not."""
        self.assertEqual(self.server(MAIL + IMAP + "server_name = a=b:c")[DialogueSettings].serverName, "a=b:c")

    def test_lines(self):
        """In a list with one item per line, blanks are part of an item."""
        text = MAIL + "[server s]\nlisten = 127.0.0.1:25\nsmtp_capabilities =\n  SIZE 104857600\n  DSN\n"
        self.assertEqual(self.server(text)[SMTPSettings].capabilities, ("SIZE 104857600", "DSN"))

    def test_carriageReturns(self):
        """A file with the line ends of Windows is valid."""
        self.write((MAIL + IMAP).replace("\n", "\r\n").encode())
        self.assertEqual(load(self.path).servers[0].protocol, "imap")

    def write(self, content: bytes) -> None:
        self.path = self.mktemp()
        with open(self.path, "wb") as opened:
            opened.write(content)

    def test_byteOrderMark(self):
        """A file with a byte order mark is valid."""
        self.write(b"\xef\xbb\xbf" + (MAIL + IMAP).encode())
        self.assertEqual(load(self.path).servers[0].protocol, "imap")

    def test_notUTF8(self):
        """A file that is not UTF-8 is refused as a whole."""
        self.write(b"[mail]\nserver_name = \xff\n")
        error = self.assertRaises(ConfigurationError, load, self.path)
        self.assertEqual(str(error), f"{self.path}:2: is not UTF-8 text; save it as UTF-8")

    def test_unreadable(self):
        """A missing file, and a folder, are reported with their name."""
        error = self.assertRaises(ConfigurationError, load, f"{NOWHERE}/gateway.ini")
        self.assertEqual(str(error), f"{NOWHERE}/gateway.ini: cannot be read: No such file or directory")
        error = self.assertRaises(ConfigurationError, load, os.curdir)
        self.assertIn("cannot be read: Is a directory", str(error))

    def test_notAnOption(self):
        """A line that is neither a section nor an option is reported by its number, without its text."""
        self.assertFaults(
            MAIL + IMAP + "auth_http_header X-Key sesame\nnonsense sesame\n",
            '5: has no "=" after auth_http_header; write auth_http_header = VALUE',
            '6: is neither "[SECTION]" nor "OPTION = VALUE"',
        )

    def test_nginx(self):
        """An nginx.conf causes one message, which names import-nginx."""
        self.assertFaults(
            "mail {\n    server_name x;\n    server {\n        listen 143;\n    }\n}\n",
            '1: looks like an nginx.conf; "mailgate import-nginx" converts one to a gateway.ini',
        )
        self.assertEqual(len(self.faults(MAIL + IMAP + "server {\n  timeout 5s;\n}\n")), 3)

    def test_strayed(self):
        """nginx's ; at the end, and a comment after a value, cause warnings where the value accepts them."""
        text = MAIL + "server_name = mx; \n[server imap]\nlisten = 127.0.0.1:143\n"
        text += "imap_capabilities =\n IDLE # all\n IMAP4rev1\n"
        self.assertEqual(
            [str(warning) for warning in parse(text).warnings],
            [
                'gateway.ini:3: [mail] server_name = mx;: the ";" at the end is part of the value: remove it',
                "gateway.ini:6: [server imap] imap_capabilities = IDLE # all | IMAP4rev1: a comment after a value"
                " is part of the value: put it on a line of its own",
            ],
        )

    def test_notStrayed(self):
        """Such characters in the middle, or in a possible secret, cause no warning."""
        text = MAIL + "auth_http_header = X-Key a;\nerror_log = a;b#c\n" + IMAP
        self.assertEqual(parse(text).warnings, ())

    def test_beforeSections(self):
        """Options before the first section are reported; mistakes after that are reported too."""
        self.assertFaults(
            "timeout = 5\nmax_errors = 3\n" + MAIL + IMAP + "timeout = 5x\n",
            "1: is before the first section; write a header such as [mailgate] above it",
            "7: [server imap] timeout = 5x: must be a time, such as 30s, 1h30m or 500ms",
        )

    def test_noNameAtAll(self):
        """Lines that begin with = are not options."""
        self.assertFaults(
            MAIL + IMAP + "= 1\n= 2\n",
            '5: is neither "[SECTION]" nor "OPTION = VALUE"',
            '6: is neither "[SECTION]" nor "OPTION = VALUE"',
        )

    def test_duplicateOption(self):
        """An option that is set twice in a section is an error, as in nginx."""
        self.assertFaults(
            MAIL + IMAP + "timeout = 1\ntimeout = 2\n",
            "6: [server imap] timeout: is set twice, first in line 5; remove one of them",
        )

    def test_duplicateSection(self):
        """So is a section that appears twice."""
        self.assertFaults(
            MAIL + IMAP + IMAP, "5: [server imap]: this section appears twice, first in line 3; merge them"
        )

    def test_duplicates(self):
        """Each duplicate is reported once, also those with several lines and indented ones."""
        listen = "  listen =\n    127.0.0.1:143\n    127.0.0.1:993\n"
        self.assertFaults(
            MAIL + "[server a]\n" + listen + listen + listen + "  timeout = 1\n  timeout = 2\n[mail]\n[mail]\n",
            "7: [server a] listen: is set twice, first in line 4; remove one of them",
            "10: [server a] listen: is set twice, first in line 4; remove one of them",
            "14: [server a] timeout: is set twice, first in line 13; remove one of them",
            "15: [mail]: this section appears twice, first in line 1; merge them",
            "16: [mail]: this section appears twice, first in line 1; merge them",
        )


class AllAtOnceTests(ConfigCase):
    """All mistakes are reported at once."""

    def test_typosHideNothing(self):
        """An invalid value or an unknown option does not hide other mistakes."""
        error = self.assertRaises(
            ConfigurationError,
            parse,
            "[mail]\ntimeout = 5x\nauth_http = http://a/\n"
            "[server a]\nlisten = 993 ssl\nbogus = 1\n"
            f"[server b]\nlisten = 110\nauth_file = {NOWHERE}/accounts\nstarttls = maybe\n",
        )
        self.assertEqual(
            [(problem.section, problem.option) for problem in error.problems],
            [
                ("mail", "timeout"),
                ("server a", "bogus"),
                ("server b", "starttls"),
                ("server a", "ssl_certificate"),
                ("server b", "auth_file"),
            ],
        )

    def test_noFollowers(self):
        """A mistake that only follows from an invalid value is not reported."""
        error = self.assertRaises(ConfigurationError, parse, "[server a]\nlisten = 143\nproxy_pass = my%host:143\n")
        self.assertEqual([problem.option for problem in error.problems], ["proxy_pass"])

    def test_noFollowersOfLines(self):
        """An option in a line without "=" is not reported as missing."""
        written = 'has no "=" after'
        for text, fault in (
            ("[server a]\nlisten = 143\nauth_http http://a/\n", f"3: {written} auth_http; write auth_http = VALUE"),
            ("[server a]\nlisten = 143\nauth_file x\n", f"3: {written} auth_file; write auth_file = VALUE"),
            (
                "[mail]\nauth_http http://a/\n[server a]\nlisten = 143\n",
                f"2: {written} auth_http; write auth_http = VALUE",
            ),
            (f"{MAIL}[server a]\nlisten 143\n", f"4: {written} listen; write listen = VALUE"),
            (f"{MAIL}[server a]\nlisten = 2143\nprotocol imap\n", f"5: {written} protocol; write protocol = VALUE"),
            (
                f"{MAIL}[server a]\nlisten = 993 ssl\nssl_certificate x\n",
                f"5: {written} ssl_certificate; write ssl_certificate = VALUE",
            ),
        ):
            self.assertFaults(text, fault)

    def test_otherSections(self):
        """A missing option of another section is reported nevertheless."""
        self.assertFaults(
            "[server a]\nlisten = 143\nauth_http http://a/\n[server b]\nlisten = 110\n",
            '3: has no "=" after auth_http; write auth_http = VALUE',
            "4: [server b] auth_http: is missing; set auth_http, auth_file or proxy_pass",
        )

    def test_all(self):
        """Each mistake is one line with file, section, option and value; those of valid sections are included."""
        self.assertFaults(
            "[mailgate]\n"
            "error_log = stderr loud\n"
            "[mail]\n"
            "max_errors = many\n"
            "[server a]\n"
            "listen = 127.0.0.1:0\n"
            "listne = 5\n"
            "proxy_pass_error_message = yes\n"
            "junk\n"
            "[server b]\n"
            "protocol = impa\n"
            "listen = 127.0.0.1:143\n"
            "timeout = 5\n"
            "timeout = 6\n"
            "[sever c]\n",
            '9: is neither "[SECTION]" nor "OPTION = VALUE"',
            "14: [server b] timeout: is set twice, first in line 13; remove one of them",
            '2: [mailgate] error_log = stderr loud: "loud" is not a level; use one of debug, info, notice, warn,'
            " error, crit, alert, emerg",
            "4: [mail] max_errors = many: must be a whole number, such as 5",
            '6: [server a] listen = 127.0.0.1:0: "127.0.0.1:0": invalid port 0; use 1 to 65535',
            "7: [server a] listne: is an unknown option; did you mean listen?",
            '8: [server a] proxy_pass_error_message = yes: must be "on" or "off"',
            "15: [sever c]: is an unknown section; did you mean server NAME?",
            f"11: [server b] protocol = impa: must be one of {KNOWN}; did you mean imap?",
        )

    def test_crossChecks(self):
        """Mistakes that concern several options are reported for each server whose options are valid."""
        self.assertFaults(
            "[server a]\nlisten = 127.0.0.1:143\n[server b]\nlisten = 127.0.0.1:110 ssl\n" + AUTH,
            "1: [server a] auth_http: is missing; set auth_http, auth_file or proxy_pass",
            '3: [server b] ssl_certificate: is missing; "listen … ssl" requires a certificate',
        )

    def test_inherited(self):
        """A mistake in [mail] is reported there, once, however many servers inherit it."""
        text = MAIL + f"ssl_certificate = {NOWHERE}/c\nssl_certificate_key = {NOWHERE}/k\nstarttls = on\n" + IMAP
        text += "[server pop3]\nlisten = 127.0.0.1:110\n[server own]\nlisten = 127.0.0.1:25\n"
        text += f"ssl_certificate = {NOWHERE}/none\n"
        self.assertFaults(
            text,
            f"3: [mail] ssl_certificate = {NOWHERE}/c: cannot be read: No such file or directory",
            f"4: [mail] ssl_certificate_key = {NOWHERE}/k: cannot be read: No such file or directory",
            f"12: [server own] ssl_certificate = {NOWHERE}/none: cannot be read: No such file or directory",
        )

    def test_inheritedWarnings(self):
        """So is a warning."""
        settings = parse(MAIL + "auth_http_header = X-A $remote_adr\n" + IMAP + "[server pop3]\nlisten = 110\n")
        warned = [(warning.section, warning.option) for warning in settings.warnings]
        self.assertEqual(warned, [("mail", "auth_http_header")])

    def test_noAftermath(self):
        """After a mistake in a server, mistakes that may follow from it are not reported."""
        self.assertFaults(
            "[server a]\nlisten = 127.0.0.1:x\nauth_http = http://127.0.0.1/\n",
            '2: [server a] listen = 127.0.0.1:x: "127.0.0.1:x": must be port, host:port, [address]:port or unix:/path',
        )

    def test_severalLines(self):
        """A value of several lines is reported in one line."""
        (fault,) = self.faults(MAIL + "[server a]\nlisten =\n  127.0.0.1:143\n  127.0.0.1:99999\n")
        self.assertIn("listen = 127.0.0.1:143 | 127.0.0.1:99999: ", fault)

    def test_empty(self):
        """An option without a value is an error, not the default."""
        self.assertFaults(
            MAIL + IMAP + "timeout =\n", "5: [server imap] timeout = : must be a time, such as 30s, 1h30m or 500ms"
        )
