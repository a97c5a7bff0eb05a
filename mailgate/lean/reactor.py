# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""
A Twisted reactor whose stream connections use raw descriptors. L{mailgate.lean.port} listens,
L{mailgate.lean.connecting} connects, L{mailgate.lean.clock} has the timers; everything else is the wrapped reactor's.
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
    """nginx's C{use}."""

    method: str = directive("use", oneOf("epoll", "reactor"), "epoll")

    @property
    def isLean(self) -> bool:
        """Whether connections use L{LeanReactor}. The system must have epoll."""
        return self.method == "epoll" and hasattr(select, "epoll")

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """
        Yield the problems with settings that the reactor's own transports do not support.

        @param settings: the whole configuration.
        """
        if settings[cls].isLean:
            return
        yield from keysUnread(settings.servers)
        workers = settings[WorkerSettings].count
        if workers != 1:
            reason = (
                "must be 1 with use = reactor or without epoll: the reactor's own transports support only one process"
            )
            yield Problem(settings.file, reason, "mailgate", "worker_processes", str(workers))


@implementer(IReactorTime)
class LeanReactor:
    """
    A reactor with lean transports, which wraps any of Twisted's.

    @ivar poller: watches the descriptors.
    @ivar clock: has the timers.
    """

    def __init__(self, reactor: Any, batch: int = BATCH, log: Any = None) -> None:
        """
        @param reactor: the reactor to wrap.
        @param batch: the most connections that a port accepts at once.
        @param log: its C{failure} logs unhandled exceptions; L{None} is for Twisted's log.
        """
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
        """See C{IReactorTime}."""
        return self.clock.getDelayedCalls()

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: Any) -> IListeningPort:
        """
        Accept connections from a listening socket.

        @param fileDescriptor: the socket, which is non-blocking. The caller keeps it, and this makes a duplicate.
        @param addressFamily: its address family.
        @param factory: makes the protocols.
        """
        port = LeanPort(self.poller, self._reactor, fileDescriptor, addressFamily, factory, self._batch)
        port.startListening()
        return port

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: tuple[str, int] | None = None
    ) -> IConnector:
        """
        Connect by TCP. If C{host} is a name, the wrapped reactor connects.

        @param host: an IP address or a host name.
        @param port: the port.
        @param factory: Twisted's client factory.
        @param timeout: the seconds until the attempt fails.
        @param bindAddress: the address and port to connect from; L{None} lets the system choose.
        """
        if not (isIPAddress(host) or isIPv6Address(host)):
            connector: IConnector = self._reactor.connectTCP(host, port, factory, timeout, bindAddress)
            return connector
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        lean = LeanConnector(self, family, (host, port), factory, timeout, bindAddress)
        lean.connect()
        return lean

    def connectUNIX(self, address: str, factory: Any, timeout: float = 30, checkPID: int = 0) -> IConnector:
        """
        Connect to a unix socket.

        @param address: its path.
        @param factory: Twisted's client factory.
        @param timeout: the seconds until the attempt fails.
        @param checkPID: not used.
        """
        connector = LeanConnector(self, socket.AF_UNIX, address, factory, timeout, None)
        connector.connect()
        return connector

    def leanEndpoint(self, host: str, port: int, timeout: float | None) -> IStreamClientEndpoint:
        """
        See L{mailgate.net.endpoints.endpointFor}.

        @param host: an IP address without brackets, or C{unix:/path}; not a host name.
        @param port: the port.
        @param timeout: the seconds until an attempt fails; L{None} is for callers that cancel it themselves.
        """
        return LeanEndpoint(self, host, port, timeout)
