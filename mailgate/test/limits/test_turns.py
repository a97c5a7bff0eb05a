# -*- test-case-name: mailgate.test.limits.test_turns -*-
"""
Tests for L{mailgate.limits.turns}, and that what it does there can be interrupted.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Generator

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.defence import Defence
from mailgate.limits.statefile import INTERVAL, Remembering, StateFile
from mailgate.limits.turns import SLICE, Turns
from mailgate.test.keeper.defences import FakeDefence
from mailgate.test.support.attacks import KEY, flood


class Slow(FakeDefence):
    """
    A defence that needs many turns for its state.

    @ivar spend: called for each piece.
    """

    def __init__(self, *known: str) -> None:
        super().__init__(*known)
        self.spend: Callable[[], object] = lambda: None

    def packing(self, withCounters: bool = False) -> Generator[None, None, bytes]:
        for _ in range(10):
            self.spend()
            yield
        return self.state(withCounters)


class TurnsTests(SynchronousTestCase):
    """L{Turns}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.now = 0.0
        self.done = 0

    def work(self) -> Generator[None, None, None]:
        for _ in range(5):
            self.now += SLICE / 2
            self.done += 1
            yield

    def test_turns(self) -> None:
        """A turn ends when its time is over. The event loop runs before the next one."""
        turns = Turns(self.work(), self.clock, lambda: self.now)
        turns.go()
        seen = [self.done]
        while (calls := self.clock.getDelayedCalls()) and len(seen) < 9:
            self.assertEqual([call.getTime() for call in calls], [self.clock.seconds()])
            self.clock.calls.clear()
            self.assertFalse(turns.isOver)
            turns.go()
            seen.append(self.done)
        self.assertEqual(seen, [2, 4, 5])
        self.assertTrue(turns.isOver)
        self.assertAlmostEqual(turns.spent, SLICE * 2.5)

    def test_stop(self) -> None:
        """What is stopped does not go on."""
        turns = Turns(self.work(), self.clock, lambda: self.now)
        turns.go()
        turns.stop()
        self.clock.advance(1)
        self.assertEqual((self.done, turns.isOver, self.clock.getDelayedCalls()), (2, True, []))


class StateTests(SynchronousTestCase):
    """L{Defence.packing}."""

    def test_torn(self) -> None:
        """Whatever changes between two pieces, the state is valid, and has what was there all the time."""
        defence = Defence(memory=1 << 20, chance=random.Random(5).random, key=KEY)
        flood(defence, 3000, random.Random(6))
        for number in range(1200):
            defence.block(f"user{number}@example.org", 60, "")
        for withCounters in (False, True):
            pieces = 0
            work = defence.packing(withCounters)
            while True:
                try:
                    next(work)
                except StopIteration as end:
                    content = end.value
                    break
                pieces += 1
                flood(defence, 40, random.Random(pieces))
                defence.unblock(f"user{600 + pieces}@example.org")
                defence.block(f"later{pieces}@example.org", 60, "")
            self.assertTrue(pieces > 10, pieces)
            following = Defence(memory=1 << 20)
            following.restore(content)
            self.assertIn("user7@example.org", [block.thing for block in following.blocks()])
            self.assertTrue(following.numbers()["entries"]["known"] > 100)

    def test_otherKey(self) -> None:
        """Tables under another key do not get into a state with the key of before."""
        defence, other = Defence(key=KEY), Defence(key=KEY[::-1])
        flood(defence, 300, random.Random(6))
        other.block("ann", 60, "")
        work = defence.packing(withCounters=True)
        next(work)
        defence.restore(other.state())
        with self.assertRaises(StopIteration) as end:
            while True:
                next(work)
        following = Defence()
        following.restore(end.exception.value)
        self.assertEqual(following.ledger.keys.secret, KEY[::-1])
        self.assertEqual([block.thing for block in following.blocks()], ["ann"])


class WritingTests(SynchronousTestCase):
    """L{Remembering} writes in turns."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.path = self.mktemp()
        self.mayWrite = True
        self.now = 0.0
        self.defence = Slow("10.0.0.1")
        self.defence.spend = self.spend
        self.made = Remembering(self.defence, StateFile(self.path), self.clock, lambda: self.mayWrite, self.seconds)
        self.made.startService()

    def seconds(self) -> float:
        return self.now

    def spend(self) -> None:
        self.now += SLICE

    def begin(self) -> None:
        """The first turn is over."""
        self.patch(self.clock, "callLater", self._later)
        self.clock.advance(INTERVAL)

    def _later(self, seconds: float, call: Callable[..., object], *arguments: object) -> object:
        """Time must pass: the clock would take all turns at once."""
        return Clock.callLater(self.clock, seconds or 1e-9, call, *arguments)

    def test_turns(self) -> None:
        """The file is there when the last piece is, and not before."""
        self.begin()
        for _ in range(8):
            self.assertFalse(os.path.exists(self.path))
            self.clock.advance(1e-8)
        self.clock.pump([1e-8] * 5)
        self.assertTrue(os.path.exists(self.path))
        self.made.stopService()

    def test_stopped(self) -> None:
        """A gateway that stops in the middle writes all of it at once, and nothing later."""
        self.begin()
        self.defence.known.append("10.0.0.2")
        self.made.stopService()
        with open(self.path) as opened:
            self.assertEqual(opened.read(), '["10.0.0.1", "10.0.0.2"]')
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_takenOver(self) -> None:
        """If another process takes over meanwhile, its file is not overwritten."""
        self.begin()
        self.mayWrite = False
        self.clock.pump([1e-8] * 20)
        self.made.stopService()
        self.assertFalse(os.path.exists(self.path))
