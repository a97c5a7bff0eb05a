"""
Scenarios for stream transports whose protocol pauses them, and which pause a producer.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost

from mailgate.test.support.transportbench import Bench
from mailgate.test.support.transportends import (
    CONTENT,
    MiB,
    Pieces,
    Source,
)


class Pausing(Bench):
    """A transport as a producer."""

    async def test_paused(self) -> None:
        """A paused transport delivers nothing. After that it delivers everything in order."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        near.transport.pauseProducing()
        await peer.send(CONTENT[:1000])
        await self.turns()
        await peer.send(CONTENT[1000:100_000])
        await self.turns()
        self.assertEqual(near.deliveries, 0)
        near.transport.resumeProducing()
        near.transport.resumeProducing()
        await self.until(lambda: len(near.received) >= 100_000)
        self.assertSame(near.received, CONTENT[:100_000])

    async def test_holdsThePeer(self) -> None:
        """If the reader is paused, the sender can only fill the buffers of the kernel."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        sending = ensureDeferred(peer.send(CONTENT))
        await self.turns()
        self.assertFalse(sending.called)
        self.assertEqual(near.deliveries, 0)
        near.transport.resumeProducing()
        await sending
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_inDelivery(self) -> None:
        """A transport that is paused during a delivery delivers nothing more until it is resumed."""
        near, peer = await self.open(data=lambda near: near.transport.pauseProducing())
        expected = 0
        for start in range(0, 600_000, 200_000):
            await peer.send(CONTENT[start : start + 100_000])
            while len(near.received) < start // 2 + 100_000:
                expected += 1
                await self.until(lambda least: near.deliveries >= least, expected)
                await self.turns()
                self.assertEqual(near.deliveries, expected)
                near.transport.resumeProducing()
        self.assertSame(near.received, CONTENT[:100_000] + CONTENT[200_000:300_000] + CONTENT[400_000:500_000])

    async def test_resumedInDelivery(self) -> None:
        """A transport that is paused and resumed at once continues."""

        def hesitate(near: Any) -> None:
            near.transport.pauseProducing()
            near.transport.resumeProducing()

        near, peer = await self.open(made=hesitate, data=hesitate)
        await peer.send(CONTENT)
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_notAtOnce(self) -> None:
        """C{resumeProducing} itself delivers nothing, because the protocol is busy."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        await peer.send(b"x")
        await self.turns()
        near.transport.resumeProducing()
        self.assertEqual(near.deliveries, 0)
        await self.until(lambda: near.received == b"x")

    async def test_pausedAgain(self) -> None:
        """A transport that is resumed and paused again at once stays paused."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        await peer.send(b"x")
        await self.turns()
        near.transport.resumeProducing()
        near.transport.pauseProducing()
        await self.turns()
        self.assertEqual(near.deliveries, 0)
        near.transport.resumeProducing()
        await self.until(lambda: near.received == b"x")

    async def test_end(self) -> None:
        """The end of file follows the data, also if the transport was paused."""
        for halfCloseable, expected in ((False, ["made", "data", "lost"]), (True, ["made", "data", "ended"])):
            near, peer = await self.open(halfCloseable)
            near.transport.pauseProducing()
            await peer.send(b"last")
            peer.end()
            await self.turns()
            self.assertEqual(near.told, ["made"])
            near.transport.resumeProducing()
            await self.untilTold(near, expected[-1])
            self.assertEqual(near.told, expected)
            self.assertEqual(near.received, b"last")

    async def test_endAfterPause(self) -> None:
        """A transport that is paused by the last data reports the end only after it is resumed."""
        near, peer = await self.open(data=lambda near: near.transport.pauseProducing())
        await peer.send(b"last")
        peer.end()
        await self.until(lambda: near.deliveries)
        await self.turns()
        self.assertEqual(near.told, ["made", "data"])
        near.transport.resumeProducing()
        await self.assertLost(near, ConnectionDone)

    async def test_resumedAfterEnd(self) -> None:
        """Nothing is delivered to a protocol that resumes its transport after the end of file."""
        near, peer = await self.open(halfCloseable=True)
        peer.end()
        await self.untilTold(near, "ended")
        near.transport.resumeProducing()
        await self.turns()
        self.assertEqual(near.told.count("ended") > 1, self.repeatsEnd)
        self.assertEqual(set(near.told), {"made", "ended"})

    async def test_pausedWriter(self) -> None:
        """A paused transport sends what is written to it, and can be closed."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), CONTENT)
        await self.assertLost(near, ConnectionDone)

    async def test_pausedAndLost(self) -> None:
        """A paused transport notices a reset when it writes."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        near.transport.write(b"unread")
        await peer.arrived()
        peer.reset()
        await self.turns()
        near.transport.write(b"x")
        await self.assertLost(near, ConnectionLost)


class Producing(Bench):
    """A transport as a consumer."""

    async def test_backPressure(self) -> None:
        """A producer is paused while the peer does not read, and resumed when the buffer is empty, in turn."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        source.produce()
        await self.stalled(source)
        self.assertEqual(source.calls[-1], "pause")
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertTrue(source.finished)
        self.assertEqual(source.calls, (["pause", "resume"] * len(source.calls))[: len(source.calls)])

    async def test_notPaused(self) -> None:
        """A producer that writes less than the buffer holds is neither paused nor resumed."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        for start in range(0, 20_000, 1000):
            near.transport.write(CONTENT[start : start + 1000])
            self.assertSame(await peer.receive(1000), CONTENT[start : start + 1000])
        self.assertEqual(source.calls, [])

    async def test_registeredFull(self) -> None:
        """A producer that is registered while the buffer is full is paused, and resumed when the peer reads."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        source = Source(near.transport, b"more")
        await self.turns()
        self.assertNotIn("resume", source.calls)
        near.transport.write(b"!")
        self.assertEqual(source.calls, ["pause"])
        self.assertSame(await peer.receive(len(CONTENT) + 5), CONTENT + b"!more")
        self.assertEqual(source.calls, ["pause", "resume"])

    async def test_pull(self) -> None:
        """A pull producer is asked once for each piece, and not after it is unregistered."""
        near, peer = await self.open()
        pieces = [CONTENT[start : start + 200_000] for start in range(0, 4 * MiB, 200_000)]
        source = Pieces(near.transport, pieces)
        await self.turns()
        self.assertLess(source.asked, len(pieces))
        expected = b"".join(pieces)
        self.assertSame(await peer.receive(len(expected)), expected)
        await self.turns()
        self.assertEqual((source.asked, source.stopped), (len(pieces), 0))

    async def test_second(self) -> None:
        """A second producer is rejected until the first is unregistered; unregistering needs no producer."""
        near, peer = await self.open()
        near.transport.unregisterProducer()
        first = Source(near.transport, CONTENT)
        self.assertRaises(RuntimeError, Source, near.transport, CONTENT)
        self.assertRaises(RuntimeError, Pieces, near.transport, [b"x"])
        near.transport.unregisterProducer()
        second = Source(near.transport, CONTENT)
        second.produce()
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertEqual(first.calls, [])
        self.assertIn("resume", second.calls)

    async def test_unregistered(self) -> None:
        """An unregistered producer is not called any more, although it was paused."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        near.transport.write(CONTENT)
        self.assertEqual(source.calls, ["pause"])
        near.transport.unregisterProducer()
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(source.calls, ["pause"])

    async def test_stopped(self) -> None:
        """A producer is stopped once when the connection is lost."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        near.transport.write(b"unread")
        await peer.arrived()
        peer.reset()
        await self.assertLost(near, ConnectionLost)
        await self.turns()
        self.assertEqual(source.calls, ["stop"])

    async def test_tooLate(self) -> None:
        """A producer that is registered after the end is stopped at once; a pull producer is asked for nothing."""
        near, peer = await self.open()
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(Source(near.transport, CONTENT).calls, ["stop"])
        late = Pieces(near.transport, [b"x"])
        self.assertEqual((late.asked, late.stopped), (0, 1))

    async def test_closing(self) -> None:
        """C{loseConnection} waits for a paused producer: everything that it still writes arrives."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        source.produce()
        await self.until(lambda: source.calls[-1:] == ["pause"])
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), CONTENT)
        self.assertTrue(source.finished)
        await self.assertLost(near, ConnectionDone)

    async def test_closingPull(self) -> None:
        """C{loseConnection} waits for a pull producer."""
        near, peer = await self.open()
        pieces = [CONTENT[start : start + 200_000] for start in range(0, MiB, 200_000)]
        Pieces(near.transport, pieces)
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), b"".join(pieces))
        await self.assertLost(near, ConnectionDone)
