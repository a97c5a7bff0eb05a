"""
Tests for L{mailgate.leanreactor}: which of a reactor's ways are lean ones, and which stay the reactor's own.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.connecting import LeanConnector, LeanEndpoint
from mailgate.leanreactor import EventSettings, LeanReactor


class Never(ClientFactory):
    """Is connected to nobody."""

    noisy = False


class LeanReactorTests(SynchronousTestCase):
    """What a program that has a reactor meets."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.lean = LeanReactor(self.reactor)

    def crowded(self) -> Any:
        """The address of somebody who listens, but has no place for anybody."""
        bound = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(bound.close)
        self.addCleanup(socket.create_connection(bound.getsockname()).close)
        return bound.getsockname()

    def test_time(self) -> None:
        """Its time is the reactor's; its timers are seen, those that are coarse and those that are not."""
        self.assertTrue(verifyObject(IReactorTime, self.lean))
        self.reactor.advance(7)
        self.assertEqual(self.lean.seconds(), 7)
        calls: list[str] = []
        timers = [self.lean.callLater(delay, calls.append, str(delay)) for delay in (1, 60)]
        for timer in timers:
            self.assertIn(timer, self.lean.getDelayedCalls())
        self.reactor.advance(1)
        self.assertEqual(calls, ["1"])
        timers[1].cancel()
        self.assertEqual(self.lean.getDelayedCalls(), [])

    def test_rest(self) -> None:
        """Whatever it does not do itself the reactor does."""
        self.lean.listenTCP(143, Never())
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [143])
        self.assertRaises(AttributeError, lambda: self.lean.adoptNobody)

    def test_addresses(self) -> None:
        """Connections to addresses of either family are its own: the reactor hears nothing of them."""
        for host in ("127.0.0.1", "::1"):
            connector = self.lean.connectTCP(host, self.crowded()[1], Never(), 20)
            self.assertIsInstance(connector, LeanConnector)
            self.assertEqual((connector.getDestination().host, self.reactor.tcpClients), (host, []))
            connector.disconnect()
            self.reactor.advance(0)

    def test_names(self) -> None:
        """For a name it is the reactor that looks it up, and connects."""
        factory = Never()
        self.lean.connectTCP("mail.example.com", 143, factory, 7, ("127.0.0.1", 0))
        self.assertEqual(self.reactor.tcpClients, [("mail.example.com", 143, factory, 7, ("127.0.0.1", 0))])

    def test_endpoint(self) -> None:
        """Its endpoints are its own."""
        self.assertIsInstance(self.lean.leanEndpoint("127.0.0.1", 143, 20), LeanEndpoint)

    def test_idle(self) -> None:
        """As long as nobody has a connection the reactor has nothing to read from, nor to wait for."""
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))
        connector = self.lean.connectTCP(*self.crowded(), Never(), 20)
        self.assertEqual(self.reactor.readers, {self.lean.poller})
        connector.disconnect()
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))


class EventSettingsTests(SynchronousTestCase):
    """What C{use} chooses."""

    def test_method(self) -> None:
        """Connections are lean ones unless they are to be the reactor's, or there is no epoll."""
        self.assertEqual(EventSettings().isLean, hasattr(select, "epoll"))
        self.assertFalse(EventSettings("reactor").isLean)
