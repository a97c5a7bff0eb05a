# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
The backend's side of a session: the base of the protocols that log in there. L{mailgate.backend.connector} makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.backend.coroutine import Condition
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError
from mailgate.backend.settings import ProxySettings
from mailgate.directives import ServerSettings
from mailgate.log.journal import printable
from mailgate.login import Backend, BackendTLS, Client, LoginRequest
from mailgate.net.connectionerrors import inWords
from mailgate.net.endpoints import begin
from mailgate.net.proxyprotocol import headerFor
from mailgate.relay.protocol import RelayedProtocol, makeNoDelay
from mailgate.session import Phase
from mailgate.tls.backendcontexts import BackendConnection, BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.tls.errors import hasReason, serverTrouble

__all__ = ["ProxyClient"]

_NO_TLS = {
    BackendTLS.IMPLICIT: "this port speaks no TLS from the first byte on; perhaps it takes starttls, and not ssl",
    BackendTLS.STARTTLS: "it agreed to speak TLS, and does not",
}
"""What it means that a backend's answer to the beginning of TLS is none."""


def _ignored(phase: Phase) -> None:
    """Where no session keeps account of the phases."""


_NOBODY = Client("unix:")
"""What a PROXY header tells of where there is no client: nothing."""


@implementer(IHandshakeListener)
class ProxyClient(RelayedProtocol):
    """
    A conversation with a backend. L{open} begins it, L{login} may follow, more than once where the protocol has room
    for that. It ends with L{detach}, which leaves the connection to a relay, with L{probe}, or with L{abandon}.

    All three are coroutines of a L{mailgate.backend.coroutine.Task}, which this connection resumes: a line costs no
    Deferred. C{fail} ends them; so who sets a deadline has to call L{expired}.

    C{reply} is what the backend said to the last login, C{leftOver} what it had said beyond that when the connection
    was detached. C{concerns} is what an operator should know of the backend, though it was possible to log in: phrases
    for the log that begin with a verb.

    @param endpoint: where C{backend} is.
    """

    reply = b""
    leftOver = b""
    concerns: tuple[str, ...] = ()

    _isShakingHands = False
    _connecting: Any = None
    _tls: BackendConnection | None = None
    _client: Client | None = None
    _enter: Callable[[Phase], object] = staticmethod(_ignored)

    isIntroducing = False
    """Whether the reply to C{introduction} has not been read."""
    introduction = b""
    """The command, its line end included, that tells the backend who the client is, where it wants to know."""

    def __init__(
        self, settings: ServerSettings, serverName: str, backend: Backend, endpoint: IStreamClientEndpoint
    ) -> None:
        self.settings = settings
        self.serverName = serverName
        self.backend = backend
        self._endpoint = endpoint
        proxy = settings[ProxySettings]
        self.limit = proxy.buffer
        self._proxyProtocol = proxy.proxyProtocol
        self.tellsByCommand = proxy.tellsByCommand
        self._buffer = bytearray()
        self._changed = Condition()
        self._loss: Exception | None = None

    # What each protocol has of its own.

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

    async def secured(self) -> None:
        """
        Ask what the backend offers over TLS, which STARTTLS has begun: what it said before may be an attacker's.

        @raise BackendError: it does not answer as it should.
        """

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        """
        Log in, and set C{reply}.

        @raise BackendError: that cannot be done; L{mailgate.backend.errors.LoginRefused}: it refuses the login.
        """
        raise NotImplementedError

    async def introduced(self) -> None:
        """
        Read the reply to C{introduction}, which is not the client's. A refusal is no reason not to log in.

        @raise BackendError: it is none.
        """
        raise NotImplementedError

    async def probed(self) -> None:
        """
        Say something harmless that takes no login, and goodbye.

        @raise BackendError: the backend does not answer that as it should.
        """
        raise NotImplementedError

    # The conversation.

    async def open(
        self, client: Client | None, contexts: BackendContexts | None, enter: Callable[[Phase], object] = _ignored
    ) -> None:
        """
        Connect and hear the greeting, over TLS if the backend is to be spoken to so.

        @param client: the one that a PROXY header names, if the backend gets one; L{None} if there is no client.
        @param contexts: of the backend's TLS; L{None} is TLS by the defaults of directives.
        @param enter: called with each phase that begins.
        @raise BackendError: the backend cannot be used.
        @raise Exception: what L{fail} was given: no connection came about, for example.
        """
        self._client, self._enter = client, enter
        self._connecting = begin(self._endpoint, self, self._notConnected)
        tls = self.backend.tls
        if tls is BackendTLS.IMPLICIT:
            while self.transport is None:
                await self._wait()
            await self._startTLS(contexts)
        await self.greeted()
        if tls is BackendTLS.STARTTLS:
            await self.requestTLS()
            await self._startTLS(contexts)
            await self.secured()

    async def login(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        """
        Log in at the backend that was L{open}ed. Afterwards C{reply} is set, and the conversation may go on.

        @raise BackendError: no; L{mailgate.backend.errors.LoginRefused}: it refuses the login; or what L{fail} was
            given.
        """
        self.reply = b""
        await self.authenticate(credentials, request)
        if self._tls is not None:
            self._tls.loggedIn()
            self._tls = None

    async def probe(self, contexts: BackendContexts | None) -> None:
        """
        Find out whether the backend can be used, and close the connection.

        @param contexts: as of L{open}.
        @raise BackendError: it cannot; or what L{fail} was given.
        """
        await self.open(None, contexts)
        await self.probed()
        self.transport.loseConnection()

    def detach(self) -> None:
        """Leave the connection, paused, to a relay that is about to take it over; C{leftOver} is that one's, too."""
        self.transport.pauseProducing()
        self.leftOver = bytes(self._buffer)
        self._buffer.clear()
        # The session may last for days.
        self._client, self._enter = None, _ignored

    def abandon(self) -> None:
        """The conversation has ended without success: so does the connection."""
        # The coroutine may be ending just now, and cannot be resumed.
        self._changed.task = None
        connecting, self._connecting = self._connecting, None
        if self.transport is not None:
            self.transport.abortConnection()
        elif connecting is not None:
            connecting.cancel()

    async def line(self) -> bytes:
        """
        The next line, line end included.

        @raise BackendError: it is too long, or the connection is gone.
        """
        while (line := self.takeLine()) is None:
            if self._loss is not None:
                raise self._loss
            await self._changed
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

    async def _startTLS(self, contexts: BackendContexts | None) -> None:
        self._enter(Phase.BACKEND_TLS)
        # What came in the clear, before the answer to STARTTLS or behind it, may be an attacker's.
        self._buffer.clear()
        self.reply = b""
        try:
            self._tls = tls = (contexts or BackendContexts(BackendTLSSettings())).creatorFor(self.backend)
        except ValueError:
            # Of a unix socket, say.
            raise BackendError("has no name that a certificate could be good for") from None
        self._isShakingHands = True
        self.transport.startTLS(tls)
        while self._isShakingHands:
            await self._wait()
        self._enter(Phase.BACKEND_LOGIN)

    async def _wait(self) -> None:
        """Wait until something has changed: there is a connection, or TLS, or more has come."""
        if self._loss is not None:
            raise self._loss
        await self._changed

    def handshakeCompleted(self) -> None:
        self._isShakingHands = False
        self._changed.notify()

    def connectionMade(self) -> None:
        self._connecting = None
        makeNoDelay(self.transport)
        if self._proxyProtocol != "off":
            self.transport.write(headerFor(self._client or _NOBODY, self._proxyProtocol))
        self._enter(Phase.BACKEND_LOGIN)
        if self.backend.tls is BackendTLS.IMPLICIT:
            self._changed.notify()

    def dialogueReceived(self, data: bytes) -> None:
        self._buffer += data
        self._changed.notify()

    def dialogueEnded(self) -> None:
        self.transport.loseConnection()
        self.fail(BackendError("closed the connection"))

    def dialogueLost(self, reason: Failure) -> None:
        error: Any = reason.value
        if self._isShakingHands:
            said = serverTrouble(error, _NO_TLS[self.backend.tls or BackendTLS.IMPLICIT])
            self.fail(BackendError(f"failed in the TLS handshake: {said}"))
        elif hasReason(error):
            self.fail(BackendError(f"lost the connection: {serverTrouble(error)}"))
        else:
            shown = printable(reason.getErrorMessage().encode("utf-8", "backslashreplace"))
            self.fail(BackendError(inWords(error) or f"lost the connection: {shown}"))

    def _notConnected(self, failure: Failure) -> None:
        if failure.check(ValueError):
            # HostnameEndpoint's way to say it.
            self.fail(BackendError("is no host name"))
        else:
            assert isinstance(failure.value, Exception)
            self.fail(failure.value)

    def expired(self) -> None:
        """The time for what is under way is over."""
        self.fail(TimeoutError())

    def fail(self, reason: Exception) -> None:
        """Have the coroutine that is under way raise C{reason}."""
        if self._loss is None:
            self._loss = reason
        self._changed.notify()
