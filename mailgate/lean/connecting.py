# -*- test-case-name: mailgate.test.lean.test_transport_contract mailgate.test.lean.test_connecting -*-
"""Outgoing connections, as L{StreamTransport}s: for Twisted's endpoints, and for reactors' client factories."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from struct import Struct
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionLost,
    NotConnectingError,
    TimeoutError,
    UserError,
    getConnectError,
)
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.lean.descriptors import addressOf, reset
from mailgate.lean.poller import BACKEND, GREETING, READABLE, SERVICE, WRITABLE, Poller
from mailgate.lean.transport import StreamTransport

if TYPE_CHECKING:
    from mailgate.lean.reactor import LeanReactor

__all__ = ["LeanConnector", "LeanEndpoint"]


class Destination:
    """
    The address of a connection.

    @ivar family: the address family.
    @ivar raw: the address as the system takes it.
    @ivar address: the address as Twisted has it.
    """

    __slots__ = ("address", "family", "raw")

    def __init__(self, family: int, raw: Any) -> None:
        self.family = family
        self.raw = raw
        self.address = addressOf(family, raw)


_INFO = Struct("=68xI28xI")
"""C{tcpi_rtt}, in microseconds, and C{tcpi_total_retrans} of Linux's C{struct tcp_info}."""

_ESTABLISHED = frozenset((errno.ECONNRESET, errno.EPIPE))
"""Errors that only an established connection has: the peer has reset it. An attempt that a reset ends is refused."""


class Outgoing(StreamTransport):
    """
    The transport of a connection that this side makes. It exists before the connection does, and the first event
    decides whether the attempt succeeds.

    On success, C{build(address)} returns the protocol, and C{opened(protocol)} is called after its C{makeConnection}.
    On failure, C{failed(failure)} is called.
    """

    connected = False
    kind = GREETING
    _failed: Callable[[Failure], object] | None
    """L{None} once the attempt has ended."""
    _wanted = 0
    """Nothing until there is a connection, so that the first event gets to C{_react}."""
    _deadline: IDelayedCall | None = None
    _isGreeted = False

    def __init__(
        self,
        poller: Poller,
        destination: Destination,
        build: Callable[[IAddress], Any],
        failed: Callable[[Failure], object],
        opened: Callable[[Any], object] | None = None,
    ) -> None:
        """
        @param poller: watches the descriptor.
        @param destination: the address to connect to.
        @param build: makes the protocol.
        @param failed: called if there is no connection.
        @param opened: called with the connected protocol; L{None} if only its C{makeConnection} is needed.
        """
        super().__init__(poller, -1, destination.family, destination.address, True)
        self._raw = destination.raw
        self._build = build
        self._failed = failed
        self._opened = opened

    def connect(self, events: int, source: tuple[str, int] | None = None) -> None:
        """
        Begin the attempt.

        @param events: what to watch for. With L{READABLE} alone, a connection counts as made when the peer has sent
            something: where the peer speaks first, this saves an event and a system call.
        @param source: the address and port to connect from; L{None} lets the system choose.
        """
        try:
            self._start(events, source)
        except OSError as error:
            reason = getConnectError(error)
            self.poller.soon(lambda: self.giveUp(reason))

    def _start(self, events: int, source: tuple[str, int] | None) -> None:
        made = socket.SocketType(self.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if self.family != socket.AF_UNIX:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source is not None:
                made.bind(source)
            status = made.connect_ex(self._raw)
            if status not in (0, errno.EINPROGRESS):
                raise OSError(status, os.strerror(status))
            self.poller.watch(made.fileno(), self, events)
        except BaseException:
            made.close()
            raise
        self._watched = events
        if events == READABLE:
            self._isGreeted = True
        self.fd = made.detach()

    def limit(self, clock: IReactorTime, timeout: float) -> None:
        """End the attempt if it takes longer than C{timeout} seconds of C{clock}."""
        if self.fd >= 0:
            self._deadline = clock.callLater(timeout, self.giveUp, TimeoutError())

    def _react(self, events: int) -> None:
        if self._failed is None:
            super()._react(events)
        elif self._decide(events):
            self.ready(self.fd, READABLE)

    def _decide(self, events: int) -> int:
        """
        The first event: the attempt has succeeded or failed. Return the events that are left for the connection; 0 for
        none.
        """
        error = self._error() if events & ~(READABLE | WRITABLE) else None
        if error is not None and error.errno not in _ESTABLISHED:
            self.giveUp(getConnectError(error))
            return 0
        self._open()
        if error is not None:
            self.connectionLost(Failure(ConnectionLost(str(error))))
        return events & READABLE if self.connected else 0

    def _error(self) -> OSError | None:
        """The error of the socket. Bytes that have arrived before it come first."""
        try:
            self._ask("recv", 1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:
            return error
        return None

    def _open(self) -> None:
        """There is a connection: connect the protocol."""
        self._stopWaiting()
        protocol = self._build(self._peer)
        failed = self._failed
        if failed is None:
            # The protocol's maker has cancelled the attempt.
            return
        if protocol is None:
            self.giveUp(ConnectionAborted())
            return
        self._failed = None
        self.connected = True
        self.kind = BACKEND if self._isGreeted else SERVICE
        self.poller.transfer(self.fd, self)
        if self._watched == READABLE:
            self._wanted = READABLE
        else:
            self._want(READABLE)
        self.protocol = protocol
        try:
            protocol.makeConnection(self)
        except Exception:
            self.onLoss = failed
            self.failed(Failure())
            raise
        if self._opened is not None:
            self._opened(protocol)

    def settle(self) -> None:
        """
        Connect the protocol now if there is a connection already. With L{READABLE} alone, it may wait for the peer.
        """
        if self._failed is None or self.fd < 0:
            return
        try:
            # The system has the peer's address as soon as the connection is established.
            self._ask("getpeername")
        except OSError:
            return
        self._open()

    def handshakeTime(self) -> float | None:
        """
        Return the seconds that the system took to connect, if the connection counts as made only when the peer has sent
        something; L{None} if it counted at once, or if the system does not say. Call this before anything is sent: TCP
        measures later round trips as well.
        """
        if not self._isGreeted:
            return None
        if self.family == socket.AF_UNIX:
            return 0.0
        # As _ask, which costs two calls more.
        borrowed = socket.SocketType(self.family, socket.SOCK_STREAM, 0, self.fd)
        try:
            info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        except OSError:
            return None
        finally:
            borrowed.detach()
        # After a lost packet TCP cannot measure: the time that has passed is the truth then.
        roundTrip, retransmissions = _INFO.unpack(info) if len(info) == _INFO.size else (0, 1)
        return None if retransmissions else roundTrip / 1e6

    def failed(self, failure: Failure) -> None:
        failed, self._failed = self._failed, None
        if failed is None:
            super().failed(failure)
            return
        self._stopWaiting()
        if self.fd >= 0:
            self.poller.release(self.fd)
        failed(failure)

    def cancel(self) -> None:
        """End the attempt, because the caller no longer needs the connection."""
        if self._failed is not None and self.fd >= 0 and self._watched == READABLE:
            # The peer may have accepted it. Such a connection is aborted, as later.
            reset(self.fd, self.family)
        self.giveUp(ConnectingCancelledError(self._peer))

    def giveUp(self, reason: Exception) -> None:
        """End the attempt with C{reason}; does nothing if it has ended."""
        if self._failed is not None:
            self.failed(Failure(reason))

    def _stopWaiting(self) -> None:
        if self._deadline is not None:
            if self._deadline.active():
                self._deadline.cancel()
            self._deadline = None


@implementer(IStreamClientEndpoint)
class LeanEndpoint:
    """An endpoint. Its protocols are not wrapped, unlike those of Twisted's endpoints."""

    def __init__(self, reactor: LeanReactor, host: str, port: int, timeout: float | None) -> None:
        """
        @param reactor: the reactor.
        @param host: an IP address without brackets, or C{unix:/path}.
        @param port: the port; not used for a unix socket.
        @param timeout: the seconds until the attempt fails; L{None} is for callers that cancel it themselves.
        """
        self._reactor = reactor
        self._timeout = timeout
        if host.startswith("unix:"):
            self._destination = Destination(socket.AF_UNIX, host.removeprefix("unix:"))
        else:
            self._destination = Destination(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connected: Deferred[Any] = Deferred(lambda _: outgoing.cancel())
        build = protocolFactory.buildProtocol
        outgoing = self._begin(READABLE | WRITABLE, build, connected.errback, connected.callback)
        return connected

    def begin(self, protocol: Any, failed: Callable[[Failure], object], isGreeted: bool = False) -> Outgoing:
        """
        See L{mailgate.net.endpoints.begin}.

        @param protocol: the protocol of the connection.
        @param failed: called with a failure if there is no connection.
        @param isGreeted: whether the protocol may be connected as late as the peer's first bytes.
        """
        events = READABLE if isGreeted else READABLE | WRITABLE
        return self._begin(events, lambda address: protocol, failed)

    def _begin(
        self,
        events: int,
        build: Callable[[IAddress], Any],
        failed: Callable[[Failure], object],
        opened: Callable[[Any], object] | None = None,
    ) -> Outgoing:
        outgoing = Outgoing(self._reactor.poller, self._destination, build, failed, opened)
        outgoing.connect(events)
        if self._timeout is not None:
            outgoing.limit(self._reactor, self._timeout)
        return outgoing


@implementer(IConnector)
class LeanConnector:
    """What C{connectTCP} and C{connectUNIX} of a reactor return."""

    def __init__(
        self,
        reactor: LeanReactor,
        family: int,
        destination: Any,
        factory: Any,
        timeout: float | None,
        source: tuple[str, int] | None,
    ) -> None:
        """
        @param reactor: the reactor.
        @param family: the address family.
        @param destination: the address as the system takes it.
        @param factory: Twisted's client factory, which is notified of the attempt and of the connection.
        @param timeout: the seconds until the attempt fails; L{None} is for no limit.
        @param source: the address and port to connect from; L{None} lets the system choose.
        """
        self._reactor = reactor
        self._destination = Destination(family, destination)
        self._factory = factory
        self._timeout = timeout
        self._source = source
        self._attempt: Outgoing | None = None
        self._protocol: Any = None

    def connect(self) -> None:
        """Start an attempt to connect."""
        self._factory.doStart()
        self._factory.startedConnecting(self)
        build = self._factory.buildProtocol
        outgoing = Outgoing(self._reactor.poller, self._destination, build, self._failed, self._opened)
        self._attempt = outgoing
        outgoing.connect(READABLE | WRITABLE, self._source)
        if self._timeout is not None:
            outgoing.limit(self._reactor, self._timeout)

    def _opened(self, protocol: Any) -> None:
        self._attempt = None
        self._protocol = protocol
        protocol.transport.onLoss = self._lost

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        self._factory.clientConnectionFailed(self, failure)
        self._factory.doStop()

    def _lost(self, reason: Failure) -> None:
        self._protocol = None
        self._factory.clientConnectionLost(self, reason)
        self._factory.doStop()

    def stopConnecting(self) -> None:
        """
        Cancel the attempt.

        @raise NotConnectingError: there is no attempt.
        """
        if self._attempt is None:
            raise NotConnectingError("we're not trying to connect")
        self._attempt.giveUp(UserError())

    def disconnect(self) -> None:
        """Cancel the attempt, or close the connection."""
        if self._attempt is not None:
            self.stopConnecting()
        elif self._protocol is not None:
            self._protocol.transport.loseConnection()

    def getDestination(self) -> IAddress:
        return self._destination.address
