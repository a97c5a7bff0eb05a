"""
Tests for L{mailgate.backend.client}.
"""

from __future__ import annotations

import base64
import os
from functools import partial
from typing import Any

from attrs import evolve
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    SSL4ServerEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectionLost
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailgate.backend.client import ProxyClient
from mailgate.backend.connector import Connector
from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.errors import BackendError, LoginRefused, replyCode
from mailgate.backend.settings import ProxySettings
from mailgate.directives import directives
from mailgate.frontend.protocol import MailProtocol
from mailgate.log.journal import Journal
from mailgate.login import Backend, BackendTLS, Client, Denial, Envelope, Refusal, TLSState, Trouble
from mailgate.net.endpoints import endpointFor
from mailgate.net.proxyprotocol import headerFor
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.relay.portable import Relays
from mailgate.relay.protocol import RelayedProtocol
from mailgate.session import Phase, Session
from mailgate.test.support.findings import askedOf
from mailgate.test.support.tlspair import makePair
from mailgate.testing import Attempt, FakeTransport, requestFor, resultOf, routeTo, settingsOf

FIRST = Backend("192.0.2.99", 110)
SECOND = Backend("192.0.2.100", 110)
PASS_ON = ProxySettings(passErrorMessage=True)

GREETING = b"+OK POP3 ready\r\n"
OK = b"+OK\r\n"
LOGGED_IN = b"+OK 3 messages\r\n"


def loggedIn(*groups: Any, **changes: Any) -> Attempt:
    """A POP3 attempt before which only the answer to PASS is wanting."""
    attempt = Attempt(POP3, *groups, **changes)
    attempt.accept()
    attempt.says(GREETING, OK)
    return attempt


def leftOver(client: ProxyClient) -> bytes:
    """Detach C{client}; returns what is left for the relay."""
    client.detach()
    return client.leftOver


@implementer(IHostResolution)
class FakeResolution:
    """A resolution under way."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        pass


@implementer(IHostnameResolver)
class SlowResolver:
    """A resolver that answers when the test says so."""

    def __init__(self) -> None:
        self.receivers: list[Any] = []

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = FakeResolution(hostName)
        self.receivers.append(resolutionReceiver)
        resolutionReceiver.resolutionBegan(resolution)
        return resolution

    def answer(self, *addresses: str) -> None:
        """The name that was asked for last has C{addresses}."""
        receiver = self.receivers[-1]
        for address in addresses:
            receiver.addressResolved(IPv4Address("TCP", address, 110))
        receiver.resolutionComplete()


class EndpointTests(SynchronousTestCase):
    """L{endpointFor}."""

    def endpoint(self, host: str, port: int = 110) -> Any:
        return endpointFor(MemoryReactorClock(), host, port, 7.0)

    def test_ipv4(self) -> None:
        """An IPv4 address is connected to without asking a resolver."""
        self.assertIsInstance(self.endpoint("192.0.2.1"), TCP4ClientEndpoint)

    def test_ipv6(self) -> None:
        """So is an IPv6 address."""
        self.assertIsInstance(self.endpoint("2001:db8::1"), TCP6ClientEndpoint)

    def test_unix(self) -> None:
        """C{unix:} is followed by the path of a socket, and nothing is connected to by TCP."""
        reactor = MemoryReactorClock()
        endpoint = endpointFor(reactor, "unix:/run/imap", 0, 7.0)
        self.assertIsInstance(endpoint, UNIXClientEndpoint)
        client = ProxyClient(settingsOf("pop3"), "mx.test", FIRST, endpoint)
        endpoint.connect(client)  # type: ignore[arg-type]
        self.assertEqual([path for path, *_ in reactor.unixClients], ["/run/imap"])
        self.assertEqual(reactor.tcpClients, [])

    def test_name(self) -> None:
        """Anything else is a host name."""
        self.assertIsInstance(self.endpoint("mail.example.com"), HostnameEndpoint)

    def test_timeout(self) -> None:
        """The time given is that of the connection."""
        attempt = Attempt(POP3, timeout=7.0)
        self.assertIs(attempt.reactor.tcpClients[0][3], None)

    def test_nameResolvedAtEachConnection(self) -> None:
        """A name is looked up anew for every connection, so that a change in the DNS is followed."""
        resolver = SlowResolver()
        self.assertTrue(verifyObject(IHostnameResolver, resolver))
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        for address in ("192.0.2.1", "192.0.2.2"):
            resolver.answer(address)
            self.assertEqual(attempt.tried[-1], (address, 110))
            attempt.refuse()
            attempt.reactor.advance(1)
            self.successResultOf(attempt.result)
            attempt.result = attempt.again()
        self.assertEqual(len(resolver.receivers), 3)
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)


class ProxyClientTests(SynchronousTestCase):
    """What all L{ProxyClient}s have from their base: replies, bounds, the end of the login."""

    def client(self, *groups: Any) -> ProxyClient:
        client = ProxyClient(
            settingsOf("pop3", *groups), "mx.test", FIRST, TCP4ClientEndpoint(Clock(), "192.0.2.99", 110)
        )
        FakeTransport().connect(client)
        return client

    def read(self, client: ProxyClient) -> Deferred[bytes]:
        return resultOf(client.line())

    def test_line(self) -> None:
        """A line is given once it is whole, its end included, and the next one when it is asked for."""
        client = self.client()
        line = self.read(client)
        client.dataReceived(b"+OK on")
        self.assertNoResult(line)
        client.dataReceived(b"e\r\n+OK two\n+OK")
        self.assertEqual(self.successResultOf(line), b"+OK one\r\n")
        self.assertEqual(self.successResultOf(self.read(client)), b"+OK two\n")
        self.assertNoResult(self.read(client))

    def test_longestLine(self) -> None:
        """A line that just fits into proxy_buffer is taken."""
        client = self.client(ProxySettings(buffer=8))
        line = self.read(client)
        client.dataReceived(b"12345\r\n")
        self.assertEqual(self.successResultOf(line), b"12345\r\n")

    def test_tooLongLine(self) -> None:
        """A line that does not is an error, whether its end has come or not."""
        for data in (b"12345678", b"1234567\r\n", b"1" * 5000 + b"\r\n"):
            client = self.client(ProxySettings(buffer=8))
            line = self.read(client)
            client.dataReceived(data)
            failure = self.failureResultOf(line, BackendError)
            self.assertEqual(str(failure.value), "sent a too long reply")

    def test_linesBeforeTheEnd(self) -> None:
        """What a backend said before it closed is still read; then the loss is reported, again and again."""
        client = self.client()
        client.dataReceived(b"+OK one\r\n+OK tw")
        client.transport.lose(ConnectionLost())
        self.assertEqual(self.successResultOf(self.read(client)), b"+OK one\r\n")
        for _ in range(2):
            failure = self.failureResultOf(self.read(client), BackendError)
            self.assertEqual(str(failure.value), "broke off the connection")

    def test_endOfFile(self) -> None:
        """A backend that will say no more before the login is done has its connection closed."""
        client = self.client()
        line = self.read(client)
        client.readConnectionLost()
        self.assertEqual(str(self.failureResultOf(line, BackendError).value), "closed the connection")
        self.assertTrue(client.transport.disconnecting)

    def test_firstLossCounts(self) -> None:
        """That the connection is gone after its end of file is no news."""
        client = self.client()
        client.readConnectionLost()
        client.transport.lose()
        failure = self.failureResultOf(self.read(client), BackendError)
        self.assertEqual(str(failure.value), "closed the connection")

    def test_noDelay(self) -> None:
        """The connection to the backend sends small writes at once."""
        self.assertTrue(self.client().transport.noDelay)

    def test_ownDialogue(self) -> None:
        """The base knows no protocol."""
        for step in ("greeted", "requestTLS", "introduced", "probed"):
            self.failureResultOf(resultOf(getattr(self.client(), step)()), NotImplementedError)
        login = self.client().login(PasswordLogin(b"joe", b"sesame"), requestFor("pop3"))
        self.failureResultOf(resultOf(login), NotImplementedError)

    def test_refusalIsEscaped(self) -> None:
        """A refusal tells the backend's code, and keeps the whole reply."""
        error = LoginRefused(b"-ERR [AUTH] a\x1b[2J\r\n", Denial(Trouble.DENIED))
        self.assertEqual(str(error), "refused the login with -ERR [AUTH]")
        self.assertEqual(error.reply, b"-ERR [AUTH] a\x1b[2J\r\n")

    def test_outOfTurn(self) -> None:
        """A backend that answers commands which it has not had is not believed."""
        for record, early in (
            (POP3, b"+OK hi\r\n+OK\r\n+OK welcome\r\n"),
            (IMAP4, b"* OK hi\r\na OK spoofed\r\n"),
            (SMTP, b"220 hi\r\n250 ok\r\n235 in\r\n"),
        ):
            attempt = Attempt(record)
            attempt.accept()
            self.assertEqual(attempt.says(early), b"")
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            self.assertIn("speaks out of turn", attempt.log[0])

    def test_untaggedAhead(self) -> None:
        """An IMAP backend may say untagged things before it is asked."""
        attempt = Attempt(IMAP4)
        attempt.accept()
        self.assertIn(b"LOGIN", attempt.says(b"* OK hi\r\n* CAPABILITY IMAP4rev1\r\n"))

    def test_loginInTheMiddle(self) -> None:
        """At the hand-over the connection is paused, and what came behind the reply is kept for the relay."""
        attempt = loggedIn()
        attempt.says(LOGGED_IN + b"+OK what nobody asked")
        client = self.successResultOf(attempt.result)
        self.assertEqual((client.reply, client.leftOver), (LOGGED_IN, b""))
        self.assertEqual(attempt.transport.producerState, "producing")
        client.detach()
        self.assertEqual(client.leftOver, b"+OK what nobody asked")
        self.assertEqual(attempt.transport.producerState, "paused")
        self.assertFalse(attempt.transport.disconnecting)


class ConnectorTests(SynchronousTestCase):
    """L{Connector.connect} where something goes wrong, and where it does not."""

    def assertTemporary(self, attempt: Attempt) -> None:
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertTrue(attempt.hasNoTimers())

    def test_success(self) -> None:
        """The result is a client that is logged in; the session knows the backend, and the log has nothing to say."""
        attempt = Attempt(POP3)
        self.assertIs(attempt.session.phase, Phase.CONNECT)
        attempt.accept()
        self.assertIs(attempt.session.phase, Phase.BACKEND_LOGIN)
        self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")
        self.assertEqual(attempt.says(OK), b"PASS sesame\r\n")
        attempt.says(LOGGED_IN)
        client = self.successResultOf(attempt.result)
        self.assertIsInstance(client, ProxyClient)
        self.assertEqual(client.reply, LOGGED_IN)
        self.assertEqual(attempt.session.backend, "192.0.2.99:110")
        self.assertEqual(attempt.log, [])
        self.assertTrue(attempt.hasNoTimers())

    def test_refusedConnection(self) -> None:
        """A backend that cannot be connected to is a temporary failure, and an error in the log that says where."""
        attempt = Attempt(POP3)
        attempt.refuse()
        self.assertTemporary(attempt)
        self.assertEqual(attempt.levels, ["error"])
        for part in ("backend 192.0.2.99:110", "refused", "phase connect", "client 192.0.2.7:40123", 'user "joe"'):
            self.assertIn(part, attempt.log[0])

    def test_otherErrors(self) -> None:
        """So is every other trouble of the network."""
        for error in (OSError(113, "No route to host"), PermissionError(13, "Permission denied")):
            attempt = Attempt(POP3)
            attempt.refuse(error)
            self.assertTemporary(attempt)
            self.assertIn(str(error.args[1]), attempt.log[0])

    def test_defect(self) -> None:
        """What is no trouble of the network but a defect is not taken for one."""
        attempt = Attempt(POP3)
        attempt.refuse(ZeroDivisionError())
        self.failureResultOf(attempt.result, ZeroDivisionError)

    def test_noAnswerToConnection(self) -> None:
        """A backend that does not even accept the connection has C{timeout} seconds to do so."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.reactor.advance(29.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.2)
        self.assertTemporary(attempt)
        self.assertTrue(attempt.reactor.connectors[0].stoppedConnecting)

    def test_connectionTimedOut(self) -> None:
        """It does not matter which clock says so first, the endpoint's or the connector's: the log says the same."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.refuse(ConnectTimeout())
        self.assertTemporary(attempt)
        self.assertIn("no answer within 30 s, in phase connect", attempt.log[0])

    def test_silence(self) -> None:
        """The whole login has C{timeout} seconds, not each step of it."""
        attempt = Attempt(POP3, timeout=30.0)
        attempt.reactor.advance(10)
        attempt.accept()
        attempt.reactor.advance(10)
        attempt.says(GREETING)
        attempt.reactor.advance(9.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.1)
        self.assertTemporary(attempt)
        self.assertTrue(attempt.transport.aborted)
        self.assertIn("no answer within 30 s, in phase backend-login", attempt.log[0])

    def test_lateReply(self) -> None:
        """What a backend says once it has been given up is not answered."""
        attempt = Attempt(POP3)
        attempt.accept()
        attempt.reactor.advance(30)
        self.assertTemporary(attempt)
        self.assertEqual(attempt.says(GREETING), b"")
        attempt.transport.lose()

    def test_next(self) -> None:
        """Where the first backend fails the second is tried, with a time of its own; the log names the first."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.accept()
        attempt.reactor.advance(30)
        self.assertNoResult(attempt.result)
        self.assertEqual(attempt.tried, [("192.0.2.99", 110), ("192.0.2.100", 110)])
        attempt.accept()
        attempt.reactor.advance(29)
        attempt.says(GREETING, OK, LOGGED_IN)
        self.assertEqual(self.successResultOf(attempt.result).backend, SECOND)
        self.assertEqual(attempt.session.backend, "192.0.2.100:110")
        self.assertEqual(len(attempt.log), 1)
        self.assertIn("192.0.2.99:110", attempt.log[0])

    def test_nextAfterEachKindOfFailure(self) -> None:
        """Refused connections, strange greetings, too long replies and losses in mid-login all lead to the next."""

        def strange(attempt: Attempt) -> None:
            attempt.accept()
            attempt.says(b"SSH-2.0-OpenSSH\r\n")

        def endless(attempt: Attempt) -> None:
            attempt.accept()
            attempt.says(b"+OK" * 2000)

        def lost(attempt: Attempt) -> None:
            attempt.accept()
            attempt.says(GREETING)
            attempt.transport.lose(ConnectionLost())

        for fail in (Attempt.refuse, strange, endless, lost):
            attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
            fail(attempt)
            self.assertEqual(attempt.tried[1:], [("192.0.2.100", 110)])
            attempt.accept()
            attempt.says(GREETING, OK, LOGGED_IN)
            self.assertEqual(self.successResultOf(attempt.result).reply, LOGGED_IN)

    def test_noneLeft(self) -> None:
        """Where the last backend fails too, each failure is in the log."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.refuse()
        attempt.refuse()
        self.assertTemporary(attempt)
        self.assertEqual(attempt.levels, ["error", "error"])
        self.assertEqual(attempt.session.backend, "192.0.2.100:110")

    def test_noNextAfterRefusal(self) -> None:
        """A backend that refuses the password has decided: the next one is not asked."""
        attempt = loggedIn(route=routeTo(FIRST, SECOND))
        attempt.says(b"-ERR no\r\n")
        self.assertTemporary(attempt)
        self.assertEqual(len(attempt.tried), 1)
        self.assertTrue(attempt.transport.aborted)

    def test_badHostName(self) -> None:
        """A backend whose name cannot be one is a temporary failure like any other."""
        attempt = Attempt(POP3, route=routeTo(Backend("bad..name", 110), SECOND))
        self.assertEqual(attempt.tried, [("192.0.2.100", 110)])
        attempt.refuse()
        self.assertTemporary(attempt)
        self.assertIn("backend bad..name:110 is no host name", attempt.log[0])

    def test_unknownHostName(self) -> None:
        """So is a name without an address."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("gone.example.com", 110)), resolver=resolver)
        resolver.answer()
        self.assertTemporary(attempt)
        self.assertIn("gone.example.com", attempt.log[-1])

    def test_slowName(self) -> None:
        """The time of a name's lookup is part of the time that its backend has, and the log says that time is up."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        attempt.reactor.advance(20)
        resolver.answer("192.0.2.1")
        attempt.reactor.advance(9.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.1)
        self.assertTemporary(attempt)
        self.assertIn("no answer within 30 s, in phase connect", attempt.log[-1])

    def test_noAnswerFromResolver(self) -> None:
        """A resolver that does not answer is given up in time; what it answers later is not listened to."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        attempt.reactor.advance(30)
        self.assertTemporary(attempt)
        resolver.answer("192.0.2.1")
        self.assertEqual(attempt.tried, [])

    def test_forbiddenBytes(self) -> None:
        """Credentials with CR, LF or NUL are wrong ones; no backend is even connected to."""
        why = "a line end or NUL in the name or the password"
        for bad in (b"\r", b"\n", b"\0"):
            for route in (routeTo(user=b"joe" + bad + b"DELE 1"), routeTo(password=b"x" + bad + b"DELE 1")):
                attempt = Attempt(POP3, route=route)
                self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.DENIED, reason=why))
                self.assertEqual(attempt.tried, [])
                # The line about the login has the reason.
                self.assertEqual(attempt.levels, [])

    def test_noPassword(self) -> None:
        """A route without a password fails before anything is said that a password should follow."""
        attempt = Attempt(POP3, route=routeTo(password=None))
        attempt.accept()
        self.assertEqual(attempt.says(GREETING), b"")
        self.assertTemporary(attempt)
        self.assertIn("no password is known", attempt.log[0])


class RefusalTests(SynchronousTestCase):
    """What a backend's "no" becomes."""

    NO = b"-ERR [AUTH] who are you\r\n"
    BUSY = b"-ERR [IN-USE] come back\r\n"

    def answer(self, reply: bytes, *groups: Any, **route: Any) -> tuple[Any, Attempt]:
        attempt = loggedIn(*groups, route=routeTo(**route))
        attempt.says(reply)
        self.assertTrue(attempt.transport.aborted)
        self.assertTrue(attempt.hasNoTimers())
        return self.successResultOf(attempt.result), attempt

    def test_judged(self) -> None:
        """A password that the authenticator took and the backend does not is a temporary failure, and an error."""
        result, attempt = self.answer(self.NO)
        self.assertEqual(result, Denial(Trouble.TEMPORARY))
        self.assertEqual(attempt.levels, ["error"])
        self.assertIn("refused the login with -ERR [AUTH],", attempt.log[0])

    def test_judgedPassedOn(self) -> None:
        """With proxy_pass_error_message on the client gets what the backend said; the log has the error too."""
        result, attempt = self.answer(self.NO, PASS_ON)
        self.assertEqual(result, Refusal(self.NO, False))
        self.assertEqual(attempt.levels, ["error"])
        result, _ = self.answer(self.BUSY, PASS_ON)
        self.assertEqual(result, Refusal(self.BUSY, True))

    def test_unjudged(self) -> None:
        """Where nobody has judged the password the backend's refusal is the answer, and no error of anybody's."""
        for groups in ((), (PASS_ON,)):
            result, attempt = self.answer(self.NO, *groups, judged=False)
            self.assertEqual(result, Denial(Trouble.DENIED, answer=self.NO.strip()))
            self.assertNotIn("error", attempt.levels)

    def test_unjudgedTemporary(self) -> None:
        """But not where the backend says that its trouble will pass, unless that is this one account's."""
        later = b"-ERR [SYS/TEMP] later\r\n"
        for reply, levels in ((later, ["error"]), (self.BUSY, [])):
            result, attempt = self.answer(reply, judged=False)
            self.assertEqual(result, Denial(Trouble.TEMPORARY, answer=reply.strip()))
            self.assertEqual(attempt.levels, levels)

    def test_account(self) -> None:
        """A mailbox that is in use is no error, though the authenticator took the password."""
        result, attempt = self.answer(self.BUSY)
        self.assertEqual(result, Denial(Trouble.TEMPORARY))
        self.assertEqual(attempt.levels, ["warn"])

    def test_greetingPassedOn(self) -> None:
        """With proxy_pass_error_message on a "no" instead of a greeting is passed on too, as temporary."""
        for groups, expected in (((), Denial(Trouble.TEMPORARY)), ((PASS_ON,), Refusal(b"-ERR full\r\n", True))):
            attempt = Attempt(POP3, *groups)
            attempt.accept()
            attempt.says(b"-ERR full\r\n")
            self.assertEqual(self.successResultOf(attempt.result), expected)

    def test_lastReplyCounts(self) -> None:
        """What an earlier backend said is not passed on where the last one said nothing."""
        attempt = Attempt(POP3, PASS_ON, route=routeTo(FIRST, SECOND))
        attempt.accept()
        attempt.says(b"-ERR full\r\n")
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))

    def test_nothingToPassOn(self) -> None:
        """A backend that fails without a word is a temporary failure, whatever proxy_pass_error_message says."""
        attempt = Attempt(POP3, PASS_ON)
        attempt.accept()
        attempt.transport.lose(ConnectionLost())
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))


class CancellationTests(SynchronousTestCase):
    """The client has left."""

    def assertGivenUp(self, attempt: Attempt, tried: int = 1) -> None:
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)
        self.assertEqual(len(attempt.tried), tried)
        self.assertEqual(attempt.log, [])
        self.assertTrue(attempt.hasNoTimers())

    def test_connecting(self) -> None:
        """A connection that is being made is given up, and the next backend is not tried."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        self.assertGivenUp(attempt)
        self.assertTrue(attempt.reactor.connectors[0].stoppedConnecting)

    def test_connectingToName(self) -> None:
        """So is one to a host by its name."""
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110), SECOND))
        self.assertGivenUp(attempt)

    def test_resolving(self) -> None:
        """So is the lookup of a name."""
        resolver = SlowResolver()
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110), SECOND), resolver=resolver)
        self.assertGivenUp(attempt, tried=0)
        resolver.answer("192.0.2.1")
        self.assertEqual(attempt.tried, [])

    def test_midLogin(self) -> None:
        """A login under way is cut off, at whatever step."""
        for said in range(3):
            attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
            attempt.accept()
            attempt.says(*(GREETING, OK)[:said])
            self.assertGivenUp(attempt)
            self.assertTrue(attempt.transport.aborted)
            attempt.transport.lose()

    def test_handshake(self) -> None:
        """So is a TLS handshake."""
        attempt = Attempt(POP3, route=routeTo(Backend("192.0.2.99", 995, BackendTLS.IMPLICIT)))
        attempt.accept()
        self.assertGivenUp(attempt)
        self.assertTrue(attempt.transport.aborted)


class TLSTests(SynchronousTestCase):
    """Backends that are spoken to over TLS."""

    IMPLICIT = Backend("192.0.2.99", 995, BackendTLS.IMPLICIT)
    STARTTLS = Backend("192.0.2.99", 110, BackendTLS.STARTTLS)

    def test_implicit(self) -> None:
        """With implicit TLS nothing is said or listened to before the handshake."""
        attempt = Attempt(POP3, route=routeTo(self.IMPLICIT))
        attempt.accept()
        self.assertEqual(len(attempt.transport.tls), 1)
        self.assertIs(attempt.session.phase, Phase.BACKEND_TLS)
        self.assertEqual(attempt.hears(), b"")
        attempt.transport.shakeHands()
        self.assertIs(attempt.session.phase, Phase.BACKEND_LOGIN)
        self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")
        attempt.says(OK, LOGGED_IN)
        self.assertEqual(self.successResultOf(attempt.result).reply, LOGGED_IN)

    def test_startTLS(self) -> None:
        """With STARTTLS the credentials wait for the handshake."""
        attempt = Attempt(POP3, route=routeTo(self.STARTTLS))
        attempt.accept()
        self.assertEqual(attempt.transport.tls, [])
        self.assertEqual(attempt.says(GREETING), b"STLS\r\n")
        self.assertEqual(attempt.says(OK), b"")
        self.assertEqual(len(attempt.transport.tls), 1)
        self.assertIs(attempt.session.phase, Phase.BACKEND_TLS)
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"USER joe\r\n")

    def test_plaintextBehindStartTLS(self) -> None:
        """What comes in the clear behind the answer to STARTTLS is thrown away, however much it looks like a login."""
        attempt = Attempt(POP3, route=routeTo(self.STARTTLS))
        attempt.accept()
        attempt.says(GREETING)
        attempt.says(OK + b"+OK forged\r\n+OK forged\r\n")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"USER joe\r\n")
        self.assertEqual(attempt.says(OK), b"PASS sesame\r\n")
        self.assertNoResult(attempt.result)
        attempt.says(LOGGED_IN)
        client = self.successResultOf(attempt.result)
        self.assertEqual((client.reply, leftOver(client)), (LOGGED_IN, b""))

    def test_startTLSRefused(self) -> None:
        """A backend that will not have STARTTLS is not told the password in the clear: the next one is tried."""
        attempt = Attempt(POP3, route=routeTo(self.STARTTLS, SECOND))
        first = attempt.accept()
        attempt.says(GREETING)
        self.assertEqual(attempt.says(b"-ERR not here\r\n"), b"")
        self.assertEqual(first.tls, [])
        self.assertEqual(len(attempt.tried), 2)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertIn("refuses STLS with -ERR, in phase backend-login, ", attempt.log[0])
        self.assertTrue(attempt.log[0].endswith(', text "-ERR not here"'), attempt.log[0])

    def test_handshakeFails(self) -> None:
        """A handshake that fails is a temporary failure, and the log says in which phase."""
        attempt = Attempt(POP3, route=routeTo(self.IMPLICIT))
        attempt.accept()
        attempt.transport.lose(SSL.Error([("SSL routines", "", "wrong version number")]))
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertEqual(attempt.transport.value(), b"")
        reason = "this port speaks no TLS from the first byte on; perhaps it takes starttls, and not ssl"
        told = f"failed in the TLS handshake: wrong version number: {reason}, in phase backend-tls, "
        self.assertIn(told, attempt.log[0])

    def test_nameless(self) -> None:
        """A unix socket has no name that a certificate could be good for; unverified, TLS is spoken there too."""
        for verify in (True, False):
            backend = Backend("unix:/run/pop3", 0, BackendTLS.IMPLICIT, verify)
            attempt = Attempt(POP3, route=routeTo(backend))
            attempt.transport.connect(attempt.reactor.unixClients[0][1].buildProtocol(None))
            self.assertEqual(len(attempt.transport.tls), 0 if verify else 1)
            if verify:
                self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
                self.assertIn("backend unix:/run/pop3 has no name that a certificate", attempt.log[0])
            else:
                attempt.transport.shakeHands()
                self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")

    def test_handshakeTakesTooLong(self) -> None:
        """A handshake counts against the time of the login."""
        attempt = Attempt(POP3, route=routeTo(self.IMPLICIT))
        attempt.accept()
        attempt.reactor.advance(30)
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertTrue(attempt.transport.aborted)


BEHIND_BALANCER = Client("192.0.2.7", 40123, local="198.51.100.1", localPort=995)
PROXIED = b"PROXY TCP4 192.0.2.7 198.51.100.1 40123 995\r\n"


class ProxyProtocolTests(SynchronousTestCase):
    """C{proxy_protocol}: the header before all else. What is in it: L{mailgate.test.net.test_proxyprotocol}."""

    def attempt(self, version: str, *backends: Backend, record: MailProtocol = POP3) -> Attempt:
        settings = ProxySettings(proxyProtocol=version)
        envelope = Envelope(b"laptop", True)
        return Attempt(record, settings, route=routeTo(*backends), client=BEHIND_BALANCER, envelope=envelope)

    def test_values(self) -> None:
        """It is off, on or v2, in any case."""
        (known,) = (each for each in directives(ProxySettings) if each.name == "proxy_protocol")
        self.assertEqual([known.parse(value, "") for value in ("off", "ON", "V2")], ["off", "on", "v2"])
        for value in ("", "v1", "yes", "on v2"):
            error = self.assertRaises(ValueError, known.parse, value, "")
            self.assertIn("must be one of off, on, v2", str(error))

    def test_first(self) -> None:
        """It is sent as soon as there is a connection, in one piece, and the login goes on as ever."""
        for record, greeting, then in (
            (POP3, GREETING, b"USER joe\r\n"),
            (IMAP4, b"* OK ready\r\n", b"a1 LOGIN "),
            (SMTP, b"220 mx ESMTP\r\n", b"EHLO laptop\r\n"),
        ):
            attempt = self.attempt("on", record=record)
            attempt.accept()
            self.assertEqual(attempt.hears(), PROXIED)
            self.assertTrue(attempt.says(greeting).startswith(then))

    def test_binary(self) -> None:
        """So is version 2."""
        attempt = self.attempt("v2")
        attempt.accept()
        self.assertEqual(attempt.hears(), headerFor(BEHIND_BALANCER, "v2"))
        self.assertEqual(attempt.says(GREETING), b"USER joe\r\n")

    def test_off(self) -> None:
        """Without it nothing is."""
        attempt = self.attempt("off")
        attempt.accept()
        self.assertEqual(attempt.hears(), b"")

    def test_beforeTLS(self) -> None:
        """It comes before TLS from the first byte, and before the greeting where that comes before STARTTLS."""
        for tls, handshakes in ((BackendTLS.IMPLICIT, 1), (BackendTLS.STARTTLS, 0)):
            attempt = self.attempt("on", Backend("192.0.2.99", 995, tls))
            written: list[tuple[bytes, int]] = []
            transport = FakeTransport(IPv4Address("TCP", "192.0.2.99", 995))
            self.patch(transport, "write", lambda data, t=transport, w=written: w.append((data, len(t.tls))))
            transport.connect(attempt.reactor.tcpClients[-1][2].buildProtocol(None))
            self.assertEqual(written, [(PROXIED, 0)])
            self.assertEqual(len(transport.tls), handshakes)

    def test_everyTry(self) -> None:
        """Each backend that is tried gets one, and one alone."""
        attempt = self.attempt("on", FIRST, SECOND)
        attempt.accept()
        self.assertEqual(attempt.hears(), PROXIED)
        attempt.transport.lose()
        attempt.accept()
        self.assertEqual(attempt.hears(), PROXIED)
        attempt.says(GREETING, OK, LOGGED_IN)
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)

    def test_withoutAuthenticator(self) -> None:
        """A backend that judges the login itself gets one as well."""
        attempt = Attempt(POP3, ProxySettings(proxyProtocol="on"), route=routeTo(judged=False), client=BEHIND_BALANCER)
        attempt.accept()
        self.assertEqual(attempt.hears(), PROXIED)

    def test_foundOut(self) -> None:
        """What it tells of is found out for it, and for nothing else."""
        client = evolve(BEHIND_BALANCER, tls=TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"))

        def logIn(version: str, client: Client) -> None:
            attempt = Attempt(POP3, ProxySettings(proxyProtocol=version), client=client)
            attempt.accept()
            attempt.says(GREETING, OK, LOGGED_IN)
            self.successResultOf(attempt.result)

        asked = {version: askedOf(client, partial(logIn, version)) for version in ("off", "on", "v2")}
        self.assertEqual(asked, {"off": [], "on": ["local"], "v2": ["local", "details"]})


class LogTests(SynchronousTestCase):
    """The log never holds a password, whatever a backend says: of what it says the code alone is logged."""

    def test_echo(self) -> None:
        """A backend that repeats the command, in whatever form, repeats it to nobody else."""
        encoded = base64.b64encode(b"\0joe\0sesame")
        echoes = (b"PASS sesame", b"SESAME", b"sesa...", b"736573616d65", encoded, b"[sesame]", b'LOGIN "joe" "sesame"')
        for echo in echoes:
            attempt = loggedIn(route=routeTo(password=b"sesame"))
            attempt.says(b"-ERR " + echo + b"\r\n")
            self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
            self.assertIn("refused the login with -ERR,", attempt.log[0])

    def test_code(self) -> None:
        """The codes of all three protocols are logged, of several lines the last one's."""
        for reply, code in (
            (b"* CAPABILITY x\r\na NO [UNAVAILABLE] sesame\r\n", "NO [UNAVAILABLE]"),
            (b"a BAD sesame\r\n", "BAD"),
            (b"* BYE\r\n", "BYE"),
            (b"-ERR [SYS/TEMP] sesame\r\n", "-ERR [SYS/TEMP]"),
            (b"+OKsesame\r\n", "something that is no reply"),
            (b"535-5.7.8 sesame\r\n535 5.7.8 sesame\r\n", "535 5.7.8"),
            (b"454 sesame\r\n", "454"),
            (b"a NOsesame\r\n", "something that is no reply"),
            (b"sesame\r\n", "something that is no reply"),
            (b"", "something that is no reply"),
        ):
            self.assertEqual(replyCode(reply), code)

    def test_shortPassword(self) -> None:
        """A password of blanks alone does not make the log unreadable."""
        attempt = loggedIn(route=routeTo(password=b" "))
        attempt.says(b"-ERR no such user\r\n")
        self.assertIn("refused", attempt.log[0])

    def test_controlCharacters(self) -> None:
        """Control characters that a backend or a user name brings are escaped."""
        attempt = loggedIn(route=routeTo(user=b"joe\x1b[2J\x85"))
        attempt.says(b"-ERR \x1b[2J\x00 \rfake\r\n")
        self.assertTrue(attempt.log[0].isprintable())


class EndingBackend(Protocol):
    """A POP3 backend that takes any login, and says its last word with it."""

    def connectionMade(self) -> None:
        self.heard: list[bytes] = []
        self.lost: Deferred[list[bytes]] = Deferred()
        self.transport.write(GREETING)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        if data.startswith((b"USER", b"PASS")):
            self.transport.write(OK)  # type: ignore[union-attr]
        if data.startswith(b"PASS"):
            self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(self.heard)


class BreakingBackend(EndingBackend):
    """One by TLS that, when it is told to, says no more and does not say so."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(OK)  # type: ignore[union-attr]

    def breakOff(self) -> None:
        """End this side of the connection under TLS."""
        self.transport.transport.loseWriteConnection()  # type: ignore[union-attr]


class LeftTransport(FakeTransport):
    """The client's transport; C{ended} fires when it is told that the backend will say no more."""

    def __init__(self) -> None:
        super().__init__()
        self._lenient = True
        self.ended: Deferred[None] = Deferred()

    def loseWriteConnection(self) -> None:
        self.ended.callback(None)

    def stopProducing(self) -> None:
        # As Twisted's connections have it.
        self.loseConnection()


class SocketTests(TestCase):
    """A L{Connector} with a backend on a loopback socket."""

    timeout = 30

    async def relayed(self, backend: EndingBackend, contexts: Any = None) -> LeftTransport:
        """The client's side of a relay to C{backend}, which has TLS by C{contexts}, if there are any."""
        from twisted.internet import reactor

        factory = Factory.forProtocol(lambda: backend)
        factory.noisy = False
        endpoint: Any = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        tls = BackendTLS.OFF
        if contexts is not None:
            endpoint = SSL4ServerEndpoint(reactor, 0, contexts, interface="127.0.0.1")
            tls = BackendTLS.IMPLICIT
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        session = Session("pop3", "", "", 0.0)
        connector = Connector(POP3.client, settingsOf("pop3"), "mx.test", 20.0, reactor, Journal())
        route = routeTo(Backend("127.0.0.1", port.getHost().port, tls, False))
        client = await resultOf(connector.connect(route, requestFor("pop3"), session))
        assert isinstance(client, ProxyClient)
        client.detach()
        left = LeftTransport()
        left.connect(RelayedProtocol())
        relay = Relays(Clock()).between(left.protocol, client, session, 50.0, 50.0, lambda relay: None)
        relay.start(client.reply, b"")
        return left

    async def test_halfClose(self) -> None:
        """A backend that has said its last word is told what the client still has to say."""
        backend = EndingBackend()
        left = await self.relayed(backend)
        await left.ended
        self.assertEqual(left.value(), OK)
        left.protocol.dataReceived(b"QUIT\r\n")
        left.lose()
        self.assertEqual(await backend.lost, [b"USER joe\r\n", b"PASS sesame\r\n", b"QUIT\r\n"])

    async def test_brokenOffTLS(self) -> None:
        """One by TLS that ends its side without a goodbye is lost, and no defect of ours: TLS has no half-close."""
        folder = self.mktemp()
        os.mkdir(folder)
        pair = makePair(folder, "backend")
        backend = BreakingBackend()
        await self.relayed(backend, DefaultOpenSSLContextFactory(pair.key, pair.certificate))
        backend.breakOff()
        await backend.lost
        self.assertEqual(self.flushLoggedErrors(), [])
