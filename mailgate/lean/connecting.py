# -*- test-case-name: mailgate.test.lean.test_transport_contract mailgate.test.lean.test_connecting -*-
"""Outgoing connections, as L{StreamTransport}s: for Twisted's endpoints, and for reactors' client factories."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectingCancelledError,
    ConnectionAborted,
    NotConnectingError,
    TimeoutError,
    UserError,
    getConnectError,
)
from twisted.internet.interfaces import IAddress, IConnector, IDelayedCall, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.lean.descriptors import addressOf, ask
from mailgate.lean.poller import READABLE, WRITABLE
from mailgate.lean.transport import StreamTransport

if TYPE_CHECKING:
    from mailgate.lean.reactor import LeanReactor

__all__ = ["LeanConnector", "LeanEndpoint"]


class _Destination:
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


def _ignored(protocol: Any) -> None:
    """For callers that need no more than C{makeConnection}."""


class _Attempt:
    """
    One attempt to connect to C{destination}, from the address C{source} if it is given.

    If it succeeds, it calls C{build(address)} for the protocol of the connection, and C{opened(protocol)} if there is
    one. If it fails or C{timeout} seconds pass, it calls C{failed(failure)}. C{timeout} may be L{None}.
    """

    def __init__(
        self,
        reactor: LeanReactor,
        destination: _Destination,
        timeout: float | None,
        source: tuple[str, int] | None,
        build: Callable[[IAddress], Any],
        opened: Callable[[Any], object],
        failed: Callable[[Failure], object],
    ) -> None:
        self._poller = reactor.poller
        self._destination = destination
        self._build = build
        self._opened = opened
        self._fail = failed
        self._fd = -1
        self._over = False
        self._deadline: IDelayedCall | None = None
        try:
            self._connect(source)
        except OSError as error:
            reason = getConnectError(error)
            self._poller.soon(lambda: self.giveUp(reason))
            return
        if timeout is not None:
            self._deadline = reactor.callLater(timeout, self.giveUp, TimeoutError())

    def _connect(self, source: tuple[str, int] | None) -> None:
        family = self._destination.family
        made = socket.SocketType(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            if family != socket.AF_UNIX:
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source is not None:
                made.bind(source)
            status = made.connect_ex(self._destination.raw)
            if status not in (0, errno.EINPROGRESS):
                raise OSError(status, os.strerror(status))
            self._poller.watch(made.fileno(), self, READABLE | WRITABLE)
        except BaseException:
            made.close()
            raise
        self._fd = made.detach()

    def ready(self, fd: int, events: int) -> None:
        """The attempt has succeeded or failed."""
        if events & ~(READABLE | WRITABLE):
            status = ask(self._fd, self._destination.family, "getsockopt", socket.SOL_SOCKET, socket.SO_ERROR)
            if status:
                self.giveUp(getConnectError(OSError(status, os.strerror(status))))
                return
        self._stopWaiting()
        address = self._destination.address
        protocol = self._build(address)
        if protocol is None or self._over:
            self.giveUp(ConnectionAborted())
            return
        self._over = True
        transport = StreamTransport(self._poller, fd, self._destination.family, address, True)
        try:
            transport.open(protocol, watched=True)
        except Exception:
            transport.onLoss = self._fail
            transport.failed(Failure())
            raise
        self._opened(protocol)
        if events & READABLE and transport.connected:
            transport.ready(fd, READABLE)

    def failed(self, failure: Failure) -> None:
        """End the attempt with C{failure}: the protocol has raised, or the reactor stops."""
        if not self._over:
            self._over = True
            self._stopWaiting()
            if self._fd >= 0:
                self._poller.release(self._fd)
            self._fail(failure)

    def cancel(self) -> None:
        """End the attempt, because the caller no longer needs the connection."""
        self.giveUp(ConnectingCancelledError(self._destination.address))

    def giveUp(self, reason: Exception) -> None:
        """End the attempt with C{reason}; does nothing if it has ended."""
        self.failed(Failure(reason))

    def _stopWaiting(self) -> None:
        if self._deadline is not None and self._deadline.active():
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
            self._destination = _Destination(socket.AF_UNIX, host.removeprefix("unix:"))
        else:
            self._destination = _Destination(socket.AF_INET6 if ":" in host else socket.AF_INET, (host, port))

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        connected: Deferred[Any] = Deferred(lambda _: attempt.cancel())
        attempt = self._attempt(protocolFactory.buildProtocol, connected.callback, connected.errback)
        return connected

    def begin(self, protocol: Any, failed: Callable[[Failure], object]) -> _Attempt:
        """
        See L{mailgate.net.endpoints.begin}.

        @param protocol: the protocol of the connection.
        @param failed: called with a failure if there is no connection.
        """
        return self._attempt(lambda address: protocol, _ignored, failed)

    def _attempt(
        self,
        build: Callable[[IAddress], Any],
        opened: Callable[[Any], object],
        failed: Callable[[Failure], object],
    ) -> _Attempt:
        return _Attempt(self._reactor, self._destination, self._timeout, None, build, opened, failed)


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
        self._destination = _Destination(family, destination)
        self._factory = factory
        self._timeout = timeout
        self._source = source
        self._attempt: _Attempt | None = None
        self._protocol: Any = None

    def connect(self) -> None:
        """Start an attempt to connect."""
        self._factory.doStart()
        self._factory.startedConnecting(self)
        self._attempt = _Attempt(
            self._reactor,
            self._destination,
            self._timeout,
            self._source,
            self._factory.buildProtocol,
            self._opened,
            self._failed,
        )

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
