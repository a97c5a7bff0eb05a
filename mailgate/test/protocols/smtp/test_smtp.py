"""
The SMTP dialogue before login, byte for byte as in nginx.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Credentials, Denial, Envelope, Method, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.server import SMTPServer
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.protocols.smtp.trust import xtext
from mailgate.session import Outcome, Phase
from mailgate.test.support.reversedns import FakeReverseDNS
from mailgate.testing import CLIENT, Conversation, FakeAuthenticator, FakeClient, FakeConnector, hearEverything
from mailgate.tls.settings import TLSSettings

OK = b"250 2.0.0 OK\r\n"
EARLY = (
    b"503 5.5.0 Improper use of SMTP command pipelining\r\n"
    b"421 4.5.0 Client spoke before the greeting, closing connection\r\n"
)
INVALID = b"500 5.5.1 Invalid command\r\n"
ARGUMENT = b"501 5.5.4 Invalid argument\r\n"
SEQUENCE = b"503 5.5.1 Bad sequence of commands\r\n"
NO_STARTTLS = b"502 5.5.1 STARTTLS is not offered here\r\n"
LOGIN_FIRST = b"530 5.7.1 Authentication required\r\n"
CANCELLED = b"501 5.7.0 Authentication cancelled\r\n"
NOT_BASE64 = b"501 5.5.2 Invalid base64 data\r\n"
UNSUPPORTED = b"504 5.5.4 Unsupported authentication mechanism\r\n"


def converse(*auth: str, **settings: Any) -> Conversation:
    """A conversation past its greeting, with the methods C{auth} or the default."""
    conversation = Conversation(SMTP, SMTPSettings(auth=auth or ("plain", "login")), **settings)
    conversation.hear()
    return conversation


class GreetingTests(SynchronousTestCase):
    """The greeting, and input before it."""

    def test_greeting(self) -> None:
        """It has the server's name."""
        self.assertEqual(Conversation(SMTP).hear(), b"220 mx.test ESMTP ready\r\n")

    def test_delay(self) -> None:
        """smtp_greeting_delay delays it, and the client's timeout starts after it."""
        conversation = Conversation(SMTP, SMTPSettings(greetingDelay=5))
        self.assertEqual(conversation.hear(), b"")
        conversation.clock.advance(5)
        self.assertEqual(conversation.hear(), b"220 mx.test ESMTP ready\r\n")
        conversation.clock.advance(59)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertEqual(conversation.hear(), b"421 4.4.2 Timeout, closing connection\r\n")

    def test_early(self) -> None:
        """A client that sends something before it is refused."""
        conversation = Conversation(SMTP, SMTPSettings(greetingDelay=5))
        self.assertEqual(conversation.says(b"EHLO x", b"NOOP"), EARLY)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.EARLY)
        conversation.clock.advance(5)
        self.assertEqual(conversation.hear(), b"")

    def test_leavesDuringDelay(self) -> None:
        """A client that leaves before it leaves no timer."""
        conversation = Conversation(SMTP, SMTPSettings(greetingDelay=5))
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])


class ClientNameTests(SynchronousTestCase):
    """With a resolver the client's name is looked up before the greeting."""

    greeting = b"220 mx.test ESMTP ready\r\n"

    def converse(self, known: str | None = None, **settings: Any) -> Conversation:
        self.names = FakeReverseDNS(known)
        return Conversation(SMTP, SMTPSettings(**settings), reverseDNS=self.names)

    def named(self, conversation: Conversation) -> str:
        """The client's name in the login request."""
        conversation.says(b"AUTH PLAIN AGpvZQBzZXNhbWU=")
        return conversation.requests[-1].client.name

    def test_withheld(self) -> None:
        """The greeting waits for the name of the client's address; the name goes to the authenticator."""
        conversation = self.converse()
        self.assertEqual(conversation.hear(), b"")
        self.assertIs(conversation.server.session.phase, Phase.GREETING)
        self.assertEqual(self.names.asked, [CLIENT.host])
        self.names.pending[0].callback("client.example")
        self.assertEqual(conversation.hear(), self.greeting)
        self.assertEqual(self.named(conversation), "client.example")

    def test_known(self) -> None:
        """A name that is known at once delays nothing."""
        conversation = self.converse("client.example")
        self.assertEqual(conversation.hear(), self.greeting)
        self.assertEqual(self.named(conversation), "client.example")

    def test_without(self) -> None:
        """Without a resolver there is no name."""
        self.assertEqual(self.named(converse()), "[UNAVAILABLE]")

    def test_adjusted(self) -> None:
        """The name is looked up for the address in the PROXY header, not for that of the transport."""
        self.patch(SMTPServer, "makeConnection", _movedBefore(SMTPServer.makeConnection, "203.0.113.9"))
        conversation = self.converse("client.example")
        self.assertEqual(self.names.asked, ["203.0.113.9"])
        self.assertEqual(self.named(conversation), "client.example")

    def test_unixSocket(self) -> None:
        """The look-up for a client of a unix socket gets C{unix:}."""
        self.names = FakeReverseDNS("[TEMPUNAVAIL]")
        conversation = Conversation(SMTP, peer=UNIXAddress(None), reverseDNS=self.names)
        self.assertEqual(self.names.asked, ["unix:"])
        self.assertEqual(self.named(conversation), "[TEMPUNAVAIL]")

    def test_otherProtocols(self) -> None:
        """Other protocols look up no names."""
        names = FakeReverseDNS()
        self.assertIn(b"+OK", Conversation(POP3, reverseDNS=names).hear())
        self.assertEqual(names.asked, [])

    def test_earlyInput(self) -> None:
        """Input during the look-up is not refused, but obeyed after the greeting."""
        conversation = self.converse()
        self.assertEqual(conversation.says(b"NOOP", b"QUIT"), b"")
        self.assertFalse(conversation.closed)
        self.names.pending[0].callback("client.example")
        self.assertEqual(conversation.hear(), self.greeting + OK + b"221 2.0.0 Bye\r\n")

    def test_earlyFlood(self) -> None:
        """Only a limited part of it is buffered; the rest is read later."""
        conversation = self.converse()
        while conversation.transport.producerState == "producing":
            conversation.server.dataReceived(b"NOOP\r\n" * 1000)
        self.assertLess(len(conversation.server.takeAll()), 200000)
        self.names.pending[0].callback("client.example")
        self.assertEqual(conversation.transport.producerState, "producing")

    def test_thenDelay(self) -> None:
        """smtp_greeting_delay follows the look-up; input during the delay is refused."""
        conversation = self.converse(greetingDelay=5)
        conversation.clock.advance(20)
        self.names.pending[0].callback("client.example")
        conversation.clock.advance(4)
        self.assertEqual(conversation.hear(), b"")
        conversation.clock.advance(1)
        self.assertEqual(conversation.hear(), self.greeting)

    def test_earlyInDelay(self) -> None:
        """Input during the delay is refused; input from before it is refused when the delay begins."""
        refusal = EARLY
        conversation = self.converse(greetingDelay=5)
        self.names.pending[0].callback("client.example")
        self.assertEqual(conversation.says(b"EHLO x"), refusal)
        conversation = self.converse(greetingDelay=5)
        self.assertEqual(conversation.says(b"EHLO x"), b"")
        self.names.pending[0].callback("client.example")
        self.assertEqual(conversation.hear(), refusal)
        self.assertIs(conversation.server.session.outcome, Outcome.EARLY)

    def test_leaves(self) -> None:
        """A client that leaves meanwhile cancels the look-up and leaves no timer."""
        conversation = self.converse()
        conversation.transport.lose()
        self.assertEqual(self.names.left, self.names.pending)
        self.assertIs(conversation.server.session.outcome, Outcome.SILENT)
        self.assertEqual(conversation.clock.getDelayedCalls(), [])
        self.assertEqual(conversation.hear(), b"")

    def test_stopped(self) -> None:
        """So does a stop of the gateway."""
        conversation = self.converse()
        conversation.server.stop()
        self.assertEqual(self.names.left, self.names.pending)

    def test_time(self) -> None:
        """The look-up does not count against the client's time, however long it takes."""
        self.names = FakeReverseDNS()
        self.names.longest = 6000
        conversation = Conversation(SMTP, reverseDNS=self.names)
        conversation.clock.advance(5999)
        self.assertFalse(conversation.closed)
        self.names.pending[0].callback("client.example")
        self.assertEqual(conversation.hear(), self.greeting)
        conversation.clock.advance(59)
        self.assertEqual(conversation.says(b"NOOP"), OK)
        conversation.clock.advance(60)
        self.assertEqual(conversation.hear(), b"421 4.4.2 Timeout, closing connection\r\n")

    def test_deadline(self) -> None:
        """A look-up that never ends ends the connection."""
        conversation = self.converse()
        conversation.clock.advance(self.names.longest + 60)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)
        self.assertEqual(self.names.left, self.names.pending)

    def test_implicitTLS(self) -> None:
        """With implicit TLS the look-up follows the handshake."""
        self.names = FakeReverseDNS()
        conversation = Conversation(SMTP, ssl=True, reverseDNS=self.names)
        self.assertEqual(self.names.asked, [])
        conversation.transport.shakeHands()
        self.names.pending[0].callback("client.example")
        self.assertEqual(conversation.hear(), self.greeting)


def _movedBefore(makeConnection: Any, host: str) -> Any:
    """C{makeConnection} for a client whose PROXY header has the address C{host}."""

    def moved(server: SMTPServer, transport: Any) -> None:
        greet = server.greet

        def greetAt() -> None:
            server._host = host
            greet()

        server.greet = greetAt  # type: ignore[method-assign]
        makeConnection(server, transport)

    return moved


class HelloTests(SynchronousTestCase):
    """HELO and EHLO."""

    def test_helo(self) -> None:
        """The reply to HELO has only the name."""
        self.assertEqual(converse().says(b"HELO c.test"), b"250 mx.test\r\n")

    def test_ehlo(self) -> None:
        """EHLO lists the mechanisms."""
        self.assertEqual(converse().says(b"EHLO c.test"), b"250-mx.test\r\n250 AUTH PLAIN LOGIN\r\n")
        self.assertEqual(converse("none").says(b"ehlo c.test"), b"250 mx.test\r\n")

    def test_onePiece(self) -> None:
        """The reply to EHLO is one piece: each piece is a system call, and a record of TLS."""
        conversation = converse()
        pieces: list[bytes] = []
        self.patch(conversation.transport, "write", pieces.append)
        conversation.says(b"EHLO c.test")
        self.assertEqual(pieces, [b"250-mx.test\r\n250 AUTH PLAIN LOGIN\r\n"])

    def test_everything(self) -> None:
        """Capabilities first, then AUTH in nginx's order, STARTTLS last."""
        conversation = Conversation(
            SMTP,
            SMTPSettings(auth=("plain", "cram-md5", "external"), capabilities=("SIZE 1000", "8BITMIME")),
            TLSSettings(starttls="on"),
        )
        self.assertEqual(
            conversation.says(b"EHLO c.test"),
            b"250-mx.test\r\n250-SIZE 1000\r\n250-8BITMIME\r\n250-AUTH PLAIN CRAM-MD5 EXTERNAL\r\n250 STARTTLS\r\n",
        )

    def test_starttlsOnly(self) -> None:
        """If TLS is required, AUTH is not offered in the clear."""
        conversation = Conversation(SMTP, TLSSettings(starttls="only"))
        self.assertEqual(conversation.says(b"EHLO c.test"), b"250-mx.test\r\n250 STARTTLS\r\n")

    def test_arguments(self) -> None:
        """HELO needs one name, of printable characters."""
        conversation = converse()
        self.assertEqual(conversation.says(b"EHLO", b"HELO a b", b"HELO a\tb", b"EHLO \x01"), ARGUMENT * 4)


class CommandTests(SynchronousTestCase):
    """Commands without a login."""

    def test_trivial(self) -> None:
        """NOOP and RSET have hardly an effect, QUIT ends the connection."""
        conversation = converse()
        self.assertEqual(conversation.says(b"noop x", b"RSET ", b"QUIT", b"NOOP"), OK * 2 + b"221 2.0.0 Bye\r\n")
        self.assertIs(conversation.server.session.outcome, Outcome.QUIT)

    def test_errors(self) -> None:
        """Unknown commands count as errors; known ones do not."""
        conversation = converse()
        useless = (b"VRFY x", b"EXPN x", b"DATA", b"HELP", b"STARTTLS")
        missing = b"502 5.5.1 Command not implemented\r\n"
        self.assertEqual(conversation.says(*useless * 3), (LOGIN_FIRST * 3 + missing + NO_STARTTLS) * 3)
        self.assertFalse(conversation.closed)
        goodbye = b"421 4.7.0 Too many invalid commands, closing connection\r\n"
        errors = (b"DATUM", b"", b" NOOP", b"NOOP\0", b"NOOP" + b" x" * 12)
        self.assertEqual(conversation.says(*errors, b"NOOP"), INVALID * 5 + goodbye)
        self.assertTrue(conversation.closed)

    def test_tooLong(self) -> None:
        """A line that is too long ends the connection."""
        conversation = converse()
        self.assertEqual(
            conversation.says(b"NOOP " + b"x" * 5000), INVALID + b"421 4.5.2 Command too long, closing connection\r\n"
        )
        self.assertIs(conversation.server.session.outcome, Outcome.TOO_LONG)

    def test_starttls(self) -> None:
        """STARTTLS resets HELO and MAIL, and bytes after it in the clear are discarded."""
        conversation = Conversation(SMTP, SMTPSettings(auth=("none", "plain")), TLSSettings(starttls="on"))
        conversation.hear()
        conversation.says(b"EHLO c.test", b"MAIL FROM:<a@c.test>")
        self.assertEqual(conversation.says(b"STARTTLS", b"EHLO evil"), b"220 2.0.0 Start TLS\r\n")
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), b"")
        self.assertEqual(conversation.says(b"RCPT TO:<b@c.test>"), SEQUENCE)
        self.assertEqual(conversation.says(b"EHLO c.test"), b"250-mx.test\r\n250 AUTH PLAIN\r\n")
        self.assertEqual(conversation.says(b"STARTTLS"), b"503 5.5.1 TLS is active already\r\n")

    def test_extendedIsForgotten(self) -> None:
        """EHLO in the clear does not count under TLS."""
        conversation = Conversation(SMTP, TLSSettings(starttls="on"))
        conversation.says(b"EHLO c.test", b"STARTTLS")
        conversation.transport.shakeHands()
        conversation.says(b"HELO c.test", b"AUTH PLAIN AGpvZQBzZXNhbWU=")
        self.assertEqual(conversation.requests[0].envelope, Envelope(b"c.test", False))

    def test_demandedTLS(self) -> None:
        """If TLS is required, AUTH and MAIL are refused in the clear (nginx accepts MAIL)."""
        conversation = Conversation(SMTP, SMTPSettings(auth=("none", "plain")), TLSSettings(starttls="only"))
        conversation.hear()
        must = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
        lines = (b"AUTH", b"AUTH PLAIN AGpvZQBzZXNhbWU=", b"MAIL FROM:<a@c.test>", b"RCPT TO:<a@c.test>")
        self.assertEqual(conversation.says(*lines), must * 4)
        self.assertEqual(conversation.requests, [])


class AuthTests(SynchronousTestCase):
    """AUTH."""

    def test_plain(self) -> None:
        """AUTH PLAIN logs in. The client gets our reply, not the backend's."""
        backend = FakeClient(b"235 2.7.0 from the backend\r\n")
        conversation = converse(connector=FakeConnector(backend))
        conversation.says(b"EHLO c.test")
        self.assertEqual(conversation.says(b"AUTH PLAIN AGpvZQBzZXNhbWU="), b"235 2.0.0 OK\r\n")
        [request] = conversation.requests
        self.assertEqual(request.credentials, Credentials(Method.PLAIN, b"joe", b"sesame"))
        self.assertEqual(request.envelope, Envelope(b"c.test", True))
        self.assertIs(conversation.server.session.phase, Phase.RELAY)

    def test_challenges(self) -> None:
        """The challenges are nginx's."""
        conversation = converse("plain", "login", "cram-md5")
        self.assertEqual(conversation.says(b"AUTH PLAIN", b"*"), b"334 \r\n" + CANCELLED)
        self.assertEqual(conversation.says(b"AUTH LOGIN"), b"334 VXNlcm5hbWU6\r\n")
        self.assertEqual(conversation.says(b"am9l", b"%"), b"334 UGFzc3dvcmQ6\r\n" + NOT_BASE64)
        self.assertEqual(conversation.says(b"AUTH LOGIN am9l", b"*"), b"334 UGFzc3dvcmQ6\r\n" + CANCELLED)
        self.assertEqual(conversation.says(b"AUTH CRAM-MD5", b"*"), b"334 PDcuMTAwMEBteC50ZXN0Pg==\r\n" + CANCELLED)

    def test_arguments(self) -> None:
        """AUTH needs a mechanism that is offered."""
        conversation = converse("plain")
        self.assertEqual(
            conversation.says(b"AUTH", b"AUTH LOGIN", b"AUTH PLAIN a b"), ARGUMENT + UNSUPPORTED + ARGUMENT
        )

    def refusal(self, denial: Denial) -> bytes:
        """The output for a login that is answered with C{denial}."""
        conversation = converse(authenticator=FakeAuthenticator(denial))
        return conversation.says(b"AUTH PLAIN AGpvZQBzZXNhbWU=")

    def test_refusals(self) -> None:
        """Refusals follow RFC 4954, unless the authentication service has its own words."""
        for denial, heard in (
            (Denial(Trouble.DENIED), b"535 5.7.8 Authentication failed\r\n"),
            (Denial(Trouble.TEMPORARY), b"454 4.7.0 Temporary authentication failure\r\n"),
            (Denial(Trouble.DENIED, b"no"), b"535 5.7.0 no\r\n"),
            (Denial(Trouble.DENIED, b"later", b"451 4.3.2"), b"451 4.3.2 later\r\n"),
            (Denial(Trouble.DENIED, b"later", b"451"), b"451 later\r\n"),
            (Denial(Trouble.DENIED, None, b"451 4.3.2"), b"451 4.3.2 Authentication failed\r\n"),
            (Denial(Trouble.DENIED, b"no", b"235 2.0.0"), b"535 5.7.0 no\r\n"),
            (Denial(Trouble.TEMPORARY, b"no", b"535 5.7.8"), b"454 4.7.0 Temporary authentication failure\r\n"),
            (Denial(Trouble.DENIED, b"no", b"-ERR"), b"535 5.7.0 no\r\n"),
            (Denial(Trouble.DENIED, b"a\r\n250 b", b"x\r\n"), b"535 5.7.8 Authentication failed\r\n"),
        ):
            self.assertEqual(self.refusal(denial), heard)


class WithoutLoginTests(SynchronousTestCase):
    """C{smtp_auth none}: the service judges the first recipient."""

    def test_notConfigured(self) -> None:
        """Without it, MAIL requires a login, and the log names the client."""
        conversation = converse()
        self.assertEqual(conversation.says(b"MAIL FROM:<a@c.test>"), b"530 5.7.1 Authentication required\r\n")
        self.assertEqual(conversation.says(b"RCPT TO:<a@c.test>"), SEQUENCE)
        self.assertIn(', session 00007.00, command "MAIL FROM:<a@c.test>"', "".join(conversation.logged()))

    def test_recipient(self) -> None:
        """The first RCPT starts a login with both lines unchanged, and the backend's reply goes to the client."""
        backend = FakeClient(b"550-no\r\n550 such user\r\n")
        conversation = converse("none", connector=FakeConnector(backend))
        conversation.says(b"HELO c.test")
        self.assertEqual(conversation.says(b"mail FROM:<a@c.test>  SIZE=1  "), OK)
        self.assertEqual(conversation.says(b"RCPT TO:<b@c.test> "), b"550-no\r\n550 such user\r\n")
        [request] = conversation.requests
        self.assertEqual(request.credentials, Credentials(Method.NONE))
        self.assertEqual(
            request.envelope, Envelope(b"c.test", False, b"mail FROM:<a@c.test>  SIZE=1", b"RCPT TO:<b@c.test>")
        )

    def test_sequence(self) -> None:
        """MAIL comes once and before RCPT. RSET and HELO reset it."""
        conversation = converse("none")
        self.assertEqual(conversation.says(b"RCPT TO:<a@c.test>", b"MAIL"), SEQUENCE + ARGUMENT)
        self.assertEqual(conversation.says(b"MAIL FROM:<>", b"MAIL FROM:<>", b"RCPT"), OK + SEQUENCE + ARGUMENT)
        self.assertEqual(conversation.says(b"RSET", b"MAIL FROM:<>"), OK * 2)
        conversation.says(b"HELO c.test")
        self.assertEqual(conversation.says(b"RCPT TO:<a@c.test>"), SEQUENCE)

    def test_unasked(self) -> None:
        """
        A message that is sent without waiting for the reply to DATA is not parsed as commands, even if it looks like
        them.
        """
        goodbye = b"421 4.5.4 Data of a refused command cannot be skipped, closing connection\r\n"
        message = b"Subject: x\r\nRSET\r\nMAIL FROM:<ceo@c.test>\r\nRCPT TO:<b@c.test>\r\n.\r\nQUIT\r\n"
        no = b"550 5.1.1 no\r\n"
        later = (b"data\r\nNOOP\r\nDATA \r\n" + message[:5], message[5:])
        for parts in ((b"DATA\r\n" + message,), (b"DATA\r\n", message), later):
            denial = Denial(Trouble.DENIED, b"no", b"550 5.1.1")
            conversation = converse("none", authenticator=FakeAuthenticator(denial))
            self.assertEqual(conversation.says(b"MAIL FROM:<>", b"RCPT TO:<a@c.test>"), OK + no)
            heard = b"".join(map(conversation.send, parts))
            self.assertTrue(heard.endswith(b"554 5.5.1 No valid recipients\r\n" + INVALID + goodbye), heard)
            self.assertTrue(conversation.closed)
            self.assertEqual(len(conversation.requests), 1)

    def test_refusedMessages(self) -> None:
        """Commands after a refused DATA are obeyed, pipelined or not."""
        conversation = converse("none")
        sent = (b"DATA", b"RSET", b"DATA", b"MAIL FROM:<>", b"RSET", b"FOO", b"DATA", b"QUIT")
        heard = (SEQUENCE, OK, SEQUENCE, OK, OK, INVALID, SEQUENCE, b"221 2.0.0 Bye\r\n")
        self.assertEqual(conversation.says(*sent), b"".join(heard))

    def test_refusals(self) -> None:
        """A refused recipient keeps the sender, and another one can be tried."""
        denials = (
            Denial(Trouble.TEMPORARY),
            Denial(Trouble.DENIED),
            Denial(Trouble.UNAUTHORIZED),
            Denial(Trouble.PERMANENT),
            Denial(Trouble.DENIED, b"no such user", b"550 5.1.1", wait=1),
        )
        conversation = converse("none", authenticator=FakeAuthenticator(*denials))
        conversation.says(b"MAIL FROM:<>")
        self.assertEqual(conversation.says(b"RCPT TO:<a@c.test>"), b"451 4.3.0 Temporary failure, try again later\r\n")
        for _ in range(3):
            self.assertEqual(conversation.says(b"RCPT TO:<a@c.test>"), b"550 5.7.1 Recipient refused\r\n")
        self.assertEqual(conversation.says(b"RCPT TO:<a@c.test>"), b"")
        conversation.clock.advance(1)
        self.assertEqual(conversation.hear(), b"550 5.1.1 no such user\r\n")
        conversation.says(b"RCPT TO:<b@c.test>")
        self.assertEqual(
            [request.envelope.recipient for request in conversation.requests[4:]],
            [b"RCPT TO:<a@c.test>", b"RCPT TO:<b@c.test>"],
        )

    def test_refusedThenAuth(self) -> None:
        """A failed login after a refused recipient gets the reply of a login."""
        conversation = converse("none", "plain", authenticator=FakeAuthenticator(*[Denial(Trouble.TEMPORARY)] * 2))
        conversation.says(b"MAIL FROM:<>", b"RCPT TO:<a@c.test>")
        self.assertEqual(
            conversation.says(b"AUTH PLAIN AGpvZQBzZXNhbWU="), b"454 4.7.0 Temporary authentication failure\r\n"
        )
        self.assertEqual(conversation.requests[1].envelope, Envelope())


class WholeConversationTests(SynchronousTestCase):
    """Conversations that TCP splits anywhere."""

    def assertSameEverywhere(self, make: Any, chunks: bytes, end: bytes) -> None:
        """The conversation is the same wherever it is cut."""
        whole = hearEverything(make, chunks)
        self.assertTrue(whole.endswith(end), whole)
        for cut in range(1, len(chunks)):
            self.assertEqual(hearEverything(make, chunks[:cut], chunks[cut:]), whole)
        self.assertEqual(hearEverything(make, *(chunks[i : i + 1] for i in range(len(chunks)))), whole)

    def test_auth(self) -> None:
        """A login after a failed one."""
        self.assertSameEverywhere(
            lambda: Conversation(SMTP, authenticator=FakeAuthenticator(Denial(Trouble.DENIED))),
            b"EHLO c.test\r\nNOOP\n\r\nMAIL FROM:<>\r\nAUTH LOGIN\r\nam9l\r\n*\r\nAUTH LOGIN\r\nam9l\r\nYmFk\r\n"
            b"AUTH PLAIN\r\nAGpvZQBzZXNhbWU=\r\nMAIL FROM:<>\r\nQUIT\r\n",
            b"235 2.0.0 OK\r\n",
        )

    def test_recipient(self) -> None:
        """A recipient after a refused one."""
        self.assertSameEverywhere(
            lambda: Conversation(
                SMTP,
                SMTPSettings(auth=("none",)),
                authenticator=FakeAuthenticator(Denial(Trouble.DENIED)),
                connector=FakeConnector(FakeClient(b"250-yes\r\n250 indeed\r\n")),
            ),
            b"HELO c.test\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nRCPT TO:<b>\r\nDATA\r\n.\r\n",
            b"250-yes\r\n250 indeed\r\n",
        )

    def test_pipelinedBehindRecipient(self) -> None:
        """Pipelined bytes after the first recipient reach the backend."""
        backend = FakeClient(b"250 ok\r\n")
        conversation = converse("none", connector=FakeConnector(backend))
        lines = (b"HELO c", b"MAIL FROM:<>", b"RCPT TO:<a>", b"RCPT TO:<b>", b"DATA")
        self.assertTrue(conversation.says(*lines).endswith(OK + b"250 ok\r\n"))
        self.assertEqual(backend.transport.value(), b"RCPT TO:<b>\r\nDATA\r\n")


class XtextTests(SynchronousTestCase):
    """The encoding of the login in XCLIENT."""

    def test_xtext(self) -> None:
        """Blanks, controls, +, = and everything but ASCII are encoded; nothing else is."""
        self.assertEqual(xtext(b"joe@c.test"), b"joe@c.test")
        self.assertEqual(xtext(b"a b+c=d\r\n\x7f\xc3"), b"a+20b+2Bc+3Dd+0D+0A+7F+C3")
