"""
Tests for L{mailgate.watch.process}.
"""

from __future__ import annotations

import os
from mmap import PAGESIZE, mmap

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.watch.process import LATELY, LagMeter, openFiles, privateMemory


class ProcessTests(SynchronousTestCase):
    """This process."""

    def test_memory(self) -> None:
        """More memory is more."""
        before = privateMemory()
        # Pages of the system: the allocator may have free memory, which counts already.
        with mmap(-1, 50_000_000) as ballast:
            for place in range(0, len(ballast), PAGESIZE):
                ballast[place] = 1
            after = privateMemory()
        assert before is not None and after is not None
        self.assertGreater(after - before, 25_000_000)

    def test_files(self) -> None:
        """More descriptors are more."""
        before = openFiles()
        with open(os.devnull, "rb"):
            after = openFiles()
        assert before is not None
        self.assertEqual(after, before + 1)

    def test_unknown(self) -> None:
        """A system that does not say is no error."""
        path = self.mktemp()
        self.assertIsNone(privateMemory(path))
        self.assertIsNone(openFiles(path))
        with open(path, "w", encoding="ascii") as file:
            file.write("Private_Dirty: many kB\n")
        self.assertIsNone(privateMemory(path))


class LateClock(Clock):
    """A clock that jumps over the time of a call."""

    def jump(self, seconds: float) -> None:
        self.rightNow += seconds
        self.advance(0)


class LagTests(SynchronousTestCase):
    """L{LagMeter}."""

    def setUp(self) -> None:
        self.clock = LateClock()
        self.delays: list[float] = []
        self.meter = LagMeter(self.clock, self.delays.append)

    def test_delays(self) -> None:
        """A timer each second, and how late it is."""
        self.meter.start()
        self.clock.advance(1)
        self.clock.jump(1.25)
        self.clock.jump(1)
        self.assertEqual(self.delays, [0.0, 0.25, 0.0])

    def test_stopped(self) -> None:
        """It runs as long as one gateway does, and leaves no timer."""
        self.meter.start()
        self.meter.start()
        self.meter.stop()
        self.clock.advance(1)
        self.assertEqual(self.delays, [0.0])
        self.meter.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_again(self) -> None:
        """A gateway that starts after the last one has stopped."""
        self.meter.start()
        self.meter.stop()
        self.meter.start()
        self.clock.advance(1)
        self.assertEqual(len(self.delays), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_lately(self) -> None:
        """The longest delay and the share of a processor are those of the last seconds."""
        used = iter(range(100))
        meter = LagMeter(self.clock, self.delays.append, lambda: next(used) / 10)
        self.assertEqual((meter.worst, meter.share), (None, None))
        meter.start()
        self.clock.advance(1)
        self.assertEqual((meter.worst, meter.share), (0.0, None))
        self.clock.jump(1.5)
        self.assertEqual(meter.worst, 0.5)
        for _ in range(LATELY):
            self.clock.advance(1)
        self.assertEqual(meter.worst, 0.0)
        share = meter.share
        assert share is not None
        self.assertAlmostEqual(share, 0.1)
        meter.stop()
