# -*- test-case-name: mailgate.test.test_testing -*-
"""
Fakes of what a dialogue uses: a transport, an authenticator, a connector, a backend. They are verified against the
interfaces that they implement.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any, ClassVar, cast

from attrs import fields
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport, ITCPTransport, ITLSTransport
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from mailgate.backend.caller import Caller
from mailgate.backend.client import ProxyClient
from mailgate.backend.place import Place
from mailgate.directives import ListenAddress, ServerSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import IAuthenticator, IConnector
from mailgate.login import Backend, Denial, LoginRequest, Refusal, Route
from mailgate.net.endpoints import Begin
from mailgate.session import TRANSITIONS, Ending, FollowedSession, Phase, Session
from mailgate.sessionids import GatewayIds, Listener

__all__ = [
    "CLIENT",
    "ROUTE",
    "CheckedSession",
    "FakeAuthenticator",
    "FakeClient",
    "FakeConnector",
    "FakeTransport",
    "makeSession",
    "settingsOf",
]

CLIENT = IPv4Address("TCP", "192.0.2.7", 40123)
ROUTE = Route((Backend("192.0.2.99", 143),), b"joe", b"sesame")


class CheckedSession(FollowedSession):
    """
    A session that allows only the moves of L{TRANSITIONS}. L{mailgate.testing.Conversation} and
    L{mailgate.testing.Attempt} use it.

    @cvar made: the moves of all sessions, for tests of the table itself.
    """

    __slots__ = ()

    made: ClassVar[set[tuple[Phase, Phase]]] = set()
    _log: ClassVar[Logger] = Logger()

    def enter(self, phase: Phase) -> None:
        """
        See L{Session.enter}.

        @param phase: the next phase.
        @raise AssertionError: the move is not allowed; the session stays in its phase. The error is also logged, so
            that Trial fails the test even if the code under test catches it.
        """
        self._check(phase)
        super().enter(phase)

    def end(self) -> None:
        """
        See L{Session.end}.

        @raise AssertionError: as for L{enter}.
        """
        self._check(Phase.END)
        super().end()

    def _check(self, phase: Phase) -> None:
        if phase is not self.phase:
            if phase not in TRANSITIONS[self.phase]:
                error = AssertionError(f"a session may not go from {self.phase.name} to {phase.name}")
                self._log.failure("a move of a session is not allowed", Failure(error))
                raise error
            self.made.add((self.phase, phase))


class _OneId(GatewayIds):
    """Ids for one session, whose text is C{id}."""

    _numbers: ClassVar[Iterator[int]] = count()

    def __init__(self, id: str) -> None:
        super().__init__("", iter(()))
        self.numbers = self._numbers
        self._id = id

    def textOf(self, number: int) -> str:
        return self._id


def makeSession(
    protocol: str,
    server: str,
    client: str,
    started: float,
    phase: Phase = Phase.ACCEPT,
    *,
    id: str = "-",
    kind: type[Session] = Session,
    **known: Any,
) -> Session:
    """
    Return the record of a connection.

    @param protocol: see L{Listener}.
    @param server: see L{Listener}.
    @param client: see L{Session}.
    @param started: see L{Session}.
    @param phase: see L{Session}.
    @param id: its id.
    @param kind: the class.
    @param known: further attributes of L{Session} and of L{Ending}.
    """
    ids = _OneId(id)
    ending = {each.name: known.pop(each.name) for each in fields(Ending) if each.name in known}
    session = kind(Listener(protocol, server, ids), client, started, phase, number=next(ids.numbers), **known)
    if ending:
        session.ending = Ending(**ending)
    return session


class FakeHandle:
    """The information that pyOpenSSL's connection gives after a handshake."""

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        return "TLS_AES_256_GCM_SHA384"

    def get_servername(self) -> bytes | None:
        return None

    def export_keying_material(self, label: bytes, olen: int, context: bytes | None = None) -> bytes:
        return label[:olen].ljust(olen, b".")


@implementer(ITCPTransport, ITLSTransport)
class FakeTransport(StringTransport):
    """
    A TCP connection that can start TLS. It ends only when a test calls L{lose}.

    @param peer: the address of the other side.
    @ivar aborted: whether C{abortConnection} was called.
    @ivar writingClosed: whether C{loseWriteConnection} was called.
    @ivar tls: the arguments of the calls of C{startTLS}.
    @ivar protocol: the protocol that the transport is connected to.
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
        """
        Connect a protocol to this transport.

        @param protocol: the protocol.
        """
        self.protocol = protocol
        protocol.makeConnection(self)

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        self.tls.append(contextFactory)
        alsoProvides(self, ISSLTransport)

    def shakeHands(self) -> None:
        """Complete the TLS handshake."""
        self.protocol.handshakeCompleted()

    def lose(self, reason: Exception | None = None) -> None:
        """
        End the connection.

        @param reason: the exception for C{connectionLost}; by default C{ConnectionDone}.
        """
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
    An authenticator with prepared answers. When none are left, it answers L{ROUTE}.

    @param answers: L{Route}s and L{Denial}s; exceptions, with which the login fails; or L{None} for an
        answer that the test gives later through C{pending}.
    @ivar requests: the logins.
    @ivar pending: the Deferreds of the answers that the test gives later.
    @ivar cancelled: how many of these the gateway has cancelled.
    @ivar closed: whether C{close} was called.
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
    """
    A backend client that has logged in.

    @param reply: the backend's reply to the login.
    @param leftOver: bytes that the backend sent after its reply.
    """

    def __init__(self, reply: bytes = b"", leftOver: bytes = b"") -> None:
        backend, begin = Backend("192.0.2.99", 143), cast(Begin, None)
        super().__init__(Caller(settingsOf("imap"), "mx.test"), Place(str(backend), backend, begin, None))
        self.reply = reply
        self._buffer += leftOver
        FakeTransport().connect(self)


@implementer(IConnector)
class FakeConnector:
    """
    A connector with prepared answers, like L{FakeAuthenticator}. When none are left, it answers with a L{FakeClient}.

    @param answers: the results of L{IConnector.connect}, exceptions, or L{None}.
    @ivar routes: the routes of the logins.
    @ivar pending: the Deferreds of the answers that the test gives later.
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
    """
    Make the settings of a server with the C{server_name} mx.test.

    @param protocol: the name of the protocol.
    @param groups: instances of settings classes that differ from the defaults.
    @param given: the names of the options that count as written in the configuration.
    """
    defaults: dict[type, Any] = {DialogueSettings: DialogueSettings(serverName="mx.test", timeout=60.0)}
    return ServerSettings(
        protocol,
        protocol,
        (ListenAddress("127.0.0.1", 143),),
        {**defaults, **{type(group): group for group in groups}},
        given,
    )
