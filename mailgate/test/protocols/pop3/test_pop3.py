"""
The POP3 dialogue before login, byte for byte as in nginx.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Credentials, Denial, Envelope, Method, Route, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.session import Outcome, Phase
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeConnector, hearEverything
from mailgate.tls.settings import TLSSettings

OK = b"+OK\r\n"
INVALID = b"-ERR invalid command\r\n"
UNSUPPORTED = b"-ERR Unsupported authentication mechanism\r\n"
USER_FIRST = b"-ERR Send USER first\r\n"
OURS = b"PIPELINING\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n"
"""The capabilities of the default list that the gateway supports itself."""
SALT = b"<7.1000@mx.test>"


def converse(*auth: str, **settings: Any) -> Conversation:
    """A conversation with the methods C{auth}, or the default."""
    return Conversation(POP3, POP3Settings(auth=auth or ("plain",)), **settings)


class GreetingTests(SynchronousTestCase):
    """The greeting."""

    def test_plain(self) -> None:
        """Without digest methods the greeting has no salt."""
        self.assertEqual(converse().hear(), b"+OK POP3 ready\r\n")

    def test_salt(self) -> None:
        """With apop or cram-md5 the greeting has a salt."""
        for method in ("apop", "cram-md5"):
            self.assertEqual(converse(method).hear(), b"+OK POP3 ready " + SALT + b"\r\n")

    def test_noDelay(self) -> None:
        """Replies do not wait for acknowledgements."""
        self.assertTrue(converse().transport.noDelay)

    def test_implicitTLS(self) -> None:
        """With ssl the greeting waits for the handshake."""
        conversation = converse(ssl=True)
        self.assertEqual(conversation.hear(), b"")
        self.assertEqual(conversation.transport.tls, ["the TLS context"])
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), b"+OK POP3 ready\r\n")


class CapabilityTests(SynchronousTestCase):
    """CAPA and AUTH without an argument."""

    def test_default(self) -> None:
        """The default capabilities, with the gateway's own, and SASL with PLAIN and LOGIN."""
        self.assertEqual(
            converse().says(b"CAPA"),
            b"+OK Capability list follows\r\nTOP\r\nUSER\r\nUIDL\r\n" + OURS + b"SASL PLAIN LOGIN\r\n.\r\n",
        )

    def test_apopAlone(self) -> None:
        """
        APOP is not a SASL mechanism; the SASL line is there all the same. USER is not, as passwords are not accepted.
        """
        heard = b"+OK Capability list follows\r\nTOP\r\nUIDL\r\n" + OURS + b"SASL\r\n.\r\n"
        self.assertEqual(converse("apop").says(b"capa"), heard)

    def test_everything(self) -> None:
        """Mechanisms are in nginx's order, STLS is last."""
        conversation = Conversation(
            POP3,
            POP3Settings(auth=("plain", "apop", "cram-md5", "external"), capabilities=("EXPIRE 60",)),
            TLSSettings(starttls="on"),
        )
        self.assertEqual(
            conversation.says(b"CAPA x y z"),
            b"+OK Capability list follows\r\nEXPIRE 60\r\nSASL PLAIN LOGIN CRAM-MD5 EXTERNAL\r\nSTLS\r\n.\r\n",
        )
        self.assertEqual(
            conversation.says(b"AUTH"),
            b"+OK methods supported:\r\nPLAIN\r\nLOGIN\r\nCRAM-MD5\r\nEXTERNAL\r\n.\r\n",
        )

    def test_starttlsOnly(self) -> None:
        """If TLS is required, USER and SASL are offered only under TLS."""
        conversation = Conversation(POP3, TLSSettings(starttls="only"))
        heard = b"+OK Capability list follows\r\nTOP\r\nUIDL\r\n" + OURS + b"STLS\r\n.\r\n"
        self.assertEqual(conversation.says(b"CAPA"), heard)
        conversation.says(b"STLS")
        conversation.transport.shakeHands()
        self.assertEqual(
            conversation.says(b"CAPA"),
            b"+OK Capability list follows\r\nTOP\r\nUSER\r\nUIDL\r\n" + OURS + b"SASL PLAIN LOGIN\r\n.\r\n",
        )

    def test_afterUser(self) -> None:
        """Between USER and PASS, STLS is not offered."""
        conversation = Conversation(POP3, TLSSettings(starttls="on"))
        conversation.says(b"USER joe")
        self.assertNotIn(b"STLS", conversation.says(b"CAPA"))
        conversation.says(b"PASS x")
        self.assertIs(conversation.server.session.phase, Phase.RELAY)


class CommandTests(SynchronousTestCase):
    """Commands without a login."""

    def test_noop(self) -> None:
        """NOOP has no effect, with arguments too, unless there are too many."""
        conversation = converse()
        self.assertEqual(conversation.says(b"NOOP", b"noop a b c"), OK * 2)
        self.assertEqual(conversation.says(b"NOOP a b c d"), INVALID)

    def test_quit(self) -> None:
        """QUIT ends the connection, and the session records that."""
        conversation = converse()
        self.assertEqual(conversation.says(b"QUIT"), OK)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.QUIT)

    def test_nothingAfterQuit(self) -> None:
        """Commands after QUIT are not obeyed."""
        self.assertEqual(converse().says(b"QUIT", b"NOOP"), OK)

    def test_stlsNotOffered(self) -> None:
        """STLS is refused if it is not offered."""
        self.assertEqual(converse().says(b"STLS"), b"-ERR STLS is not offered here\r\n")

    def test_tooManyErrors(self) -> None:
        """Five unknown commands are answered; the fifth ends the connection."""
        conversation = converse()
        self.assertEqual(conversation.says(b"STATE", b"", b"RET 1", b"\x80", b"LISTE", b"NOOP"), INVALID * 5)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.ERRORS)

    def test_knownButWrong(self) -> None:
        """Known commands at the wrong moment do not count as errors."""
        conversation = converse()
        self.assertEqual(conversation.says(*[b"PASS x"] * 10), USER_FIRST * 10)
        self.assertFalse(conversation.closed)

    def test_strayCarriageReturn(self) -> None:
        """A CR within a line, and a NUL, make it invalid."""
        self.assertEqual(converse().says(b"NOOP\rNOOP", b"USER a\0b"), INVALID * 2)

    def test_bareLineFeed(self) -> None:
        """A bare LF ends a line."""
        self.assertEqual(converse().send(b"NOOP\nNOOP\r\n"), OK * 2)

    def test_tooLong(self) -> None:
        """A line that is too long ends the connection."""
        conversation = Conversation(POP3, POP3Settings(clientBuffer=128))
        self.assertEqual(conversation.says(b"USER " + b"x" * 121), OK)
        self.assertEqual(conversation.says(b"PASS " + b"x" * 122), INVALID)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_pipelinedBeyondTheBuffer(self) -> None:
        """Many short commands may together be longer than the buffer (nginx fails then)."""
        conversation = Conversation(POP3, POP3Settings(clientBuffer=128))
        self.assertEqual(conversation.says(*[b"NOOP"] * 1000), OK * 1000)


class LoginTests(SynchronousTestCase):
    """USER and PASS, APOP, AUTH."""

    def assertAsks(self, conversation: Conversation, credentials: Credentials) -> None:
        """The authenticator got one request, with C{credentials}."""
        [request] = conversation.requests
        self.assertEqual(request.credentials, credentials)
        self.assertEqual((request.protocol, request.attempt, request.envelope), ("pop3", 1, Envelope()))
        self.assertEqual((request.client.host, request.client.port), ("192.0.2.7", 40123))

    def test_userPass(self) -> None:
        """USER and PASS log in, and the backend's reply goes to the client."""
        backend = FakeClient(b"+OK Logged in.\r\n")
        conversation = converse(connector=FakeConnector(backend))
        self.assertEqual(conversation.says(b"USER joe"), OK)
        self.assertEqual(conversation.says(b"PASS open sesame "), b"+OK Logged in.\r\n")
        self.assertAsks(conversation, Credentials(Method.PLAIN, b"joe", b"open sesame "))
        self.assertIs(conversation.server.session.phase, Phase.RELAY)

    def test_otherThanPass(self) -> None:
        """Any command except PASS, CAPA, NOOP and QUIT after USER is invalid and requires a new USER."""
        conversation = converse()
        self.assertEqual(conversation.says(b"USER joe", b"USER jim", b"PASS x"), OK + INVALID + USER_FIRST)
        self.assertEqual(conversation.says(b"USER joe", b"NOOP", b"CAPA")[:10], OK * 2)
        self.assertEqual(conversation.requests, [])

    def test_emptyArguments(self) -> None:
        """USER and PASS need an argument."""
        conversation = converse()
        self.assertEqual(conversation.says(b"USER", b"USER  ", b"USER joe", b"PASS "), INVALID * 2 + OK + INVALID)
        self.assertEqual(conversation.says(b"PASS sesame"), USER_FIRST)
        self.assertEqual(conversation.requests, [])

    def test_apop(self) -> None:
        """APOP has a digest of the greeting's salt."""
        conversation = converse("apop")
        conversation.says(b"APOP joe 0123456789abcdef0123456789abcdef")
        self.assertAsks(conversation, Credentials(Method.APOP, b"joe", b"0123456789abcdef0123456789abcdef", SALT))

    def test_apopNotOffered(self) -> None:
        """APOP is refused if it is not configured or does not have two arguments."""
        self.assertEqual(converse().says(b"APOP joe 01234"), b"-ERR APOP is disabled\r\n")
        self.assertEqual(converse("apop").says(b"APOP joe"), INVALID)

    def test_authPlain(self) -> None:
        """AUTH PLAIN takes an initial response or sends a challenge."""
        for lines in ([b"AUTH PLAIN AGpvZQBzZXNhbWU="], [b"auth plain", b"AGpvZQBzZXNhbWU="]):
            conversation = converse()
            conversation.says(*lines)
            self.assertAsks(conversation, Credentials(Method.PLAIN, b"joe", b"sesame"))

    def test_authLogin(self) -> None:
        """AUTH LOGIN prompts for both."""
        conversation = converse()
        self.assertEqual(conversation.says(b"AUTH LOGIN"), b"+ VXNlcm5hbWU6\r\n")
        self.assertEqual(conversation.says(b"am9l"), b"+ UGFzc3dvcmQ6\r\n")
        conversation.says(b"c2VzYW1l")
        self.assertAsks(conversation, Credentials(Method.PLAIN, b"joe", b"sesame"))

    def test_cramMD5(self) -> None:
        """AUTH CRAM-MD5's challenge is the greeting's salt."""
        conversation = converse("cram-md5")
        self.assertEqual(conversation.says(b"AUTH CRAM-MD5"), b"+ PDcuMTAwMEBteC50ZXN0Pg==\r\n")
        conversation.says(b"am9lIDAxMjM0NTY3ODlhYmNkZWYwMTIzNDU2Nzg5YWJjZGVm")
        self.assertAsks(conversation, Credentials(Method.CRAM_MD5, b"joe", b"0123456789abcdef" * 2, SALT))

    def test_external(self) -> None:
        """AUTH EXTERNAL has only a name."""
        conversation = converse("external")
        conversation.says(b"AUTH EXTERNAL am9l")
        self.assertAsks(conversation, Credentials(Method.EXTERNAL, b"joe"))

    def test_notOffered(self) -> None:
        """A mechanism that is not configured is refused, PLAIN and LOGIN too, and USER with them."""
        conversation = converse("cram-md5")
        for line in (b"AUTH PLAIN AGpvZQBzZXNhbWU=", b"AUTH LOGIN", b"AUTH EXTERNAL am9l", b"AUTH XYZ"):
            self.assertEqual(conversation.says(line), UNSUPPORTED)
        self.assertEqual(conversation.says(b"USER joe"), b"-ERR USER is disabled, use AUTH or APOP\r\n")
        self.assertEqual(conversation.requests, [])

    def test_spoiltExchange(self) -> None:
        """After an invalid response, or the cancelling *, the client is back at commands."""
        for response, refusal in (
            (b"*", b"-ERR Authentication cancelled\r\n"),
            (b"am9lx", b"-ERR Invalid base64 data\r\n"),
            (b"\0", b"-ERR Invalid base64 data\r\n"),
            (b"am9l", b"-ERR Invalid authentication response\r\n"),
        ):
            conversation = converse()
            self.assertEqual(conversation.says(b"AUTH PLAIN", response, b"NOOP"), b"+ \r\n" + refusal + OK)
            self.assertEqual(conversation.requests, [])

    def test_starttlsOnly(self) -> None:
        """Logins in the clear fail if TLS is required."""
        conversation = Conversation(POP3, TLSSettings(starttls="only"))
        lines = (b"USER joe", b"PASS x", b"APOP a b", b"AUTH", b"AUTH PLAIN AGpvZQBzZXNhbWU=")
        self.assertEqual(conversation.says(*lines * 2), b"-ERR Use STLS first\r\n" * 10)
        self.assertFalse(conversation.closed)
        self.assertEqual(conversation.requests, [])


class RefusalTests(SynchronousTestCase):
    """A login that fails."""

    def refusal(self, denial: Any, *auth: str) -> tuple[Conversation, bytes]:
        """A conversation whose login is answered with C{denial}, and its output."""
        conversation = converse(authenticator=FakeAuthenticator(denial))
        conversation.says(b"USER joe")
        return conversation, conversation.says(b"PASS sesame")

    def test_denied(self) -> None:
        """The reply to a wrong password follows RFC 3206, and the session continues."""
        conversation, heard = self.refusal(Denial(Trouble.DENIED))
        self.assertEqual(heard, b"-ERR [AUTH] Authentication failed\r\n")
        conversation.says(b"USER joe", b"PASS sesame")
        self.assertEqual([request.attempt for request in conversation.requests], [1, 2])

    def test_temporary(self) -> None:
        """A temporary failure is not a wrong password."""
        conversation, heard = self.refusal(Denial(Trouble.TEMPORARY))
        self.assertEqual(heard, b"-ERR [SYS/TEMP] Temporary authentication failure, try again later\r\n")
        self.assertFalse(conversation.closed)

    def test_authenticatorFails(self) -> None:
        """An authenticator that raises causes a temporary failure. The reason is logged and not sent."""
        conversation, heard = self.refusal(ValueError("out of order"))
        self.assertEqual(heard, b"-ERR [SYS/TEMP] Temporary authentication failure, try again later\r\n")
        self.assertIn("the authenticator failed", "".join(conversation.logged()))

    def test_noAnswer(self) -> None:
        """So does one with an answer of another type, or a user that is not bytes; the connection stays open."""
        named: Any = "joe"
        for answer in ("yes", Route((), named, b"sesame")):
            conversation, heard = self.refusal(answer)
            self.assertEqual(heard, b"-ERR [SYS/TEMP] Temporary authentication failure, try again later\r\n")
            self.assertFalse(conversation.closed)
            self.assertIn("the authenticator failed", "".join(conversation.logged()))

    def test_text(self) -> None:
        """The authentication service's text reaches the client; without Auth-Wait the connection ends."""
        conversation, heard = self.refusal(Denial(Trouble.DENIED, b"Go away", close=True))
        self.assertEqual(heard, b"-ERR [AUTH] Go away\r\n")
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.DENIED)

    def test_passing(self) -> None:
        """A temporary failure of the service gets no code of wrong credentials before its text."""
        _, heard = self.refusal(Denial(Trouble.DENIED, b"Try later", b"451 4.3.0", wait=0))
        self.assertEqual(heard, b"-ERR Try later\r\n")

    def test_unfitText(self) -> None:
        """A text that does not fit the protocol is replaced."""
        for text in (b"a\r\n+OK", b"a\nb", b"a\0", b"\x1b[2J", b""):
            self.assertEqual(self.refusal(Denial(Trouble.DENIED, text))[1], b"-ERR [AUTH] Authentication failed\r\n")

    def test_latin1(self) -> None:
        """A text that is not UTF-8 is treated as Latin-1."""
        self.assertEqual(self.refusal(Denial(Trouble.DENIED, b"Ung\xfcltig"))[1], "-ERR [AUTH] Ungültig\r\n".encode())

    def test_wait(self) -> None:
        """Auth-Wait delays the refusal; commands that arrive meanwhile are obeyed after it."""
        conversation, heard = self.refusal(Denial(Trouble.DENIED, b"no", wait=3))
        self.assertEqual(heard, b"")
        self.assertEqual(conversation.says(b"NOOP"), b"")
        conversation.clock.advance(2.9)
        self.assertEqual(conversation.hear(), b"")
        conversation.clock.advance(0.1)
        self.assertEqual(conversation.hear(), b"-ERR [AUTH] no\r\n" + OK)


class WholeConversationTests(SynchronousTestCase):
    """Conversations that TCP splits anywhere."""

    chunks = (
        b"CAPA\r\nNOOP\r\n\r\nUSER joe\r\nPASS bad\r\nAUTH LOGIN\r\nam9l\r\n*\r\nAUTH PLAIN\r\nAGpvZQBiYWQ=\r\n"
        b"USER joe\r\nPASS sesame\r\nSTAT\r\nQUIT\r\n"
    )

    def make(self) -> Conversation:
        """A conversation in which two logins fail."""
        denial = Denial(Trouble.DENIED)
        backend = FakeClient(b"+OK hi\r\n")
        return converse(authenticator=FakeAuthenticator(denial, denial), connector=FakeConnector(backend))

    def test_everyCut(self) -> None:
        """The conversation is the same if it is cut in two at any position or into single bytes."""
        whole = hearEverything(self.make, self.chunks)
        self.assertTrue(whole.endswith(b"+OK hi\r\n"))
        for cut in range(1, len(self.chunks)):
            self.assertEqual(hearEverything(self.make, self.chunks[:cut], self.chunks[cut:]), whole)
        singly = [self.chunks[i : i + 1] for i in range(len(self.chunks))]
        self.assertEqual(hearEverything(self.make, *singly), whole)

    def test_pipelinedBehindLogin(self) -> None:
        """Pipelined bytes after the login reach the backend only."""
        backend = FakeClient(b"+OK hi\r\n", b"+OK too early\r\n")
        conversation = converse(connector=FakeConnector(backend))
        self.assertEqual(
            conversation.says(b"USER joe", b"PASS sesame", b"STAT", b"QUIT"), OK + b"+OK hi\r\n+OK too early\r\n"
        )
        self.assertEqual(backend.transport.value(), b"STAT\r\nQUIT\r\n")
