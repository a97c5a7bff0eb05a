# -*- test-case-name: mailgate.test.keeper.test_limitstate -*-
"""
Tests for L{mailgate.keeper.limitstate} and L{mailgate.keeper.memory.LimitSaving}: the tables of limits of one keeper,
at the next one.
"""

from __future__ import annotations

import os
from random import Random

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.limitstate import MOST_LINES, limitLines, limitsOf, restoreLimits
from mailgate.keeper.memory import LIMITS_INTERVAL, LimitSaving, Memory, limitsPart, newFile
from mailgate.keeper.state import MOST_STATE
from mailgate.test.keeper.defences import FakeDefence


class Sized(FakeDefence):
    """Its states have given sizes, with counters and without."""

    sizes = (0, 0)

    def state(self, withCounters: bool = False) -> bytes:
        # It cannot be compressed.
        return Random(1).randbytes(self.sizes[0 if withCounters else 1])


class HandoverTests(SynchronousTestCase):
    """In the state that a keeper hands over."""

    def setUp(self) -> None:
        self.clock = Clock()

    def keeper(self, defence: FakeDefence | None) -> Keeper:
        made = Keeper(self.clock, "g1")
        made.limits = defence
        return made

    def test_whole(self) -> None:
        """The tables arrive, with counters, however long they are; an earlier release ignores them."""
        first = FakeDefence(*(f"10.0.{number // 256}.{number % 256}" for number in range(20_000)))
        state = self.keeper(first).stateToHandOver()
        second = FakeDefence()
        self.keeper(second).restore(state)
        self.assertEqual(second.known, [*first.known, "counters"])
        with capturedLogs() as events:
            self.keeper(None).restore(state)
        self.assertEqual(events, [])

    def test_without(self) -> None:
        """A predecessor without limits, and the state that is saved each second, leave the tables as they are."""
        for state in (self.keeper(None).stateToHandOver(), self.keeper(FakeDefence("10.0.0.1")).state()):
            defence = FakeDefence("10.0.0.2")
            self.keeper(defence).restore(state)
            self.assertEqual(defence.known, ["10.0.0.2"])

    def test_tooLong(self) -> None:
        """Counters are left out if there are too many, and all is if even that is not enough."""
        defence = Sized()
        defence.sizes = (MOST_LINES, 1000)
        (line,) = limitLines(defence)
        self.assertLess(len(line), 2000)
        defence.sizes = (MOST_LINES, MOST_LINES)
        with capturedLogs() as events:
            self.assertEqual(list(limitLines(defence)), [])
        self.assertEqual(len(events), 1)
        defence.sizes = (MOST_LINES * 45 // 64, 0)
        self.assertLess(sum(map(len, limitLines(defence))), 2 * MOST_STATE - MOST_STATE)

    def test_invalid(self) -> None:
        """What cannot be used is refused with one line, and the tables stay as they are."""
        defence = FakeDefence("10.0.0.1")
        for chunks in ([], [7], ["\u20ac"], ["a"], [None]):
            self.assertEqual(limitsOf(chunks), b"")
        for state in (b"2 of a later release", b"{"):
            with capturedLogs() as events:
                self.assertFalse(restoreLimits(defence, state))
            self.assertEqual(len(events), 1)
        self.assertEqual(defence.known, ["10.0.0.1"])


class MemoryTests(SynchronousTestCase):
    """In the memory that outlives a keeper."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.descriptor = newFile()
        self.addCleanup(os.close, self.descriptor)
        self.keeper = Keeper(self.clock, "g1")
        self.keeper.limits = self.defence = FakeDefence("10.0.0.1")

    def part(self) -> Memory:
        part = limitsPart(self.descriptor)
        self.addCleanup(part.close)
        return part

    def test_next(self) -> None:
        """The next keeper continues with what was written some seconds before this one was killed."""
        saving = LimitSaving(self.keeper, self.defence, self.part(), self.clock, self.clock.seconds)
        saving.startService()
        self.assertFalse(self.keeper.restoreSaved())
        self.clock.advance(LIMITS_INTERVAL)
        following = Keeper(self.clock, "g1")
        following.limits = defence = FakeDefence()
        changed: list[bool] = []
        following.limitsChanged = lambda: changed.append(True)
        LimitSaving(following, defence, self.part(), self.clock, self.clock.seconds)
        self.assertTrue(following.restoreSaved())
        self.assertEqual((defence.known, changed), (["10.0.0.1", "counters"], [True]))
        saving.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_besideState(self) -> None:
        """Both parts of the file keep their contents, also in a file of a release that had only the first."""
        state = Memory(descriptor=self.descriptor)
        self.addCleanup(state.close)
        state.save(b"s" * MOST_STATE)
        limits = self.part()
        limits.save(b"l" * 100_000)
        state.save(b"t" * MOST_STATE)
        self.assertEqual(state.load(), b"t" * MOST_STATE)
        self.assertEqual(self.part().load(), b"l" * 100_000)

    def test_knowsLess(self) -> None:
        """A keeper that has handed over, or waits for its predecessor, writes nothing."""
        memory = self.part()
        saving = LimitSaving(self.keeper, self.defence, memory, self.clock, self.clock.seconds)
        self.keeper.isHandedOver = True
        saving.begin()
        self.keeper.isHandedOver = False
        self.keeper.expectHandover()
        saving.begin()
        self.assertIsNone(memory.load())
        self.keeper.handedOver(b"", [])
        saving.begin()
        self.assertIsNotNone(memory.load())

    def test_fails(self) -> None:
        """Tables without room are logged once, and a failure does not stop the timer."""
        defence = Sized()
        defence.sizes = (1001, 0)
        saving = LimitSaving(self.keeper, defence, Memory(1000), self.clock, self.clock.seconds)
        saving.startService()
        with capturedLogs() as events:
            self.clock.pump([LIMITS_INTERVAL] * 3)
        self.assertEqual(len(events), 1)
        self.patch(defence, "state", None)
        self.clock.pump([LIMITS_INTERVAL] * 2)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)

    def test_large(self) -> None:
        """Tables that take long are written less often."""
        defence = FakeDefence()
        times: list[float] = []

        def state(withCounters: bool) -> bytes:
            times.append(self.clock.seconds())
            # It takes 0.1 s.
            self.late += 0.1
            return b""

        self.late = 0.0
        self.patch(defence, "state", state)
        saving = LimitSaving(self.keeper, defence, Memory(1000), self.clock, lambda: self.clock.seconds() + self.late)
        saving.startService()
        self.clock.pump([LIMITS_INTERVAL] * 12)
        self.assertEqual(times, [5.0, 25.0, 45.0])
