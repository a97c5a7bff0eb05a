# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
The base class of logins at a backend, for all protocols. L{mailgate.backend.connector} makes the instances.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.backend.caller import Caller
from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError
from mailgate.backend.lines import Lines
from mailgate.backend.loss import lossOf
from mailgate.backend.offers import UNKNOWN
from mailgate.backend.place import Place
from mailgate.backend.steps import Steps
from mailgate.login import BackendTLS, Client, LoginRequest
from mailgate.net.endpoints import settle
from mailgate.net.proxyprotocol import headerFor
from mailgate.relay.protocol import Successor
from mailgate.session import Phase
from mailgate.tls.backendcontexts import BackendConnection, BackendContexts, IBackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings

__all__ = ["ProxyClient"]


def _ignored(_: object) -> None:
    """Does nothing: there is no session, or no more dialogue."""


_BACKEND_LOGIN = Phase.BACKEND_LOGIN

_NOBODY = Client("unix:")
"""Stands for a missing client in a PROXY header that has no addresses."""


@implementer(IHandshakeListener)
class ProxyClient(Lines):
    """
    A conversation with a backend. L{open} begins it; L{login} may follow, several times if the protocol allows that. It
    ends with L{detach} (a relay takes the connection over), with L{probe}, or with L{abandon}.

    L{open} and L{login} return coroutines, as L{probe} does. L{fail} makes them raise; the owner of a deadline calls
    L{expired}.

    @ivar reply: the backend's reply to the last login, line ends included.
    @ivar leftOver: bytes that the backend had sent after C{reply} when the connection was detached.
    @ivar logsIn: whether the backend expects a login. An IMAP backend that logs connections in greets with PREAUTH.
    @ivar concerns: warnings about a backend at which the login succeeded: phrases for the log that begin with a verb.
    """

    logsIn = True
    reply = b""
    leftOver = b""
    concerns: tuple[str, ...] = ()

    _isShakingHands = False
    _awaitsConnection = False
    _isClosed = False
    _isLate = False
    _connecting: Any = None
    _tls: BackendConnection | None = None
    _client: Client | None = None
    _enter: Callable[[Phase], object] = staticmethod(_ignored)

    greetsAsWe = False
    """Whether the greeting is that of a gateway, which is to count hops."""

    isGateway = False
    """
    Whether the backend is a gateway, as far as its greeting shows. When it refuses a login for now it has tried its own
    backends, and the login may go round among gateways: it is not tried again.
    """

    isLoggingIn = False
    """Whether the backend has greeted, so that it may have received what the client logs in with."""

    sendsForClient = False
    """
    Whether the gateway now sends the client's own commands (SMTP without a login). How long the backend takes for them
    depends on the client, for example on the name servers of the sender's domain.
    """

    isTimed = False
    """
    Whether the phases are timed. If not, a backend that speaks first is found to be connected when it does, or when the
    deadline passes.
    """

    readings: list[Any] | None = None
    """
    Those of the session (L{mailgate.session.Session.readings}), which get the time at which the system connected: the
    connection may be noticed later. L{None} if nothing needs it.
    """

    known = UNKNOWN
    """What is known of the capabilities of the backend."""

    steps: Steps | None = None
    """Logs what happens, for level debug; L{None} if that is not logged."""
    introduction = b""
    """The command that sends the client's address to the backend (ID, XCLIENT), its line end included; may be empty."""

    def __init__(self, caller: Caller, place: Place) -> None:
        """
        @param caller: the server that begins the conversation.
        @param place: the backend, and what connects to it.
        """
        self.limit = caller.proxy.buffer
        self.caller = caller
        self.place = place
        self.backend = place.backend

    # Each protocol implements these.

    async def greeted(self) -> None:
        """
        Read the greeting.

        @raise BackendError: the backend greets with an error.
        """
        raise NotImplementedError

    async def requestTLS(self) -> None:
        """
        Send STARTTLS and read the reply.

        @raise BackendError: the backend refuses STARTTLS.
        """
        raise NotImplementedError

    async def secured(self) -> None:
        """
        Ask what the backend offers over TLS, which STARTTLS has begun: what it said before may be an attacker's.

        @raise BackendError: it does not answer as it should.
        """

    async def authenticate(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        """
        Log in and set C{reply}.

        @param credentials: what to log in with.
        @param request: the client's login.
        @raise LoginRefused: the backend refuses the login (L{mailgate.backend.errors.LoginRefused}).
        @raise BackendError: the backend cannot be used.
        """
        raise NotImplementedError

    async def introduced(self) -> None:
        """
        Read the reply to C{introduction}. A refusal becomes one of C{concerns}; the login goes on.

        @raise BackendError: the reply is invalid.
        """
        raise NotImplementedError

    async def probed(self) -> None:
        """
        Send a harmless command that needs no login, and read the answer.

        @raise BackendError: the backend answers with an error.
        """
        raise NotImplementedError

    async def farewell(self) -> None:
        """
        Send the protocol's goodbye, and read the answer, whatever it is.

        @raise BackendError: the connection is lost, or the answer is not one of the protocol.
        """
        raise NotImplementedError

    async def offered(self) -> tuple[bytes, ...]:
        """
        Return what the backend offers before the login, after L{open}: one item per capability, as the protocol writes
        it. With STARTTLS this is what it offers over TLS.

        @return: words in IMAP, lines of the reply to C{CAPA} in POP3, lines of the reply to C{EHLO} without their code
            in SMTP.
        @raise BackendError: the backend does not say.
        """
        raise NotImplementedError

    def mayAnswer(self, reply: bytes, request: LoginRequest) -> bool:
        """
        Return whether a client would take a refusal by the backend for the answer to its own login.

        @param reply: the backend's reply, perhaps to a command that the gateway has sent for itself.
        @param request: the client's login.
        """
        return True

    def hopsLeft(self, request: LoginRequest) -> int:
        """Through how many gateways the login of C{request} may still go behind this one."""
        return self.caller.proxy.hopsOf(request) - 1

    # The conversation.

    def open(
        self, client: Client | None, contexts: IBackendContexts | None, enter: Callable[[Phase], object] = _ignored
    ) -> Coroutine[Any, Any, None]:
        """
        Begin to connect. The coroutine, which the caller awaits, starts TLS if the backend is configured for it, and
        reads the greeting.

        @param client: the client for the PROXY header; L{None} if there is no client.
        @param contexts: for the backend's TLS; L{None} for TLS with the defaults of all directives.
        @param enter: called with each phase that begins.
        @raise BackendError: the backend cannot be used.
        @raise Exception: the argument of L{fail}, for example a failed connect.
        """
        self._enter = enter
        tls = self.backend.tls
        isGreeted = not self.isTimed and tls is not BackendTLS.IMPLICIT
        if self.caller.hasHeader:
            self._client = client
            isGreeted = False
        self._connecting = self.place.begin(self, self._notConnected, isGreeted)
        # A coroutine around another one costs every login.
        return self.greeted() if tls is None or tls is BackendTLS.OFF else self._openTLS(tls, contexts)

    async def _openTLS(self, tls: BackendTLS, contexts: IBackendContexts | None) -> None:
        if tls is BackendTLS.IMPLICIT:
            self._awaitsConnection = True
            while self.transport is None:
                await self
            await self._startTLS(contexts)
        await self.greeted()
        if tls is BackendTLS.STARTTLS:
            await self.requestTLS()
            await self._startTLS(contexts)
            await self.secured()

    def login(self, credentials: BackendCredentials, request: LoginRequest) -> Coroutine[Any, Any, None]:
        """
        Log in after L{open}. The coroutine, which the caller awaits, sets C{reply}.

        @param credentials: what to log in with.
        @param request: the client's login.
        @raise LoginRefused: the backend refuses the login (L{mailgate.backend.errors.LoginRefused}).
        @raise BackendError: the backend cannot be used.
        @raise Exception: the argument of L{fail}.
        """
        self.reply = b""
        self.isLoggingIn = True
        if self._tls is not None:
            return self._logInOverTLS(credentials, request)
        return self.authenticate(credentials, request)

    async def _logInOverTLS(self, credentials: BackendCredentials, request: LoginRequest) -> None:
        assert self._tls is not None
        await self.authenticate(credentials, request)
        self._tls.loggedIn()
        self._tls = None

    async def probe(self, contexts: IBackendContexts | None, isShort: bool = False) -> None:
        """
        Check that the backend can be used. L{leave} then ends the conversation.

        @param contexts: as for L{open}.
        @param isShort: whether its greeting is enough.
        @raise BackendError: the backend cannot be used.
        @raise Exception: the argument of L{fail}.
        """
        await self.open(None, contexts)
        if not isShort:
            await self.probed()

    async def leave(self) -> None:
        """Say goodbye, and L{close} the connection. What the backend answers does not matter."""
        with suppress(BackendError, TimeoutError):
            await self.farewell()
        await self.close()

    async def close(self) -> None:
        """Close the connection, drop what still arrives, and return when it is closed. L{expired} aborts it."""
        self.dataReceived = _ignored  # type: ignore[method-assign, assignment]
        self._buffer = b""
        self.transport.loseConnection()
        # With TLS, a transport waits for the other side's close_notify.
        while not (self._isClosed or self._isLate):
            # What the goodbye has failed with does not matter any more.
            self.loss = None
            await self
        if not self._isClosed:
            self.transport.abortConnection()

    def detach(self) -> None:
        """Set C{leftOver}: a relay takes it and the connection over."""
        self.leftOver, self._buffer = self._buffer, b""

    def handOverTo(self, successor: Successor) -> None:
        super().handOverTo(successor)
        # The session may last for days: free what it does not need.
        self._client = self.steps = None
        self._enter = _ignored

    def abandon(self) -> None:
        """Abort the connection, or the attempt to connect, after a failure."""
        # The coroutine may be the caller. It must not be resumed.
        self.task = None
        # The exception leads to the frames that it went through, and so to this object and to the password.
        self.loss = None
        connecting, self._connecting = self._connecting, None
        if self.transport is not None:
            self.transport.abortConnection()
        elif connecting is not None:
            connecting.cancel()

    def sendLogin(self, line: bytes) -> None:
        """
        Send a line of the login. C{introduction} goes before the first one, in the same segment, so it costs no round
        trip. L{introduced} must read the reply to it first.

        @param line: the line without its end.
        @raise BackendError: the backend has replied already.
        """
        if self.introduction:
            if self.steps is not None:
                self.steps.introduces(self.introduction)
            line = self.introduction + line
            self.introduction = b""
            self.isIntroducing = True
        if self._buffer:
            self.checkOrder()
        self.transport.write(line + b"\r\n")

    async def _startTLS(self, contexts: IBackendContexts | None) -> None:
        self._enter(Phase.BACKEND_TLS)
        # An attacker may have injected bytes in the clear before the reply to STARTTLS, or behind it.
        self._buffer = b""
        self.reply = b""
        try:
            self._tls = tls = (contexts or BackendContexts(BackendTLSSettings())).creatorFor(self.backend)
        except ValueError:
            # A unix socket, for example.
            raise BackendError(
                "has no host name to verify its certificate against", counts=False, cause="tls"
            ) from None
        self._isShakingHands = True
        self.transport.startTLS(tls)
        while self._isShakingHands:
            await self
        if not tls.hasCertificate:
            message = "has no certificate: remove ciphers without authentication from proxy_ssl_ciphers"
            raise BackendError(message, counts=False, cause="tls")
        self._enter(_BACKEND_LOGIN)

    def handshakeCompleted(self) -> None:
        self._isShakingHands = False
        self.notify()

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self._connecting = None
        if self.caller.hasHeader:
            transport.write(headerFor(self._client or self._ourselves(), self.caller.proxy.proxyProtocol))
        self._enter(_BACKEND_LOGIN)
        readings = self.readings
        if readings is not None and hasattr(transport, "connectedAt"):
            # The connection was noticed with the backend's greeting, which is part of the login.
            readings[-1] = transport.connectedAt(readings[-3], readings[-1])
        if self._awaitsConnection:
            self.notify()

    def _ourselves(self) -> Client:
        """
        Stands for a missing client in the PROXY header. In version 1 that is the gateway itself: Postfix refuses a
        header without addresses, and logs a warning.
        """
        own, other = self.transport.getHost(), self.transport.getPeer()
        if self.caller.proxy.proxyProtocol == "v2" or not isinstance(own, IPv4Address | IPv6Address):
            return _NOBODY
        return Client(own.host, own.port, local=other.host, localPort=other.port)

    def dialogueEnded(self) -> None:
        self.transport.loseConnection()
        self.fail(BackendError("closed the connection", cause="error"))

    def dialogueLost(self, reason: Failure) -> None:
        self._isClosed = True
        self.fail(lossOf(reason, self.backend.tls, self._isShakingHands, self.isLoggingIn))

    def _notConnected(self, failure: Failure) -> None:
        if failure.check(ValueError):
            # HostnameEndpoint raises it for an invalid name.
            self.fail(BackendError("is not a valid host name", cause="error"))
        else:
            assert isinstance(failure.value, Exception)
            self.fail(failure.value)

    def expired(self) -> None:
        """Fail with a timeout: the deadline is over."""
        self._isLate = True
        if self._connecting is not None:
            # The log says whether the backend was connected and did not greet.
            settle(self._connecting)
        self.fail(TimeoutError())
