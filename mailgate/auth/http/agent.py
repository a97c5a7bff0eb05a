# -*- test-case-name: mailgate.test.auth.http.test_agent -*-
"""
An HTTP agent for use below treq, for services that get short requests and answer in the head of the response.

Some services for nginx's C{auth_http} depend on the exact bytes that nginx writes. Twisted's own C{Agent} capitalises
and reorders headers (C{Client-Ip}), and treq adds more; this agent writes the prepared headers unchanged. It connects
to one address only, whatever the URL of a request is: a redirect cannot lead it elsewhere.

There are four parts:

- L{mailgate.auth.http.response} parses responses.
- L{mailgate.auth.http.connection} carries one request at a time over any Twisted transport.
- L{mailgate.auth.http.keptconnections} decides when an idle connection may be used again.
- L{KeepAliveAgent} connects through an endpoint and keeps connections for later requests (RFC 9112, section 9.3).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from mailgate.auth.http.connection import Exchange, HTTPConnection
from mailgate.auth.http.headers import PreparedHeaders
from mailgate.auth.http.keptconnections import KeptConnections

__all__ = ["COOLING", "IDLE_TIMEOUT", "MAX_IDLE", "KeepAliveAgent"]

COOLING = 0.02
"""
Seconds that a connection must be silent after a response before it is used again. A server that sends surplus bytes
sends them in its next call or next packet: within a round trip, or after a delayed acknowledgement.
"""

SHORT_WAIT = 0.01
"""
Seconds that a request waits at most for a connection to end its silence if there are as many connections as may be.
If none does, one of them is closed and another opened in its place, which is more work for both sides than the request.
"""

MAX_IDLE = 64
"""
Connections that are kept idle if their number is unlimited. With L{COOLING} they suffice for 3,000 logins per second.
"""

IDLE_TIMEOUT = 30.0
"""
Seconds that an idle connection is kept. Most servers close theirs after 5 to 75 seconds. A request over a connection
that the server has closed is repeated.
"""


class _Connections(Factory):
    """Makes connections for C{agent}."""

    noisy = False

    def __init__(self, agent: KeepAliveAgent, clock: IReactorTime) -> None:
        self._agent = agent
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> HTTPConnection:
        return HTTPConnection(self._agent, self._clock)


@implementer(IAgent)
class KeepAliveAgent:
    """
    Sends GET requests to one server.

    A response is delivered when its head is complete; its body is empty. Failures are
    L{mailgate.auth.http.connection.ExchangeFailed}, and L{mailgate.auth.http.connection.ExchangeCancelled} after
    C{cancel}. There is no deadline except that of the endpoint for connecting: the caller adds one.

    If the server sends a byte that belongs to no request, the agent calls C{whenDistrusted} and keeps no connections
    from then on.

    @param endpoint: connects to the server.
    @param clock: the reactor, or a clock, for idle connections.
    @param host: the value of the C{Host} header.
    @param target: the path and query of every request, whatever its URL is.
    @param tls: the argument for C{startTLS}, or L{None} for plain HTTP.
    @param cooling: seconds of silence after which a connection is used again. With L{None} each request has its own
        connection and is one of HTTP/1.0, as in nginx's mail proxy.
    @param most: the highest number of connections, including those that are being opened or closed; 0 means no limit.
        The caller must not start more requests than this.
    @ivar whenDistrusted: called without arguments.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        host: bytes,
        target: bytes,
        tls: Any = None,
        cooling: float | None = COOLING,
        most: int = 0,
    ) -> None:
        self.tls = tls
        self.whenDistrusted: Callable[[], object] = lambda: None
        self._endpoint = endpoint
        self._clock = clock
        self._place = (host, target)
        self._connections = _Connections(self, clock)
        self._keeps = cooling is not None
        self._kept: KeptConnections[HTTPConnection] = KeptConnections(cooling or 0.0)
        self._most = most
        self._open: set[HTTPConnection] = set()
        self._attempts = 0
        self._waiting: deque[Exchange] = deque()
        self._sweeping: IDelayedCall | None = None
        self._rousing: IDelayedCall | None = None
        self.start = self._startOf(1 if self._keeps else 0)

    def _startOf(self, minor: int) -> bytes:
        host, target = self._place
        return b"GET %b HTTP/1.%d\r\nHost: %b\r\n" % (target, minor, host)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """
        Send a request over an idle connection or a new one. See L{IAgent}.

        @param method: must be C{GET}.
        @param uri: only the response refers to it.
        @param headers: the headers; a L{PreparedHeaders} is written as it is.
        @param bodyProducer: must be L{None}.
        """
        if method != b"GET" or bodyProducer is not None:
            return fail(ValueError("this agent sends only GET requests without a body"))
        if not isinstance(headers, PreparedHeaders):
            given = headers.getAllRawHeaders() if headers is not None else ()
            headers = PreparedHeaders.of([(name, value) for name, values in given for value in values])
        exchange = Exchange(uri, headers)
        answer: Any = exchange.answer
        connection = None if self._waiting else self._idle()
        if connection is not None:
            connection.ask(exchange)
        else:
            self.connect(exchange)
        return answer  # type: ignore[no-any-return]

    def _idle(self) -> HTTPConnection | None:
        """Return an idle connection on which no byte has arrived, as far as that can be seen."""
        now = self._clock.seconds()
        noisy: list[HTTPConnection] = []
        while (connection := self._kept.take(now)) is not None:
            first = connection.peek()
            if first is None:
                break
            if first and self.tls is None:
                connection.abort()
                self.distrust()
                return None
            # The connection ends, or TLS data such as a ticket arrived. It will be read, and the silence begins again.
            noisy.append(connection)
        for each in noisy:
            self._kept.keep(each, now)
        return connection

    def connect(self, exchange: Exchange) -> None:
        """
        Send a request over a new connection. If there are as many connections as may be, send it over the first one
        that is usable or can be opened; the requests that have waited longer come first.

        @param exchange: the request.
        """
        exchange.phase = "connecting"
        if self._waiting or self._isFull:
            self._waiting.append(exchange)
            exchange.abandon = partial(self._waiting.remove, exchange)
            self._serveWaiting()
        else:
            self._openFor(exchange)

    def _openFor(self, exchange: Exchange) -> None:
        self._attempts += 1
        connecting = cast("Deferred[HTTPConnection]", self._endpoint.connect(self._connections))
        exchange.abandon = connecting.cancel
        connecting.addCallbacks(self._connected, self._notConnected, (exchange,), {}, (exchange,))
        connecting.addErrback(exchange.failed)

    def _connected(self, connection: HTTPConnection, exchange: Exchange) -> None:
        self._attempts -= 1
        connection.ask(exchange)

    def _notConnected(self, failure: Failure, exchange: Exchange) -> None:
        self._attempts -= 1
        exchange.failed(failure)
        self._serveWaiting()

    @property
    def _isFull(self) -> bool:
        return 0 < self._most <= self._attempts + len(self._open)

    def _makeRoom(self) -> None:
        """
        Wait until the silence of enough idle connections is over. If that takes too long, close a connection that no
        request uses: an idle one, or one whose body or end is still to come.
        """
        now = self._clock.seconds()
        if self._kept.readyAt(len(self._waiting)) <= now + SHORT_WAIT:
            if self._rousing is None:
                self._rousing = self._clock.callLater(max(0.0, self._kept.readyAt(1) - now), self._rouse)
            return
        if sum(each.isAborted for each in self._open) >= len(self._waiting):
            return
        connection = self._kept.evict() or next((each for each in self._open if each.isSpare), None)
        if connection is not None:
            connection.abort()

    def _rouse(self) -> None:
        self._rousing = None
        self._serveWaiting()

    def _serveWaiting(self) -> None:
        while self._waiting:
            connection = self._idle()
            if connection is not None:
                connection.ask(self._waiting.popleft())
            elif self._isFull:
                self._makeRoom()
                return
            else:
                self._openFor(self._waiting.popleft())

    def opened(self, connection: HTTPConnection) -> None:
        """
        See L{mailgate.auth.http.connection.Keeper.opened}.

        @param connection: the new connection.
        """
        self._open.add(connection)

    def release(self, connection: HTTPConnection) -> None:
        """
        Keep a connection whose response is over for the next request, or close it.

        @param connection: the connection.
        """
        if not self._keeps or (not self._most and len(self._kept) >= MAX_IDLE):
            if self._waiting:
                connection.abort()
            else:
                connection.leave()
            return
        self._kept.keep(connection, self._clock.seconds())
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(IDLE_TIMEOUT, self._sweep)
        if self._waiting:
            self._serveWaiting()

    def distrust(self) -> None:
        """
        Stop keeping connections, because the server sent a byte that belongs to no request. Requests on connections
        that were used before are sent again: the server may have done it there, too.
        """
        if not self._keeps:
            return
        self.close()
        self.start = self._startOf(0)
        for connection in list(self._open):
            connection.doubt()
        self.whenDistrusted()

    def lost(self, connection: HTTPConnection) -> None:
        """
        Forget a connection, and serve a request that waits for one.

        @param connection: the closed connection.
        """
        self._kept.remove(connection)
        self._open.discard(connection)
        self._serveWaiting()

    def close(self) -> None:
        """Close the idle connections, and keep none from now on."""
        self._keeps = False
        for timer in (self._sweeping, self._rousing):
            if timer is not None:
                timer.cancel()
        self._sweeping = self._rousing = None
        for connection in self._kept.clear():
            connection.abort()

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._clock.seconds()
        limit = now - IDLE_TIMEOUT
        for connection in self._kept.outdated(limit, now):
            connection.leave()
        oldest = self._kept.oldest
        if oldest is not None:
            self._sweeping = self._clock.callLater(max(0.0, oldest.idleSince - limit), self._sweep)
