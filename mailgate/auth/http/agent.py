# -*- test-case-name: mailgate.test.auth.http.test_agent -*-
"""
An HTTP agent that goes under treq, for services that are asked short questions and answer in their heads.

Services for nginx's C{auth_http} read what nginx writes, and some of them to the byte. Twisted's own C{Agent}
capitalises and reorders headers (C{Client-Ip}) and, with treq above it, adds to them; this one writes what was
prepared. It talks to one address only, whatever URL it is asked for, so that no redirect can lead it elsewhere.

Four parts: the framing, in L{mailgate.auth.http.response}; L{mailgate.auth.http.connection}, one request at a time over
any Twisted transport; which connection may be used again when, in L{mailgate.auth.http.keptconnections}; and
L{KeepAliveAgent}, which connects through the endpoint that it is given, and keeps connections for the next request (RFC
9112 section 9.3).
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

from mailgate.auth.http.connection import Exchange, HTTPConnection, Request
from mailgate.auth.http.headers import PreparedHeaders
from mailgate.auth.http.keptconnections import KeptConnections

__all__ = ["COOLING", "IDLE_TIMEOUT", "MAX_IDLE", "KeepAliveAgent"]

COOLING = 0.02
"""
Seconds that a connection is silent after a response before it is used again. What a server sends too much it sends in
its next call, or its next packet: within a round trip, or when a delayed acknowledgement has let it.
"""

MAX_IDLE = 64
"""
Connections kept for later where their number has no limit. With L{COOLING} that is enough for 3,000 logins a second.
"""

IDLE_TIMEOUT = 30.0
"""Seconds that a connection is kept for later. Most servers close theirs after 5 to 75; a dead one costs a retry."""


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
    is what C{startTLS} takes, or L{None} for C{http:}.

    A connection is used again after C{cooling} seconds of silence. With L{None} each request has its own, and is one of
    HTTP/1.0, as nginx's mail proxy does it. So it is, too, once the server has sent a byte that nobody asked for, of
    which C{whenDistrusted} is told.

    There are never more than C{most} connections, if that is not 0, those included that are being made or closed. Who
    asks sees to it that no more than so many requests are under way.

    A response is given when its head is complete; its body is empty. Failures are
    L{mailgate.auth.http.connection.ExchangeFailed}, and L{mailgate.auth.http.connection.ExchangeCancelled} after
    C{cancel}. There is no deadline but the endpoint's for connecting: add one.
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
        """Ask, over a connection that is idle or a new one. The method is GET, and there is no body."""
        if method != b"GET" or bodyProducer is not None:
            return fail(ValueError("this agent sends only GET requests without a body"))
        if not isinstance(headers, PreparedHeaders):
            given = headers.getAllRawHeaders() if headers is not None else ()
            headers = PreparedHeaders([(name, value) for name, values in given for value in values])
        exchange = Exchange(headers.block + b"\r\n", Request(method, uri, headers))
        answer = exchange.answer
        assert answer is not None
        connection = self._idle() if self._keeps else None
        if connection is not None:
            connection.ask(exchange)
        else:
            self.connect(exchange)
        return answer

    def _idle(self) -> HTTPConnection | None:
        """A connection on which nothing is on its way, as far as can be seen."""
        kept = self._kept
        now = self._clock.seconds()
        spoken: list[HTTPConnection] | None = None
        found = None
        while (connection := kept.take(now)) is not None:
            first = connection.peek()
            if first is None:
                found = connection
                break
            if first and self.tls is None:
                connection.abort()
                self.distrust()
                return None
            # It ends, or TLS has something to say, such as tickets: that will be read. The silence begins anew.
            spoken = [*(spoken or ()), connection]
        for connection in spoken or ():
            kept.keep(connection, now)
        return found

    def connect(self, exchange: Exchange) -> None:
        """Answer C{exchange} over a new connection."""
        exchange.phase = "connecting"
        if self._isFull:
            self._waiting.append(exchange)
            exchange.abandon = partial(self._waiting.remove, exchange)
            self._makeRoom()
            return
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
        Close a connection that nobody waits for, for each who waits to be connected: one that is kept, or whose body or
        end is still to come.
        """
        if sum(each.isAborted for each in self._open) >= len(self._waiting):
            return
        connection = self._kept.evict() or next((each for each in self._open if each.isSpare), None)
        if connection is not None:
            connection.abort()

    def _serveWaiting(self) -> None:
        while self._waiting and not self._isFull:
            self.connect(self._waiting.popleft())

    def opened(self, connection: HTTPConnection) -> None:
        """C{connection} has been made."""
        self._open.add(connection)

    def release(self, connection: HTTPConnection) -> None:
        """Keep C{connection}, whose response is over, for the next request, or have it end."""
        if self._waiting:
            connection.abort()
            return
        if not self._keeps or len(self._kept) >= (self._most or MAX_IDLE):
            connection.leave()
            return
        self._kept.keep(connection, self._clock.seconds())
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(IDLE_TIMEOUT, self._sweep)

    def distrust(self) -> None:
        """
        The server has sent a byte that nobody asked for: keep no connection any more. Requests that are under way where
        others have been answered before are sent again, as it may be for the second time that it has.
        """
        if not self._keeps:
            return
        self.close()
        self.start = self._startOf(0)
        for connection in list(self._open):
            connection.doubt()
        self.whenDistrusted()

    def lost(self, connection: HTTPConnection) -> None:
        """C{connection} is no more."""
        self._kept.remove(connection)
        self._open.discard(connection)
        self._serveWaiting()

    def close(self) -> None:
        """Close the idle connections, and keep none any more."""
        self._keeps = False
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
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
