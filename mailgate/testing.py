# -*- test-case-name: mailgate.test.test_testing -*-
"""
For tests of authenticators and protocols, in this project and in others. Nothing here opens a socket or waits: tests
pass bytes in, turn a clock, and look at the result.

L{Conversation} is a client's conversation with a gateway whose authenticator is the test's, or a L{FakeAuthenticator};
L{Attempt} is a login at backends that the test plays; L{requestFor} makes what an authenticator is asked. The fakes are
verified against the interfaces that they stand for. The gateway itself imports none of this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import ISSLTransport, ITCPTransport, ITLSTransport
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger, LogLevel, LogPublisher, formatEvent
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from mailgate.backend.client import ProxyClient
from mailgate.backend.connector import Connector
from mailgate.backend.coroutine import Task
from mailgate.directives import ListenAddress, ServerSettings
from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import IAuthenticator, IConnector
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Denial, LoginRequest, Method, Refusal, Route, Trouble
from mailgate.session import TRANSITIONS, Outcome, Phase, Session
from mailgate.tls.settings import TLSSettings

__all__ = [
    "BACKEND",
    "CLIENT",
    "ROUTE",
    "Attempt",
    "CheckedSession",
    "Conversation",
    "FakeAuthenticator",
    "FakeClient",
    "FakeConnector",
    "FakeTransport",
    "hearEverything",
    "requestFor",
    "resultOf",
    "routeTo",
    "settingsOf",
]

CLIENT = IPv4Address("TCP", "192.0.2.7", 40123)
ROUTE = Route((Backend("192.0.2.99", 143),), b"joe", b"sesame")
BACKEND = Backend("192.0.2.99", 110)


class CheckedSession(Session):
    """
    A ledger that moves as L{TRANSITIONS} allow. The sessions of L{Conversation} and L{Attempt} are such.

    @cvar made: the moves of all of them, for tests of the table itself.
    """

    __slots__ = ()

    made: ClassVar[set[tuple[Phase, Phase]]] = set()
    _log: ClassVar[Logger] = Logger()

    def enter(self, phase: Phase) -> None:
        """
        As L{Session.enter}.

        @raise AssertionError: the move is not allowed, and not made. Trial fails a test where this was caught, too: it
            is logged.
        """
        if phase is not self.phase:
            if phase not in TRANSITIONS[self.phase]:
                error = AssertionError(f"a session may not go from {self.phase.name} to {phase.name}")
                self._log.failure("a move of a session is not allowed", Failure(error))
                raise error
            self.made.add((self.phase, phase))
        super().enter(phase)


class FakeHandle:
    """What pyOpenSSL's connection says of a handshake that is done."""

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        return "TLS_AES_256_GCM_SHA384"


@implementer(ITCPTransport, ITLSTransport)
class FakeTransport(StringTransport):
    """
    A TCP connection on which TLS can be started. It never loses itself: tests call L{lose}.
    """

    def __init__(self, peer: Any = CLIENT) -> None:
        super().__init__(peerAddress=peer)
        self.aborted = False
        self.writingClosed = False
        self.noDelay = False
        self.keepAlive = False
        self.tls: list[Any] = []
        self.protocol: Any = None

    def connect(self, protocol: Any) -> None:
        """Have C{protocol} connected to this."""
        self.protocol = protocol
        protocol.makeConnection(self)

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        self.tls.append(contextFactory)
        alsoProvides(self, ISSLTransport)

    def shakeHands(self) -> None:
        """The TLS handshake succeeds."""
        self.protocol.handshakeCompleted()

    def lose(self, reason: Exception | None = None) -> None:
        """The connection is gone."""
        self.connected = False
        self.protocol.connectionLost(Failure(reason or ConnectionDone()))

    def getHandle(self) -> Any:
        return FakeHandle()

    def getPeerCertificate(self) -> None:
        return None

    def loseWriteConnection(self) -> None:
        self.writingClosed = True

    def abortConnection(self) -> None:
        self.aborted = True
        self.disconnecting = True

    def getTcpNoDelay(self) -> bool:
        return self.noDelay

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.noDelay = enabled

    def getTcpKeepAlive(self) -> bool:
        return self.keepAlive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.keepAlive = enabled


@implementer(IAuthenticator)
class FakeAuthenticator:
    """
    Answers with the next of C{answers}: a value, an exception to fail with, or L{None} for one that comes when the test
    fires it, if ever. With none left it answers L{ROUTE}.

    @ivar requests: what it was asked.
    @ivar pending: the Deferreds of the answers that are yet to come.
    @ivar cancelled: how many of them the gateway did not want any more.
    @ivar closed: whether it was closed.
    """

    def __init__(self, *answers: Route | Denial | Exception | None) -> None:
        self.answers = list(answers)
        self.requests: list[LoginRequest] = []
        self.pending: list[Deferred[Any]] = []
        self.cancelled = 0
        self.closed = False

    def _cancel(self, deferred: Deferred[Any]) -> None:
        self.cancelled += 1

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else ROUTE
        if answer is None:
            waiting: Deferred[Route | Denial] = Deferred(self._cancel)
            self.pending.append(waiting)
            return waiting
        if isinstance(answer, Exception):
            failed: Deferred[Route | Denial] = Deferred()
            failed.errback(answer)
            return failed
        return succeed(answer)

    def close(self) -> None:
        self.closed = True


class FakeClient(ProxyClient):
    """A backend's side that is logged in already."""

    def __init__(self, reply: bytes = b"", leftOver: bytes = b"") -> None:
        super().__init__(settingsOf("imap"), "mx.test", Backend("192.0.2.99", 143), None)  # type: ignore[arg-type]
        self.reply = reply
        self._buffer += leftOver
        FakeTransport().connect(self)


@implementer(IConnector)
class FakeConnector:
    """
    Answers with the next of C{answers}, as L{FakeAuthenticator} does. With none left it answers a L{FakeClient}.

    @ivar routes: what it was to connect to.
    """

    def __init__(self, *answers: ProxyClient | Refusal | Denial | Exception | None) -> None:
        self.answers = list(answers)
        self.routes: list[Route] = []
        self.pending: list[Deferred[Any]] = []

    async def connect(self, route: Route, request: LoginRequest, session: Session) -> Any:
        self.routes.append(route)
        answer = self.answers.pop(0) if self.answers else FakeClient(b"OK\r\n")
        if isinstance(answer, Exception):
            raise answer
        session.enter(Phase.CONNECT)
        if answer is None:
            self.pending.append(Deferred())
            answer = await self.pending[-1]
        session.enter(Phase.BACKEND_LOGIN)
        return answer


def settingsOf(protocol: str, *groups: Any, given: frozenset[str] = frozenset()) -> ServerSettings:
    """Settings of a server for C{protocol}, named mx.test, where C{groups} do not say otherwise."""
    defaults: dict[type, Any] = {DialogueSettings: DialogueSettings(serverName="mx.test", timeout=60.0)}
    return ServerSettings(
        protocol,
        protocol,
        (ListenAddress("127.0.0.1", 143),),
        {**defaults, **{type(group): group for group in groups}},
        given,
    )


class Conversation:
    """
    A dialogue over a L{FakeTransport}, whose clock stands at 1000 seconds and whose random number is 7.

    @param record: what is spoken, such as L{mailgate.protocols.imap4.IMAP4}.
    @param groups: instances of settings classes that are not as by default.
    @param authenticator: what judges logins; a L{FakeAuthenticator} where there is none.
    @param connector: what connects to backends; a L{FakeConnector} where there is none.
    @param ssl: whether the client has come to a port of TLS. No byte is encrypted.
    @param peer: the client's address.
    @param level: what is logged, to C{events}.
    @param proxyProtocol: whether the client has to begin with a PROXY header.
    @ivar transport: the client's connection.
    @ivar clock: the dialogue's clock, to be advanced.
    """

    def __init__(
        self,
        record: MailProtocol,
        *groups: Any,
        authenticator: IAuthenticator | None = None,
        connector: FakeConnector | None = None,
        ssl: bool = False,
        peer: Any = CLIENT,
        level: LogLevel = LogLevel.info,
        reverseDNS: Any = None,
        proxyProtocol: bool = False,
    ) -> None:
        self.settings = settingsOf(record.name, *groups)
        self.authenticator: Any = authenticator or FakeAuthenticator()
        self.connector = connector or FakeConnector()
        self.clock = Clock()
        self.clock.advance(1000)
        self.events: list[dict[str, Any]] = []
        usesTLS = ssl or self.settings[TLSSettings].starttls != "off"
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.factory = ProxyServerFactory(
            record,
            self.settings,
            ListenAddress("127.0.0.1", 143, ssl, proxyProtocol=proxyProtocol),
            Means(
                self.authenticator,
                self.connector,
                self.clock,
                Journal(level, publisher),
                "the TLS context" if usesTLS else None,  # type: ignore[arg-type]
                randomness=lambda n: (7).to_bytes(n, "big"),
                reverseDNS=reverseDNS,
                makeSession=CheckedSession,
            ),
        )
        self.transport = FakeTransport(peer)
        self.transport.connect(self.factory.buildProtocol(peer))

    @property
    def server(self) -> Any:
        """Who has the connection."""
        return self.transport.protocol

    @property
    def requests(self) -> list[LoginRequest]:
        """What the L{FakeAuthenticator} was asked."""
        asked: list[LoginRequest] = self.authenticator.requests
        return asked

    @property
    def closed(self) -> bool:
        """Whether the gateway has ended the connection."""
        return bool(self.transport.disconnecting)

    def send(self, data: bytes) -> bytes:
        """The client sends C{data}; gives what it hears then."""
        self.hear()
        self.server.dataReceived(data)
        return self.hear()

    def says(self, *lines: bytes) -> bytes:
        """The client sends C{lines}; gives what it hears then."""
        return self.send(b"".join(line + b"\r\n" for line in lines))

    def hear(self) -> bytes:
        """What the client has heard since it last asked."""
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def dismiss(self) -> None:
        """The gateway goes down."""
        self.server.dismiss(Outcome.STOPPED, Trouble.STOPPING)

    def logged(self) -> list[str]:
        """The log, a text for each event."""
        return [formatEvent(event) for event in self.events]


def hearEverything(make: Callable[[], Conversation], *chunks: bytes) -> bytes:
    """All that a client of the conversation that C{make} begins hears, if it sends C{chunks}."""
    conversation = make()
    heard = conversation.hear()
    for chunk in chunks:
        heard += conversation.send(chunk)
    return heard


def routeTo(*backends: Backend, **changes: Any) -> Route:
    """joe's route, with the password sesame."""
    return Route(backends or (BACKEND,), **{"user": b"joe", "password": b"sesame", **changes})


def requestFor(protocol: str, **changes: Any) -> LoginRequest:
    """joe's request, with IMAP's tag a1."""
    given = {
        "credentials": Credentials(Method.PLAIN, b"joe", b"sesame"),
        "client": Client("192.0.2.7", 40123),
        "tag": b"a1",
        **changes,
    }
    return LoginRequest(protocol, **given)


def resultOf(awaitable: Awaitable[Any]) -> Deferred[Any]:
    """
    A Deferred that fires with the result of C{awaitable}: what a gateway's connector and clients of backends await is
    nothing for Twisted's own coroutines. It can be cancelled.
    """

    async def awaiting() -> None:
        result.callback(await awaitable)

    result: Deferred[Any] = Deferred(lambda _: task.cancel())
    task = Task(awaiting(), result.errback)
    task.start()
    return result


class Attempt:
    """
    A L{Connector} at work, on a reactor that connects nowhere: the test plays the backends. C{result} fires with what
    the connector gives.
    """

    def __init__(
        self,
        record: MailProtocol,
        *groups: Any,
        route: Route | None = None,
        timeout: float = 30.0,
        trust: Any = None,
        resolver: Any = None,
        **request: Any,
    ) -> None:
        self.reactor = MemoryReactorClock()
        if resolver is not None:
            self.reactor.installNameResolver(resolver)
        self.events: list[Any] = []
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.route = route or routeTo()
        self.session = CheckedSession(
            record.name, "127.0.0.1:110", "192.0.2.7:40123", 0.0, Phase.AUTH, user=self.route.user
        )
        self.connector = Connector(
            record.client,
            settingsOf(record.name, *groups),
            "mx.test",
            timeout,
            self.reactor,
            Journal(LogLevel.info, publisher),
            trust,
        )
        self.transport = FakeTransport()
        self.request = requestFor(record.name, **request)
        self.result = self.again()

    def again(self) -> Deferred[Any]:
        """Ask for the same once more."""
        return resultOf(self.connector.connect(self.route, self.request, self.session))

    @property
    def tried(self) -> list[tuple[str, int]]:
        """The addresses that have been connected to."""
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    @property
    def log(self) -> list[str]:
        """A text for each event."""
        return [formatEvent(event) for event in self.events]

    @property
    def levels(self) -> list[str]:
        """The level of each event."""
        return [event["log_level"].name for event in self.events]

    def accept(self) -> FakeTransport:
        """The backend that was tried last accepts the connection."""
        factory = self.reactor.tcpClients[-1][2]
        self.transport = FakeTransport(IPv4Address("TCP", *self.tried[-1]))
        self.transport.connect(factory.buildProtocol(self.transport.getPeer()))
        return self.transport

    def refuse(self, error: Exception | None = None) -> None:
        """The backend that was tried last cannot be connected to."""
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(error or ConnectionRefusedError()))

    def says(self, *data: bytes) -> bytes:
        """The backend sends C{data}, a segment each; gives what it hears then."""
        for segment in data:
            self.transport.protocol.dataReceived(segment)
        return self.hears()

    def hears(self) -> bytes:
        """What the backend has heard since it last asked."""
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def hasNoTimers(self) -> bool:
        """Whether nothing is left on the clock."""
        return self.reactor.getDelayedCalls() == []
