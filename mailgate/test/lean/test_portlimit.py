"""
Tests for C{worker_connections} with ports of L{mailgate.lean.port} and of Twisted: real sockets that pause and
continue.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from mailgate.directives import ListenAddress
from mailgate.frontend.listener import Listener
from mailgate.lean.connectionlimit import ConnectionLimit, Places
from mailgate.lean.poller import MOST_ROUNDS
from mailgate.lean.reactor import LeanReactor
from mailgate.lean.shares import PAUSE
from mailgate.test.lean.test_connectionlimit import Log
from mailgate.test.lean.test_port import Case
from mailgate.test.support.factories import makeFactory

ADDRESS = ListenAddress("127.0.0.1", 0)


class PortCase(Case):
    """Ports of L{mailgate.lean.port} with a limit of three connections."""

    def setUp(self) -> None:
        super().setUp()
        self.places = Places(self.reactor)
        self.log = Log()
        self.places.limit(ConnectionLimit(3, ""), self.log.journal)
        self.factory = makeFactory(ADDRESS, clock=self.reactor, places=self.places)
        self.addCleanup(self.assertLeftNothing)
        self.port = self.open()

    def open(self) -> Any:
        """Another port, which is stopped after the test."""
        reactor: Any = self.reactor
        lean = LeanReactor(reactor)
        lean.poller = self.poller
        listener = Listener(ADDRESS, self.factory, lean)
        listener.privilegedStartService()
        self.addCleanup(self.close, listener)
        return listener

    def close(self, listener: Any) -> None:
        listener.stopListening()
        for connection in list(self.factory.connections):
            connection.stop()
        self.reactor.advance(0)

    def assertLeftNothing(self) -> None:
        self.assertEqual((self.reactor.readers, self.places.taken), ([], 0))

    def arrive(self, count: int, listener: Any = None) -> list[socket.socket]:
        clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", (listener or self.port).port.getHost().port))
            self.addCleanup(client.close)
            client.setblocking(False)
            clients.append(client)
        return clients

    def turn(self) -> list[Any]:
        """Run until nothing happens, and return the connected clients."""
        for _ in range(3):
            if self.reactor.readers:
                self.poller.doRead()
            self.reactor.advance(0)
        return list(self.factory.connections)

    def events(self) -> int:
        """The number of events of the poller that are not handled."""
        return len(self.poller._epoll.poll(0))


class PortTests(PortCase):
    """One or two ports."""

    def test_edge(self) -> None:
        """Connections up to the limit are accepted. The others wait, and cost no CPU time."""
        self.arrive(5)
        self.assertEqual(len(self.turn()), 3)
        self.assertEqual(self.events(), 0)
        self.assertEqual(len(self.log.lines()), 1)

    def test_exactly(self) -> None:
        """With exactly as many clients as the limit no client waits, and nothing is logged."""
        self.arrive(3)
        self.assertEqual(len(self.turn()), 3)
        self.assertEqual(self.log.lines(), [])

    def test_resumes(self) -> None:
        """For each client that leaves a waiting one is accepted, until all are."""
        clients = self.arrive(5)
        self.assertFalse(self.port.isPaused)
        self.turn()
        self.assertTrue(self.port.isPaused)
        for left, isPaused in ((3, True), (3, False), (2, False), (1, False), (0, False)):
            clients.pop(0).close()
            self.assertEqual((len(self.turn()), self.port.isPaused), (left, isPaused))
        self.assertEqual(self.places.taken, 0)
        self.arrive(3)
        self.assertEqual(len(self.turn()), 3)

    def test_greeted(self) -> None:
        """A client that has waited is served as any other."""
        clients = self.arrive(4)
        self.turn()
        self.assertRaises(BlockingIOError, clients[3].recv, 1)
        clients[0].close()
        self.turn()
        self.assertEqual(clients[3].recv(100), b"+OK POP3 ready\r\n")

    def test_ports(self) -> None:
        """The limit is for all ports together, and all ports wait."""
        other = self.open()
        clients = self.arrive(2)
        self.arrive(3, other)
        self.arrive(1)
        self.assertEqual(len(self.turn()), 3)
        self.assertEqual((self.events(), len(self.log.lines())), (0, 1))
        for client in clients:
            client.close()
        self.assertEqual(len(self.turn()), 3)
        self.assertEqual(self.events(), 0)
        connections: Any = self.factory.connections
        hosts = {connection.transport.getHost().port for connection in connections}
        self.assertEqual(len(hosts), 2)

    def test_stopped(self) -> None:
        """A port that is stopped while it waits is not woken by a client that leaves."""
        other = self.open()
        clients = self.arrive(4)
        self.turn()
        self.successResultOf(self.port.stopListening())
        clients[0].close()
        self.assertEqual(len(self.turn()), 2)
        self.arrive(1, other)
        self.assertEqual(len(self.turn()), 3)

    def test_generation(self) -> None:
        """The ports of a new generation wait for clients of the old one."""
        clients = self.arrive(4)
        self.turn()
        self.successResultOf(self.port.stopListening())
        factory, self.factory = self.factory, makeFactory(ADDRESS, clock=self.reactor, places=self.places)
        self.port = self.open()
        self.arrive(1)
        self.assertEqual((self.turn(), len(factory.connections)), ([], 3))
        clients[0].close()
        self.turn()
        self.assertEqual((len(self.factory.connections), len(factory.connections)), (1, 2))
        for connection in list(factory.connections):
            connection.stop()

    def test_courtesy(self) -> None:
        """A port may wait for other processes and for the limit."""
        large = True
        self.port.port.isLarge = lambda: large
        clients = self.arrive(4)
        for count, isPaused in ((0, False), (3, True)):
            self.assertEqual((len(self.turn()), self.port.isPaused), (count, isPaused))
            self.reactor.advance(PAUSE)
        self.assertEqual((len(self.turn()), self.events()), (3, 0))
        self.reactor.advance(PAUSE)
        self.assertEqual(self.events(), 0)
        clients[0].close()
        large = False
        self.assertEqual(len(self.turn()), 3)

    def test_shared(self) -> None:
        """Of two processes with one socket, the one with room accepts what the other cannot."""
        shared = socket.socket(fileno=os.dup(self.port.port._socket.fileno()))
        self.addCleanup(shared.close)
        places, own = Places(self.reactor), self.places
        self.places = places
        others = self.factory
        self.factory = makeFactory(ADDRESS, clock=self.reactor, places=places)
        reactor: Any = self.reactor
        lean = LeanReactor(reactor)
        listener = Listener(ADDRESS, self.factory, lean)
        listener.shared = shared
        self.arrive(5)
        self.poller.doRead()
        self.assertEqual(len(others.connections), 3)
        listener.privilegedStartService()
        lean.poller.doRead()
        self.assertEqual((len(others.connections), len(self.factory.connections)), (3, 2))
        self.assertEqual(own.taken, 3)
        self.successResultOf(listener.stopListening())
        for connection in (*others.connections, *self.factory.connections):
            connection.stop()
        self.reactor.advance(0)
        self.places = own

    def test_rounds(self) -> None:
        """If the poller polls again in the same turn, no client is accepted beyond the limit."""
        self.places.limit(ConnectionLimit(MOST_ROUNDS, ""), self.log.journal)
        self.port.port._batch = 1
        self.arrive(MOST_ROUNDS + 3)
        self.assertEqual(len(self.turn()), MOST_ROUNDS)


class TwistedTests(TestCase):
    """Ports of Twisted's reactor."""

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.log = Log()
        self.places = Places(reactor)
        self.places.limit(ConnectionLimit(2, ""), self.log.journal)
        self.factory = makeFactory(ADDRESS, clock=reactor, places=self.places)

    def listen(self, shared: socket.socket | None = None) -> Listener:
        listener = Listener(ADDRESS, self.factory, self.reactor)
        listener.shared = shared
        listener.privilegedStartService()
        self.addCleanup(self.close, listener)
        return listener

    async def close(self, listener: Listener) -> None:
        await listener.stopListening()
        for connection in list(self.factory.connections):
            connection.stop()
        await self.until(lambda: self.places.taken == 0)

    def turn(self, seconds: float = 0) -> Deferred[None]:
        turned: Deferred[None] = Deferred()
        self.reactor.callLater(seconds, turned.callback, None)
        return turned

    async def until(self, true: Any) -> None:
        while not true():
            await self.turn(0.001)

    def dial(self, family: int, address: Any, count: int) -> list[socket.socket]:
        clients = []
        for _ in range(count):
            client = socket.socket(family)
            self.addCleanup(client.close)
            client.connect(address)
            clients.append(client)
        return clients

    async def check(self, listener: Listener, clients: list[socket.socket]) -> None:
        """Two of C{clients} are accepted, and for each that leaves another one."""
        await self.until(self.log.lines)
        self.assertEqual(self.places.taken, 2)
        port: Any = listener.port
        self.assertNotIn(port, self.reactor.getReaders())
        self.assertTrue(listener.isPaused)
        connections = set(self.factory.connections)
        while len(clients) > 2:
            clients.pop(0).close()
            await self.until(lambda known=set(connections): set(self.factory.connections) - known)
            self.assertEqual(self.places.taken, 2)
            connections |= set(self.factory.connections)
        self.assertEqual((len(connections), listener.isPaused), (5, False))

    async def test_tcp(self) -> None:
        """A TCP port accepts up to the limit."""
        listener = self.listen()
        port: Any = listener.port
        await self.check(listener, self.dial(socket.AF_INET, ("127.0.0.1", port.getHost().port), 5))

    async def test_shared(self) -> None:
        """So does a shared unix socket."""
        shared = socket.socket(socket.AF_UNIX)
        self.addCleanup(shared.close)
        name = b"\0mailgate-places-%d" % os.getpid()
        shared.bind(name)
        shared.listen(50)
        shared.setblocking(False)
        listener = self.listen(shared)
        await self.check(listener, self.dial(socket.AF_UNIX, name, 5))

    async def test_stopped(self) -> None:
        """A port that is stopped while it waits stays stopped."""
        listener = self.listen()
        port: Any = listener.port
        clients = self.dial(socket.AF_INET, ("127.0.0.1", port.getHost().port), 3)
        await self.until(self.log.lines)
        await listener.stopListening()
        clients[0].close()
        await self.until(lambda: self.places.taken == 1)
        self.assertNotIn(port, self.reactor.getReaders())

    async def test_otherKind(self) -> None:
        """Ports of another kind are not limited."""

        class Port:
            """A port of another kind."""

            def stopListening(self) -> None:
                """Do nothing."""

        class Own:
            """A reactor with such ports."""

            def adoptStreamPort(self, fd: int, family: int, factory: Any) -> Port:
                return Port()

        listener = Listener(ADDRESS, self.factory, Own())
        listener.privilegedStartService()
        self.assertIsInstance(listener.port, Port)
        await listener.stopListening()
