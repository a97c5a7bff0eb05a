"""
Tests for L{mailgate.backend.client}: conversations without a client, with several logins, and over transports that
reply within a write.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.backend.caller import Caller
from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.errors import BackendError, LoginRefused, Unauthorizing
from mailgate.backend.place import Place
from mailgate.backend.settings import ProxySettings
from mailgate.frontend.protocol import MailProtocol
from mailgate.interfaces import IConnector
from mailgate.login import Backend, BackendTLS, Denial, Trouble
from mailgate.net.endpoints import beginning, endpointFor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.session import Phase
from mailgate.test.backend.test_backendtls import leftOver
from mailgate.test.backend.test_client import FIRST, GREETING, LOGGED_IN, OK
from mailgate.test.support.loginscripts import SIEVE_GREETING
from mailgate.testing import Attempt, FakeConnector, FakeTransport, requestFor, resultOf, settingsOf

JOE = PasswordLogin(b"joe", b"sesame")


class Talk:
    """A client of C{record}'s class without a connector, and a backend that the test plays."""

    def __init__(self, record: MailProtocol, *groups: Any, tls: BackendTLS = BackendTLS.OFF) -> None:
        self.reactor = MemoryReactorClock()
        backend = Backend(FIRST.host, FIRST.port, tls)
        begin = beginning(endpointFor(self.reactor, FIRST.host, FIRST.port, None))
        place = Place(str(backend), backend, begin, None)
        self.client: ProxyClient = record.client(Caller(settingsOf(record.name, *groups), "mx.test"), place)
        self.transport = FakeTransport()

    def accept(self) -> None:
        self.transport.connect(self.reactor.tcpClients[-1][2].buildProtocol(None))

    def says(self, *data: bytes) -> bytes:
        """The backend sends C{data}. Return what it receives then."""
        for segment in data:
            self.client.dataReceived(segment)
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard


PROBES = (
    (IMAP4, b"* OK ready\r\n", b"mailgate NOOP\r\n", b"* 1 EXISTS\r\nmailgate OK\r\n"),
    (POP3, b"+OK ready\r\n", b"CAPA\r\n", b"+OK\r\nTOP\r\nUIDL\r\n.\r\n"),
    (POP3, b"+OK ready\r\n", b"CAPA\r\n", b"-ERR unknown command\r\n"),
    (SMTP, b"220 mx\r\n", b"NOOP\r\n", b"250 2.0.0 Ok\r\n"),
    (SIEVE, SIEVE_GREETING, b"CAPABILITY\r\n", SIEVE_GREETING),
)
"""Protocols, with the greeting of a working backend, the command that a probe sends, and the answer."""

GOODBYES = (
    (IMAP4, b"* OK ready\r\n", b"mailgate LOGOUT\r\n", (b"* BYE bye\r\n", b"mailgate OK done\r\n")),
    (POP3, b"+OK ready\r\n", b"QUIT\r\n", (b"+OK bye\r\n",)),
    (SMTP, b"220 mx\r\n", b"QUIT\r\n", (b"221-2.0.0 good\r\n", b"221 2.0.0 bye\r\n")),
    (SIEVE, SIEVE_GREETING, b"LOGOUT\r\n", (b'OK "bye"\r\n',)),
)
"""Protocols, with the greeting, the goodbye of the gateway, and the lines of the answer."""


class ProbeTests(SynchronousTestCase):
    """L{ProxyClient.probe}: a conversation without a client or a login."""

    def test_good(self) -> None:
        """A backend that greets and answers works."""
        for record, greeting, asked, answer in PROBES:
            talk = Talk(record)
            probe = resultOf(talk.client.probe(None))
            talk.accept()
            self.assertEqual(talk.says(greeting), asked)
            self.assertNoResult(probe)
            self.assertEqual(talk.says(answer), b"")
            self.successResultOf(probe)
            self.assertFalse(talk.transport.disconnecting)

    def leaving(self, record: MailProtocol, greeting: bytes) -> tuple[Talk, Deferred[Any]]:
        """A conversation that ends after the greeting of the backend."""
        talk = Talk(record)
        probe = resultOf(talk.client.probe(None, isShort=True))
        talk.accept()
        self.assertEqual(talk.says(greeting), b"")
        self.successResultOf(probe)
        return talk, resultOf(talk.client.leave())

    def test_leaves(self) -> None:
        """The connection is closed when the backend has answered the goodbye, and not before."""
        for record, greeting, goodbye, answer in GOODBYES:
            talk, left = self.leaving(record, greeting)
            self.assertEqual(talk.says(), goodbye)
            for line in answer:
                self.assertFalse(talk.transport.disconnecting)
                self.assertEqual(talk.says(line), b"")
            self.assertTrue(talk.transport.disconnecting)
            self.assertNoResult(left)
            talk.transport.lose()
            self.successResultOf(left)
            self.assertFalse(talk.transport.aborted)

    def test_closesFirst(self) -> None:
        """A backend need not answer the goodbye."""
        for record, greeting, _, _ in GOODBYES:
            talk, left = self.leaving(record, greeting)
            talk.transport.lose()
            self.successResultOf(left)
            self.assertFalse(talk.transport.aborted)

    def test_ignoresGoodbye(self) -> None:
        """If the backend neither answers nor closes the connection in time, it is aborted."""
        for answer in ((), (b"+OK bye\r\n",)):
            talk, left = self.leaving(POP3, b"+OK ready\r\n")
            talk.says(*answer)
            talk.client.expired()
            self.successResultOf(left)
            self.assertTrue(talk.transport.aborted)

    def test_bad(self) -> None:
        """A backend that does not answer as it should fails."""
        for record, greeting, answer, reason in (
            (IMAP4, b"* OK ready\r\n", b"mailgate BAD no\r\n", "answers NOOP with BAD"),
            (IMAP4, b"* BYE full\r\n", b"", "greets with BYE"),
            (POP3, b"+OK ready\r\n", b"what?\r\n", "answers CAPA with an invalid reply"),
            (POP3, b"+OK ready\r\n", b"+OK\r\n" + 2 * (b"X" * 3000 + b"\r\n"), "sent a reply longer than proxy_buffer"),
            (SMTP, b"220 mx\r\n", b"421 4.3.2 no\r\n", "refuses NOOP with 421 4.3.2"),
        ):
            talk = Talk(record)
            probe = resultOf(talk.client.probe(None))
            talk.accept()
            talk.says(greeting)
            if answer:
                talk.says(answer)
            self.assertEqual(str(self.failureResultOf(probe, BackendError).value), reason)

    def test_header(self) -> None:
        """
        If a PROXY header is configured it is sent: in version 1 the gateway is the client, in version 2 there is none.
        """
        for version, header in (
            ("on", b"PROXY TCP4 10.0.0.1 192.0.2.7 12345 40123\r\n"),
            ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0"),
        ):
            talk = Talk(POP3, ProxySettings(proxyProtocol=version))
            resultOf(talk.client.probe(None))
            talk.accept()
            heard = talk.says()
            self.assertEqual(heard[: len(header)], header)

    def test_headerOfUnixSocket(self) -> None:
        """A unix socket has no addresses for the header."""
        talk = Talk(POP3, ProxySettings(proxyProtocol="on"))
        self.patch(talk.transport, "hostAddr", UNIXAddress("/run/pop3"))
        resultOf(talk.client.probe(None))
        talk.accept()
        self.assertEqual(talk.says(), b"PROXY UNKNOWN\r\n")

    def test_notConnected(self) -> None:
        """A failed connect is a failure too."""
        talk = Talk(POP3)
        probe = resultOf(talk.client.probe(None))
        talk.reactor.tcpClients[-1][2].clientConnectionFailed(
            talk.reactor.connectors[0], Failure(ConnectionRefusedError())
        )
        self.failureResultOf(probe, ConnectionRefusedError)

    def test_abandoned(self) -> None:
        """To abandon a probe cancels the connect or, later, aborts the connection."""
        talk = Talk(POP3)
        probe = resultOf(talk.client.probe(None))
        probe.cancel()
        self.failureResultOf(probe, CancelledError)
        talk.client.abandon()
        self.assertTrue(talk.reactor.connectors[0].stoppedConnecting)
        talk = Talk(POP3)
        resultOf(talk.client.probe(None))
        talk.accept()
        talk.client.abandon()
        self.assertTrue(talk.transport.aborted)


class ConversationTests(SynchronousTestCase):
    """L{ProxyClient.open} and the calls that may follow."""

    def opened(self, record: MailProtocol, greeting: bytes) -> Talk:
        talk = Talk(record)
        opened = resultOf(talk.client.open(None, None))
        talk.accept()
        self.assertEqual(talk.says(greeting), b"")
        self.successResultOf(opened)
        return talk

    def login(self, talk: Talk) -> Deferred[Any]:
        return resultOf(talk.client.login(JOE, requestFor("pop3")))

    def test_loginAgain(self) -> None:
        """After a login, refused or not, another one may follow."""
        talk = self.opened(POP3, GREETING)
        refused = self.login(talk)
        self.assertEqual(talk.says(), b"USER joe\r\n")
        talk.says(b"-ERR no\r\n")
        self.failureResultOf(refused, LoginRefused)
        for reply in (b"+OK first\r\n", b"+OK second\r\n"):
            login = self.login(talk)
            self.assertEqual(talk.says(), b"USER joe\r\n")
            talk.says(OK, reply)
            self.successResultOf(login)
            self.assertEqual(talk.client.reply, reply)
        self.assertEqual(talk.transport.producerState, "producing")
        self.assertEqual(leftOver(talk.client), b"")

    def test_introducedOnce(self) -> None:
        """The client's address is sent to the backend once."""
        talk = self.opened(POP3, b"+OK [XCLIENT] ready\r\n")
        for introduction, reply in ((b"XCLIENT ADDR=192.0.2.7 PORT=40123 TTL=6\r\n", OK), (b"", b"")):
            login = self.login(talk)
            self.assertEqual(talk.says(), introduction + b"USER joe\r\n")
            talk.says(reply + OK, LOGGED_IN)
            self.successResultOf(login)

    def test_lostBetween(self) -> None:
        """If the connection is lost between two logins, the next one fails."""
        talk = self.opened(POP3, GREETING)
        talk.transport.lose(ConnectionLost())
        self.failureResultOf(self.login(talk), BackendError)

    def test_phases(self) -> None:
        """The caller learns each phase."""
        for tls, expected in (
            (BackendTLS.OFF, [Phase.BACKEND_LOGIN]),
            (BackendTLS.IMPLICIT, [Phase.BACKEND_LOGIN, Phase.BACKEND_TLS, Phase.BACKEND_LOGIN]),
            (BackendTLS.STARTTLS, [Phase.BACKEND_LOGIN, Phase.BACKEND_TLS, Phase.BACKEND_LOGIN]),
        ):
            talk, phases = Talk(POP3, tls=tls), list[Phase]()
            resultOf(talk.client.open(None, None, phases.append))
            talk.accept()
            if tls is BackendTLS.STARTTLS:
                talk.says(GREETING, OK)
            if tls is not BackendTLS.OFF:
                talk.transport.shakeHands()
            self.assertEqual(phases, expected)

    def test_causes(self) -> None:
        """Errors have a kind that leads to the next backend, unless the login was refused."""
        self.assertEqual(BackendError("answers with an invalid reply").cause, "invalid_response")
        self.assertEqual(LoginRefused(b"-ERR\r\n", Denial(Trouble.DENIED)).cause, "")
        self.assertEqual(Unauthorizing("answers AUTH PLAIN with -ERR").cause, "")


class Prompt(FakeTransport):
    """A transport with a backend that replies within the write: C{answers}, one for each write."""

    def __init__(self, *answers: bytes | Exception) -> None:
        super().__init__()
        self.answers = list(answers)

    def write(self, data: bytes) -> None:
        super().write(data)
        answer = self.answers.pop(0) if self.answers else b""
        if isinstance(answer, Exception):
            self.lose(answer)
        elif answer:
            self.protocol.dataReceived(answer)


class ReentrancyTests(SynchronousTestCase):
    """Events within a step of the login are neither lost nor handled twice."""

    def attempt(self, record: MailProtocol, greeting: bytes, *answers: bytes | Exception) -> Attempt:
        attempt = Attempt(record)
        attempt.transport = Prompt(*answers)
        attempt.transport.connect(attempt.reactor.tcpClients[-1][2].buildProtocol(None))
        attempt.says(greeting)
        return attempt

    def test_answersWithinWrite(self) -> None:
        """Replies within a write are read when the login gets to them."""
        for record, greeting, answers, reply in (
            (POP3, GREETING, (OK, LOGGED_IN), LOGGED_IN),
            (IMAP4, b"* OK hi\r\n", (b"a1 OK in\r\n",), b"a1 OK in\r\n"),
            (
                IMAP4,
                b"* OK [CAPABILITY IMAP4rev1 ID] hi\r\n",
                (b"* ID NIL\r\nmailgate OK\r\na1 OK in\r\n",),
                b"a1 OK in\r\n",
            ),
            (SMTP, b"220 hi\r\n", (b"250-mx\r\n250 AUTH PLAIN\r\n", b"235 in\r\n"), b""),
        ):
            attempt = self.attempt(record, greeting, *answers)
            self.assertEqual(self.successResultOf(attempt.result).reply, reply, record.name)
            self.assertTrue(attempt.hasNoTimers())

    def test_lostWithinWrite(self) -> None:
        """A connection that is lost within a write is one failure of this backend."""
        for answers in ((ConnectionLost(),), (OK, ConnectionLost())):
            attempt = self.attempt(POP3, GREETING, *answers)
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            self.assertEqual(len(attempt.log), 1)
            self.assertTrue(attempt.hasNoTimers())

    def test_cancelledWithinWrite(self) -> None:
        """If a client leaves within a write, its login is cancelled at its next wait."""
        attempt = Attempt(POP3)
        attempt.accept()

        def leave(data: bytes) -> None:
            attempt.result.cancel()

        self.patch(attempt.transport, "write", leave)
        attempt.says(GREETING)
        self.failureResultOf(attempt.result, CancelledError)
        self.assertTrue(attempt.transport.aborted)
        self.assertEqual(attempt.log, [])
        self.assertTrue(attempt.hasNoTimers())

    def test_handshakeWithinStart(self) -> None:
        """A handshake that ends within the start of TLS causes no wait."""
        talk = Talk(POP3, tls=BackendTLS.IMPLICIT)
        opened = resultOf(talk.client.open(None, None))
        start = talk.transport.startTLS

        def startAndShake(context: Any) -> None:
            start(context)
            talk.transport.shakeHands()

        self.patch(talk.transport, "startTLS", startAndShake)
        talk.accept()
        talk.says(GREETING)
        self.successResultOf(opened)


class CostTests(SynchronousTestCase):
    """The costs of a login."""

    def test_noDeferred(self) -> None:
        """Between the connect and the hand-over there is no Deferred: the connection resumes the coroutine."""
        for record, replies in (
            (POP3, (GREETING, OK, LOGGED_IN)),
            (IMAP4, (b"* OK [CAPABILITY IMAP4rev1 ID] hi\r\n", b"* ID NIL\r\nmailgate OK\r\n", b"a1 OK in\r\n")),
            (SMTP, (b"220 hi\r\n", b"250-mx\r\n250 AUTH PLAIN\r\n", b"235 in\r\n")),
        ):
            attempt = Attempt(record)
            attempt.accept()
            made: list[Deferred[Any]] = []
            construct = Deferred.__init__

            def counted(deferred: Deferred[Any], *given: Any, construct: Any = construct, made: Any = made) -> None:
                made.append(deferred)
                construct(deferred, *given)

            patched = self.patch(Deferred, "__init__", counted)
            attempt.says(*replies)
            patched.restore()
            self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)
            self.assertEqual(made, [], record.name)


class InterfaceTests(SynchronousTestCase):
    """L{IConnector}."""

    def test_provided(self) -> None:
        """The connector provides it, and so does the fake for tests."""
        attempt = Attempt(POP3)
        for connector in (attempt.connector, FakeConnector()):
            self.assertTrue(verifyObject(IConnector, connector))
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)
