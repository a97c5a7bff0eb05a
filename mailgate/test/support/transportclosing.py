"""
Scenarios for the end of connections over stream transports.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost

from mailgate.test.support.transportbench import Bench
from mailgate.test.support.transportends import (
    CONTENT,
    Source,
)


class Closing(Bench):
    """The end of one direction, and of both."""

    async def test_unsent(self) -> None:
        """C{loseConnection} sends the unsent bytes and the end of file; then the connection is lost."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        near.transport.loseConnection()
        await self.turns()
        self.assertEqual(near.told, ["made"])
        self.assertSame(await peer.rest(), CONTENT)
        await self.assertLost(near, ConnectionDone)

    async def test_toldLater(self) -> None:
        """The protocol loses its connection after the call that ends it, never inside it."""
        for end, kind in (
            ("loseConnection", ConnectionDone),
            ("stopProducing", ConnectionDone),
            ("abortConnection", ConnectionAborted),
        ):
            told: list[list[str]] = []

            def leave(near: Any, end: str = end, told: list[list[str]] = told) -> None:
                getattr(near.transport, end)()
                getattr(near.transport, end)()
                told.append(list(near.told))

            near, peer = await self.open(data=leave)
            await peer.send(b"x")
            await self.assertLost(near, kind)
            self.assertEqual(told, [["made", "data"]])
            near, peer = await self.open()
            leave(near)
            await self.assertLost(near, kind)
            self.assertEqual(told[1:], [["made"]])

    async def test_atOnce(self) -> None:
        """A connection may be closed as soon as it is made. Bytes that were written before are sent."""

        def refuse(near: Any) -> None:
            near.transport.write(b"-ERR busy\r\n")
            near.transport.loseConnection()

        near, peer = await self.open(made=refuse)
        self.assertEqual(await peer.rest(), b"-ERR busy\r\n")
        await self.assertLost(near, ConnectionDone)

    async def test_inAnswer(self) -> None:
        """A connection may be closed after an answer. Bytes that arrive while it is sent are not delivered."""

        def leave(near: Any) -> None:
            near.transport.write(CONTENT)
            near.transport.loseConnection()

        near, peer = await self.open(data=leave)
        await peer.send(b"QUIT\r\n")
        await self.until(lambda: near.deliveries)
        await peer.send(b"NOOP\r\n")
        await self.turns()
        self.assertEqual((near.received, near.told), (b"QUIT\r\n", ["made", "data"]))
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)

    async def test_resetWhileClosing(self) -> None:
        """A reset ends the wait for unsent data."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        await peer.arrived()
        peer.reset()
        await self.assertLost(near, ConnectionLost)

    async def test_abort(self) -> None:
        """C{abortConnection} drops unsent bytes; the peer gets a reset."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.abortConnection()
        near.transport.write(b"x")
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)
        self.assertLess(len(peer.received), len(CONTENT))

    async def test_abortWhileClosing(self) -> None:
        """C{abortConnection} ends the wait of C{loseConnection}, which has no effect after it."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        near.transport.abortConnection()
        near.transport.loseConnection()
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)

    async def test_abortPausedProducer(self) -> None:
        """C{abortConnection} stops a producer without waiting for it."""
        near, _ = await self.open()
        source = Source(near.transport, CONTENT)
        source.produce()
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)
        self.assertEqual(source.calls[-1], "stop")
        self.assertEqual(source.calls.count("stop"), 1)

    async def test_abortInDelivery(self) -> None:
        """After C{abortConnection} nothing is delivered, not even bytes that have arrived."""
        near, peer = await self.open(data=lambda near: near.transport.abortConnection())
        await peer.send(CONTENT[:100_000])
        await self.assertLost(near, ConnectionAborted)
        self.assertEqual(near.deliveries, 1)

    async def test_abortAtOnce(self) -> None:
        """C{abortConnection} may be the first call of a protocol."""
        near, peer = await self.open(made=lambda near: near.transport.abortConnection())
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)

    async def test_reset(self) -> None:
        """After a peer's reset, protocols of both kinds get C{ConnectionLost}."""
        for halfCloseable in (False, True):
            near, peer = await self.open(halfCloseable)
            near.transport.write(b"unread")
            await peer.arrived()
            peer.reset()
            await self.assertLost(near, ConnectionLost)
            self.assertEqual(near.told, ["made", "lost"])

    async def test_peerEnds(self) -> None:
        """The peer's end of file ends the connection of a protocol without half-close, after the last data."""
        near, peer = await self.open()
        await peer.send(b"last words")
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.received, b"last words")
        self.assertEqual(await peer.rest(), b"")

    async def test_halfClose(self) -> None:
        """A half-closeable protocol learns once of the end, can still write, and ends the connection itself."""
        near, peer = await self.open(halfCloseable=True)
        await peer.send(b"LOGOUT\r\n")
        peer.end()
        await self.untilTold(near, "ended")
        await self.turns()
        self.assertEqual(near.told, ["made", "data", "ended"])
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), CONTENT)
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.told, ["made", "data", "ended", "lost"])

    async def test_writeEnd(self) -> None:
        """
        C{loseWriteConnection} sends the unsent bytes and the end of file. The protocol learns of it, and still reads.
        """
        near, peer = await self.open(halfCloseable=True)
        near.transport.write(CONTENT)
        near.transport.loseWriteConnection()
        await self.turns()
        self.assertEqual(near.told, ["made"])
        self.assertSame(await peer.rest(), CONTENT)
        await self.untilTold(near, "writeEnded")
        near.transport.write(b"too late")
        await peer.send(b"answer")
        await self.until(lambda: near.received == b"answer")
        self.assertEqual(near.told, ["made", "writeEnded", "data"])
        peer.end()
        await self.untilTold(near, "ended")
        self.assertEqual(await peer.rest(), b"")

    async def test_bothEnds(self) -> None:
        """After the end of both directions, in either order, the protocol closes the connection itself."""
        for first in (0, 1):
            near, peer = await self.open(halfCloseable=True)
            steps = [near.transport.loseWriteConnection, peer.end]
            for step, count in ((steps[first], 1), (steps[1 - first], 2)):
                step()
                await self.until(lambda near, count: len(near.told) > count, near, count)
            self.assertEqual(set(near.told[:3]), {"made", "writeEnded", "ended"})
            near.transport.loseConnection()
            await self.assertLost(near, ConnectionDone)
            self.assertEqual(len(near.told), 4)

    async def test_writeEndAlone(self) -> None:
        """A protocol without half-close can end its direction; the peer's end then ends the connection."""
        near, peer = await self.open()
        near.transport.loseWriteConnection()
        self.assertEqual(await peer.rest(), b"")
        await self.turns()
        self.assertEqual(near.told, ["made"])
        await peer.send(b"answer")
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.received, b"answer")

    async def test_abortAfterHalfClose(self) -> None:
        """A connection with one ended direction can be aborted."""
        near, peer = await self.open(halfCloseable=True)
        peer.end()
        await self.untilTold(near, "ended")
        near.transport.write(CONTENT)
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)
