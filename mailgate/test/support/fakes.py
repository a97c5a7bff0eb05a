# -*- test-case-name: mailgate.test.test_fakes -*-
"""
Stand-ins for what is outside: transports, authenticators, connectors. L{mailgate.test.test_fakes} verifies each
against the interface it stands for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport, ITCPTransport, ITLSTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, LogPublisher
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from mailgate.backend.client import ProxyClient
from mailgate.directives import ListenAddress, ServerSettings
from mailgate.frontend.listener import ProxyServerFactory
from mailgate.frontend.protocol import DialogueSettings, MailProtocol
from mailgate.interfaces import IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import Backend, Denial, LoginRequest, Refusal, Route
from mailgate.session import Session
from mailgate.tls.settings import TLSSettings

CLIENT = IPv4Address("TCP", "192.0.2.7", 40123)
ROUTE = Route((Backend("192.0.2.99", 143),), b"joe", b"sesame")


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
    """Gives the next of C{answers}: a value, an exception to fail with, or L{None} for one that never comes."""

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
        super().__init__(settingsOf("imap"), "mx.test", Backend("192.0.2.99", 143), ROUTE, None)  # type: ignore
        self.reply = reply
        self.leftOver = leftOver
        FakeTransport().connect(self)


class FakeConnector:
    """Gives the next of C{answers}; C{None} is a Deferred that never fires."""

    def __init__(self, *answers: ProxyClient | Refusal | Denial | Exception | None) -> None:
        self.answers = list(answers)
        self.routes: list[Route] = []
        self.pending: list[Deferred[Any]] = []

    async def connect(self, route: Route, request: LoginRequest, session: Session) -> Any:
        self.routes.append(route)
        answer = self.answers.pop(0) if self.answers else FakeClient(b"OK\r\n")
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            self.pending.append(Deferred())
            return await self.pending[-1]
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
    """A dialogue over a L{FakeTransport}, whose clock stands at 1000 seconds and whose random number is 7."""

    def __init__(
        self,
        record: MailProtocol,
        *groups: Any,
        authenticator: FakeAuthenticator | None = None,
        connector: FakeConnector | None = None,
        ssl: bool = False,
        peer: Any = CLIENT,
        level: LogLevel = LogLevel.info,
        reverseDNS: Any = None,
        proxyProtocol: bool = False,
    ) -> None:
        self.settings = settingsOf(record.name, *groups)
        self.authenticator = authenticator or FakeAuthenticator()
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
            self.authenticator,
            self.connector,  # type: ignore[arg-type]
            self.clock,
            Journal(level, publisher),
            "the TLS context" if usesTLS else None,  # type: ignore[arg-type]
            lambda n: (7).to_bytes(n, "big"),
            reverseDNS=reverseDNS,
        )
        self.transport = FakeTransport(peer)
        self.transport.connect(self.factory.buildProtocol(peer))

    @property
    def server(self) -> Any:
        """Who has the connection."""
        return self.transport.protocol

    @property
    def requests(self) -> list[LoginRequest]:
        """What the authenticator was asked."""
        return self.authenticator.requests

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

    def logged(self) -> list[str]:
        """The log, a text for each event."""
        from twisted.logger import formatEvent

        return [formatEvent(event) for event in self.events]


def hearEverything(make: Callable[[], Conversation], *chunks: bytes) -> bytes:
    """All that a client of the conversation that C{make} begins hears, if it sends C{chunks}."""
    conversation = make()
    heard = conversation.hear()
    for chunk in chunks:
        heard += conversation.send(chunk)
    return heard
