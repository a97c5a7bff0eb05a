"""
Behaviour that all dialogues share: deadlines, TLS, logins and their cancellation, the end, the log.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv6Address, UNIXAddress
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailgate.frontend.intake import READ_AHEAD
from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.interfaces import IAnswering
from mailgate.log.connection import LOGGED_IN, STORY
from mailgate.log.journal import Journal
from mailgate.log.rate import Rate
from mailgate.login import Backend, Credentials, Denial, LoginRequest, Method, Refusal, Route, TLSState, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.relay.settings import RelaySettings
from mailgate.session import Outcome, Phase, Session
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeClient, FakeConnector
from mailgate.testing.fakes import FakeHandle
from mailgate.tls.settings import TLSSettings

INTERNAL = b"-ERR [SYS/TEMP] Internal server error, closing connection\r\n"
TEMPORARY = b"-ERR [SYS/TEMP] Temporary authentication failure, try again later\r\n"
LOGIN = (b"USER joe", b"PASS sesame")


def converse(*groups: Any, **settings: Any) -> Conversation:
    """A POP3 conversation past its greeting."""
    conversation = Conversation(POP3, *groups, **settings)
    conversation.hear()
    return conversation


@implementer(IAnswering)
class Answering(FakeAuthenticator):
    """An authenticator that answers by coroutines."""

    def authenticate(self, request: LoginRequest) -> Any:
        raise AssertionError("a login needs no Deferred")

    async def answer(self, request: LoginRequest) -> Route | Denial:
        return await super().authenticate(request)


class DeadlineTests(SynchronousTestCase):
    """C{timeout} for each command, and ten times that in total."""

    def test_silence(self) -> None:
        """A silent client gets a goodbye, and the connection closes."""
        for record, goodbye in (
            (IMAP4, b"* BYE Timeout, closing connection\r\n"),
            (POP3, b"-ERR Timeout, closing connection\r\n"),
            (SMTP, b"421 4.4.2 Timeout, closing connection\r\n"),
        ):
            conversation = Conversation(record)
            conversation.hear()
            conversation.clock.advance(59)
            self.assertEqual(conversation.hear(), b"")
            conversation.clock.advance(1)
            self.assertEqual(conversation.hear(), goodbye)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)

    def test_perCommand(self) -> None:
        """Each complete command restarts the timeout; parts of one do not."""
        conversation = converse()
        for _ in range(5):
            conversation.clock.advance(50)
            self.assertEqual(conversation.says(b"NOOP"), b"+OK\r\n")
        conversation.clock.advance(50)
        conversation.send(b"NO")
        conversation.clock.advance(10)
        self.assertTrue(conversation.closed)

    def test_budget(self) -> None:
        """All commands together have ten times C{timeout}."""
        conversation = converse()
        for _ in range(BUDGET * 2 - 1):
            conversation.clock.advance(30)
            self.assertEqual(conversation.says(b"NOOP"), b"+OK\r\n")
        conversation.clock.advance(30)
        self.assertTrue(conversation.closed)
        self.assertIn(b"Timeout", conversation.hear())

    def test_duringLogin(self) -> None:
        """The total time limits a login; the timeout for a command does not. Then the login is cancelled."""
        authenticator = FakeAuthenticator(None)
        conversation = converse(authenticator=authenticator)
        conversation.says(*LOGIN)
        conversation.clock.advance(599)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertIn(b"Timeout", conversation.hear())
        self.assertEqual(authenticator.cancelled, 1)
        self.assertIs(conversation.server.session.reached, Phase.AUTH)

    def test_handshake(self) -> None:
        """A handshake that times out ends without a goodbye."""
        conversation = Conversation(POP3, ssl=True)
        conversation.clock.advance(60)
        self.assertEqual(conversation.hear(), b"")
        self.assertTrue(conversation.transport.aborted)

    def test_eachUnit(self) -> None:
        """A command, a response and STLS restart the time; half a command does not."""
        for lines, ends in (
            ((b"CAPA\r\n", b"CAPA\r\n"), 80),
            ((b"CAPA\r\n", b"CA"), 60),
            ((b"AUTH PLAIN\r\n", b"*\r\n"), 80),
            ((b"CAPA\r\n", b"STLS\r\n"), 80),
        ):
            conversation = converse(TLSSettings(starttls="on"))
            session = conversation.server.session
            for line in lines:
                conversation.send(line)
                conversation.clock.advance(20)
            conversation.clock.advance(ends - 40 - 1)
            self.assertIsNone(session.outcome, lines)
            conversation.clock.advance(2)
            self.assertIs(session.outcome, Outcome.TIMEOUT, lines)

    def test_stuckClosing(self) -> None:
        """A client that does not read the goodbye is aborted in the end."""
        conversation = converse()
        conversation.says(b"QUIT")
        self.assertFalse(conversation.transport.aborted)
        conversation.clock.advance(60)
        self.assertTrue(conversation.transport.aborted)

    def test_nothingLeft(self) -> None:
        """When the client has left, no timer is left."""
        for lines in ((), (b"QUIT",), (b"USER joe",), LOGIN):
            conversation = converse(connector=FakeConnector(None))
            conversation.says(*lines)
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])
            self.assertEqual(conversation.factory.connections, set())


class TLSTests(SynchronousTestCase):
    """STARTTLS and implicit TLS."""

    def test_discards(self) -> None:
        """Plaintext behind STLS is discarded, and the dialogue starts again."""
        conversation = converse(TLSSettings(starttls="on"))
        self.assertEqual(conversation.says(b"STLS", b"USER evil", b"PASS evil"), b"+OK\r\n")
        conversation.transport.shakeHands()
        self.assertEqual(conversation.hear(), b"")
        self.assertEqual(conversation.requests, [])
        conversation.says(b"PASS sesame")
        self.assertEqual(conversation.requests, [])

    def test_state(self) -> None:
        """The authenticator gets the negotiated TLS parameters."""
        conversation = converse(TLSSettings(starttls="only"))
        conversation.says(b"STLS")
        conversation.transport.shakeHands()
        conversation.says(*LOGIN)
        self.assertEqual(conversation.requests[0].client.tls, TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"))

    def test_notTwice(self) -> None:
        """TLS cannot be started under TLS."""
        conversation = Conversation(POP3, TLSSettings(starttls="on"), ssl=True)
        conversation.transport.shakeHands()
        conversation.hear()
        self.assertEqual(conversation.says(b"STLS"), b"-ERR TLS is active already\r\n")
        self.assertEqual(len(conversation.transport.tls), 1)

    def test_failure(self) -> None:
        """The session records a failed handshake."""
        conversation = Conversation(POP3, ssl=True)
        conversation.transport.lose(SSL.Error([("SSL routines", "", "wrong version number")]))
        session = conversation.server.session
        self.assertIs(session.outcome, Outcome.TLS_FAILED)
        self.assertEqual(session.reason, "wrong version number: the client does not speak TLS")

    def test_timeout(self) -> None:
        """On a timeout the session tells a silent client from one with an unfinished handshake."""
        for handle, reason in (
            (None, "the client sent nothing instead of a TLS handshake"),
            (FakeHandle(), "the client did not finish the TLS handshake"),
        ):
            conversation = Conversation(POP3, ssl=True)
            self.patch(conversation.transport, "getHandle", lambda handle=handle: handle)
            conversation.clock.advance(60)
            self.assertTrue(conversation.transport.aborted)
            session = conversation.server.session
            self.assertEqual((session.outcome, session.reason), (Outcome.TIMEOUT, reason))


class ClientTests(SynchronousTestCase):
    """The description of the client."""

    def test_addresses(self) -> None:
        """
        Addresses have no brackets; IPv4 clients of a dual-stack socket have IPv4 addresses; unix sockets have none.
        """
        for peer, host, port, name in (
            (IPv6Address("TCP", "2001:db8::7", 40123), "2001:db8::7", 40123, "[2001:db8::7]:40123"),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 40123), "192.0.2.7", 40123, "192.0.2.7:40123"),
            (UNIXAddress(b""), "unix:", 0, "unix:"),
        ):
            conversation = converse(peer=peer)
            conversation.says(*LOGIN)
            client = conversation.requests[0].client
            self.assertEqual((client.host, client.port), (host, port))
            self.assertEqual(conversation.server.session.client, name)


class LoginTests(SynchronousTestCase):
    """From the credentials to the relay."""

    def test_abandonedWhileJudged(self) -> None:
        """A client that leaves cancels its request to the authenticator. The log has no error."""
        for authenticator in (FakeAuthenticator(None), Answering(None)):
            conversation = converse(authenticator=authenticator)
            conversation.says(*LOGIN)
            conversation.transport.lose()
            self.assertEqual(authenticator.cancelled, 1)
            self.assertIs(conversation.server.session.outcome, Outcome.CLIENT_LEFT)
            self.assertEqual([event for event in conversation.events if "log_failure" in event], [])

    def test_answering(self) -> None:
        """An authenticator that answers by coroutines is not asked for a Deferred. It may accept, refuse, or fail."""
        authenticator = Answering(ZeroDivisionError(), Denial(Trouble.DENIED))
        conversation = converse(DialogueSettings(authDelay=0), authenticator=authenticator, connector=FakeConnector())
        self.assertEqual(conversation.says(*LOGIN), b"+OK\r\n" + TEMPORARY)
        self.assertIn(b"-ERR [AUTH]", conversation.says(*LOGIN))
        self.assertEqual(conversation.connector.routes, [])
        conversation.says(*LOGIN)
        self.assertEqual(conversation.connector.routes, [ROUTE])

    def test_abandonedWhileConnecting(self) -> None:
        """A client that leaves cancels the connect to its backend."""
        connector = FakeConnector(None)
        conversation = converse(connector=connector)
        conversation.says(*LOGIN)
        conversation.transport.lose()
        [pending] = connector.pending
        self.assertTrue(pending.called)

    def test_abandonedWhileWaiting(self) -> None:
        """A client that leaves during C{Auth-Wait} leaves no timer."""
        conversation = converse(authenticator=FakeAuthenticator(Denial(Trouble.DENIED, wait=30)))
        conversation.says(*LOGIN)
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_pipelinedWhileWaiting(self) -> None:
        """Commands that arrive during C{Auth-Wait} are obeyed after the refusal, a second login too."""
        denials = FakeAuthenticator(Denial(Trouble.DENIED, b"no", wait=30), Denial(Trouble.DENIED, b"never"))
        conversation = converse(authenticator=denials)
        self.assertEqual(conversation.says(*LOGIN, b"NOOP", *LOGIN, b"QUIT"), b"+OK\r\n")
        conversation.clock.advance(29.9)
        self.assertEqual(conversation.hear(), b"")
        conversation.clock.advance(0.1)
        self.assertEqual(conversation.hear(), b"-ERR [AUTH] no\r\n+OK\r\n+OK\r\n-ERR [AUTH] never\r\n+OK\r\n")
        self.assertEqual([request.attempt for request in denials.requests], [1, 2])

    def test_route(self) -> None:
        """The connector gets the authenticator's route, and the session its user."""
        route = Route((Backend("192.0.2.1", 110),), b"joe@c.test", b"other")
        connector = FakeConnector()
        conversation = converse(authenticator=FakeAuthenticator(route), connector=connector)
        conversation.says(*LOGIN)
        self.assertEqual(connector.routes, [route])
        self.assertEqual(conversation.server.session.user, b"joe@c.test")

    def test_backendFails(self) -> None:
        """A failed backend is a temporary failure, and the next login works."""
        connector = FakeConnector(Denial(Trouble.TEMPORARY), FakeClient(b"+OK in\r\n"))
        conversation = converse(connector=connector)
        self.assertEqual(conversation.says(*LOGIN), b"+OK\r\n" + TEMPORARY)
        self.assertEqual(conversation.says(*LOGIN), b"+OK\r\n+OK in\r\n")

    def test_refusal(self) -> None:
        """A backend's refusal that is passed on is the last line to the client."""
        conversation = converse(connector=FakeConnector(Refusal(b"-ERR mailbox locked\r\n")))
        self.assertEqual(conversation.says(*LOGIN), b"+OK\r\n-ERR mailbox locked\r\n")
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.BACKEND_REFUSED)

    def test_defect(self) -> None:
        """A bug of ours is logged with its traceback. The client sees nothing of it."""
        conversation = converse(connector=FakeConnector(ZeroDivisionError("secret detail")))
        self.assertEqual(conversation.says(*LOGIN), b"+OK\r\n" + INTERNAL)
        self.assertTrue(conversation.closed)
        [event] = [event for event in conversation.events if "log_failure" in event]
        self.assertTrue(event["log_failure"].check(ZeroDivisionError))

    def test_relayDefect(self) -> None:
        """A relay that fails at its start is logged and ended. The dialogue sends no goodbye."""

        class Broken:
            aborted = 0

            def start(self, toClient: bytes, toBackend: bytes) -> None:
                raise ZeroDivisionError("secret detail")

            def abort(self) -> None:
                self.aborted += 1

        broken: Any = Broken()
        conversation = converse()
        conversation.factory.relays.between = lambda *arguments: broken  # type: ignore[method-assign]
        self.assertEqual(conversation.says(*LOGIN), b"+OK\r\n")
        self.assertEqual(broken.aborted, 1)
        [event] = [event for event in conversation.events if "log_failure" in event]
        self.assertTrue(event["log_failure"].check(ZeroDivisionError))
        self.assertIs(conversation.server.session.outcome, Outcome.INTERNAL)

    def test_cancelledByItself(self) -> None:
        """An authenticator that cancels itself has failed like any other."""
        conversation = converse(authenticator=FakeAuthenticator(CancelledError()))
        self.assertEqual(conversation.says(*LOGIN), b"+OK\r\n" + TEMPORARY)

    def test_manyRefusals(self) -> None:
        """Any number of pipelined logins is refused one by one, without recursion."""
        denials = [Denial(Trouble.DENIED)] * 2000
        conversation = converse(DialogueSettings(maxCommands=4000), authenticator=FakeAuthenticator(*denials))
        heard = conversation.says(*LOGIN * 2000)
        self.assertEqual(heard.count(b"[AUTH]"), 2000)

    def test_floodDuringLogin(self) -> None:
        """The gateway stops reading from a client that floods it during its login. The bytes reach the backend."""
        authenticator = FakeAuthenticator(None)
        backend = FakeClient(b"+OK\r\n")
        conversation = converse(authenticator=authenticator, connector=FakeConnector(backend))
        conversation.says(*LOGIN)
        conversation.send(b"x" * READ_AHEAD)
        self.assertEqual(conversation.transport.producerState, "producing")
        conversation.send(b"y")
        self.assertEqual(conversation.transport.producerState, "paused")
        authenticator.pending[0].callback(ROUTE)
        self.assertEqual(conversation.transport.producerState, "producing")
        self.assertEqual(backend.transport.value(), b"x" * READ_AHEAD + b"y")

    def test_relay(self) -> None:
        """After the login bytes pass both ways, and no timer of the dialogue is left."""
        backend = FakeClient(b"+OK\r\n")
        conversation = converse(RelaySettings(timeout=86400.0), connector=FakeConnector(backend))
        conversation.says(*LOGIN)
        conversation.send(b"STAT\r\n")
        self.assertEqual(backend.transport.value(), b"STAT\r\n")
        backend.dataReceived(b"+OK 0 0\r\n")
        self.assertEqual(conversation.hear(), b"+OK 0 0\r\n")
        conversation.clock.advance(3600)
        self.assertFalse(conversation.closed)


class StopTests(SynchronousTestCase):
    """The gateway stops."""

    def test_everyPhase(self) -> None:
        """A stop ends connections in every phase at once."""
        for lines in ((), (b"QUIT",), LOGIN):
            for connector in (FakeConnector(), FakeConnector(None)):
                conversation = converse(connector=connector)
                conversation.says(*lines)
                (connection,) = conversation.factory.connections
                connection.stop()
                self.assertTrue(conversation.transport.aborted)

    def test_goodbye(self) -> None:
        """A client before login gets the protocol's goodbye, and the connection closes."""
        for record, goodbye in (
            (IMAP4, b"* BYE Gateway is shutting down, closing connection\r\n"),
            (POP3, b"-ERR [SYS/TEMP] Gateway is shutting down, closing connection\r\n"),
            (SMTP, b"421 4.3.2 Gateway is shutting down, closing connection\r\n"),
        ):
            conversation = Conversation(record)
            conversation.hear()
            conversation.dismiss()
            self.assertEqual(conversation.hear(), goodbye)
            self.assertTrue(conversation.closed)
            self.assertFalse(conversation.transport.aborted)
            self.assertIs(conversation.server.session.outcome, Outcome.STOPPED)
            conversation.dismiss()
            self.assertEqual(conversation.hear(), b"")

    def test_unspoken(self) -> None:
        """During a handshake there is no goodbye."""
        shaking = Conversation(POP3, ssl=True)
        shaking.dismiss()
        self.assertEqual(shaking.hear(), b"")
        self.assertTrue(shaking.transport.aborted)

    def test_loginUnderWay(self) -> None:
        """A running login is cancelled, at the authenticator or at a backend. The client gets only the goodbye."""
        for authenticator, connector in (
            (FakeAuthenticator(None), FakeConnector()),
            (FakeAuthenticator(), FakeConnector(None)),
        ):
            conversation = converse(authenticator=authenticator, connector=connector)
            conversation.says(*LOGIN)
            conversation.dismiss()
            self.assertIn(b"shutting down", conversation.hear())
            self.assertTrue(conversation.closed)
            self.assertEqual(authenticator.cancelled, len(authenticator.pending))
            conversation.transport.lose()
            self.assertEqual(conversation.hear(), b"")
            self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_outcome(self) -> None:
        """The session records the outcome."""
        conversation = converse()
        conversation.server.stop()
        conversation.transport.lose()
        self.assertIs(conversation.server.session.outcome, Outcome.STOPPED)


class LogTests(SynchronousTestCase):
    """One log event describes the connection."""

    def test_story(self) -> None:
        """At info a login is a line. The line at the end has client, TLS, backend, phase, outcome and bytes."""
        backend = FakeClient(b"+OK\r\n")
        conversation = converse(connector=FakeConnector(backend))
        conversation.clock.advance(0.25)
        conversation.says(*LOGIN)
        conversation.send(b"STAT\r\n")
        conversation.clock.advance(2.5)
        backend.transport.lose()
        conversation.transport.lose()
        self.assertEqual(
            conversation.logged(),
            [
                "logged in: client 192.0.2.7:40123, protocol pop3, tls no, method plain, backend -, times proxy=0 tls=0"
                " greeting=0 command=250 auth=0 connect=0 backend-tls=0 backend-login=0, server 127.0.0.1:143,"
                ' session 00007.00, user "joe"',
                "connection ended: client 192.0.2.7:40123, protocol pop3, tls no, method plain, attempts 1, backend -,"
                " reached relay, outcome relayed, seconds 2.750, received 6, sent 5, times proxy=0 tls=0 greeting=0"
                " command=250 auth=0 connect=0 backend-tls=0 backend-login=0, server 127.0.0.1:143, session 00007.00,"
                ' user "joe"',
            ],
        )

    def test_once(self) -> None:
        """The line is logged once."""
        for lines in ((), (b"QUIT",), LOGIN):
            conversation = converse(connector=FakeConnector(None))
            conversation.says(*lines)
            conversation.transport.lose()
            self.assertEqual(len([text for text in conversation.logged() if "connection ended" in text]), 1)

    def test_unwanted(self) -> None:
        """At error the line is not even built."""
        conversation = converse(level=LogLevel.error, authenticator=FakeAuthenticator(Denial(Trouble.DENIED)))
        conversation.says(*LOGIN, b"AUTH PLAIN *", b"x" * 5000)
        conversation.transport.lose()
        self.assertEqual(conversation.events, [])

    def test_noSecrets(self) -> None:
        """No event contains a password. Names are logged without control characters."""
        conversation = converse(
            POP3Settings(auth=("plain",)), authenticator=FakeAuthenticator(*[Denial(Trouble.DENIED, b"no\r\nway")] * 2)
        )
        conversation.says(b"USER jo\x1be", b"PASS sesame")
        conversation.says(b"AUTH PLAIN AGpvDQoyMDI2LTExLTIyIFtlcnJvcl0gZmFrZQBzZXNhbWU=")
        conversation.transport.lose()
        log = "\n".join(conversation.logged())
        self.assertNotIn("sesame", log)
        self.assertNotIn("sesame", repr(conversation.events))
        self.assertIn('user "jo\\x1be"', log)
        self.assertNotIn("\r", log)
        self.assertEqual(len(log.split("\n")), 3)

    def test_repr(self) -> None:
        """Values do not show their secrets."""
        self.assertNotIn("sesame", repr(Credentials(Method.PLAIN, b"joe", b"sesame")))
        self.assertNotIn("sesame", repr(Route((), b"joe", b"sesame")))

    def test_timeoutSetting(self) -> None:
        """The deadline is the configured one."""
        conversation = Conversation(POP3, DialogueSettings(serverName="mx.test", timeout=5))
        conversation.clock.advance(5)
        self.assertTrue(conversation.closed)


class StoryTests(SynchronousTestCase):
    """The line at the end of a connection, under C{log_rate}."""

    def test_limit(self) -> None:
        """C{log_rate} limits lines that strangers cause, and never those about logged-in users."""
        for lines, amount in ((LOGIN, 9), ((b"QUIT",), 2)):
            clock = Clock()
            events: list[Any] = []
            publisher = LogPublisher(events.append)  # type: ignore[arg-type]
            journal = Journal(LogLevel.info, publisher, Rate(2, 1.0), clock)
            for _ in range(9):
                conversation = converse(connector=FakeConnector(FakeClient()))
                conversation.factory.journal = conversation.server._journal = journal
                conversation.says(*lines)
                session = conversation.server.session
                ended: Any = conversation.server if session.phase is Phase.END else Ended(session)
                conversation.factory.ended(ended)
            stories = [event for event in events if event["log_format"] == STORY]
            self.assertEqual(len(stories), amount, lines)
            logins = [event for event in events if event["log_format"] == LOGGED_IN]
            self.assertEqual(len(logins), 9 if lines is LOGIN else 0)
            journal.flush()


class Ended:
    """A relay that has ended, as its factory sees it."""

    def __init__(self, session: Session) -> None:
        self.session = session
