"""
Tests for L{mailgate.process.workers.backoff}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.workers.backoff import BackOff


class BackOffTests(SynchronousTestCase):
    """The delay before the next start."""

    def setUp(self):
        self.clock = Clock()
        self.backOff = BackOff(self.clock)

    def die(self, age):
        self.backOff.begun()
        self.clock.advance(age)
        return self.backOff.delay()

    def test_grows(self):
        """The delay grows with each early exit, up to half a minute."""
        self.assertEqual([self.die(1) for _ in range(8)], [0, 1, 2, 4, 8, 16, 30, 30])

    def test_forgets(self):
        """After a run of a minute the next start is immediate, and the delays begin again."""
        for _ in range(5):
            self.die(1)
        self.assertEqual([self.die(60), self.die(1), self.die(59)], [0, 1, 2])
