# -*- test-case-name: mailgate.test.frontend.test_listener -*-
"""
The sockets that clients come in by.
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
    One listening socket, bound when the service starts with the right privileges. C{port} is Twisted's, once bound.

    Where there is a C{shared} socket before that, it is that one, which stays the caller's, and stays open. With
    C{isLarge} other processes accept from the same one, and newcomers are left to them while it says so; that takes a
    reactor that is lean. They have to wait without one of the factory's places.

    Connections are C{factory}'s; at a wildcard those to an address that has a factory in C{specific} are that one's:
    beside the wildcard the system would not let such an address be bound.
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
        self.address = address
        self.factory = factory
        self.specific = specific
        self._reactor = reactor

    def privilegedStartService(self) -> None:
        """
        Bind.

        @raise ListenError: the address cannot be bound.
        """
        if self.port is not None:
            return
        factory = ByLocalAddress(self.factory, self.specific) if self.specific else self.factory
        bound = openSocket(self.factory.settings, self.address) if self.shared is None else self.shared
        try:
            self.port = self._adopt(bound, factory)
            self._restrain(self.port)
            # Twisted's port sets a length of the queue of its own.
            bound.listen(self.address.socket.backlog)
        finally:
            if bound is not self.shared:
                bound.close()

    def _restrain(self, port: IListeningPort) -> None:
        """Have C{port} leave newcomers to others, or let them wait, where that is wanted."""
        if isinstance(port, LeanPort):
            port.isLarge, port.places = self.isLarge, self.factory.places
            return
        # A reactor of the application's may have ports of another kind, which it limits itself.
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
        # `twist` starts services without ever calling privilegedStartService.
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.stopListening()

    def stopListening(self) -> Deferred[Any]:
        """Accept no more."""
        port, self.port = self.port, None
        if port is None:
            return succeed(None)
        # Twisted removes a unix socket's file, unless somebody else has, or whom it belongs to we are no longer.
        return maybeDeferred(port.stopListening).addErrback(
            lambda failure: failure.trap(FileNotFoundError, PermissionError) and None
        )
