"""
Unusual input, table by table: every reply of the dialogues, and lines that no client should send. nginx replies the
same, to the byte, unless a docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.session import Outcome
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector
from mailgate.tls.settings import TLSSettings

GROUPS = (
    IMAP4Settings(auth=("plain", "login", "cram-md5", "external"), clientBuffer=512),
    POP3Settings(auth=("plain", "apop", "cram-md5", "external"), clientBuffer=128),
    SMTPSettings(auth=("plain", "login", "cram-md5", "external", "none"), clientBuffer=512),
)
PLAIN = b"AGpvZQB4"
"""joe and his password x, in base64."""
DIGEST = b"0" * 32
CRAM = b"am9lIDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw"
CHALLENGE = b"PDcuMTAwMEBteC50ZXN0Pg=="
USERNAME = b"VXNlcm5hbWU6"
PASSWORD = b"UGFzc3dvcmQ6"

Table = Iterable[tuple[tuple[bytes, ...], bytes]]
"""Lines, and the output for all of them. Every login is refused."""


def converse(record: MailProtocol, *groups: Any, errors: int = 5, **settings: Any) -> Conversation:
    """A conversation with every method, in which all logins are refused with the text "no"."""
    refusing = FakeAuthenticator(*[Denial(Trouble.DENIED, b"no")] * 20)
    limits = DialogueSettings(serverName="mx.test", maxErrors=errors)
    return Conversation(record, *GROUPS, limits, *groups, **{"authenticator": refusing, **settings})


TOO_LONG = {
    IMAP4: b"* BYE Command too long, closing connection\r\n",
    POP3: b"",
    SMTP: b"421 4.5.2 Command too long, closing connection\r\n",
}
NOOP = {
    IMAP4: (b"z NOOP", b"z OK completed\r\n"),
    POP3: (b"NOOP", b"+OK\r\n"),
    SMTP: (b"NOOP", b"250 2.0.0 OK\r\n"),
}
"""A line and its reply, which prove that the connection is still open."""


def ok(*tags: bytes) -> bytes:
    """The OK completions of IMAP commands."""
    return b"".join(tag + b" OK completed\r\n" for tag in tags)


def bad(*tags: bytes) -> bytes:
    """The BAD completions of IMAP commands."""
    return b"".join(tag + b" BAD invalid command\r\n" for tag in tags)


class TableTests(SynchronousTestCase):
    """Runs a table. L{mailgate.test.protocols.imap4.test_oddities} uses it too."""

    def heard(self, record: MailProtocol, *chunks: bytes) -> bytes:
        """Return the output after C{chunks}, without the greeting."""
        conversation = converse(record)
        conversation.hear()
        return b"".join(conversation.send(chunk) for chunk in chunks if not conversation.closed)

    def assertTable(self, record: MailProtocol, table: Table) -> None:
        """The output of each row is the same line by line, in one segment, byte by byte, and cut in two anywhere."""
        noop, done = NOOP[record]
        for lines, heard in table:
            sent = [line + b"\r\n" for line in (*lines, noop)]
            together = b"".join(sent)
            self.assertEqual(self.heard(record, *sent), heard + done, lines)
            self.assertEqual(self.heard(record, *(bytes([byte]) for byte in together)), heard + done, lines)
            for cut in range(len(together)):
                self.assertEqual(self.heard(record, together[:cut], together[cut:]), heard + done, (lines, cut))

    def assertEach(self, record: MailProtocol, heard: bytes, *lines: bytes) -> None:
        """Each of C{lines} alone leads to the output C{heard}."""
        self.assertTable(record, [((line,), heard) for line in lines])

    def assertAsks(self, record: MailProtocol, *table: tuple[tuple[bytes, ...], Credentials]) -> None:
        """The lines of each row lead to one login with these credentials."""
        for lines, credentials in table:
            conversation = converse(record)
            conversation.says(*lines)
            self.assertEqual([request.credentials for request in conversation.requests], [credentials], lines)

    def assertCounts(self, record: MailProtocol, lines: Iterable[bytes], counted: bool) -> None:
        """Each of C{lines} alone counts, or does not count, as an error for C{max_errors}."""
        for line in lines:
            conversation = converse(record, errors=1)
            conversation.says(line)
            self.assertIs(conversation.closed, counted, line)


class StringTests(SynchronousTestCase):
    """The replies of the dialogues that do not depend on the input."""

    records = (IMAP4, POP3, SMTP)

    def assertSays(self, lines: tuple[bytes, ...], heard: tuple[bytes, ...], **settings: Any) -> None:
        """After the line in C{lines} each protocol sends the reply in C{heard}."""
        for record, line, expected in zip(self.records, lines, heard, strict=True):
            conversation = converse(record, **settings)
            conversation.hear()
            self.assertEqual(conversation.says(line), expected)

    def test_greeting(self) -> None:
        """The greeting. POP3's has the salt of the digest methods."""
        greetings = (b"* OK IMAP4 ready\r\n", b"+OK POP3 ready <7.1000@mx.test>\r\n", b"220 mx.test ESMTP ready\r\n")
        self.assertEqual(tuple(converse(record).hear() for record in self.records), greetings)

    def test_ok(self) -> None:
        """Commands without an effect."""
        self.assertSays((b"a NOOP", b"NOOP", b"NOOP"), (ok(b"a"), b"+OK\r\n", b"250 2.0.0 OK\r\n"))

    def test_invalid(self) -> None:
        """Invalid commands."""
        heard = (b"-ERR invalid command\r\n", b"500 5.5.1 Invalid command\r\n")
        self.assertSays((b"a FOO", b"FOO", b"FOO"), (bad(b"a"), *heard))
        self.assertSays((b"", b"", b""), (bad(b"*"), *heard))

    def test_internal(self) -> None:
        """An error of ours ends the connection."""
        login = (b"a LOGIN joe x", b"AUTH PLAIN " + PLAIN, b"AUTH PLAIN " + PLAIN)
        internal = (
            b"* BYE Internal server error, closing connection\r\n",
            b"-ERR [SYS/TEMP] Internal server error, closing connection\r\n",
            b"421 4.3.0 Internal server error, closing connection\r\n",
        )
        for record, line, heard in zip(self.records, login, internal, strict=True):
            broken = FakeConnector(ZeroDivisionError())
            conversation = converse(record, authenticator=FakeAuthenticator(), connector=broken)
            conversation.hear()
            self.assertEqual(conversation.says(line), heard)
            self.assertTrue(conversation.closed)

    def test_refusal(self) -> None:
        """A login that the authentication service refuses in its own words."""
        login = (b"a LOGIN joe x", b"AUTH PLAIN " + PLAIN, b"AUTH PLAIN " + PLAIN)
        self.assertSays(login, (b"a NO no\r\n", b"-ERR [AUTH] no\r\n", b"535 5.7.0 no\r\n"))

    def test_quit(self) -> None:
        """The goodbye."""
        goodbyes = (b"* BYE Logging out\r\n" + ok(b"a"), b"+OK\r\n", b"221 2.0.0 Bye\r\n")
        self.assertSays((b"a LOGOUT x", b"QUIT x", b"QUIT x"), goodbyes)

    def test_starttls(self) -> None:
        """TLS begins, even with arguments behind the word."""
        for record, line, heard in zip(
            self.records,
            (b"a STARTTLS x", b"STLS x", b"STARTTLS x"),
            (ok(b"a"), b"+OK\r\n", b"220 2.0.0 Start TLS\r\n"),
            strict=True,
        ):
            conversation = converse(record, TLSSettings(starttls="on"))
            conversation.hear()
            self.assertEqual(conversation.says(line), heard)
            self.assertEqual(conversation.transport.tls, ["the TLS context"])

    def test_success(self) -> None:
        """The backend's own reply, except for SMTP's AUTH."""
        login = (b"a LOGIN joe x", b"AUTH PLAIN " + PLAIN, b"AUTH PLAIN " + PLAIN)
        replies = (b"* OK x\r\na OK [CAPABILITY X] y\r\n", b"+OK y\r\n", b"235 2.0.0 OK\r\n")
        for record, line, heard in zip(self.records, login, replies, strict=True):
            backend = FakeClient(b"235-x\r\n235 y\r\n" if record is SMTP else heard)
            conversation = converse(record, authenticator=FakeAuthenticator(), connector=FakeConnector(backend))
            conversation.hear()
            self.assertEqual(conversation.says(line), heard)


class LineTests(TableTests):
    """The end and the length of lines, the same in every protocol."""

    def test_ends(self) -> None:
        """LF or CRLF ends a line. Another CR makes it invalid, and so does NUL (nginx accepts NUL in arguments)."""
        for record, (noop, done) in NOOP.items():
            self.assertEqual(self.heard(record, noop + b"\n" + noop + b"\r\n" + noop + b"\n"), done * 3)
            invalid = self.heard(record, noop + b"X\r\n")
            for spoilt in (b"\r\r\n", b"\r \r\n", b" x\ry\r\n", b"\0\r\n", b" x\0y\r\n", b" \0\n"):
                self.assertEqual(self.heard(record, noop + spoilt + noop + b"\n"), invalid + done, spoilt)

    def test_limit(self) -> None:
        """A line may fill the buffer, its end included. A longer one is refused and ends the connection."""
        for record, limit in ((IMAP4, 512), (POP3, 128), (SMTP, 512)):
            noop, done = NOOP[record]
            fitting = noop + b" " + b"x" * (limit - len(noop) - 3)
            self.assertEqual(self.heard(record, fitting + b"\r\n"), done)
            self.assertEqual(self.heard(record, fitting + b"x\n"), done)
            invalid, goodbye = self.heard(record, noop + b"X\r\n"), TOO_LONG[record]
            for sent in (fitting + b"x\r\n", fitting + b"xx", fitting + b"xx\n" + noop + b"\n", b"x" * 5000):
                conversation = converse(record)
                conversation.hear()
                heard = conversation.send(sent)
                self.assertIn(heard, (invalid + goodbye, invalid.replace(b"z", b"*") + goodbye))
                self.assertTrue(conversation.closed)
                self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_manyInOneSegment(self) -> None:
        """Many lines may arrive at once, together longer than the buffer (nginx fails then)."""
        for record, (noop, done) in NOOP.items():
            self.assertEqual(self.heard(record, (noop + b"\r\n") * 900), done * 900)

    def test_duringWait(self) -> None:
        """Commands that arrive during the delay of a refusal are obeyed after it, in order."""
        logins = {IMAP4: b"a LOGIN joe x", POP3: b"AUTH PLAIN " + PLAIN, SMTP: b"AUTH PLAIN " + PLAIN}
        refusals = {IMAP4: b"a NO no\r\n", POP3: b"-ERR [AUTH] no\r\n", SMTP: b"535 5.7.0 no\r\n"}
        for record, (noop, done) in NOOP.items():
            refusing = FakeAuthenticator(*[Denial(Trouble.DENIED, b"no", wait=2)] * 2)
            conversation = converse(record, authenticator=refusing)
            conversation.hear()
            self.assertEqual(conversation.says(noop, logins[record], noop), done)
            self.assertEqual(conversation.says(logins[record], noop), b"")
            conversation.clock.advance(2)
            self.assertEqual(conversation.hear(), refusals[record] + done)
            conversation.clock.advance(2)
            self.assertEqual(conversation.hear(), refusals[record] + done)


class POP3Tests(TableTests):
    """POP3."""

    OK = b"+OK\r\n"
    INVALID = b"-ERR invalid command\r\n"
    NO = b"-ERR [AUTH] no\r\n"
    LATER = b"-ERR Log in first\r\n"
    USER_FIRST = b"-ERR Send USER first\r\n"
    NOT_BASE64 = b"-ERR Invalid base64 data\r\n"
    MALFORMED = b"-ERR Invalid authentication response\r\n"
    CANCELLED = b"-ERR Authentication cancelled\r\n"

    def test_commands(self) -> None:
        """Commands and their arguments."""
        self.assertEach(POP3, self.OK, b"noop x y z ", b"NOOP ", b"NOOP \tx")
        self.assertEach(
            POP3,
            self.INVALID,
            b" NOOP",
            b"NOOPS",
            b"NO",
            b"NOOP\tx",
            b"NOOP x y z w",
            b"STATE",
            b"USER",
            b"USER  ",
        )
        self.assertEach(POP3, b"-ERR STLS is not offered here\r\n", b"STLS", b"stls x")
        self.assertEach(POP3, self.LATER, b"STAT", b"list 1", b"RETR 1 2 3 4 5", b"UIDL", b"TOP 1 0", b"RSET")
        self.assertEach(POP3, self.USER_FIRST, b"PASS x", b"pass")
        self.assertEach(
            POP3,
            self.INVALID,
            b"APOP",
            b"APOP joe",
            b"APOP joe x y",
            b"APOP a b c d",
            b"AUTH PLAIN x y",
        )
        self.assertEach(POP3, b"-ERR Unsupported authentication mechanism\r\n", b"AUTH FOO", b"AUTH foo x")
        self.assertEach(POP3, self.MALFORMED, b"AUTH PLAIN =")
        listed = b"+OK methods supported:\r\nPLAIN\r\nLOGIN\r\nCRAM-MD5\r\nEXTERNAL\r\n.\r\n"
        self.assertEach(POP3, listed, b"AUTH", b"auth  ")

    def test_awaitingPass(self) -> None:
        """After USER, any command except PASS, CAPA, NOOP and QUIT requires a new USER."""
        for line in (
            b"USER x",
            b"",
            b"FOO",
            b"STLS",
            b"AUTH",
            b"APOP a b",
            b"NOOP a b c d",
            b"NO\rOP",
            b"N\0",
            b"PASS",
        ):
            self.assertTable(POP3, [((b"USER joe", line, b"PASS x"), self.OK + self.INVALID + self.USER_FIRST)])
        self.assertTable(POP3, [((b"USER joe", b"STAT", b"PASS x"), self.OK + self.LATER + self.USER_FIRST)])
        capabilities = (
            b"+OK Capability list follows\r\nTOP\r\nUSER\r\nUIDL\r\nPIPELINING\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n"
        )
        capabilities += b"SASL PLAIN LOGIN CRAM-MD5 EXTERNAL\r\n.\r\n"
        lines = (b"USER joe", b"capa x", b"NOOP x", b"PASS x")
        self.assertTable(POP3, [(lines, self.OK + capabilities + self.OK + self.NO)])
        self.assertTable(POP3, [((b"USER joe", b"PASS x", b"PASS x"), self.OK + self.NO + self.USER_FIRST)])

    def test_blanks(self) -> None:
        """USER and PASS take everything after the first blank, as Dovecot does."""
        self.assertAsks(
            POP3,
            ((b"USER  jo e ", b"PASS  x  y "), Credentials(Method.PLAIN, b" jo e ", b" x  y ")),
            ((b"USER a b c d e", b"PASS 1 2 3 4 5"), Credentials(Method.PLAIN, b"a b c d e", b"1 2 3 4 5")),
            ((b"USER \tj", b"PASS \xff\t"), Credentials(Method.PLAIN, b"\tj", b"\xff\t")),
            ((b"APOP  joe  " + DIGEST + b" ",), Credentials(Method.APOP, b"joe", DIGEST, b"<7.1000@mx.test>")),
            ((b"APOP joe x",), Credentials(Method.APOP, b"joe", b"x", b"<7.1000@mx.test>")),
        )

    def test_sasl(self) -> None:
        """Challenges, and invalid responses."""
        self.assertTable(
            POP3,
            (
                ((b"AUTH PLAIN ", PLAIN + b" x"), b"+ \r\n" + self.NO),
                ((b"AUTH PLAIN", b""), b"+ \r\n" + self.MALFORMED),
                ((b"AUTH PLAIN", b"%"), b"+ \r\n" + self.NOT_BASE64),
                ((b"AUTH PLAIN", b" " + PLAIN), b"+ \r\n" + self.MALFORMED),
                ((b"AUTH LOGIN", b"am9l", b"*"), b"+ %b\r\n+ %b\r\n" % (USERNAME, PASSWORD) + self.CANCELLED),
                ((b"AUTH LOGIN am9l", b"eA=="), b"+ " + PASSWORD + b"\r\n" + self.NO),
                ((b"AUTH CRAM-MD5", CRAM), b"+ " + CHALLENGE + b"\r\n" + self.NO),
                ((b"AUTH CRAM-MD5 x",), self.NOT_BASE64),
                ((b"AUTH CRAM-MD5 xxxx",), b"-ERR No initial response is taken by this mechanism\r\n"),
                ((b"AUTH EXTERNAL", b""), b"+ " + USERNAME + b"\r\n" + self.NO),
            ),
        )

    def test_errors(self) -> None:
        """An unknown command counts as an error; a known one with wrong arguments does not."""
        counted = (b"", b" ", b" NOOP", b"NOOPS", b"STATE", b"NOOP a b c d", b"NOOP\rx", b"NOOP\0")
        self.assertCounts(POP3, (*counted, b"USER joe\r\nFOO", b"USER joe\r\nAPOP a b c d"), True)
        uncounted = (b"PASS x", b"USER", b"STLS", b"APOP a", b"AUTH X", b"AUTH PLAIN *", b"USER joe\r\nUSER joe")
        self.assertCounts(POP3, (*uncounted, b"STAT", b"RETR 1", b"USER joe\r\nUIDL"), False)
        self.assertCounts(POP3, (b"USER joe\r\nPASS x", b"AUTH PLAIN\r\n%"), False)


class SMTPTests(TableTests):
    """SMTP."""

    OK = b"250 2.0.0 OK\r\n"
    INVALID = b"500 5.5.1 Invalid command\r\n"
    ARGUMENT = b"501 5.5.4 Invalid argument\r\n"
    SEQUENCE = b"503 5.5.1 Bad sequence of commands\r\n"
    NOT_BASE64 = b"501 5.5.2 Invalid base64 data\r\n"
    NO = b"535 5.7.0 no\r\n"

    def test_commands(self) -> None:
        """Commands and their arguments."""
        self.assertEach(SMTP, self.OK, b"noop x", b"RSET x ", b"NOOP" + b" x" * 11, b"MAIL FROM:<a@b>", b"MAIL x y")
        self.assertEach(SMTP, self.ARGUMENT, b"EHLO", b"HELO ", b"EHLO a b", b"AUTH", b"MAIL", b"MAIL  ")
        self.assertEach(
            SMTP, self.INVALID, b" NOOP", b"NOOP\tx", b"NOOP" + b" x" * 12, b"DATUM", b"BDATA 3", b"XCLIENT x"
        )
        self.assertEach(SMTP, b"502 5.5.1 STARTTLS is not offered here\r\n", b"STARTTLS")
        missing = b"502 5.5.1 Command not implemented\r\n"
        self.assertEach(SMTP, missing, b"EXPN", b"HELP", b"ETRN x", b"TURN", b"ATRN x", b"SEND FROM:<a>")
        self.assertEach(SMTP, b"252 2.5.2 Cannot verify the user, try RCPT\r\n", b"VRFY x")
        self.assertEach(SMTP, b"504 5.5.4 Unsupported authentication mechanism\r\n", b"AUTH FOO", b"auth foo x")
        self.assertEach(SMTP, self.ARGUMENT, b"AUTH PLAIN x y")
        self.assertEach(SMTP, self.SEQUENCE, b"DATA", b"burl x last")
        ehlo = b"250-mx.test\r\n250 AUTH PLAIN LOGIN CRAM-MD5 EXTERNAL\r\n"
        self.assertEach(SMTP, ehlo, b"EHLO c", b"ehlo  [1.2.3.4] ", b"EHLO \xe9")
        self.assertTable(SMTP, [((b"RCPT",), self.SEQUENCE), ((b"RCPT TO:<a>",), self.SEQUENCE)])

    def test_names(self) -> None:
        """A name with a control character is refused (nginx accepts it)."""
        self.assertEach(SMTP, self.ARGUMENT, b"EHLO c\td", b"HELO \x01", b"EHLO \x7f")

    def test_sequence(self) -> None:
        """Commands that reset MAIL, and commands that do not."""
        mail, recipient = b"MAIL FROM:<a>", b"RCPT TO:<c>"
        for between, heard in ((b"RSET", self.OK), (b"HELO c", b"250 mx.test\r\n")):
            self.assertTable(SMTP, [((mail, between, recipient), self.OK + heard + self.SEQUENCE)])
        for between, heard in (
            (b"EHLO", self.ARGUMENT),
            (b"NOOP", self.OK),
            (b"FOO", self.INVALID),
            (b"MAIL FROM:<b>", self.SEQUENCE),
            (b"RCPT", self.ARGUMENT),
            (b"RCPT TO:<b>", self.NO),
            (b"AUTH PLAIN " + PLAIN, self.NO),
        ):
            self.assertTable(SMTP, [((mail, between, recipient), self.OK + heard + self.NO)])

    def test_extended(self) -> None:
        """A client that has said EHLO once counts as ESMTP, even if it says HELO later."""
        conversation = converse(SMTP)
        conversation.says(b"EHLO c", b"HELO d", b"MAIL FROM:<a>", b"RCPT TO:<c>")
        [request] = conversation.requests
        self.assertEqual((request.envelope.helo, request.envelope.extended), (b"d", True))

    def test_verbatim(self) -> None:
        """The service gets MAIL and RCPT as received, without blanks at the end."""
        for mail, recipient in (
            (b"mail  FROM:<a>   SIZE=1", b"Rcpt  TO:<c>"),
            (b"MAIL FROM:<a>\t", b"RCPT TO:<c>\t"),
            (b"MAIL \xc3\xa9", b'RCPT "a b"'),
        ):
            conversation = converse(SMTP)
            conversation.says(mail + b"  ", recipient + b" ")
            [request] = conversation.requests
            self.assertEqual((request.envelope.mail, request.envelope.recipient), (mail, recipient))

    def test_sasl(self) -> None:
        """Challenges, and invalid responses."""
        self.assertTable(
            SMTP,
            (
                ((b"AUTH PLAIN", PLAIN + b" x"), b"334 \r\n" + self.NO),
                ((b"AUTH PLAIN", b"*"), b"334 \r\n501 5.7.0 Authentication cancelled\r\n"),
                ((b"AUTH PLAIN", b"%"), b"334 \r\n" + self.NOT_BASE64),
                ((b"AUTH PLAIN *",), self.NOT_BASE64),
                ((b"AUTH PLAIN", b" " + PLAIN), b"334 \r\n501 5.5.4 Invalid authentication response\r\n"),
                ((b"AUTH LOGIN", b"am9l", b"eA=="), b"334 %b\r\n334 %b\r\n" % (USERNAME, PASSWORD) + self.NO),
                ((b"auth login =", b""), b"334 " + PASSWORD + b"\r\n" + self.NO),
                ((b"AUTH CRAM-MD5", CRAM), b"334 " + CHALLENGE + b"\r\n" + self.NO),
                ((b"AUTH CRAM-MD5 x",), self.NOT_BASE64),
                ((b"AUTH CRAM-MD5 xxxx",), b"501 5.7.0 No initial response is taken by this mechanism\r\n"),
                ((b"AUTH EXTERNAL am9l",), self.NO),
            ),
        )

    def test_errors(self) -> None:
        """An unknown command counts as an error; a known one with wrong arguments does not."""
        counted = (b"", b" ", b" NOOP", b"DATUM", b"BDATA 1", b"NOOP" + b" x" * 12, b"NOOP\rx", b"NOOP\0", b"NOOP\t")
        self.assertCounts(SMTP, counted, True)
        uncounted = (b"VRFY x", b"EXPN x", b"HELP x", b"STARTTLS", b"EHLO", b"EHLO \x01", b"AUTH", b"AUTH X", b"MAIL")
        self.assertCounts(SMTP, (*uncounted, b"DATA", b"ETRN x", b"TURN", b"BURL x"), False)
        self.assertCounts(SMTP, (b"AUTH PLAIN *", b"AUTH PLAIN " + PLAIN, b"RCPT x"), False)
