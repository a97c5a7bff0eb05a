"""
The behaviour of stream transports towards their protocols, by L{twisted.internet.interfaces}: scenarios that hold for
Twisted's own transports and for mailgate's. L{mailgate.test.lean.test_transport_contract} lists the transports for
which they run.

These are about bytes in both directions. L{mailgate.test.support.transportflow} has those about pauses and producers,
L{mailgate.test.support.transportclosing} those about the end.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)

from mailgate.test.support.transportbench import Bench
from mailgate.test.support.transportends import (
    CONTENT,
)


class Transfer(Bench):
    """Bytes in both directions."""

    async def test_interfaces(self) -> None:
        """A transport is a consumer and a push producer that can start TLS and has not done so."""
        near, _ = await self.open()
        for interface in (ITCPTransport, ITLSTransport, IConsumer, IPushProducer):
            self.assertTrue(interface.providedBy(near.transport), interface)
        self.assertFalse(ISSLTransport.providedBy(near.transport))

    async def test_addresses(self) -> None:
        """Each end has the address that the other end reports."""
        near, peer = await self.open()
        raw = [peer.connection.getpeername(), peer.connection.getsockname()]
        if self.family == socket.AF_UNIX:
            names: list[Any] = [UNIXAddress(each or None) for each in raw]
        else:
            names = [IPv4Address("TCP", *each) for each in raw]
        self.assertEqual([near.transport.getHost(), near.transport.getPeer()], names)

    async def test_connected(self) -> None:
        """A transport reports whether it is connected, and whether it is closing."""
        states: list[tuple[bool, bool]] = []

        def look(near: Any) -> None:
            states.append((bool(near.transport.connected), bool(near.transport.disconnecting)))

        near, _ = await self.open(made=look)
        look(near)
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        look(near)
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)
        self.assertEqual(states, [(True, False), (True, False), (True, True)])
        self.assertFalse(near.transport.connected)

    async def test_greeting(self) -> None:
        """Bytes that are written in C{connectionMade} are sent."""
        _, peer = await self.open(made=lambda near: near.transport.write(b"+OK ready\r\n"))
        self.assertEqual(await peer.receive(11), b"+OK ready\r\n")

    async def test_answer(self) -> None:
        """Bytes that are written in C{dataReceived} are sent; the connection stays open."""
        near, peer = await self.open(data=lambda near: near.transport.write(b"+OK\r\n"))
        for _ in range(3):
            await peer.send(b"NOOP\r\n")
            self.assertEqual(await peer.receive(5), b"+OK\r\n")
        self.assertEqual((near.deliveries, near.told), (3, ["made", "data"]))

    async def test_received(self) -> None:
        """Megabytes from the peer are delivered completely and in order."""
        near, peer = await self.open()
        await peer.send(CONTENT)
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_order(self) -> None:
        """Many small writes, of one piece or several, arrive in order; empty ones have no effect."""
        near, peer = await self.open()
        lines = [b"%d\r\n" % number for number in range(3000)]
        for start in range(0, len(lines), 3):
            near.transport.write(lines[start])
            near.transport.write(b"")
            near.transport.writeSequence([])
            near.transport.writeSequence(lines[start + 1 : start + 3])
        expected = b"".join(lines)
        self.assertEqual(await peer.receive(len(expected)), expected)

    async def test_large(self) -> None:
        """A write that no buffer holds is sent as fast as the peer reads; small ones follow it."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.writeSequence([b"and ", b"more"])
        near.transport.write(b" yet")
        await self.turns()
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertEqual(await peer.receive(12), b"and more yet")

    async def test_bothWays(self) -> None:
        """Megabytes in both directions at the same time arrive correctly."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        _, received = await self.together(peer.send(CONTENT), peer.receive(len(CONTENT)))
        self.assertSame(received, CONTENT)
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_afterTheEnd(self) -> None:
        """Calls of a lost transport do nothing."""
        near, peer = await self.open()
        peer.end()
        await self.assertLost(near, ConnectionDone)
        transport = near.transport
        transport.write(b"x")
        transport.writeSequence([b"x", b"y"])
        transport.pauseProducing()
        transport.resumeProducing()
        transport.unregisterProducer()
        transport.stopProducing()
        transport.loseConnection()
        transport.abortConnection()
        await self.turns()
        self.assertEqual(near.told, ["made", "lost"])

    async def test_options(self) -> None:
        """TCP's options can be set and read; a unix socket, which has none, ignores them."""
        near, _ = await self.open()
        transport = near.transport
        for value in (True, False):
            transport.setTcpNoDelay(value)
            self.assertEqual(bool(transport.getTcpNoDelay()), value and self.family != socket.AF_UNIX)
            transport.setTcpKeepAlive(value)
            self.assertEqual(bool(transport.getTcpKeepAlive()), value)

    async def test_error(self) -> None:
        """An exception in C{dataReceived} is logged once and ends that connection only."""
        other, otherPeer = await self.open()
        near, peer = await self.open(data=lambda near: 1 // 0)
        await peer.send(b"x")
        await self.assertLost(near, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(await peer.rest(), b"")
        await otherPeer.send(b"still here")
        await self.until(lambda: other.received == b"still here")
        self.assertEqual(other.told, ["made", "data"])
