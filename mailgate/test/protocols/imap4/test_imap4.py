"""
The IMAP4 dialogue before login, byte for byte as in nginx.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.settings import DialogueSettings
from mailgate.frontend.text import Literal
from mailgate.login import Credentials, Denial, Method, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.command import CommandParser, IMAP4SyntaxError, simpleCommand
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.session import Outcome, Phase
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector, hearEverything
from mailgate.tls.settings import TLSSettings

GO_AHEAD = b"+ OK\r\n"


def converse(*auth: str, **settings: Any) -> Conversation:
    """A conversation past its greeting, with the methods C{auth} or the default."""
    conversation = Conversation(IMAP4, IMAP4Settings(auth=auth or ("plain",)), **settings)
    conversation.hear()
    return conversation


def ok(tag: bytes) -> bytes:
    """The OK completion of the command C{tag}."""
    return tag + b" OK completed\r\n"


UNSUPPORTED = b"a NO [CANNOT] Unsupported authentication mechanism\r\n"


def private(tag: bytes) -> bytes:
    """The refusal of a login in the clear if TLS is required."""
    return tag + b" NO [PRIVACYREQUIRED] Use STARTTLS first\r\n"


def bye(reason: bytes) -> bytes:
    """The goodbye after the last reply."""
    return b"* BYE " + reason + b", closing connection\r\n"


ENDLESS = bye(b"Data of a refused command cannot be skipped")


def bad(tag: bytes) -> bytes:
    """The BAD completion of the command C{tag}."""
    return tag + b" BAD invalid command\r\n"


class ParserTests(SynchronousTestCase):
    """The grammar, without a wire."""

    def parse(self, *pieces: bytes) -> list[bytes]:
        """The arguments of a command; every second piece is a literal."""
        parser = CommandParser()
        for piece in pieces[:-1:2]:
            self.assertIsInstance(parser.feed(piece), Literal)
            parser.feedLiteral(pieces[pieces.index(piece) + 1])
        self.assertIsNone(parser.feed(pieces[-1]))
        return parser.arguments

    def test_atoms(self) -> None:
        """Atoms end at the next blank, whatever they contain."""
        self.assertEqual(self.parse(b'a LOGIN j(o%e  s\\e"a '), [b"j(o%e", b's\\e"a'])

    def test_quoted(self) -> None:
        """Quoted strings may contain blanks, and anything after a backslash."""
        self.assertEqual(self.parse(b'a LOGIN "jo e" "\\"\\\\x"'), [b"jo e", b'"\\x'])
        self.assertEqual(self.parse(b'a LOGIN ""'), [b""])
        self.assertEqual(self.parse(b'a LOGIN "a""b"'), [b"a", b"b"])

    def test_literals(self) -> None:
        """Literals may contain anything, and may be empty."""
        self.assertEqual(self.parse(b"a LOGIN {3}", b"j\r\n", b' "x"'), [b"j\r\n", b"x"])
        self.assertEqual(self.parse(b"a LOGIN {0}", b"", b" {1+}", b"\0", b""), [b"", b"\0"])

    def test_literalKinds(self) -> None:
        """{n} is synchronizing, {n+} is not, {} is {0}."""
        for text, literal in ((b"{10}", Literal(10, True)), (b"{7+}", Literal(7, False)), (b"{}", Literal(0, True))):
            self.assertEqual(CommandParser().feed(b"a LOGIN " + text), literal)

    def test_tag(self) -> None:
        """Tags are those of RFC 3501 with up to 126 characters, as in Dovecot."""
        for tag in (b"a", b"A1.b-c_d", b"*"[:0] + b"$/]", b"x" * 126):
            parser = CommandParser()
            parser.feed(tag + b"   noop")
            self.assertEqual((parser.tag, parser.word), (tag, b"NOOP"))

    def test_invalid(self) -> None:
        """Invalid commands raise an error."""
        for line in (
            b"",
            b" ",
            b" a NOOP",
            b"a",
            b"a ",
            b"a+ NOOP",
            b"(a NOOP",
            b"x" * 127 + b" NOOP",
            b"a NOOP1",
            b"a NO-OP",
            b'a LOGIN "joe',
            b'a LOGIN "joe\\"',
            b"a LOGIN {5} x",
            b"a LOGIN {5-}",
            b"a LOGIN {x}",
            b"a LOGIN {99999999999}",
            b"a NOOP 1 2 3 4",
        ):
            self.assertRaises(IMAP4SyntaxError, CommandParser().feed, line)

    def test_behindLiteral(self) -> None:
        """Only a blank or the end may follow a literal."""
        parser = CommandParser()
        parser.feed(b"a LOGIN {1}")
        parser.feedLiteral(b"x")
        self.assertRaises(IMAP4SyntaxError, parser.feed, b"y")


class SimpleTests(SynchronousTestCase):
    """Commands that are matched as a whole."""

    pieces = (
        *(b"a", b"A1.b", b"x" * 126, b"x" * 127, b"a+", b"*", b"(", b")"),
        *(b"LOGIN", b"login", b"ID", b"iD", b"IDLE", b"NO-OP", b"joe", b"jo(e", b"\xff\0\r"),
        *(b" ", b" ", b" ", b" ", b"  ", b"", b'"', b'"', b"\\", b'\\"', b'"jo e"', b'""', b'"x\\"y"'),
        *(b"{", b"{5}", b"{5+}", b"{x}", b"}", b"a{5}", b"NIL", b'("a" "b")'),
    )

    def results(self, line: bytes) -> object:
        """What a parser makes of C{line}, and of a line that follows the literal in it."""
        parser = CommandParser()
        found: list[object] = []
        for each in (line, b' "behind" it'):
            try:
                literal = parser.feed(each)
            except IMAP4SyntaxError:
                literal = None
                found.append("error")
            found.append((literal, parser.tag, parser.word, [(type(text), text) for text in parser.arguments]))
            if literal is None:
                break
            parser.feedLiteral(b"literal")
        return found

    def test_sameResults(self) -> None:
        """Any line has the same result as if it were parsed step by step."""
        random = Random(9051)
        lines = [b"".join(random.choices(self.pieces, k=random.randrange(12))) for _ in range(6000)]
        # Lines that begin well get further.
        lines += [b"a LOGIN " + line for line in lines] + [b"a ID " + line for line in lines[:1000]]
        matches = {line: found for line in lines if (found := simpleCommand(line)) is not None}
        self.assertTrue(len(lines) // 20 < len(matches) < len(lines) // 2, (len(matches), len(lines)))
        for line, (tag, word, arguments) in matches.items():
            # There is no literal, so there is no second line.
            self.assertEqual(self.results(line), [(None, tag, word, [(bytes, text) for text in arguments])], line)

    def test_longLines(self) -> None:
        """The time for a line that does not match grows with its length, not faster."""
        for filling in (b" ", b"x", b" x", b'"', b'"x" ', b"{", b"\\"):
            line = b"a LOGIN " + filling * 100_000 + b"{x}"
            self.results(line)
            simpleCommand(line)


class GreetingTests(SynchronousTestCase):
    """The greeting and the capabilities."""

    def test_greeting(self) -> None:
        """The greeting has no capabilities."""
        self.assertEqual(Conversation(IMAP4).hear(), b"* OK IMAP4 ready\r\n")

    def test_capability(self) -> None:
        """The configured capabilities, then the gateway's own and the mechanisms, in nginx's order."""
        self.assertEqual(
            converse().says(b"a CAPABILITY x"),
            b"* CAPABILITY IMAP4 IMAP4rev1 SASL-IR LITERAL+ ID UIDPLUS AUTH=PLAIN\r\n" + ok(b"a"),
        )
        self.assertIn(
            b" AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5 AUTH=EXTERNAL\r\n",
            converse("external", "cram-md5", "login", "plain").says(b"a capability"),
        )

    def test_onePiece(self) -> None:
        """An untagged response and the completion are one piece: each piece is a system call, and a record of TLS."""
        conversation = converse()
        pieces: list[bytes] = []
        self.patch(conversation.transport, "write", pieces.append)
        conversation.says(b"a CAPABILITY", b"b ID NIL", b"c LOGOUT")
        self.assertEqual(
            [piece.rpartition(b"\r\n" + tag)[1] for piece, tag in zip(pieces, (b"a", b"b", b"c"), strict=True)],
            [b"\r\na", b"\r\nb", b"\r\nc"],
        )

    def test_starttls(self) -> None:
        """STARTTLS comes last, and only in the clear."""
        conversation = Conversation(IMAP4, TLSSettings(starttls="on"))
        self.assertIn(b"UIDPLUS AUTH=PLAIN STARTTLS\r\n", conversation.says(b"a CAPABILITY"))
        self.assertEqual(conversation.says(b"b STARTTLS"), ok(b"b"))
        conversation.transport.shakeHands()
        self.assertIn(b"UIDPLUS AUTH=PLAIN\r\n", conversation.says(b"a CAPABILITY"))
        self.assertEqual(conversation.says(b"c STARTTLS"), b"c BAD TLS is active already\r\n")

    def test_starttlsOnly(self) -> None:
        """If TLS is required, no mechanism is offered in the clear, and LOGIN is disabled."""
        conversation = Conversation(IMAP4, TLSSettings(starttls="only"))
        self.assertIn(b"UIDPLUS STARTTLS LOGINDISABLED\r\n", conversation.says(b"a CAPABILITY"))

    def test_noPasswords(self) -> None:
        """If passwords are not accepted, LOGIN is disabled."""
        conversation = converse("cram-md5")
        self.assertIn(b"UIDPLUS AUTH=CRAM-MD5 LOGINDISABLED\r\n", conversation.says(b"a CAPABILITY"))
        disabled = b"b NO [CANNOT] LOGIN is disabled, use AUTHENTICATE\r\n"
        self.assertEqual(conversation.says(b"b LOGIN joe sesame"), disabled)
        self.assertEqual(conversation.says(b"b LOGIN joe {6}", b"c NOOP"), disabled + ok(b"c"))
        self.assertEqual(conversation.requests, [])


class CommandTests(SynchronousTestCase):
    """Commands without a login."""

    def test_noopAndId(self) -> None:
        """NOOP has no effect. ID is answered before login."""
        conversation = converse()
        self.assertEqual(conversation.says(b"a noop 1 2 3"), ok(b"a"))
        self.assertEqual(
            conversation.says(b'b ID ("name" "Foo Bar" "version" NIL "os" "x y" "vendor" "z")'),
            b"* ID NIL\r\n" + ok(b"b"),
        )
        self.assertEqual(conversation.says(b"c ID NIL"), b"* ID NIL\r\n" + ok(b"c"))

    def test_idWithLiterals(self) -> None:
        """A literal in ID's list is a literal at any place, and not parsed as commands."""
        conversation = converse()
        self.assertEqual(
            conversation.send(b'a ID ({4+}\r\nname "x" "os" {9}\r\n') + conversation.send(b"b LOGOUT\r)\r\n"),
            GO_AHEAD + b"* ID NIL\r\n" + ok(b"a"),
        )
        self.assertFalse(conversation.closed)

    def test_logout(self) -> None:
        """LOGOUT sends a goodbye and closes."""
        conversation = converse()
        self.assertEqual(conversation.says(b"a LOGOUT", b"b NOOP"), b"* BYE Logging out\r\n" + ok(b"a"))
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.QUIT)

    def test_invalid(self) -> None:
        """Refusals have the tag, if there is one; the fifth ends the connection."""
        conversation = converse()
        heard = conversation.says(b"a SELEKT INBOX", b"", b" x NOOP", b"b", b"(c NOOP", b"d NOOP")
        self.assertEqual(heard, bad(b"a") + bad(b"*") * 4 + bye(b"Too many invalid commands"))
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.ERRORS)

    def test_tagIsForgotten(self) -> None:
        """A line without a tag is not answered with an old one."""
        conversation = converse()
        self.assertEqual(conversation.says(b"a NOOP", b"%%%", b"\0"), ok(b"a") + bad(b"*") * 2)

    def test_tagOfGarbledLine(self) -> None:
        """A line with a stray CR or a NUL is refused with its tag, for which the client waits."""
        conversation = converse()
        lines = (b"a NO\rOP", b"b LOGIN a\0b c", b"c\r NOOP")
        self.assertEqual(conversation.says(*lines), bad(b"a") + bad(b"b") + bad(b"*"))

    def test_longTag(self) -> None:
        """A tag that is longer than the buffer is not used, however the line arrives."""
        for size in (1, 5000):
            conversation = converse()
            line = b"x" * 4097 + b" NOOP"
            heard = b"".join(conversation.send(line[start : start + size]) for start in range(0, len(line), size))
            self.assertEqual(heard, bad(b"*") + bye(b"Command too long"))

    def test_tagOfTooLongResponse(self) -> None:
        """A SASL response that is too long is refused with the tag of its command."""
        conversation = Conversation(IMAP4, IMAP4Settings(), DialogueSettings(serverName="mx.test", maxResponse=1024))
        conversation.hear()
        conversation.says(b"a AUTHENTICATE PLAIN")
        self.assertEqual(conversation.says(b"QUFB" * 500), bad(b"a") + bye(b"Command too long"))
        self.assertTrue(conversation.closed)

    def test_garbledBehindLiteral(self) -> None:
        """Invalid text after a literal is refused with its command's tag, and the command is forgotten."""
        conversation = converse()
        self.assertEqual(conversation.send(b"a LOGIN {1+}\r\nx y\0\r\nb NOOP\r\n"), bad(b"a") + ok(b"b"))

    def test_knownButWrong(self) -> None:
        """Known commands at the wrong moment do not count as errors."""
        conversation = converse()
        lines = (
            b"a LOGIN joe",
            b"a LOGIN joe a b",
            b'a LOGIN "" x',
            b"a AUTHENTICATE",
            b"a STARTTLS",
            b"a AUTHENTICATE X",
        )
        self.assertEqual(
            conversation.says(*lines), bad(b"a") * 4 + b"a BAD STARTTLS is not offered here\r\n" + UNSUPPORTED
        )
        self.assertFalse(conversation.closed)

    def test_tooLong(self) -> None:
        """A line that is too long is refused with its tag and ends the connection."""
        conversation = Conversation(IMAP4, IMAP4Settings(clientBuffer=64))
        conversation.hear()
        self.assertEqual(conversation.says(b"a1 LOGIN " + b"x" * 64), bad(b"a1") + bye(b"Command too long"))
        self.assertTrue(conversation.closed)

    def test_nonSynchronizingLiteralOfInvalidCommand(self) -> None:
        """A non-synchronizing literal of an invalid command must not be parsed as commands: the connection ends."""
        conversation = converse()
        self.assertEqual(conversation.send(b"a FOO {8+}\r\nb LOGOUT\r\n"), bad(b"a") + ENDLESS)
        self.assertTrue(conversation.closed)

    def test_synchronizingLiteralOfInvalidCommand(self) -> None:
        """A synchronizing one does no harm."""
        conversation = converse()
        self.assertEqual(conversation.says(b"a FOO {8}", b"b NOOP"), bad(b"a") + ok(b"b"))


class LiteralTests(SynchronousTestCase):
    """Literals on the wire."""

    def asked(self, *chunks: bytes) -> tuple[Conversation, bytes]:
        """The conversation after C{chunks}, and its output."""
        conversation = converse()
        return conversation, b"".join(conversation.send(chunk) for chunk in chunks)

    def test_synchronizing(self) -> None:
        """A synchronizing literal gets a continuation request."""
        conversation, heard = self.asked(b"a LOGIN {3}\r\n", b"joe {6}\r\n", b"sesame\r\n")
        self.assertEqual(heard[:12], GO_AHEAD * 2)
        self.assertEqual(conversation.requests[0].credentials, Credentials(Method.PLAIN, b"joe", b"sesame"))
        self.assertEqual(conversation.requests[0].tag, b"a")

    def test_nonSynchronizing(self) -> None:
        """With LITERAL+ there is none."""
        conversation, heard = self.asked(b"a LOGIN {3+}\r\njoe {8+}\r\nse\r\nsa\0e\r\n")
        self.assertNotIn(b"+", heard)
        self.assertEqual(conversation.requests[0].credentials, Credentials(Method.PLAIN, b"joe", b"se\r\nsa\0e"))

    def test_empty(self) -> None:
        """An empty literal takes no bytes (nginx takes one)."""
        conversation, _ = self.asked(b"a LOGIN joe {0}\r\n\r\n")
        self.assertEqual(conversation.requests[0].credentials.secret, b"")

    def test_tooLarge(self) -> None:
        """A literal that is too large gets no continuation request; a non-synchronizing one ends the connection."""
        conversation, heard = self.asked(b"a LOGIN {5000}\r\nb NOOP\r\n")
        self.assertEqual(heard, bad(b"a") + ok(b"b"))
        conversation, heard = self.asked(b"a LOGIN {5000+}\r\n")
        self.assertEqual(heard, bad(b"a") + ENDLESS)
        self.assertTrue(conversation.closed)

    def test_bounded(self) -> None:
        """Several literals together may not exceed the buffer either."""
        conversation, heard = self.asked(b"a LOGIN {3000}\r\n", b"x" * 3000 + b" {3000}\r\n")
        self.assertEqual(heard, GO_AHEAD + bad(b"a"))
        self.assertEqual(conversation.says(b"b NOOP"), ok(b"b"))

    def test_tooLongBehind(self) -> None:
        """Text after a literal counts as well."""
        conversation, heard = self.asked(b"a LOGIN {3000}\r\n", b"x" * 3000, b" " + b"y" * 2000)
        self.assertEqual(heard, GO_AHEAD + bad(b"a") + bye(b"Command too long"))
        self.assertTrue(conversation.closed)

    def test_inClear(self) -> None:
        """If TLS is required, the gateway does not ask for a password's literal in the clear."""
        conversation = Conversation(IMAP4, TLSSettings(starttls="only"))
        conversation.hear()
        self.assertEqual(conversation.says(b"a LOGIN {3}"), private(b"a"))
        self.assertEqual(conversation.says(b"b LOGIN joe {3}", b"c NOOP"), private(b"b") + ok(b"c"))

    def test_inClearUnasked(self) -> None:
        """A non-synchronizing one is not parsed as a command, and is refused with its command."""
        conversation = Conversation(IMAP4, TLSSettings(starttls="only"))
        conversation.hear()
        self.assertEqual(conversation.send(b"a LOGIN {8+}\r\nb LOGOUT {3}\r\nc NOOP\r\n"), private(b"a") + ok(b"c"))
        self.assertEqual(conversation.send(b"d LOGIN {3+}\r\njoe {3+}\r\nabc\r\n"), private(b"d"))
        self.assertEqual(conversation.requests, [])
        self.assertFalse(conversation.closed)


class LoginTests(SynchronousTestCase):
    """LOGIN and AUTHENTICATE."""

    def test_login(self) -> None:
        """LOGIN has a name and a password, and the backend's reply goes to the client."""
        backend = FakeClient(b"* CAPABILITY X\r\na OK hi\r\n")
        conversation = converse(connector=FakeConnector(backend))
        self.assertEqual(conversation.says(b'a LOGIN joe "open sesame"'), b"* CAPABILITY X\r\na OK hi\r\n")
        [request] = conversation.requests
        self.assertEqual(request.credentials, Credentials(Method.PLAIN, b"joe", b"open sesame"))
        self.assertEqual((request.protocol, request.tag, request.attempt), ("imap", b"a", 1))
        self.assertIs(conversation.server.session.phase, Phase.RELAY)

    def test_authenticate(self) -> None:
        """AUTHENTICATE takes an initial response or sends a challenge."""
        for lines in ([b"a AUTHENTICATE PLAIN AGpvZQBzZXNhbWU="], [b"a authenticate plain", b"AGpvZQBzZXNhbWU="]):
            conversation = converse()
            conversation.says(*lines)
            [request] = conversation.requests
            self.assertEqual(request.credentials, Credentials(Method.PLAIN, b"joe", b"sesame"))
            self.assertEqual(request.tag, b"a")

    def test_challenges(self) -> None:
        """The challenges are nginx's."""
        conversation = converse("plain", "login", "cram-md5", "external")
        self.assertEqual(conversation.says(b"a AUTHENTICATE PLAIN"), b"+ \r\n")
        self.assertEqual(conversation.says(b"*"), b"a BAD Authentication cancelled\r\n")
        self.assertEqual(conversation.says(b"b AUTHENTICATE LOGIN"), b"+ VXNlcm5hbWU6\r\n")
        self.assertEqual(conversation.says(b"am9l"), b"+ UGFzc3dvcmQ6\r\n")
        self.assertEqual(conversation.says(b"%"), b"b BAD Invalid base64 data\r\n")
        self.assertEqual(conversation.says(b"c AUTHENTICATE EXTERNAL"), b"+ VXNlcm5hbWU6\r\n")
        self.assertEqual(conversation.says(b"*"), b"c BAD Authentication cancelled\r\n")
        self.assertEqual(conversation.says(b"d AUTHENTICATE CRAM-MD5"), b"+ PDcuMTAwMEBteC50ZXN0Pg==\r\n")
        self.assertEqual(conversation.says(b"am9l"), b"d BAD Invalid authentication response\r\n")
        self.assertEqual(
            conversation.says(b"e AUTHENTICATE CRAM-MD5 am9l"),
            b"e BAD No initial response is taken by this mechanism\r\n",
        )
        self.assertEqual(conversation.requests, [])

    def test_notOffered(self) -> None:
        """A mechanism that is not configured is refused, with an initial response too (nginx accepts EXTERNAL)."""
        conversation = converse()
        for mechanism in (b"LOGIN", b"CRAM-MD5", b"EXTERNAL", b"EXTERNAL am9l", b"XOAUTH2"):
            self.assertEqual(conversation.says(b"a AUTHENTICATE " + mechanism), UNSUPPORTED)

    def refusal(self, denial: Denial) -> tuple[Conversation, bytes]:
        """A conversation whose login is answered with C{denial}, and its output."""
        conversation = converse(authenticator=FakeAuthenticator(denial))
        return conversation, conversation.says(b"a LOGIN joe bad")

    def test_denied(self) -> None:
        """The reply to a wrong password follows RFC 5530, with the tag, and the session continues."""
        conversation, heard = self.refusal(Denial(Trouble.DENIED))
        self.assertEqual(heard, b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n")
        self.assertEqual(conversation.says(b"b NOOP"), ok(b"b"))

    def test_temporary(self) -> None:
        """A temporary failure is UNAVAILABLE."""
        _, heard = self.refusal(Denial(Trouble.TEMPORARY))
        self.assertEqual(heard, b"a NO [UNAVAILABLE] Temporary authentication failure, try again later\r\n")

    def test_textOfTemporary(self) -> None:
        """A temporary failure keeps its code, whatever text the service sends."""
        heard = self.refusal(Denial(Trouble.TEMPORARY, b"database down"))[1]
        self.assertEqual(heard, b"a NO [UNAVAILABLE] Temporary authentication failure, try again later\r\n")

    def test_text(self) -> None:
        """The authentication service's text reaches the client, on one line only."""
        self.assertEqual(self.refusal(Denial(Trouble.DENIED, "né".encode()))[1], "a NO né\r\n".encode())
        self.assertEqual(
            self.refusal(Denial(Trouble.DENIED, b"x\r\nb OK"))[1],
            b"a NO [AUTHENTICATIONFAILED] Authentication failed\r\n",
        )

    def test_inClear(self) -> None:
        """Logins in the clear fail if TLS is required."""
        conversation = Conversation(IMAP4, TLSSettings(starttls="only"))
        conversation.hear()
        lines = (b"a LOGIN joe sesame", b"b AUTHENTICATE PLAIN AGpvZQBzZXNhbWU=", b"c AUTHENTICATE PLAIN")
        self.assertEqual(conversation.says(*lines), private(b"a") + private(b"b") + private(b"c"))
        self.assertEqual(conversation.requests, [])

    def test_literalInRefusal(self) -> None:
        """A refusal never ends like a literal: a client would read the next reply as that literal."""
        for end, shown in ((b"{5}", b"{5"), (b"{05+}", b"{05+"), (b"x~{3}", b"x~{3"), (b"{}", b"{}"), (b"5}", b"5}")):
            for denial in (Denial(Trouble.DENIED, b"no " + end), Denial(Trouble.DENIED, answer=b"NO no " + end)):
                self.assertEqual(self.refusal(denial)[1], b"a NO no " + shown + b"\r\n")


class WholeConversationTests(SynchronousTestCase):
    """Conversations that TCP splits anywhere."""

    chunks = (
        b"a CAPABILITY\r\nb NOOP\n\r\nc ID NIL\r\nd LOGIN {3+}\r\njoe {2}\r\nx\n\r\n"
        b"e AUTHENTICATE LOGIN\r\nam9l\r\n*\r\n"
        b'f AUTHENTICATE PLAIN\r\nAGpvZQBiYWQ=\r\ng LOGIN "joe" "sesame"\r\nh SELECT INBOX\r\ni LOGOUT\r\n'
    )

    def make(self) -> Conversation:
        """A conversation in which two logins fail."""
        denial = Denial(Trouble.DENIED)
        return Conversation(
            IMAP4,
            IMAP4Settings(auth=("plain", "login")),
            authenticator=FakeAuthenticator(denial, denial),
            connector=FakeConnector(FakeClient(b"g OK hi\r\n")),
        )

    def test_everyCut(self) -> None:
        """The conversation is the same if it is cut in two at any position or into single bytes."""
        whole = hearEverything(self.make, self.chunks)
        self.assertTrue(whole.endswith(b"g OK hi\r\n"), whole)
        for cut in range(1, len(self.chunks)):
            self.assertEqual(hearEverything(self.make, self.chunks[:cut], self.chunks[cut:]), whole)
        singly = [self.chunks[i : i + 1] for i in range(len(self.chunks))]
        self.assertEqual(hearEverything(self.make, *singly), whole)

    def test_pipelinedBehindLogin(self) -> None:
        """Pipelined bytes after the login reach the backend."""
        backend = FakeClient(b"a OK hi\r\n")
        conversation = converse(connector=FakeConnector(backend))
        self.assertEqual(conversation.says(b"a LOGIN joe sesame", b"b SELECT INBOX", b"c LOGOUT"), b"a OK hi\r\n")
        self.assertEqual(backend.transport.value(), b"b SELECT INBOX\r\nc LOGOUT\r\n")
