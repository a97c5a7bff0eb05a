# -*- test-case-name: mailgate.test.auth.http.test_agent -*-
"""
One HTTP connection to a service, for one request at a time, and what a request and its response are.

A response is complete with its head. The body is read and thrown away, for the connection's sake alone.

What a connection brings may be believed where nothing came before it. On one that has served before it may be the
surplus of an earlier response: somebody else's answer. So a byte that nobody asked for is the last that is taken from
a connection, its L{Keeper} hears of it, and a request whose response could be such a surplus is sent again over a new
connection. It is a GET.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IClientRequest, IResponse
from zope.interface import implementer

from mailgate.auth.http.headers import FieldHeaders
from mailgate.auth.http.response import NotHTTP, ProtocolError, ResponseHead, ResponseParser, Stage
from mailgate.lean.descriptors import Peephole
from mailgate.net.connectionerrors import inWords
from mailgate.tls.errors import hasReason, serverTrouble

__all__ = [
    "BODY_PATIENCE",
    "Exchange",
    "ExchangeCancelled",
    "ExchangeFailed",
    "HTTPConnection",
    "HTTPResponse",
    "Keeper",
    "Request",
]

_DONE = Failure(ResponseDone())

SHAKING_HANDS = "performing the TLS handshake"

BODY_PATIENCE = 1.0
"""
Seconds that the rest of a body, or the end of a connection that has no future, is waited for. The answer has been given
by then; a server that serves one connection at a time must not be kept from its next.
"""


class ExchangeFailed(Exception):
    """
    A request was not answered, for C{reason}; C{phase} is what was being done, in words that follow "while". C{cause}
    is the exception that was the reason, if one was.
    """

    def __init__(self, phase: str, reason: str, cause: BaseException | None = None) -> None:
        super().__init__(f"while {phase}: {reason}")
        self.phase = phase
        self.cause = cause


class ExchangeCancelled(CancelledError):
    """A request was cancelled: C{phase} as in L{ExchangeFailed}."""

    def __init__(self, phase: str) -> None:
        super().__init__(f"while {phase}")
        self.phase = phase


@implementer(IClientRequest)
@frozen
class Request:
    """What was asked for, as responses remember it."""

    method: bytes
    absoluteURI: bytes | None
    headers: Headers


@implementer(IResponse, IPushProducer)
class HTTPResponse:
    """
    A response whose body nobody reads: to whom it is delivered it is empty. Thus it is the producer of nothing, too.
    """

    length = 0
    previousResponse: IResponse | None = None

    def __init__(self, head: ResponseHead, request: IClientRequest) -> None:
        self.version = (b"HTTP", 1, head.minor)
        self.code = head.code
        self.phrase = head.phrase
        self.request = request
        self.headers: Headers = FieldHeaders(head.fields)

    def deliverBody(self, protocol: IProtocol) -> None:
        """Tell C{protocol} that this was all."""
        protocol.makeConnection(cast(ITransport, self))
        protocol.connectionLost(_DONE)

    def setPreviousResponse(self, response: IResponse) -> None:
        """Remember the redirect that led here."""
        self.previousResponse = response

    def pauseProducing(self) -> None:
        """There is nothing to pause."""

    def resumeProducing(self) -> None:
        """There is nothing to resume."""

    def stopProducing(self) -> None:
        """There is nothing to stop."""


class Exchange:
    """
    A request on its way to its answer; C{abandon} stops what is being done for it, C{phase} names that. C{fields} are
    what the request has behind C{Host}, the end of the head included.
    """

    abandon: Callable[[], None]

    def __init__(self, fields: bytes, request: IClientRequest) -> None:
        self.fields = fields
        self.phase = "connecting"
        self.answer: Deferred[IResponse] | None = Deferred(self._cancelled)
        self._request = request

    def _cancelled(self, answer: Deferred[IResponse]) -> None:
        self.answer = None
        self.abandon()
        answer.errback(ExchangeCancelled(self.phase))

    def answered(self, head: ResponseHead) -> None:
        """The head of the response is complete."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.callback(HTTPResponse(head, self._request))

    def failed(self, reason: Failure) -> None:
        """There will be no answer. This comes too late, and means nothing, where the request has been cancelled."""
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
    What has connections. C{start} is how a request begins, C{Host} included; C{tls} what C{startTLS} takes, or L{None}.
    """

    start: bytes
    tls: Any

    def opened(self, connection: HTTPConnection) -> None:
        """There is C{connection}."""

    def release(self, connection: HTTPConnection) -> None:
        """The response on C{connection} is over: keep it for the next request, or have it end."""

    def connect(self, exchange: Exchange) -> None:
        """Answer C{exchange} over a new connection."""

    def distrust(self) -> None:
        """The server has sent what nobody asked for."""

    def lost(self, connection: HTTPConnection) -> None:
        """C{connection} is no more."""


@implementer(IHandshakeListener)
class HTTPConnection(Protocol):
    """
    A connection of C{keeper} to its server; C{idleSince} is the time when the last response was over, C{isAborted} says
    that nothing is taken from it any more, and its loss comes at once.
    """

    transport: Any

    def __init__(self, keeper: Keeper, clock: IReactorTime) -> None:
        self.idleSince = 0.0
        self._keeper = keeper
        self._clock = clock
        self._exchange: Exchange | None = None
        self._parser: ResponseParser | None = None
        self._patience: IDelayedCall | None = None
        self._proven = False
        self.isAborted = False
        self._peephole: Peephole | None = None
        self._isReading = False
        self._phase = "waiting for the response"

    def connectionMade(self) -> None:
        """A request is one small write: it must not wait for an acknowledgement of the one before."""
        self._keeper.opened(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if self._keeper.tls is not None:
            self.transport.startTLS(self._keeper.tls)
        if ISSLTransport.providedBy(self.transport):
            self._phase = SHAKING_HANDS

    def handshakeCompleted(self) -> None:
        """From now on it is the server itself that fails us."""
        self._phase = "waiting for the response"
        if self._exchange is not None:
            self._exchange.phase = self._phase

    def ask(self, exchange: Exchange) -> None:
        """Send the request of C{exchange}, and answer it."""
        self._exchange = exchange
        self._parser = ResponseParser()
        exchange.phase = self._phase
        exchange.abandon = self.abort
        self.transport.write(self._keeper.start + exchange.fields)

    def peek(self) -> bytes | None:
        """
        The first byte that has come unasked, as of L{Peephole.first}. It stays where it is. Empty, too, where it cannot
        be known yet.
        """
        if self._isReading and self._keeper.tls is not None and not hasattr(self.transport, "fd"):
            # Twisted's TLS gives one record at a time of what it has read; ours gives all.
            return b""
        if self._peephole is None:
            self._peephole = Peephole(self.transport)
        return self._peephole.first()

    @property
    def isSpare(self) -> bool:
        """Whether nobody waits for an answer on it, and it is there nevertheless."""
        return self._exchange is None and not self.isAborted

    def dataReceived(self, data: bytes) -> None:
        """Give the answer as soon as the head of the response is there, the connection's own fate being settled."""
        if self.isAborted:
            return
        self._isReading = True
        self._read(data)
        self._isReading = False

    def _read(self, data: bytes) -> None:
        parser = self._parser
        if parser is None:
            # The server has spoken unasked: whatever it means, the next response would not be what it seems.
            self.abort()
            self._keeper.distrust()
            return
        if parser.stage is Stage.LAST:
            return
        try:
            parser.feed(data)
        except ProtocolError as error:
            self._spoilt(error)
            return
        exchange = self._exchange
        if parser.head is None:
            if exchange is not None:
                exchange.phase = "reading the response"
            return
        if parser.surplus and self._proven:
            # Of two things that were read at once, the first may have been on its way for longer than the request.
            self._askAnew()
            return
        self._exchange = None
        if parser.surplus:
            self._keeper.distrust()
        self._settle(parser.stage)
        if exchange is not None:
            exchange.answered(parser.head)

    def _spoilt(self, error: ProtocolError) -> None:
        """What has come is no response, for the reason C{error}."""
        if self._proven and isinstance(error, NotHTTP):
            self._askAnew()
            return
        exchange = self._exchange
        self.abort()
        if exchange is not None:
            exchange.failed(Failure(error))

    def _askAnew(self) -> None:
        """The surplus of an earlier response is among what has come."""
        self._keeper.distrust()
        self.doubt()
        self.abort()

    def doubt(self) -> None:
        """
        The server sends what nobody asks for. What comes here may be that, unless nothing was asked here before: then
        ask elsewhere.
        """
        exchange = self._exchange
        if self._proven and exchange is not None:
            self.abort()
            self._keeper.connect(exchange)

    def _settle(self, stage: Stage) -> None:
        if stage is Stage.WHOLE:
            self._stopWaiting()
            self._parser = None
            self._proven = True
            self._keeper.release(self)
        elif stage is Stage.LAST:
            self.leave()
        elif self._patience is None:
            self._patience = self._clock.callLater(BODY_PATIENCE, self.abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        A connection that has served before, and is lost before a byte came, was closed while it was idle. The request
        may be repeated then.
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
        """Close the connection in good order; TLS may wait for its peer, but not for long."""
        self._stopWaiting()
        self._patience = self._clock.callLater(BODY_PATIENCE, self.abort)
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection whatever is on its way; nobody waits for it any more."""
        if self.isAborted:
            return
        self._exchange = None
        self.isAborted = True
        self._stopWaiting()
        self.transport.abortConnection()

    def _stopWaiting(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None and patience.active():
            patience.cancel()
