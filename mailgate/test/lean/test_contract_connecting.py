"""The contract of connectors and ports, for both kinds of transport."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import (
    ConnectError,
    ConnectionDone,
    ConnectionRefusedError,
    NotConnectingError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IListeningPort
from twisted.trial.unittest import TestCase

from mailgate.test.support.contractkinds import OverLean, OverTwisted
from mailgate.test.support.descriptors import settleDescriptors
from mailgate.test.support.loopback import speaksIPv6
from mailgate.test.support.transportbench import Bench
from mailgate.test.support.transportends import NearFactory, Peer


class Connecting(Bench):
    """Connectors."""

    def factory(self, **reactions: Callable[[Any], object]) -> NearFactory:
        return NearFactory(lambda: self.makeNear(False, **reactions))

    async def test_life(self) -> None:
        """
        The factory is started, receives the attempt, builds one protocol, receives the end after it, and is stopped.
        """
        bound = self.bind()
        factory = self.factory(lost=lambda near: factory.told.append("protocol lost"))
        connector = self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        self.assertEqual(factory.told, ["start", "connecting"])
        self.assertEqual((factory.addresses, self.nears), ([], []))
        far = await self.accept(bound)
        await self.until(lambda: self.nears and self.nears[0].told)
        destination = IPv4Address("TCP", *bound.getsockname())
        self.assertEqual((factory.addresses, connector.getDestination()), ([destination], destination))
        far.close()
        await self.untilTold(factory, "stop")
        self.assertEqual(factory.told, ["start", "connecting", "protocol lost", "lost", "stop"])
        self.assertIsInstance(factory.reason, ConnectionDone)

    async def assertFails(self, factory: NearFactory, kind: type[Exception]) -> None:
        """C{factory} receives one failure, and builds no protocol."""
        self.assertEqual(factory.told, ["start", "connecting"])
        await self.untilTold(factory, "stop")
        self.assertIsInstance(factory.reason, kind)
        self.assertEqual((factory.told, factory.addresses), (["start", "connecting", "failed", "stop"], []))

    async def test_refused(self) -> None:
        """Without a listening socket the connection is refused, after the connector is returned."""
        bound = self.bind()
        address = bound.getsockname()
        bound.close()
        factory = self.factory()
        self.reactor.connectTCP(*address, factory, 20)
        await self.assertFails(factory, ConnectionRefusedError)

    async def test_timeout(self) -> None:
        """Without an answer it fails after the timeout."""
        factory = self.factory()
        self.reactor.connectTCP(*self.crowded().getsockname(), factory, 0.01)
        await self.assertFails(factory, TimeoutError)

    async def test_stopped(self) -> None:
        """A stopped attempt fails for that reason, and cannot be stopped again."""
        for giveUp in ("stopConnecting", "disconnect"):
            factory = self.factory()
            connector = self.reactor.connectTCP(*self.crowded().getsockname(), factory, 20)
            await self.turns()
            self.assertEqual(factory.told, ["start", "connecting"])
            getattr(connector, giveUp)()
            await self.untilTold(factory, "stop")
            self.assertEqual(factory.told, ["start", "connecting", "failed", "stop"])
            self.assertIsInstance(factory.reason, UserError)
            self.assertRaises(NotConnectingError, connector.stopConnecting)

    async def test_stoppedAtOnce(self) -> None:
        """It may be stopped before anything has happened."""
        bound = self.bind()
        factory = self.factory()
        connector = self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        connector.stopConnecting()
        await self.untilTold(factory, "stop")
        await self.turns()
        self.assertEqual((factory.told, factory.addresses), (["start", "connecting", "failed", "stop"], []))

    async def test_disconnect(self) -> None:
        """Once connected, C{disconnect} closes the connection, and the attempt cannot be stopped."""
        bound = self.bind()
        factory = self.factory()
        connector = self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        peer = Peer(self.turn, await self.accept(bound))
        await self.until(lambda: self.nears and self.nears[0].told)
        self.assertRaises(NotConnectingError, connector.stopConnecting)
        self.nears[0].transport.write(b"bye")
        connector.disconnect()
        self.assertEqual(await peer.rest(), b"bye")
        await self.untilTold(factory, "stop")
        self.assertEqual(factory.told, ["start", "connecting", "lost", "stop"])

    async def test_nobody(self) -> None:
        """If the factory builds no protocol, the connection is closed."""
        bound = self.bind()
        factory = NearFactory(lambda: None)
        self.reactor.connectTCP(*bound.getsockname(), factory, 20)
        self.assertEqual(await Peer(self.turn, await self.accept(bound)).rest(), b"")
        await self.untilTold(factory, "stop")
        self.assertEqual(len(factory.addresses), 1)

    async def test_source(self) -> None:
        """The connection has the source address that it was bound to."""
        bound = self.bind()
        self.reactor.connectTCP(*bound.getsockname(), self.factory(), 20, ("127.0.0.2", 0))
        far = await self.accept(bound)
        self.assertEqual(far.getpeername()[0], "127.0.0.2")
        await self.until(lambda: self.nears and self.nears[0].told)
        self.assertEqual(self.nears[0].transport.getHost().host, "127.0.0.2")

    async def test_briefly(self) -> None:
        """Bytes of a server that closes at once are delivered."""
        bound = self.bind()
        self.reactor.connectTCP(*bound.getsockname(), self.factory(), 20)
        far = await self.accept(bound)
        far.send(b"-ERR busy\r\n")
        far.close()
        await self.until(lambda: self.nears)
        await self.assertLost(self.nears[0], ConnectionDone)
        self.assertEqual((self.nears[0].told, self.nears[0].received), (["made", "data", "lost"], b"-ERR busy\r\n"))

    async def test_unix(self) -> None:
        """The connector of a unix socket knows its destination."""
        self.family = socket.AF_UNIX
        bound = self.bind()
        connector = self.reactor.connectUNIX(bound.getsockname(), self.factory(), 20)
        self.assertEqual(connector.getDestination(), UNIXAddress(bound.getsockname()))
        await self.accept(bound)
        await self.until(lambda: self.nears and self.nears[0].told)

    async def test_unixFails(self) -> None:
        """A unix socket that is missing, or has no listener, fails."""
        self.family = socket.AF_UNIX
        bound = self.bind()
        deserted = bound.getsockname()
        bound.close()
        for path, kind in ((os.path.join(self.folder, "none"), ConnectError), (deserted, ConnectionRefusedError)):
            factory = self.factory()
            self.reactor.connectUNIX(path, factory, 20)
            await self.assertFails(factory, kind)

    async def test_interleaved(self) -> None:
        """Attempts that succeed and attempts that fail at the same time do not affect one another."""
        bound, deserted = self.bind(), self.bind()
        nowhere = deserted.getsockname()
        deserted.close()
        factories = [self.factory() for _ in range(40)]
        for number, factory in enumerate(factories):
            self.reactor.connectTCP(*(nowhere if number % 2 else bound.getsockname()), factory, 20)
        fars = [await self.accept(bound) for _ in range(20)]
        for far in fars:
            far.send(b"%d" % far.getpeername()[1])
        await self.until(lambda: sum(bool(near.received) for near in self.nears) == 20)
        for near in self.nears:
            self.assertEqual(near.received, b"%d" % near.transport.getHost().port)
        for number, factory in enumerate(factories):
            self.assertEqual("failed" in factory.told, bool(number % 2))


class Listening(Bench):
    """Ports."""

    def factory(self, **reactions: Callable[[Any], object]) -> NearFactory:
        return NearFactory(lambda: self.makeNear(False, **reactions))

    def greeting(self) -> NearFactory:
        return self.factory(made=lambda near: near.transport.write(b"+OK\r\n"))

    async def assertGreeted(self, *fars: socket.socket) -> None:
        for far in fars:
            self.assertEqual(await Peer(self.turn, far).receive(5), b"+OK\r\n")

    async def test_life(self) -> None:
        """A port reports its address, starts and stops its factory, and passes it the addresses of clients."""
        factory = self.greeting()
        port, address = self.listen(factory)
        self.assertTrue(IListeningPort.providedBy(port))
        self.assertEqual(port.getHost(), IPv4Address("TCP", *address))
        self.assertEqual(factory.told, ["start"])
        far = self.dial(address)
        await self.assertGreeted(far)
        self.assertEqual(factory.addresses, [IPv4Address("TCP", *far.getsockname())])
        await maybeDeferred(port.stopListening)
        self.assertEqual(factory.told, ["start", "stop"])

    async def test_ipv6(self) -> None:
        """IPv6 addresses are reported as such, at both ends."""
        if not speaksIPv6():
            raise self.skipTest("this host has no IPv6")
        self.family = socket.AF_INET6
        factory = self.factory()
        port, address = self.listen(factory)
        self.assertEqual(port.getHost(), IPv6Address("TCP", *address))
        self.reactor.connectTCP("::1", address[1], NearFactory(self.makeNear), 20)
        await self.until(lambda: len(self.nears) == 2 and all(near.told for near in self.nears))
        ends = [(near.transport.getHost(), near.transport.getPeer()) for near in self.nears]
        self.assertEqual(ends[0], ends[1][::-1])
        self.assertEqual(factory.addresses[0].host, "::1")
        self.assertIsInstance(factory.addresses[0], IPv6Address)

    async def test_stop(self) -> None:
        """A port that was stopped, once or twice, accepts no connections. Existing ones stay open."""
        port, address = self.listen(self.greeting())
        far = self.dial(address)
        await self.assertGreeted(far)
        await maybeDeferred(port.stopListening)
        await maybeDeferred(port.stopListening)
        self.assertNotEqual(self.keep(socket.socket()).connect_ex(address), 0)
        far.send(b"NOOP\r\n")
        await self.until(lambda: self.nears[0].received == b"NOOP\r\n")
        self.assertEqual(self.nears[0].told, ["made", "data"])

    async def test_stopUNIX(self) -> None:
        """Stopping a port removes the file of its unix socket."""
        self.family = socket.AF_UNIX
        port, address = self.listen(self.greeting())
        self.assertEqual(port.getHost(), UNIXAddress(address))
        await self.assertGreeted(self.dial(address))
        await maybeDeferred(port.stopListening)
        self.assertFalse(os.path.exists(address))

    async def test_stopBetween(self) -> None:
        """The first of several simultaneous connections may stop the port."""
        stopped: list[Any] = []

        def stop(near: Any) -> None:
            if not stopped:
                stopped.append(maybeDeferred(port.stopListening))

        port, address = self.listen(self.factory(made=stop))
        first = self.dial(address)
        for _ in range(4):
            self.dial(address)
        first.send(b"served")
        await self.until(lambda: any(near.received == b"served" for near in self.nears))
        await stopped[0]
        self.assertNotEqual(self.keep(socket.socket()).connect_ex(address), 0)

    async def test_many(self) -> None:
        """Many simultaneous connections are all accepted."""
        _, address = self.listen(self.greeting())
        fars = [self.dial(address) for _ in range(100)]
        await self.assertGreeted(*fars)
        self.assertEqual(len(self.nears), 100)

    async def test_nobody(self) -> None:
        """If the factory builds no protocol, the connection is closed, and the next one is accepted."""
        protocols = [None, None]
        factory = NearFactory(lambda: protocols.pop() if protocols else self.makeNear())
        _, address = self.listen(factory)
        for _ in range(2):
            self.assertEqual(await Peer(self.turn, self.dial(address)).rest(), b"")
        self.dial(address)
        await self.until(lambda: self.nears and self.nears[0].told)

    async def test_errors(self) -> None:
        """A factory or a protocol that raises is logged once, and the next connection is accepted."""
        troubles = [KeyError("factory")]

        def make() -> Any:
            if troubles:
                raise troubles.pop()
            return self.makeNear(made=lambda near: 1 // 0 if len(self.nears) == 1 else near.transport.write(b"+OK\r\n"))

        _, address = self.listen(NearFactory(make))
        fars = [self.dial(address) for _ in range(4)]
        await self.assertGreeted(*fars[2:])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_reuse(self) -> None:
        """
        Connections may close others, whose events have arrived already, and open new ones on the same descriptor
        numbers. No protocol receives events of another connection.
        """
        nowhere = self.crowded().getsockname()
        connectors: list[Any] = []

        def heard(near: Any) -> None:
            other = self.nears[self.nears.index(near) - 1]
            if "lost" not in other.told:
                other.transport.abortConnection()
            near.transport.loseConnection()
            if len(self.nears) < 200:
                connectors.append(self.reactor.connectTCP(*nowhere, never, 20))
                self.dial(address).send(b"hello")
                self.dial(address).send(b"hello")

        never = NearFactory(lambda: None)
        _, address = self.listen(self.factory(data=heard))
        for _ in range(20):
            self.dial(address).send(b"hello")
        await self.until(lambda: len(self.nears) >= 200 and all("lost" in near.told for near in self.nears))
        for connector in connectors:
            connector.stopConnecting()
        self.assertEqual(never.addresses, [])
        self.assertEqual({bytes(near.received) for near in self.nears}, {b"", b"hello"})

    async def test_noDescriptorLeft(self) -> None:
        """Every kind of end closes the descriptor."""
        if not os.path.isdir("/proc/self/fd"):
            raise self.skipTest("descriptors are counted in /proc")
        settleDescriptors()
        _, address = self.listen(self.greeting())
        counts: list[int] = []
        for end in ("loseConnection", "loseConnection", "abortConnection", "peer", "reset"):
            near, far = None, self.dial(address)
            await self.assertGreeted(far)
            near = self.nears[-1]
            if end == "reset":
                Peer(self.turn, far).reset()
            elif end != "peer":
                getattr(near.transport, end)()
            far.close()
            await self.assertLost(near, Exception)
            await self.turns()
            counts.append(len(os.listdir("/proc/self/fd")))
        self.assertEqual(set(counts), {counts[0]})


class TwistedConnectingTests(OverTwisted, Connecting, TestCase):
    """Twisted's own connectors."""


class TwistedListeningTests(OverTwisted, Listening, TestCase):
    """Twisted's own ports."""


class LeanConnectingTests(OverLean, Connecting, TestCase):
    """Lean connectors."""


class LeanListeningTests(OverLean, Listening, TestCase):
    """Lean ports."""
