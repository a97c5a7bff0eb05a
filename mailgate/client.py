# -*- test-case-name: mailgate.test.test_client -*-
"""
The backend's side of a session: the base of the protocols that log in there, and the L{Connector} that turns a route
into a client that is logged in.
"""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer

from mailgate.backenderrors import BackendError, LoginRefused, Unauthorizing, replyCode
from mailgate.connectionerrors import inWords
from mailgate.connectionlog import BACKEND_FAILED, BACKEND_NOTED, about
from mailgate.directives import ServerSettings
from mailgate.journal import Journal, printable
from mailgate.login import Backend, BackendTLS, Denial, LoginRequest, Refusal, Route, Trouble, fitForWire
from mailgate.names import endpointFor
from mailgate.proxyprotocol import headerFor
from mailgate.proxysettings import ProxySettings
from mailgate.relay import RelayedProtocol, makeNoDelay
from mailgate.session import Phase, Session
from mailgate.tls import backendTLS

__all__ = ["BackendError", "Connector", "LoginRefused", "ProxyClient", "ProxySettings", "Unauthorizing", "replyCode"]

_REFUSALS = ("NO", "BAD", "BYE", "-ERR", "4", "5")
"""How the codes of replies begin that say no: what is garbled is not passed on to a client."""


@implementer(IHandshakeListener)
class ProxyClient(RelayedProtocol):
    """
    A connection to a backend, logged in by L{login}; then C{reply} is what the backend said to that, C{leftOver} what
    it said beyond, and the connection is paused until a relay takes it over. C{concerns} is what an operator should
    know of the backend, though it was possible to log in: phrases for the log that begin with a verb.
    """

    reply = b""
    leftOver = b""
    concerns: tuple[str, ...] = ()

    isIntroducing = False
    """Whether the reply to C{introduction} has not been read."""
    introduction = b""
    """The command, its line end included, that tells the backend who the client is, where it wants to know."""

    def __init__(
        self, settings: ServerSettings, serverName: str, backend: Backend, route: Route, request: LoginRequest
    ) -> None:
        self.settings = settings
        self.serverName = serverName.encode()
        self.backend = backend
        self.route = route
        self.request = request
        proxy = settings[ProxySettings]
        self.limit = proxy.buffer
        self._proxyProtocol = proxy.proxyProtocol
        self.tellsByCommand = proxy.tellsByCommand
        self._buffer = bytearray()
        self._more: Deferred[None] | None = None
        self._loss: Exception | None = None
        self._session: Session | None = None

    async def greeted(self) -> None:
        """
        Read the greeting.

        @raise BackendError: it is not a friendly one.
        """
        raise NotImplementedError

    async def requestTLS(self) -> None:
        """
        Have the backend agree to STARTTLS.

        @raise BackendError: it does not.
        """
        raise NotImplementedError

    async def authenticate(self) -> None:
        """
        Log in, and set C{reply}.

        @raise BackendError: that cannot be done; L{LoginRefused}: the backend will not have it.
        """
        raise NotImplementedError

    async def introduced(self) -> None:
        """
        Read the reply to C{introduction}, which is not the client's. A refusal is no reason not to log in.

        @raise BackendError: it is none.
        """
        raise NotImplementedError

    async def login(self, session: Session, trust: Any) -> None:
        """
        Come to be logged in as soon as there is a connection, over TLS if the backend is to be spoken to so, its
        certificate judged by C{trust}.

        @raise BackendError: no; or what L{fail} was given.
        """
        tls = self.backend.tls
        self._session = session
        if tls is BackendTLS.IMPLICIT:
            while self.transport is None:
                await self._wait()
            await self._startTLS(session, trust)
        if self.transport is not None:
            session.enter(Phase.BACKEND_LOGIN)
        await self.greeted()
        if tls is BackendTLS.STARTTLS:
            await self.requestTLS()
            await self._startTLS(session, trust)
            session.enter(Phase.BACKEND_LOGIN)
        await self.authenticate()
        self.transport.pauseProducing()
        self.leftOver = bytes(self._buffer)
        self._buffer.clear()
        # The session may last for days, and needs no password any more.
        del self.route, self.request, self._session

    @property
    def password(self) -> bytes:
        """
        What to log in with.

        @raise BackendError: nobody knows.
        """
        if self.route.password is None:
            raise BackendError("no password is known to log in with")
        return self.route.password

    @property
    def plainMessage(self) -> bytes:
        """The message of SASL PLAIN (RFC 4616) in base64."""
        return base64.b64encode(b"\0".join((self.route.authzid or b"", self.route.user, self.password)))

    async def line(self) -> bytes:
        """
        The next line, line end included.

        @raise BackendError: it is too long, or the connection is gone.
        """
        while (line := self.takeLine()) is None:
            if self._loss is not None:
                raise self._loss
            self._more = Deferred()
            await self._more
        return line

    def takeLine(self) -> bytes | None:
        """
        The next line, line end included, if it has come: what L{line} gives, for a third of its time.

        @raise BackendError: it is too long.
        """
        buffer = self._buffer
        end = buffer.find(b"\n")
        if end < 0 and len(buffer) < self.limit:
            return None
        if not 0 <= end < self.limit:
            raise BackendError("sent a too long reply")
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        return line

    def send(self, line: bytes) -> None:
        """
        Send C{line}, to which the line end is added.

        @raise BackendError: the backend has answered already. Its replies would be taken for those to other commands.
        """
        if self.answersEarly(self._buffer):
            raise BackendError("speaks out of turn")
        self.transport.write(line + b"\r\n")

    def sendLogin(self, line: bytes) -> None:
        """
        L{send} a C{line} of the login. C{introduction} goes before the first, in the same segment: nothing is waited
        for any longer. The reply to it is then the first to be read (L{introduced}).

        @raise BackendError: as from L{send}.
        """
        self.send(self.introduction + line)
        self.isIntroducing = self.introduction != b""
        self.introduction = b""

    def answersEarly(self, ahead: bytearray) -> bool:
        """Whether what has come C{ahead} of our next command may be a reply to it."""
        return bool(ahead)

    async def _startTLS(self, session: Session, trust: Any) -> None:
        session.enter(Phase.BACKEND_TLS)
        # What came in the clear behind the answer to STARTTLS may be anybody's.
        self._buffer.clear()
        more = self._more = Deferred()
        try:
            tls = backendTLS(self.backend.host, self.backend.verify, trust)
        except ValueError:
            # Of a unix socket, say.
            raise BackendError("has no name that a certificate could be good for") from None
        self.transport.startTLS(tls)
        await more
        if self._loss is not None:
            raise self._loss

    async def _wait(self) -> None:
        if self._loss is not None:
            raise self._loss
        self._more = Deferred()
        await self._more

    def handshakeCompleted(self) -> None:
        self._wake()

    def connectionMade(self) -> None:
        makeNoDelay(self.transport)
        if self._proxyProtocol != "off":
            self.transport.write(headerFor(self.request.client, self._proxyProtocol))
        if self._session is not None:
            self._session.enter(Phase.BACKEND_LOGIN)
            if self.backend.tls is BackendTLS.IMPLICIT:
                self._wake()

    def dialogueReceived(self, data: bytes) -> None:
        self._buffer += data
        self._wake()

    def dialogueEnded(self) -> None:
        self.transport.loseConnection()
        self.fail(BackendError("closed the connection"))

    def dialogueLost(self, reason: Failure) -> None:
        shown = printable(reason.getErrorMessage().encode("utf-8", "backslashreplace"))
        self.fail(BackendError(inWords(reason.value) or f"lost the connection: {shown}"))

    def fail(self, reason: Exception) -> None:
        """Have L{login} raise C{reason}, unless it is over."""
        if self._loss is None:
            self._loss = reason
        self._wake()

    def abandon(self) -> None:
        """L{login} has ended without success: so does the connection."""
        self._more = None
        if self.transport is not None:
            self.transport.abortConnection()

    def _wake(self) -> None:
        more, self._more = self._more, None
        if more is not None and not more.called:
            more.callback(None)


_MOST_PLACES = 1024
"""Backends whose places are kept: an authentication service may name any number."""


class _Once(Factory):
    """Gives C{client} to one connection."""

    noisy = False

    def __init__(self, client: ProxyClient) -> None:
        self._client = client

    def buildProtocol(self, addr: Any) -> ProxyClient:
        return self._client


def _passHalfCloses(client: ProxyClient) -> None:
    """Endpoints' wrappers pass on the last of a protocol's interfaces alone: half-closes, which TLS lacks, are lost."""
    if client.transport.protocol is not client and not ISSLTransport.providedBy(client.transport):
        alsoProvides(client.transport.protocol, IHalfCloseableProtocol)


def _connectError(failure: Failure) -> Exception:
    if failure.check(ValueError):
        # HostnameEndpoint's way to say it.
        return BackendError("is no host name")
    assert isinstance(failure.value, Exception)
    return failure.value


class Connector:
    """
    Makes logged-in clients of class C{client} for a server's sessions. C{timeout} seconds are given to each backend,
    from the connection to the end of the login (nginx's C{timeout}); C{trust} are the roots that backends'
    certificates are judged by, or L{None} for the platform's.
    """

    def __init__(
        self,
        client: type[ProxyClient],
        settings: ServerSettings,
        serverName: str,
        timeout: float,
        reactor: Any,
        journal: Journal,
        trust: Any = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._serverName = serverName
        self._timeout = timeout
        self._reactor = reactor
        self._journal = journal
        self._trust = trust
        self._places: dict[tuple[str, int], tuple[str, IStreamClientEndpoint]] = {}
        self._told: set[tuple[str, str]] = set()
        self._passErrorMessage = settings[ProxySettings].passErrorMessage

    async def connect(self, route: Route, request: LoginRequest, session: Session) -> ProxyClient | Refusal | Denial:
        """
        Log in at the first backend of C{route} that can be used. A L{Refusal} is to be passed on to the client as it
        is, before its connection ends.

        Each backend that failed is a line of the log: a warning where another served the client, or else an error.
        """
        if not fitForWire(route.user, route.password, route.authzid):
            return Denial(Trouble.DENIED, reason="a line end or NUL in the name or the password")
        reply = b""
        failures: list[dict[str, Any]] = []
        isServed = False
        try:
            for backend in route.backends:
                session.backend = self._place(backend)[0]
                try:
                    client = await self._attempt(backend, route, request, session)
                    isServed = True
                    return client
                except LoginRefused as refused:
                    isServed = not route.judged and not refused.temporary
                    return self._refused(refused, route, session, failures)
                except Unauthorizing as error:
                    failures.append(self._failure(error, session))
                    return Denial(Trouble.UNAUTHORIZED, reason="the backend takes no authorization identity")
                except (BackendError, ConnectError, TimeoutError, OSError) as error:
                    reply = getattr(error, "reply", b"")
                    failures.append(self._failure(error, session))
        finally:
            # Not sooner: it is an error only where no other backend has served the client.
            tell = self._journal.warn if isServed else self._journal.error
            for failure in failures:
                tell(BACKEND_FAILED, **failure)
        if self._passErrorMessage and replyCode(reply).startswith(_REFUSALS):
            return Refusal(reply, True)
        return Denial(Trouble.TEMPORARY)

    async def _attempt(self, backend: Backend, route: Route, request: LoginRequest, session: Session) -> ProxyClient:
        session.enter(Phase.CONNECT)
        client = self._client(self._settings, self._serverName, backend, route, request)
        connecting = self._place(backend)[1].connect(_Once(client))
        connecting.addCallbacks(_passHalfCloses, lambda failure: client.fail(_connectError(failure)))
        deadline = self._reactor.callLater(self._timeout, client.fail, TimeoutError())
        try:
            await client.login(session, self._trust)
        except BaseException:
            client.abandon()
            if client.transport is None:
                connecting.cancel()
            raise
        finally:
            if deadline.active():
                deadline.cancel()
        if client.concerns:
            self._warn(client.concerns, session)
        return client

    def _warn(self, concerns: tuple[str, ...], session: Session) -> None:
        """Tell of each backend once that it is a cause for C{concerns}."""
        for concern in concerns:
            if (session.backend, concern) in self._told:
                continue
            if len(self._told) >= _MOST_PLACES:
                self._told.clear()
            self._told.add((session.backend, concern))
            self._journal.warn(
                BACKEND_NOTED,
                **about(session),
                backend=session.backend,
                concern=concern,
            )

    def _place(self, backend: Backend) -> tuple[str, IStreamClientEndpoint]:
        """What C{backend} is called, and where it is. A site has some backends, and many sessions at each."""
        place = self._places.get((backend.host, backend.port))
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            place = str(backend), endpointFor(self._reactor, backend.host, backend.port, None)
            self._places[backend.host, backend.port] = place
        return place

    def _refused(
        self, refused: LoginRefused, route: Route, session: Session, failures: list[dict[str, Any]]
    ) -> Refusal | Denial:
        if not route.judged and not refused.temporary:
            return Denial(Trouble.DENIED)
        failures.append(self._failure(refused, session))
        if route.judged and self._passErrorMessage:
            return Refusal(refused.reply, refused.temporary)
        return Denial(Trouble.TEMPORARY)

    def _failure(self, error: Exception, session: Session) -> dict[str, Any]:
        """The fields of the line about the backend of C{session}, which cannot be used because of C{error}."""
        text = ""
        if isinstance(error, BackendError):
            reason = str(error)
            text = f', text "{printable(error.reply.strip())}"' if error.isQuoted else ""
        elif isinstance(error, TimeoutError | ConnectTimeout):
            reason = f"gave no answer within {self._timeout:g} s"
        else:
            reason = inWords(error) or f"failed: {printable(str(error).encode())}"
        return {
            **about(session),
            "backend": session.backend,
            "reason": reason,
            "phase": session.phase.value,
            "user": printable(session.user),
            "text": text,
        }
