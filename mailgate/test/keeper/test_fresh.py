"""
Tests for L{mailgate.keeper.fresh}.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.fresh import Fresh


class FreshTests(SynchronousTestCase):
    """L{Fresh}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[int]] = []
        self.fresh = Fresh(self.find, self.clock.seconds, 1.0)

    def find(self) -> Deferred[int]:
        """Find out the answer."""
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_once(self) -> None:
        """All who ask get one answer, and those who ask while it is good get it at once."""
        first, second = self.fresh.collect(), self.fresh.collect()
        self.assertNoResult(first)
        self.asked[0].callback(5)
        self.assertEqual([self.successResultOf(each) for each in (first, second)], [5, 5])
        self.clock.advance(0.9)
        self.assertEqual(self.successResultOf(self.fresh.collect()), 5)
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(0.1)
        self.assertNoResult(self.fresh.collect())
        self.assertEqual(len(self.asked), 2)

    def test_setBack(self) -> None:
        """After the clock was set back the answer is found out again."""
        self.clock.advance(10)
        self.fresh.collect()
        self.asked[0].callback(5)
        self.clock.rightNow = 5.0
        self.assertNoResult(self.fresh.collect())

    def test_left(self) -> None:
        """Callers that leave have nothing asked again, and keep the answer from nobody."""
        for _ in range(3):
            left = self.fresh.collect()
            left.cancel()
            self.failureResultOf(left, CancelledError)
        stays = self.fresh.collect()
        self.assertEqual(len(self.asked), 1)
        self.asked[0].callback(5)
        self.assertEqual(self.successResultOf(stays), 5)

    def test_failure(self) -> None:
        """A failure reaches all who wait, and is not kept."""
        waiting = [self.fresh.collect() for _ in range(2)]
        self.asked[0].errback(OSError())
        for each in waiting:
            self.failureResultOf(each, OSError)
        self.fresh.collect()
        self.assertEqual(len(self.asked), 2)
