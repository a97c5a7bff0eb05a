# -*- test-case-name: mailgate.test.frontend.test_listener -*-
"""
The sockets on which the gateway accepts clients.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Port as TCPPort

from mailgate.directives import ListenAddress
from mailgate.frontend.factory import ByLocalAddress, ProxyServerFactory
from mailgate.frontend.reactorport import SharedUNIXPort, makeBounded
from mailgate.lean.port import LeanPort
from mailgate.lean.reactor import LeanReactor
from mailgate.net.sockets import openSocket

__all__ = ["Listener"]


class Listener(Service):
    """
    One listening socket. The service binds it before the process gives up its privileges.

    @ivar port: Twisted's port, once bound.
    @ivar shared: a socket that is already bound, to be set before the start. It belongs to the caller and stays open.
    @ivar isLarge: set if other processes accept from the same socket. While it returns true, new clients are left to
        them. Only the lean reactor supports that.
    """

    port: IListeningPort | None = None
    shared: socket.socket | None = None
    isLarge: Callable[[], bool] | None = None

    def __init__(
        self,
        address: ListenAddress,
        factory: ProxyServerFactory,
        reactor: Any,
        specific: Mapping[str, ProxyServerFactory] = {},
    ) -> None:
        """
        @param address: where to listen.
        @param factory: makes the dialogues. Clients beyond its C{places} wait in the socket's queue.
        @param reactor: the reactor that serves the socket.
        @param specific: for a wildcard, the factories of addresses that have their own C{listen}: the system does not
            allow a second socket for them.
        """
        self.address = address
        self.factory = factory
        self.specific = specific
        self._reactor = reactor

    @property
    def isPaused(self) -> bool:
        """Whether clients wait, because this process can accept no more for now."""
        return getattr(self.port, "isPaused", False)

    @property
    def serverNames(self) -> set[str]:
        """The names of the servers whose clients connect to the socket."""
        return {factory.settings.name for factory in (self.factory, *self.specific.values())}

    def privilegedStartService(self) -> None:
        """
        Bind the socket.

        @raise ListenError: the address cannot be bound.
        """
        if self.port is not None:
            return
        factory = ByLocalAddress(self.factory, self.specific) if self.specific else self.factory
        bound = openSocket(self.factory.settings, self.address) if self.shared is None else self.shared
        try:
            self.port = self._adopt(bound, factory)
            self._restrain(self.port)
            # Twisted's port has set its own queue length.
            bound.listen(self.address.socket.backlog)
        finally:
            if bound is not self.shared:
                bound.close()

    def _restrain(self, port: IListeningPort) -> None:
        """Limit how many clients C{port} accepts."""
        if isinstance(port, LeanPort):
            port.isLarge, port.places = self.isLarge, self.factory.places
            for factory in (self.factory, *self.specific.values()):
                factory.setsNoDelay = False
            return
        # Ports of other reactors are left as they are.
        if isinstance(port, TCPPort):
            makeBounded(port, self.factory.places)

    def _adopt(self, bound: socket.socket, factory: Factory) -> IListeningPort:
        port: IListeningPort
        isShared = bound is self.shared and bound.family == socket.AF_UNIX
        if isShared and not isinstance(self._reactor, LeanReactor):
            port = SharedUNIXPort._fromListeningDescriptor(self._reactor, bound.fileno(), factory)
            port.startListening()
            return port
        port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        if isinstance(port, LeanPort):
            port.keepsFile = isShared
        return port

    def startService(self) -> None:
        # `twist` does not call privilegedStartService.
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.stopListening()

    def stopListening(self) -> Deferred[Any]:
        """Stop accepting clients."""
        port, self.port = self.port, None
        if port is None:
            return succeed(None)
        # Twisted removes a unix socket's file. It may be gone already, or we may have given up the right to remove it.
        return maybeDeferred(port.stopListening).addErrback(
            lambda failure: failure.trap(FileNotFoundError, PermissionError) and None
        )
