# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
The backend's side of a session: the base of the protocols that log in there. L{mailgate.backend.connector} makes them.
"""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.backend.errors import BackendError, LoginRefused, Unauthorizing, beginsWith, replyCode
from mailgate.backend.settings import ProxySettings
from mailgate.directives import ServerSettings
from mailgate.log.journal import printable
from mailgate.login import Backend, BackendTLS, LoginRequest, Route
from mailgate.net.connectionerrors import inWords
from mailgate.net.proxyprotocol import headerFor
from mailgate.relay.protocol import RelayedProtocol, makeNoDelay
from mailgate.session import Phase, Session
from mailgate.tls.errors import hasReason, serverTrouble
from mailgate.tls.settings import backendTLS

__all__ = ["BackendError", "LoginRefused", "ProxyClient", "ProxySettings", "Unauthorizing", "beginsWith", "replyCode"]

_NO_TLS = {
    BackendTLS.IMPLICIT: "this port speaks no TLS from the first byte on; perhaps it takes starttls, and not ssl",
    BackendTLS.STARTTLS: "it agreed to speak TLS, and does not",
}
"""What it means that a backend's answer to the beginning of TLS is none."""


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

    _isShakingHands = False

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
        self._isShakingHands = True
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
        self._isShakingHands = False
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
        error: Any = reason.value
        if self._isShakingHands:
            said = serverTrouble(error, _NO_TLS[self.backend.tls])
            self.fail(BackendError(f"failed in the TLS handshake: {said}"))
        elif hasReason(error):
            self.fail(BackendError(f"lost the connection: {serverTrouble(error)}"))
        else:
            shown = printable(reason.getErrorMessage().encode("utf-8", "backslashreplace"))
            self.fail(BackendError(inWords(error) or f"lost the connection: {shown}"))

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
