# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""
A Twisted reactor whose stream connections run over raw descriptors: it listens, connects and keeps time in the ways of
L{mailgate.lean.port}, L{mailgate.lean.connecting} and L{mailgate.lean.clock}, and leaves the rest to the reactor it is
made of.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IConnector, IListeningPort, IReactorTime, IStreamClientEndpoint
from zope.interface import implementer

from mailgate.directives import GatewaySettings, Problem, directive, oneOf
from mailgate.lean.clock import CoarseClock
from mailgate.lean.connecting import LeanConnector, LeanEndpoint
from mailgate.lean.poller import Poller
from mailgate.lean.port import BATCH, LeanPort
from mailgate.system.processors import WorkerSettings
from mailgate.tls.settings import keysUnread

__all__ = ["EventSettings", "LeanReactor"]


@frozen
class EventSettings:
    """nginx's C{use}, of its C{events}."""

    method: str = directive("use", oneOf("epoll", "reactor"), "epoll")

    @property
    def isLean(self) -> bool:
        """Whether connections are to be those of L{LeanReactor}. Where there is no epoll they cannot be."""
        return self.method == "epoll" and hasattr(select, "epoll")

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """What no transports of the reactor's own can do."""
        if settings[cls].isLean:
            return
        yield from keysUnread(settings.servers)
        workers = settings[WorkerSettings].count
        if workers != 1:
            reason = "must be 1 with use = reactor, and without epoll: the reactor's transports serve one process"
            yield Problem(settings.file, reason, "mailgate", "worker_processes", str(workers))


@implementer(IReactorTime)
class LeanReactor:
    """
    C{reactor}, which may be any of Twisted's, with lean transports, C{batch} of them accepted at once. Defects are
    logged by C{log.failure}, if that is given.
    """

    def __init__(self, reactor: Any, batch: int = BATCH, log: Any = None) -> None:
        self._reactor = reactor
        self._batch = batch
        self.poller = Poller(reactor)
        self.clock = CoarseClock(reactor)
        if log is not None:
            self.poller.log = self.clock.log = log
        self.seconds: Callable[[], float] = reactor.seconds
        self.callLater = self.clock.callLater

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def getDelayedCalls(self) -> Any:
        """As the reactor's."""
        return self.clock.getDelayedCalls()

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        """Accept connections from the listening, non-blocking socket C{fileDescriptor}, which is duplicated."""
        port = LeanPort(self.poller, self._reactor, fileDescriptor, addressFamily, factory, self._batch)
        port.startListening()
        return port

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: tuple[str, int] | None = None
    ) -> IConnector:
        """Connect to the address C{host}; for a name it is the reactor that does."""
        if not (isIPAddress(host) or isIPv6Address(host)):
            connector: IConnector = self._reactor.connectTCP(host, port, factory, timeout, bindAddress)
            return connector
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        lean = LeanConnector(self, family, (host, port), factory, timeout, bindAddress)
        lean.connect()
        return lean

    def connectUNIX(self, address: str, factory: Any, timeout: float = 30, checkPID: int = 0) -> IConnector:
        """Connect to the unix socket at the path C{address}."""
        connector = LeanConnector(self, socket.AF_UNIX, address, factory, timeout, None)
        connector.connect()
        return connector

    def leanEndpoint(self, host: str, port: int, timeout: float | None) -> IStreamClientEndpoint:
        """See L{mailgate.net.endpoints.endpointFor}; C{host} is no name."""
        return LeanEndpoint(self, host, port, timeout)
