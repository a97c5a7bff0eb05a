# -*- test-case-name: mailgate.test.process.keeper.test_front -*-
"""
A keeper with its ports: the rendezvous for processes that serve clients, the admin server, and the port for metrics. It
is the same in a process of its own and in a gateway without workers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, TimeoutError, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint

from mailgate.config import GatewaySettings
from mailgate.frontend.reactorport import SharedTCPPort, SharedUNIXPort
from mailgate.keeper.admin.site import adminSite, metricsSite
from mailgate.keeper.handover import GIVE_UP_AFTER, handOver
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.listening import Rendezvous
from mailgate.process.keeper.sharing import Sharing
from mailgate.process.keeper.sockets import ADMIN, METRICS, RENDEZVOUS
from mailgate.system.privileges import ProcessSettings
from mailgate.watch.settings import AdminSettings

__all__ = ["ANSWERED_WITHIN", "Front", "isSafe"]

ANSWERED_WITHIN = 2.0
"""Seconds until a keeper that leaves must have sent the answers over HTTP that it has begun."""


def isSafe(listening: socket.socket, settings: GatewaySettings) -> bool:
    """
    Return whether the admin server may serve at a TCP socket: it has TLS, or the socket is for this host only. After a
    reload that has changed C{admin}, the configuration may lack TLS while the socket is still the one that had it.

    @param listening: the socket.
    @param settings: the configuration.
    """
    return settings[AdminSettings].usesTLS or ip_address(listening.getsockname()[0]).is_loopback


class Front(MultiService):
    """
    Lets processes and operators reach a keeper. The constructor reads the files of the admin server's TLS.

    @param keeper: the keeper.
    @param settings: the configuration.
    @param sockets: the listening sockets, by their names. They stay the caller's.
    @param reactor: the reactor.
    @param sharing: connects the keeper with the other gateways while it serves; L{None} without C{store}.
    @ivar keeper: the keeper.
    @raise mailgate.tls.errors.TLSError: a file of the admin server's TLS cannot be used.
    """

    def __init__(
        self,
        keeper: Keeper,
        settings: GatewaySettings,
        sockets: Mapping[str, socket.socket],
        reactor: Any,
        sharing: Sharing | None = None,
    ) -> None:
        super().__init__()
        self.keeper = keeper
        self._sockets = sockets
        self._reactor = reactor
        self._ports: list[Any] = []
        self._path = str(sockets[RENDEZVOUS].getsockname())
        user = settings[ProcessSettings].user
        self._rendezvous = Rendezvous(keeper, sockets[RENDEZVOUS], reactor, None if user is None else user.uid)
        self._rendezvous.setServiceParent(self)
        self._sharing = sharing
        if sharing is not None:
            sharing.setServiceParent(self)
        self._factories: dict[str, Any] = {}
        self.configure(settings)

    def configure(self, settings: GatewaySettings) -> None:
        """
        Serve new connections with another configuration. This reads the files of the admin server's TLS.

        @param settings: the configuration.
        @raise mailgate.tls.errors.TLSError: one of them cannot be used.
        """
        factories: dict[str, Any] = {}
        if ADMIN in self._sockets:
            isPath = self._sockets[ADMIN].family == socket.AF_UNIX
            if isPath or isSafe(self._sockets[ADMIN], settings):
                factories[ADMIN] = adminSite(self.keeper, settings, self._reactor, isPath=isPath)
        if METRICS in self._sockets:
            factories[METRICS] = metricsSite(self.keeper, settings, self._reactor)
        self.keeper.stories.limit(settings[AdminSettings].explainMemory)
        before, self._factories = self._factories, factories
        if self.running:
            self._stopListening()
            self._listen()
        for factory in before.values():
            _own(factory).finish()

    def serve(self, hasPredecessor: bool, settled: Callable[[], object] = lambda: None) -> None:
        """
        Accept from now on.

        @param hasPredecessor: whether an earlier keeper hands over its state.
        @param settled: called when it has done so, is gone, or is late.
        """
        if hasPredecessor:
            self.keeper.expectHandover(settled)
        self.startService()

    def startService(self) -> None:
        super().startService()
        self._listen()

    def _listen(self) -> None:
        for name, factory in self._factories.items():
            listening = self._sockets[name]
            descriptor, family = listening.fileno(), listening.family
            port: Any
            if family == socket.AF_UNIX:
                port = SharedUNIXPort._fromListeningDescriptor(self._reactor, descriptor, factory)
            else:
                port = SharedTCPPort._fromListeningDescriptor(self._reactor, descriptor, family, factory)
            port.startListening()
            self._ports.append(port)

    def _stopListening(self) -> list[Deferred[Any]]:
        ports, self._ports = self._ports, []
        return [maybeDeferred(port.stopListening) for port in ports]

    def stopService(self) -> Deferred[Any]:
        """Stop accepting, and close all connections."""
        closed = [*self._stopListening(), maybeDeferred(super().stopService)]
        for factory in self._factories.values():
            _own(factory).abort()
        return DeferredList(closed, consumeErrors=True)

    def handOver(self, *members: str, within: float = GIVE_UP_AFTER) -> Deferred[Any]:
        """
        Stop accepting, hand over to the keeper that accepts on the same sockets from now on, and finish the answers
        that have begun.

        @param members: the names of processes that link to that keeper without being ordered to.
        @param within: seconds until that keeper must have received the state.
        @return: fires when that is done, or has taken too long.
        """
        if not self.running:
            return DeferredList([])
        closed = self._stopListening()
        if self._sharing is not None:
            closed.append(self._sharing.handOver())
        endpoint = UNIXClientEndpoint(self._reactor, self._path)
        given = handOver(self.keeper, self._rendezvous, endpoint, self._reactor, members, within)
        for factory in self._factories.values():
            finished = _own(factory).finish()
            finished.addTimeout(ANSWERED_WITHIN, self._reactor)
            closed.append(finished.addErrback(lambda failure: failure.trap(TimeoutError) and None))
        return DeferredList([given, *closed], consumeErrors=True)


def _own(factory: Any) -> Any:
    """The factory of HTTP connections, which may be behind one of TLS connections."""
    return getattr(factory, "wrappedFactory", factory)
