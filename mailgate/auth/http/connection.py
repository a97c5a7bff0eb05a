# -*- test-case-name: mailgate.test.auth.http.test_agent -*-
"""
One HTTP connection to a service, which carries one request at a time, and the class for requests.

A response is complete when its head is complete. The body is read only so that the connection can be used again, and is
discarded.

The first response of a connection can be trusted. On a connection that was used before, bytes may be left over from an
earlier response, and may answer another user's login. Therefore the connection reads nothing more after a byte that
belongs to no request, and reports it to its L{Keeper}. A request whose response may consist of such bytes is sent again
over a new connection. This is safe because every request is a GET.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.iweb import IClientRequest, IResponse
from zope.interface import implementer

from mailgate.auth.http.headers import PreparedHeaders
from mailgate.auth.http.response import HTTPResponse, NotHTTP, ProtocolError, ResponseParser, Stage
from mailgate.lean.descriptors import Peephole
from mailgate.net.connectionerrors import inWords
from mailgate.tls.errors import hasReason, serverTrouble

__all__ = [
    "BODY_PATIENCE",
    "Exchange",
    "ExchangeCancelled",
    "ExchangeFailed",
    "HTTPConnection",
    "Keeper",
]

SHAKING_HANDS = "performing the TLS handshake"

BODY_PATIENCE = 1.0
"""
Seconds to wait for the rest of a body, or for the end of a connection that is not used again. The answer has been given
by then. A server that handles one connection at a time can soon accept the next.
"""


class ExchangeFailed(Exception):
    """
    A request got no answer.

    @param phase: what the gateway was doing, as a phrase that follows "while".
    @param reason: the reason, as a phrase for the log.
    @param cause: the exception that was the reason, if there was one.
    """

    def __init__(self, phase: str, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(f"while {phase}: {reason}")
        self.phase = phase
        self.cause = cause


class ExchangeCancelled(CancelledError):
    """
    A request was cancelled.

    @param phase: what the gateway was doing, as for L{ExchangeFailed}.
    """

    def __init__(self, phase: str) -> None:
        super().__init__(f"while {phase}")
        self.phase = phase


@implementer(IClientRequest)
class Exchange:
    """
    A GET that waits for its answer.

    @param absoluteURI: the URI, to which only the response refers.
    @param headers: the header fields after C{Host}.
    @ivar answer: a Deferred of the response, or of L{ExchangeFailed} or L{ExchangeCancelled}; L{None} once it has
        fired.
    @ivar phase: what is being done, as for L{ExchangeFailed}.
    @ivar abandon: called without arguments to stop this.
    """

    abandon: Callable[[], None]
    method = b"GET"
    phase = "connecting"

    def __init__(self, absoluteURI: bytes, headers: PreparedHeaders) -> None:
        self.absoluteURI = absoluteURI
        self.headers = headers
        self.answer: Deferred[IResponse] | None = Deferred(self._cancelled)

    def _cancelled(self, answer: Deferred[IResponse]) -> None:
        self.answer = None
        self.abandon()
        answer.errback(ExchangeCancelled(self.phase))

    def answered(self, response: HTTPResponse) -> None:
        """
        Fire the answer, because the head of the response is complete.

        @param response: the response.
        """
        answer, self.answer = self.answer, None
        if answer is not None:
            response.request = self
            answer.callback(response)

    def failed(self, reason: Failure) -> None:
        """
        Fail the answer. Does nothing after a cancellation.

        @param reason: why there is no answer.
        """
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.errback(ExchangeFailed(self.phase, self._explain(reason), reason.value))

    def _explain(self, reason: Failure) -> str:
        error: Any = reason.value
        if self.phase == SHAKING_HANDS or hasReason(error):
            return serverTrouble(error, "this port does not speak TLS; perhaps the URL needs http: instead of https:")
        words = inWords(error)
        return f"it {words}" if words else reason.getErrorMessage() or type(error).__name__


class Keeper(typing.Protocol):
    """
    The owner of connections.

    @ivar start: the first bytes of each request, up to and including C{Host}.
    @ivar tls: the argument for C{startTLS}, or L{None} for plain HTTP.
    """

    start: bytes
    tls: Any

    def opened(self, connection: HTTPConnection) -> None:
        """
        Count a new connection.

        @param connection: the connection.
        """

    def release(self, connection: HTTPConnection) -> None:
        """
        Take a connection back whose response is over, for the next request or to close it.

        @param connection: the connection.
        """

    def connect(self, exchange: Exchange) -> None:
        """
        Send a request over a new connection.

        @param exchange: the request.
        """

    def distrust(self) -> None:
        """Note that the server sent bytes that belong to no request."""

    def lost(self, connection: HTTPConnection) -> None:
        """
        Forget a connection.

        @param connection: the connection, which is closed.
        """


@implementer(IHandshakeListener)
class HTTPConnection(Protocol):
    """
    A connection to a server.

    @param keeper: the owner of the connection.
    @param clock: the reactor, or a clock, for L{BODY_PATIENCE}.
    @ivar idleSince: the time, in seconds, at which the last response was over.
    @ivar isAborted: whether the connection is being closed and reads nothing more.
    """

    transport: Any
    idleSince = 0.0
    isAborted = False
    _exchange: Exchange | None = None
    _parser: ResponseParser | None = None
    _patience: IDelayedCall | None = None
    _peephole: Peephole | None = None
    _phase = "waiting for the response"
    _proven = False
    _isReading = False
    _isDeaf = False
    """Whether it does not matter what else arrives."""

    def __init__(self, keeper: Keeper, clock: IReactorTime) -> None:
        self._keeper = keeper
        self._clock = clock

    def connectionMade(self) -> None:
        """
        Disable Nagle's algorithm, because a request is one small write that must not wait for an acknowledgement. Start
        TLS if the service uses it.
        """
        self._keeper.opened(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if self._keeper.tls is not None:
            self.transport.startTLS(self._keeper.tls)
        if ISSLTransport.providedBy(self.transport):
            self._phase = SHAKING_HANDS

    def handshakeCompleted(self) -> None:
        """Leave the phase of the TLS handshake: later failures are those of the server."""
        self._phase = "waiting for the response"
        if self._exchange is not None:
            self._exchange.phase = self._phase

    def ask(self, exchange: Exchange) -> None:
        """
        Send a request.

        @param exchange: the request; the connection carries no other.
        """
        self._exchange = exchange
        self._parser = ResponseParser()
        exchange.phase = self._phase
        exchange.abandon = self.abort
        self.transport.write(self._keeper.start + exchange.headers.block + b"\r\n")

    def peek(self) -> bytes | None:
        """
        Look at the first byte that arrived without a request, and leave it in place. See L{Peephole.first}.

        @return: the byte; empty if the connection has ended or the byte cannot be known yet; L{None} if nothing has
            arrived.
        """
        if self._isReading and self._keeper.tls is not None and not hasattr(self.transport, "fd"):
            # Twisted's TLS delivers one record at a time although it has read more; ours delivers all.
            return b""
        if self._peephole is None:
            self._peephole = Peephole(self.transport)
        return self._peephole.first()

    @property
    def isSpare(self) -> bool:
        """Whether the connection is open and no request waits on it."""
        return self._exchange is None and not self.isAborted

    def dataReceived(self, data: bytes) -> None:
        """
        Read the response. The answer is given as soon as its head is complete and it is decided whether the connection
        is used again.

        @param data: bytes from the server.
        """
        if self._isDeaf:
            return
        parser = self._parser
        if parser is None:
            # The server sent data without a request: the next response could not be attributed.
            self.abort()
            self._keeper.distrust()
            return
        try:
            response = parser.feed(data)
        except ProtocolError as error:
            self._spoilt(error)
            return
        if response is None and parser.stage is Stage.HEAD:
            if self._exchange is not None:
                self._exchange.phase = "reading the response"
        elif parser.surplus and self._proven:
            # Of two responses that were read at once, the first may be older than the request.
            self._askAnew()
        else:
            self._isReading = True
            self._headRead(parser, response)
            self._isReading = False

    def _headRead(self, parser: ResponseParser, response: HTTPResponse | None) -> None:
        """
        Decide whether the connection is used again, and give the answer.

        @param response: the answer; L{None} if it has been given.
        """
        exchange, self._exchange = self._exchange, None
        if parser.stage is Stage.WHOLE:
            if self._patience is not None:
                self._stopWaiting()
            self._parser = None
            self._proven = True
            self._keeper.release(self)
        elif parser.stage is Stage.LAST:
            if parser.surplus:
                self._keeper.distrust()
            self._isDeaf = True
            self.leave()
        elif self._patience is None:
            self._patience = self._clock.callLater(BODY_PATIENCE, self.abort)
        if exchange is not None and response is not None:
            exchange.answered(response)

    def _spoilt(self, error: ProtocolError) -> None:
        """Handle bytes that are no valid response, for the reason C{error}."""
        if self._proven and isinstance(error, NotHTTP):
            self._askAnew()
            return
        exchange = self._exchange
        self.abort()
        if exchange is not None:
            exchange.failed(Failure(error))

    def _askAnew(self) -> None:
        """Send the request again, because bytes of an earlier response arrived before its own."""
        self._keeper.distrust()
        self.doubt()
        self.abort()

    def doubt(self) -> None:
        """
        Send the request of this connection again over a new one, because the server sends bytes that belong to no
        request. Nothing happens if it is the first request of this connection: then its response can be trusted.
        """
        exchange = self._exchange
        if self._proven and exchange is not None:
            self.abort()
            self._keeper.connect(exchange)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        Fail the request, or repeat it. It is repeated if an earlier request succeeded on this connection and no byte of
        a response came: then the server closed an idle connection.

        @param reason: why the connection ended.
        """
        self._stopWaiting()
        self._keeper.lost(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._proven and self._parser is not None and self._parser.untouched:
            self._keeper.connect(exchange)
        else:
            exchange.failed(reason)

    def leave(self) -> None:
        """Close the connection in an orderly way, with a limit for the time that TLS waits for its peer."""
        self._stopWaiting()
        self._patience = self._clock.callLater(BODY_PATIENCE, self.abort)
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once, with all data in transit."""
        if self.isAborted:
            return
        self._exchange = None
        self.isAborted = self._isDeaf = True
        self._stopWaiting()
        self.transport.abortConnection()

    def _stopWaiting(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None and patience.active():
            patience.cancel()
