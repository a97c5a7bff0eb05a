# -*- test-case-name: mailgate.test.lean.test_transport_contract mailgate.test.lean.test_connecting -*-
"""Outgoing connections, as L{StreamTransport}s: for Twisted's endpoints, and for reactors' client factories."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from struct import Struct
from struct import error as StructError
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
from mailgate.lean.poller import READABLE, WRITABLE, Poller
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
    @ivar roundTrip: how many seconds the system took to connect, when it was last asked (L{Outgoing.connectedAt}).
    @ivar asked: when that was, in seconds of the clock of the sessions; 0 before.
    """

    __slots__ = ("address", "asked", "family", "raw", "roundTrip")

    def __init__(self, family: int, raw: Any) -> None:
        self.family = family
        self.raw = raw
        self.address = addressOf(family, raw)
        self.roundTrip = self.asked = 0.0


_INFO = Struct("=68xI28xI")
"""C{tcpi_rtt}, in microseconds, and C{tcpi_total_retrans} of Linux's C{struct tcp_info}."""

# Each of these would be looked up twice for each connection.
_Socket, _UNIX = socket.SocketType, socket.AF_UNIX
_STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
_TCP, _NODELAY = socket.IPPROTO_TCP, socket.TCP_NODELAY
_BEGUN = (0, errno.EINPROGRESS)
"""What C{connect} returns for a connection that is made, or may be."""

_FRESH = 1.0
"""Seconds for which a round trip counts for other connections to the same destination."""

_LOSSLESS = 0.2
"""Seconds within which no lost packet is sent again: the least of Linux's timeouts. That of a connection is 1 s."""

_EITHER = READABLE | WRITABLE
_UNUSUAL = ~_EITHER

_ESTABLISHED = frozenset((errno.ECONNRESET, errno.EPIPE))
"""Errors that only an established connection has: the peer has reset it. An attempt that a reset ends is refused."""


def _errorOf(status: int) -> OSError:
    return OSError(status, os.strerror(status))


class Outgoing(StreamTransport):
    """
    The transport of a connection that this side makes. It exists before the connection does, and the first event
    decides whether the attempt succeeds.

    On failure, C{failed(failure)} is called. Set C{protocol} before the next event.
    """

    fd = -1
    connected = False
    _noDelay = True
    _failed: Callable[[Failure], object] | None
    """L{None} once the attempt has ended."""
    _wanted = 0
    """Nothing until there is a connection, so that the first event, which decides, gets to C{_react}."""
    _deadline: IDelayedCall | None = None
    _isGreeted = False

    def __init__(
        self,
        poller: Poller,
        destination: Destination,
        failed: Callable[[Failure], object],
        events: int,
        source: tuple[str, int] | None = None,
    ) -> None:
        """
        Begin the attempt.

        @param poller: watches the descriptor.
        @param destination: the address to connect to.
        @param failed: called if there is no connection, never at once.
        @param events: what to watch for. With L{READABLE} alone, a connection counts as made when the peer has sent
            something: where the peer speaks first, this saves an event and a system call.
        @param source: the address and port to connect from; L{None} lets the system choose.
        """
        # Nothing is left of what the base class sets: it has defaults.
        self.poller = poller
        self.family = family = destination.family
        self._destination = destination
        self._failed = failed
        made = None
        try:
            made = _Socket(family, _STREAM)
            if family != _UNIX:
                made.setsockopt(_TCP, _NODELAY, 1)
            if source is not None:
                made.bind(source)
            status = made.connect_ex(destination.raw)
            if status not in _BEGUN:
                raise _errorOf(status)
            poller.watch(made.fileno(), self, events)
        except BaseException as error:
            if made is not None:
                made.close()
            if not isinstance(error, OSError):
                raise
            reason = getConnectError(error)
            poller.soon(lambda: self.giveUp(reason))
            return
        self._watched = events
        self._isGreeted = events == READABLE
        self.fd = made.detach()

    def limit(self, clock: IReactorTime, timeout: float) -> None:
        """End the attempt if it takes longer than C{timeout} seconds of C{clock}."""
        if self.fd >= 0:
            self._deadline = clock.callLater(timeout, self.giveUp, TimeoutError())

    def _react(self, events: int) -> None:
        if self._failed is None:
            super()._react(events)
        elif events & _UNUSUAL and (error := self._error()) is not None:
            self._fail(error)
        else:
            self._open()
            if events & READABLE and self.connected:
                self.ready(self.fd, READABLE)

    def _fail(self, error: OSError) -> None:
        """The first event is an error."""
        if error.errno in _ESTABLISHED:
            self._open()
            self.connectionLost(Failure(ConnectionLost(str(error))))
        else:
            self.giveUp(getConnectError(error))

    def _error(self) -> OSError | None:
        """The error of the socket. Bytes that have arrived before it come first."""
        try:
            self._ask("recv", 1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError as error:
            return error
        return None

    def getPeer(self) -> Any:
        return self._destination.address

    def _open(self) -> None:
        """There is a connection: connect the protocol."""
        if self._deadline is not None:
            self._stopWaiting()
        failed, self._failed = self._failed, None
        assert failed is not None, "the attempt goes on"
        self.connected = True
        if self._watched == READABLE:
            self._wanted = READABLE
        else:
            self._want(READABLE)
        try:
            self.protocol.makeConnection(self)
        except Exception:
            self.onLoss = failed
            self.failed(Failure())
            raise

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

    def connectedAt(self, began: float, noticed: float) -> float:
        """
        Return when the connection was made. With L{READABLE} alone it counts as made only when the peer has sent
        something. Call this before anything is sent: TCP measures later round trips as well.

        The system is asked once a second for a destination: a round trip changes little in that time. Only a lost
        packet makes a great difference, and then the connection takes long enough for a question of its own.

        @param began: when the attempt began, in seconds of any clock.
        @param noticed: the time of this call, of the same clock.
        """
        if not self._isGreeted:
            return noticed
        destination = self._destination
        if not 0 <= noticed - destination.asked < _FRESH or noticed - began > _LOSSLESS:
            roundTrip = self._roundTrip()
            if roundTrip is None:
                return noticed
            destination.roundTrip, destination.asked = roundTrip, noticed
        return min(began + destination.roundTrip, noticed)

    def _roundTrip(self) -> float | None:
        """Ask the system for how many seconds it took to connect; L{None} if it does not say."""
        if self.family == _UNIX:
            return 0.0
        try:
            info = self._ask("getsockopt", socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
            roundTrip, retransmissions = _INFO.unpack(info)
        except (OSError, StructError):
            # The system does not know it, or knows less.
            return None
        # After a lost packet TCP cannot measure: the time that has passed is the truth then.
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
        self.giveUp(ConnectingCancelledError(self._destination.address))

    def giveUp(self, reason: Exception) -> None:
        """End the attempt with C{reason}; does nothing if it has ended."""
        if self._failed is not None:
            self.failed(Failure(reason))

    def _stopWaiting(self) -> None:
        if self._deadline is not None:
            if self._deadline.active():
                self._deadline.cancel()
            self._deadline = None


class _Building(Outgoing):
    """
    The same, where a factory makes the protocol.

    @ivar build: called on success with the address, returns the protocol, or L{None} to give up.
    @ivar opened: called with the connected protocol.
    """

    build: Callable[[IAddress], Any]
    opened: Callable[[Any], object]

    def _open(self) -> None:
        self._stopWaiting()
        self.protocol = self.build(self._destination.address)
        if self.protocol is None:
            self.giveUp(ConnectionAborted())
        # The maker of the protocol may have cancelled the attempt.
        if self._failed is not None:
            super()._open()
            self.opened(self.protocol)


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
        outgoing = _Building(self._reactor.poller, self._destination, connected.errback, _EITHER)
        outgoing.build, outgoing.opened = protocolFactory.buildProtocol, connected.callback
        if self._timeout is not None:
            outgoing.limit(self._reactor, self._timeout)
        return connected

    def begin(self, protocol: Any, failed: Callable[[Failure], object], isGreeted: bool = False) -> Outgoing:
        """
        See L{mailgate.net.endpoints.begin}.

        @param protocol: the protocol of the connection.
        @param failed: called with a failure if there is no connection.
        @param isGreeted: whether the protocol may be connected as late as the peer's first bytes.
        """
        events = READABLE if isGreeted else _EITHER
        outgoing = Outgoing(self._reactor.poller, self._destination, failed, events)
        outgoing.protocol = protocol
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
        outgoing = _Building(self._reactor.poller, self._destination, self._failed, _EITHER, self._source)
        outgoing.build, outgoing.opened = self._factory.buildProtocol, self._opened
        self._attempt = outgoing
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
