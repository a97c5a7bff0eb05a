"""
Unusual input in IMAP's dialogue, table by table. nginx replies the same, to the byte, unless a docstring says
otherwise.
"""

from __future__ import annotations

from mailgate.login import Credentials, Method
from mailgate.protocols.imap4 import IMAP4
from mailgate.test.frontend.test_oddities import (
    CHALLENGE,
    CRAM,
    PASSWORD,
    PLAIN,
    USERNAME,
    TableTests,
    bad,
    converse,
    ok,
)

CANCELLED = b"a BAD Authentication cancelled\r\n"
NOT_BASE64 = b"a BAD Invalid base64 data\r\n"
MALFORMED = b"a BAD Invalid authentication response\r\n"


class IMAPTests(TableTests):
    """IMAP."""

    def test_commands(self) -> None:
        """Commands and their arguments."""
        capability = b"* CAPABILITY IMAP4 IMAP4rev1 SASL-IR LITERAL+ ID UIDPLUS"
        capability += b" AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5 AUTH=EXTERNAL\r\n" + ok(b"a")
        self.assertTable(IMAP4, [((b"a capability x y z",), capability), ((b"a CAPABILITY {3+}", b"joe"), capability)])
        self.assertEach(IMAP4, ok(b"a"), b"a   NOOP  ", b"a noop x y z", b"a NOOP \t")
        self.assertEach(
            IMAP4,
            bad(b"*"),
            b"a",
            b" a NOOP",
            b"a\tNOOP",
            b"(a NOOP",
            b"a\0 NOOP",
            b"\x80 NOOP",
            b'"a" NOOP',
        )
        self.assertEach(IMAP4, bad(b"a"), b"a ", b"a NOOP1", b"a NOO", b"a NOOP\tx", b"a SELEKT x", b"a NOOP x y z w")
        self.assertEach(IMAP4, b"a BAD STARTTLS is not offered here\r\n", b"a STARTTLS", b"a starttls x")

    def test_tags(self) -> None:
        """Tags are those of RFC 3501, up to 126 bytes long (nginx: letters, digits, C{-._}, and up to 32)."""
        tags = (b"a.b-c_d", b"A0", b"x" * 126, b"$1", b"/", b"#a~b")
        self.assertTable(IMAP4, [((tag + b" NOOP",), ok(tag)) for tag in tags])
        self.assertTable(
            IMAP4, [((tag + b" NOOP",), bad(b"*")) for tag in (b"+", b"a+b", b"*", b"a%", b"a\\", b"\x7f")]
        )

    def test_login(self) -> None:
        """LOGIN has two arguments; the first is not empty."""
        self.assertEach(
            IMAP4,
            b"a NO no\r\n",
            b'a LOGIN joe ""',
            b'a LOGIN "jo e" "p\\"w\\\\"',
            b'a LOGIN "joe""x"',
            b'a LOGIN "joe"x',
            b'a LOGIN jo"e x',
        )
        self.assertEach(
            IMAP4, bad(b"a"), b"a LOGIN", b"a LOGIN joe", b"a LOGIN joe x y", b"a LOGIN joe x y z", b'a LOGIN "" x'
        )

    def test_arguments(self) -> None:
        """Atoms, quoted strings and literals are decoded, and nothing else."""

        def plain(user: bytes, password: bytes) -> Credentials:
            return Credentials(Method.PLAIN, user, password)

        self.assertAsks(
            IMAP4,
            ((b'a LOGIN (jo\\e"%{1} *x{3}',), plain(b'(jo\\e"%{1}', b"*x{3}")),
            ((b'a LOGIN "a\\b\\"c\\\\" "d e"',), plain(b'ab"c\\', b"d e")),
            ((b'a LOGIN "joe""x"',), plain(b"joe", b"x")),
            ((b'a LOGIN "joe"x"',), plain(b"joe", b'x"')),
            ((b"a LOGIN \tjoe\t x\t",), plain(b"\tjoe\t", b"x\t")),
            ((b"a LOGIN j\xc3\xb6 \xff",), plain(b"j\xc3\xb6", b"\xff")),
            ((b"a LOGIN {3+}", b"joe x"), plain(b"joe", b"x")),
            ((b"a LOGIN {3+}", b'joe "x y" '), plain(b"joe", b"x y")),
            ((b"a LOGIN {6+}", b'a\r\n"b\0 {5+}', b"c {2}"), plain(b'a\r\n"b\0', b"c {2}")),
            ((b"a LOGIN {003+}", b"joe {1+}", b"x"), plain(b"joe", b"x")),
            ((b"a AUTHENTICATE {5+}", b"PLAIN " + PLAIN), plain(b"joe", b"x")),
            ((b'a AUTHENTICATE "plain" "' + PLAIN + b'"',), plain(b"joe", b"x")),
        )

    def test_literals(self) -> None:
        """Synchronizing literals get a continuation request; after a literal only a blank or the end may follow."""
        go = b"+ OK\r\n"
        self.assertTable(
            IMAP4,
            (
                ((b"a LOGIN {3}", b"joe {1}", b"x"), go * 2 + b"a NO no\r\n"),
                ((b"a LOGIN {3+}", b"joe {1}", b"x"), go + b"a NO no\r\n"),
                ((b"a NOOP {3}", b"joe"), go + ok(b"a")),
                ((b"a NOOP x y z {3}",), bad(b"a")),
                ((b"a AUTHENTICATE {5}", b"PLAIN", b"*"), go + b"+ \r\n" + CANCELLED),
                ((b"a LOGIN {3}", b"joex y"), go + bad(b"a")),
                ((b"a LOGIN {3}", b'joe"x"'), go + bad(b"a")),
                ((b"a LOGIN {3}", b"joe{1}"), go + bad(b"a")),
                ((b"a LOGIN {3}", b"joe x y z"), go + bad(b"a")),
                ((b"a LOGIN {3-}",), bad(b"a")),
                ((b"a LOGIN {x}",), bad(b"a")),
                ((b"a LOGIN {3",), bad(b"a")),
                ((b"a LOGIN {3} x",), bad(b"a")),
                ((b"a LOGIN {-1}",), bad(b"a")),
                ((b"a FOO {3}", b"b NOOP"), bad(b"a") + ok(b"b")),
            ),
        )

    def test_emptyLiterals(self) -> None:
        """C{{}} is C{{0}} and empty (nginx takes the next byte as its content)."""
        for literal in (b"{}", b"{0}", b"{+}", b"{0+}", b"{000}"):
            self.assertAsks(IMAP4, ((b"a LOGIN joe " + literal, b""), Credentials(Method.PLAIN, b"joe", b"")))
            self.assertIn(bad(b"a"), self.heard(IMAP4, b"a LOGIN " + literal + b"\r\n x\r\n"))

    def test_largeLiterals(self) -> None:
        """
        A literal that is too large is refused without a continuation request (nginx sends one, and closes when its
        buffer is full).
        """
        sizes = (b"{600}", b"{4294967299}", b"{99999999999999999999}", b"{500}")
        self.assertTable(IMAP4, [((b"a LOGIN " + size,), bad(b"a")) for size in sizes])

    def test_quotes(self) -> None:
        """
        An open quotation mark makes its line invalid (nginx treats it as closed), and no other (nginx: the next too).
        """
        for line in (b'a LOGIN "joe x', b'a LOGIN joe "x', b'a LOGIN joe "x\\"', b'a LOGIN joe "x\\', b'a LOGIN "'):
            self.assertTable(IMAP4, [((line, b"b LOGIN"), bad(b"a", b"b"))])
            conversation = converse(IMAP4)
            conversation.says(line, b"b LOGIN joe x")
            credentials = [request.credentials for request in conversation.requests]
            self.assertEqual(credentials, [Credentials(Method.PLAIN, b"joe", b"x")])

    def test_sasl(self) -> None:
        """Challenges, and invalid responses."""
        refused = b"a NO no\r\n"
        self.assertTable(
            IMAP4,
            (
                ((b"a AUTHENTICATE PLAIN " + PLAIN,), refused),
                ((b"a authenticate plain", PLAIN + b" x y z"), b"+ \r\n" + refused),
                ((b"a AUTHENTICATE PLAIN", b" " + PLAIN), b"+ \r\n" + MALFORMED),
                ((b"a AUTHENTICATE PLAIN", b""), b"+ \r\n" + MALFORMED),
                ((b"a AUTHENTICATE PLAIN", b'"' + PLAIN + b'"'), b"+ \r\n" + NOT_BASE64),
                ((b"a AUTHENTICATE LOGIN", b"*"), b"+ " + USERNAME + b"\r\n" + CANCELLED),
                ((b"a AUTHENTICATE LOGIN =", b""), b"+ " + PASSWORD + b"\r\n" + refused),
                ((b"a AUTHENTICATE CRAM-MD5", CRAM), b"+ " + CHALLENGE + b"\r\n" + refused),
                ((b"a AUTHENTICATE EXTERNAL", b"="), b"+ " + USERNAME + b"\r\n" + refused),
                ((b"a AUTHENTICATE EXTERNAL =",), refused),
                ((b"a AUTHENTICATE",), bad(b"a")),
                ((b"a AUTHENTICATE PLAIN x y",), bad(b"a")),
                ((b"a AUTHENTICATE APOP",), b"a NO [CANNOT] Unsupported authentication mechanism\r\n"),
            ),
        )

    def test_errors(self) -> None:
        """An unknown command counts as an error; a known one with wrong arguments does not."""
        counted = (b"", b" ", b"%", b"a", b"a ", b" a NOOP", b"a FOO", b"a NOOP 1 2 3 4", b'a LOGIN "', b"a LOGIN {x}")
        self.assertCounts(IMAP4, (*counted, b"a NO\rOP", b"a NOOP\0", b"a LOGIN {1}\r\nab", b"a LOGIN {999}"), True)
        uncounted = (b"a LOGIN", b"a STARTTLS", b"a AUTHENTICATE", b"a AUTHENTICATE X", b"a AUTHENTICATE PLAIN *")
        self.assertCounts(IMAP4, (*uncounted, b"a SELECT x", b"a FETCH 1 (FLAGS) x y"), False)
        self.assertCounts(IMAP4, (b"a AUTHENTICATE PLAIN\r\n*", b"a LOGIN joe x"), False)
