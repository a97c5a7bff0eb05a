# -*- test-case-name: mailgate.test.test_httpagent -*-
"""
An HTTP agent that goes under treq, for services that are asked short questions and answer in their heads.

Services for nginx's C{auth_http} read what nginx writes, and some of them to the byte. Twisted's own C{Agent}
capitalises and reorders headers (C{Client-Ip}) and, with treq above it, adds to them; this one writes what was
prepared. It talks to one address only, whatever URL it is asked for, so that no redirect can lead it elsewhere.

Three parts: the framing, in L{mailgate.httpresponse}; L{HTTPConnection}, one request at a time over any Twisted
transport; L{KeepAliveAgent}, which connects through the endpoint that it is given, and keeps connections for the next
request (RFC 9112 section 9.3). An answer is complete with its head, as it is for nginx. The body is read and thrown
away, for the connection's sake alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    IStreamClientEndpoint,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IClientRequest, IResponse
from zope.interface import implementer

from mailgate.httpheaders import FieldHeaders, PreparedHeaders
from mailgate.httpresponse import ProtocolError, ResponseHead, ResponseParser, Stage

__all__ = [
    "ExchangeCancelled",
    "ExchangeFailed",
    "HTTPConnection",
    "HTTPResponse",
    "KeepAliveAgent",
]

_DONE = Failure(ResponseDone())

BODY_PATIENCE = 1.0
"""
Seconds that the rest of a body, or the end of a connection that has no future, is waited for. The answer has been given
by then; a server that serves one connection at a time must not be kept from its next.
"""

MAX_IDLE = 32
"""Connections kept for later, the number that nginx's documentation gives for its own C{keepalive}."""

IDLE_TIMEOUT = 30.0
"""Seconds that a connection is kept for later. Most servers close theirs after 5 to 75; a dead one costs a retry."""


class ExchangeFailed(Exception):
    """A request was not answered, for C{reason}; C{phase} is what was being done, in words that follow "while"."""

    def __init__(self, phase: str, reason: str) -> None:
        super().__init__(f"while {phase}: {reason}")
        self.phase = phase


class ExchangeCancelled(CancelledError):
    """A request was cancelled: C{phase} as in L{ExchangeFailed}."""

    def __init__(self, phase: str) -> None:
        super().__init__(f"while {phase}")
        self.phase = phase


@implementer(IClientRequest)
@frozen
class _Request:
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


class _Exchange:
    """A request on its way to its answer; C{abandon} stops what is being done for it, C{phase} names that."""

    abandon: Callable[[], None]

    def __init__(self, message: bytes, request: IClientRequest) -> None:
        self.message = message
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
            answer.errback(ExchangeFailed(self.phase, reason.getErrorMessage() or type(reason.value).__name__))


@implementer(IHandshakeListener)
class HTTPConnection(Protocol):
    """A connection of C{agent} to its server; C{idleSince} is the time when the last response was over."""

    transport: Any

    def __init__(self, agent: KeepAliveAgent, clock: IReactorTime) -> None:
        self.idleSince = 0.0
        self._agent = agent
        self._clock = clock
        self._exchange: _Exchange | None = None
        self._parser: ResponseParser | None = None
        self._patience: IDelayedCall | None = None
        self._proven = False
        self._phase = "waiting for the response"

    def connectionMade(self) -> None:
        """A request is one small write: it must not wait for an acknowledgement of the one before."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        if self._agent.tls is not None:
            self.transport.startTLS(self._agent.tls)
        if ISSLTransport.providedBy(self.transport):
            self._phase = "shaking hands for TLS"

    def handshakeCompleted(self) -> None:
        """From now on it is the server itself that fails us."""
        self._phase = "waiting for the response"
        if self._exchange is not None:
            self._exchange.phase = self._phase

    def ask(self, exchange: _Exchange) -> None:
        """Send the request of C{exchange}, and answer it."""
        self._exchange = exchange
        self._parser = ResponseParser()
        exchange.phase = self._phase
        exchange.abandon = self.abort
        self.transport.write(exchange.message)

    def dataReceived(self, data: bytes) -> None:
        """Give the answer as soon as the head of the response is there, the connection's own fate being settled."""
        parser = self._parser
        if parser is None:
            # The server has spoken unasked: whatever it means, the next response would not be what it seems.
            self.abort()
            return
        if parser.stage is Stage.LAST:
            return
        exchange = self._exchange
        try:
            parser.feed(data)
        except ProtocolError as error:
            self.abort()
            if exchange is not None:
                exchange.failed(Failure(error))
            return
        if parser.head is None:
            if exchange is not None:
                exchange.phase = "reading the response"
            return
        self._exchange = None
        self._settle(parser.stage)
        if exchange is not None:
            exchange.answered(parser.head)

    def _settle(self, stage: Stage) -> None:
        if stage is Stage.WHOLE:
            self._stopWaiting()
            self._parser = None
            self._proven = True
            self._agent.release(self)
        elif stage is Stage.LAST:
            self.leave()
        elif self._patience is None:
            self._patience = self._clock.callLater(BODY_PATIENCE, self.abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        A connection that has served before, and is lost before a byte came, was closed while it was idle. The request
        may be repeated then: it is a GET.
        """
        self._stopWaiting()
        self._agent.forget(self)
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        if self._proven and self._parser is not None and self._parser.untouched:
            self._agent.connect(exchange)
        else:
            exchange.failed(reason)

    def leave(self) -> None:
        """Close the connection in good order; TLS may wait for its peer, but not for long."""
        self._stopWaiting()
        self._patience = self._clock.callLater(BODY_PATIENCE, self.abort)
        self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection whatever is on its way; nobody waits for it any more."""
        self._exchange = None
        self._stopWaiting()
        self.transport.abortConnection()

    def _stopWaiting(self) -> None:
        patience, self._patience = self._patience, None
        if patience is not None and patience.active():
            patience.cancel()


class _Connections(Factory):
    """Makes the connections of C{agent}."""

    noisy = False

    def __init__(self, agent: KeepAliveAgent, clock: IReactorTime) -> None:
        self._agent = agent
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:
        return HTTPConnection(self._agent, self._clock)


@implementer(IAgent)
class KeepAliveAgent:
    """
    Asks the server behind C{endpoint} for C{target}, calling it C{host}: whatever the URL of a request may be. C{tls}
    is what C{startTLS} takes, or L{None} for C{http:}. Unless it C{keeps} connections each request has its own, and is
    one of HTTP/1.0, as nginx's mail proxy does it.

    A response is given when its head is complete; its body is empty. Failures are L{ExchangeFailed}, and
    L{ExchangeCancelled} after C{cancel}. There is no deadline but the endpoint's for connecting: add one.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        host: bytes,
        target: bytes,
        tls: Any = None,
        keeps: bool = True,
    ) -> None:
        self.tls = tls
        self._endpoint = endpoint
        self._clock = clock
        self._start = b"GET %b HTTP/1.%d\r\nHost: %b\r\n" % (target, keeps, host)
        self._connections = _Connections(self, clock)
        self._idle: list[HTTPConnection] = []
        self._keeps = keeps
        self._sweeping: IDelayedCall | None = None

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Ask, over a connection that is idle or a new one. The method is GET, and there is no body."""
        if method != b"GET" or bodyProducer is not None:
            return fail(ValueError("this agent sends GET requests without a body"))
        if not isinstance(headers, PreparedHeaders):
            given = headers.getAllRawHeaders() if headers is not None else ()
            headers = PreparedHeaders([(name, value) for name, values in given for value in values])
        exchange = _Exchange(self._start + headers.block + b"\r\n", _Request(method, uri, headers))
        answer = exchange.answer
        assert answer is not None
        if self._idle:
            self._idle.pop().ask(exchange)
        else:
            self.connect(exchange)
        return answer

    def connect(self, exchange: _Exchange) -> None:
        """Answer C{exchange} over a new connection."""
        exchange.phase = "connecting"
        connecting = cast("Deferred[HTTPConnection]", self._endpoint.connect(self._connections))
        exchange.abandon = connecting.cancel
        connecting.addCallback(HTTPConnection.ask, exchange)
        connecting.addErrback(exchange.failed)

    def release(self, connection: HTTPConnection) -> None:
        """Keep C{connection}, whose response is over, for the next request, or have it end."""
        if not self._keeps or len(self._idle) >= MAX_IDLE:
            connection.leave()
            return
        connection.idleSince = self._clock.seconds()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(IDLE_TIMEOUT, self._sweep)

    def forget(self, connection: HTTPConnection) -> None:
        """C{connection} is lost."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Close the idle connections, and keep none any more."""
        self._keeps = False
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        while self._idle:
            self._idle.pop().abort()

    def _sweep(self) -> None:
        # The last one in is the first one out: the list is in the order of idleSince.
        self._sweeping = None
        limit = self._clock.seconds() - IDLE_TIMEOUT
        while self._idle and self._idle[0].idleSince <= limit:
            self._idle.pop(0).leave()
        if self._idle:
            self._sweeping = self._clock.callLater(self._idle[0].idleSince - limit, self._sweep)
