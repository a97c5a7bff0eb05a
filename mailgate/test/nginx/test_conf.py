"""
Tests for L{mailgate.nginx.conf}.
"""

from __future__ import annotations

import os
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from mailgate.nginx.conf import Refused, Remark, Statement, read
from mailgate.test.support.nowhere import NOWHERE


class ReadingCase(SynchronousTestCase):
    """Files of an nginx.conf in a folder of their own."""

    def setUp(self):
        self.folder = os.path.abspath(self.mktemp())
        os.makedirs(self.folder)

    def write(self, text: str | bytes, name: str = "nginx.conf") -> str:
        path = os.path.join(self.folder, name)
        with open(path, "wb") as opened:
            opened.write(text.encode() if isinstance(text, str) else text)
        return path

    def read(self, text: str | bytes) -> tuple[Statement, ...]:
        return read(self.write(text))

    def refusal(self, text: str | bytes) -> list[str]:
        """The reasons for refusing a file, each with its line, and with base names of files."""
        error = self.assertRaises(Refused, self.read, text)
        return [line.replace(self.folder + os.sep, "") for line in str(error).splitlines()]


class WordsTests(ReadingCase):
    """The words of a directive."""

    def header(self, written: str | bytes) -> str:
        """The value of an C{auth_http_header} that is C{written} like that."""
        raw = written.encode() if isinstance(written, str) else written
        (mail,) = self.read(b"mail {\n  auth_http_header X " + raw + b" ;\n}\n")
        (statement,) = mail.block
        self.assertEqual((statement.name, statement.line, statement.args[0]), ("auth_http_header", 2, "X"))
        (value,) = statement.args[1:]
        return value

    def test_plain(self):
        """A character inside a word is part of the word, unless it is a blank or ends a statement."""
        for written in (
            "abc",
            "a=b",
            "a#b",
            "50%",
            "$x",
            "${x}y",
            "${x",
            "${}y",
            "a}b",
            "a}}",
            "a}'b",
            "a'b",
            'a"b',
            "[::]:1",
            "a,b",
            "é",
        ):
            self.assertEqual(self.header(written), written)

    def test_quoted(self):
        """Quotes may contain blanks, and all characters that have a meaning outside of quotes."""
        for text in ("a b", " a ", "", "a;b", "a{b}c", "# a", "a\nb", "}", ";"):
            for quote in "\"'":
                self.assertEqual(self.header(f"{quote}{text}{quote}"), text)

    def test_escapes(self):
        """Like nginx, a backslash escapes only quotes, backslashes, t, r and n."""
        for written, meant in (
            (r'"a\"b"', 'a"b'),
            (r"'a\'b'", "a'b"),
            (r"'a\"b'", 'a"b'),
            (r"a\"b", 'a"b'),
            (r'"a\\b"', r"a\b"),
            (r'"a\\\"b"', r"a\"b"),
            (r'"a\\nb"', r"a\nb"),
            (r'"a\nb"', "a\nb"),
            (r"a\tb", "a\tb"),
            (r"a\;b", r"a\;b"),
            (r"a\$b", r"a\$b"),
        ):
            self.assertEqual(self.header(written), meant, written)

    def test_bytes(self):
        """nginx knows four blanks and no encoding: other blanks of Unicode are part of a word, and no byte is lost."""
        for text in ("a\u00a0b", "a\u2003b", "a\x0bb", "a\x85b", "\ue0a0"):
            self.assertEqual(self.header(text), text)
        self.assertEqual(self.header(b"a\xe9b").encode("utf-8", "surrogateescape"), b"a\xe9b")

    def test_comments(self):
        """A # at the beginning of a word starts a comment, which may contain anything."""
        (first, second) = self.read('# {\nworker_processes # ; " é\n  2;# }\npid x;\n# end')
        self.assertEqual((first.name, first.args, first.line), ("worker_processes", ("2",), 2))
        self.assertEqual((second.name, second.args, second.line), ("pid", ("x",), 4))

    def test_lineEnds(self):
        """Files with CRLF are read like those with LF."""
        (first, second) = self.read("worker_processes 2;\r\npid x;\r\n")
        self.assertEqual((first.args, second.args, second.line), (("2",), ("x",), 2))


class BlockTests(ReadingCase):
    """Blocks and included files."""

    def test_blocks(self):
        """The blocks that concern mail are read, with line numbers."""
        events, mail = self.read("events {\n use epoll;\n}\nmail {\n server {\n  listen 143;\n }\n}\n")
        self.assertEqual([(inner.name, inner.args, inner.line) for inner in events.block], [("use", ("epoll",), 2)])
        (server,) = mail.block
        self.assertEqual([(inner.name, inner.args, inner.line) for inner in server.block], [("listen", ("143",), 6)])

    def test_passedOver(self):
        """Other blocks are skipped: their directives need not be known, and their includes are not read."""
        text = "http { include nowhere; what { ever 1; } y; }\nstream { x; }\nunknown { z }\npid x;"
        http, stream, unknown, pid = self.read(text)
        self.assertEqual((http.block, stream.block, unknown.block), ((), (), ()))
        self.assertEqual((http.complaint, unknown.complaint), ("", 'unknown directive "unknown"'))
        self.assertEqual(pid.line, 4)

    def test_lua(self):
        """Lua code, which is not nginx syntax, is skipped too."""
        http, pid = self.read('http { content_by_lua_block { local a = {"}", {b=1}} -- it\'s\n } }\npid x;')
        self.assertEqual((http.name, pid.name), ("http", "pid"))

    def test_include(self):
        """
        Included statements stand in place of the include, with their own file and lines; paths start at nginx.conf's
        folder.
        """
        os.makedirs(os.path.join(self.folder, "sub"))
        inner = self.write("\ntimeout 5s; include sub/more;", "sub/mail")
        more = self.write("server { listen 143; }", "sub/more")
        (mail,) = self.read("mail { max_errors 3; include sub/mail; xclient off; }")
        self.assertEqual([found.name for found in mail.block], ["max_errors", "timeout", "server", "xclient"])
        self.assertEqual([(found.file, found.line) for found in mail.block[1:3]], [(inner, 2), (more, 1)])

    def test_glob(self):
        """A pattern includes the files that match, in the order of their names; a pattern without matches is valid."""
        self.write("timeout 5s;", "b.conf")
        self.write("max_errors 5;", "a.conf")
        (mail,) = self.read("mail { include *[ab].conf; include nowhere/*; }")
        self.assertEqual([found.name for found in mail.block], ["max_errors", "timeout"])

    def test_twice(self):
        """A file can be included in several places."""
        self.write("timeout 5s;", "one")
        (mail,) = self.read("mail { server { include one; } server { include one; } }")
        self.assertEqual([len(server.block) for server in mail.block], [1, 1])


class RefusedTests(ReadingCase):
    """Syntax errors, after which reading stops."""

    def test_missingSemicolon(self):
        """A statement without an end is reported with the line where it begins, though it swallows the next one."""
        for text, expected in (
            ("\nworker_processes auto\nmail { }", '2: directive "worker_processes" is not terminated by ";"'),
            ("mail {\n timeout 5s\n max_errors 3; }", '2: invalid number of arguments in "timeout" directive'),
            ("mail {\n proxy_protocol on\n server { } }", '2: directive "proxy_protocol" is not terminated by ";"'),
            ("mail {\n max_errors\n 5 timeout 6; }", '2: invalid number of arguments in "max_errors" directive'),
            ("mail { server {\n listen 143 } }", '2: unexpected "}": "listen" is not terminated by ";"'),
            ("mail { server {\n listen 143} }", '2: unexpected "}": "listen" is not terminated by ";"'),
            ("mail { server {\n listen 143}}", '2: unexpected end of file in "listen", expecting ";" or "}"'),
            ("pid x;\nuser x", '2: unexpected end of file in "user", expecting ";" or "}"'),
            ("pid x;\nuser", '2: unexpected end of file in "user", expecting ";" or "}"'),
        ):
            self.assertEqual(self.refusal(text), [f"nginx.conf:{expected}"])

    def test_syntax(self):
        """Unbalanced braces, quotes without an end, and marks without words are reported with their line."""
        for text, expected in (
            ("mail {\n server { listen 143; }\n\n", '2: unexpected end of file, expecting "}"'),
            ("pid x;\n}", '2: unexpected "}"'),
            ("pid x;\n;", '2: unexpected ";"'),
            ("\n{ }", '2: unexpected "{"'),
            ('pid x;\n"user x;', '2: unexpected end of file, expecting ";" or "}"'),
            ('pid x;\nuser "x;\n\n', '2: unexpected end of file in "user", expecting ";" or "}"'),
            ("pid x;\nuser \\", '2: unexpected end of file, expecting ";" or "}"'),
        ):
            self.assertEqual(self.refusal(text), [f"nginx.conf:{expected}"])

    def test_arguments(self):
        """Directives with too many or too few arguments, bad flags, and blocks without braces."""
        for text, expected in (
            ("pid;", 'invalid number of arguments in "pid" directive'),
            ("mail { ssl_conf_command a; }", 'invalid number of arguments in "ssl_conf_command" directive'),
            ("mail { xclient auto; }", 'invalid value "auto" in "xclient" directive, it must be "on" or "off"'),
            ("mail { xclient 50%s; }", 'invalid value "50%s" in "xclient" directive, it must be "on" or "off"'),
            ("mail;", 'directive "mail" has no opening "{"'),
            ("include;", 'invalid number of arguments in "include" directive'),
            ("mail { server x { } }", 'invalid number of arguments in "server" directive'),
        ):
            self.assertEqual(self.refusal(text), [f"nginx.conf:1: {expected}"])

    def test_duplicates(self):
        """A repeated directive is reported if nginx accepts it once, also if one of them is included."""
        self.write("timeout 5s;", "one")
        refused = self.refusal("mail { timeout 3s;\n include one;\n server { timeout 1s; timeout 2s; } }\nmail { }")
        self.assertEqual(
            refused,
            [
                'one:1: "timeout" directive is duplicate',
                'nginx.conf:3: "timeout" directive is duplicate',
                'nginx.conf:4: "mail" directive is duplicate',
            ],
        )

    def test_notDuplicates(self):
        """Lists, servers and directives that replace earlier ones may be repeated."""
        text = "auth_http a; auth_http b; server { listen 1; listen 2; protocol imap; protocol pop3; } server { }"
        self.assertEqual(len(self.read(f"mail {{ {text} imap_auth plain; imap_auth login; }}")[0].block), 6)

    def test_missingFiles(self):
        """A missing included file is reported at its include, as is a file that includes itself."""
        self.write("\ninclude nginx.conf;", "one")
        self.assertEqual(
            self.refusal("pid x;\ninclude nowhere;\ninclude one;"),
            [
                'nginx.conf:2: include: "nowhere" cannot be read: No such file or directory',
                'one:2: include: "nginx.conf" includes itself',
            ],
        )

    def test_copies(self):
        """No temporary copy of the file, which may contain secrets, remains."""
        self.patch(tempfile, "tempdir", self.folder)
        self.read("pid x;")
        self.refusal("mail {\n timeout }\n server { }")
        self.assertEqual(os.listdir(self.folder), ["nginx.conf"])

    def test_missing(self):
        """The missing file may be the nginx.conf itself."""
        error = self.assertRaises(Refused, read, f"{NOWHERE}/nginx.conf")
        self.assertEqual(str(error), f"{NOWHERE}/nginx.conf: cannot be read: No such file or directory")

    def test_all(self):
        """All faults up to the first syntax error are reported."""
        refused = self.refusal("pid;\nuser a b c;\nmail { timeout;\n }}\npid 1 2;")
        self.assertEqual([line.partition(": ")[0] for line in refused], [f"nginx.conf:{line}" for line in (1, 2, 3, 4)])


class ComplaintTests(ReadingCase):
    """Directives that nginx does not know, or not in this place; reading continues after them."""

    def test_complaints(self):
        """They are read, with nginx's error message."""
        (timeout, mail) = self.read("timeout 5s; mail { frob 1; listen 143; server { pid x; server { } } }")
        self.assertEqual(timeout.complaint, '"timeout" directive is not allowed here')
        frob, listen, server = mail.block
        self.assertEqual(frob.complaint, 'unknown directive "frob"')
        self.assertEqual(listen.complaint, '"listen" directive is not allowed here')
        self.assertEqual([inner.complaint.split()[0] for inner in server.block], ['"pid"', '"server"'])

    def test_secrets(self):
        """A directive that is not a name is not shown: it may be part of a secret without its quotes."""
        (mail,) = self.read("mail { auth_http_header X-Key a;Sesame!; }")
        self.assertEqual(mail.block[1].complaint, 'unknown directive "…"')

    def test_newer(self):
        """Directives of mail that crossplane does not know are known."""
        names = ("max_errors 5", "proxy_smtp_auth on", "proxy_protocol v2", "set_real_ip_from ::1", "proxy on")
        (mail,) = self.read(f"mail {{ {'; '.join(names)}; ssl_conf_command A b; ssl on; }}")
        self.assertEqual([inner.complaint for inner in mail.block], [""] * 7)
        (proxy,) = self.read("proxy_protocol on;")
        self.assertEqual(proxy.complaint, '"proxy_protocol" directive is not allowed here')


class RemarkTests(SynchronousTestCase):
    """Tests for L{Remark}."""

    def test_text(self):
        """It shows file, line and directive if there are any."""
        self.assertEqual(str(Remark("a", 1, "why", "pid")), "a:1: pid: why")
        self.assertEqual(str(Remark("a", 0, "why")), "a: why")
