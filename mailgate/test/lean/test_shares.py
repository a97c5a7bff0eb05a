"""
Tests for L{mailgate.lean.shares}.
"""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.lean.shares import Shares


class SharesTests(SynchronousTestCase):
    """How many connections each worker has, and which worker should leave new ones to others."""

    def setUp(self):
        self.shares = Shares(3)
        self.counts = [0, 0, 0]
        self.share = [self.shares.of(slot) for slot in range(3)]
        for slot, share in enumerate(self.share):
            share.count = lambda slot=slot: self.counts[slot]

    def has(self, *counts: int) -> list[bool]:
        """Whether each worker is large with these numbers of connections."""
        self.counts = list(counts)
        for share in self.share:
            share.refresh()
        return [share.isLarge() for share in self.share]

    def test_alike(self):
        """With about equal numbers no worker is large."""
        self.assertEqual(self.has(0, 0, 0), [False] * 3)
        self.assertEqual(self.has(0, 1, 2), [False] * 3)
        self.assertEqual(self.has(1000, 1100, 1127), [False] * 3)

    def test_large(self):
        """A worker with clearly more is large."""
        self.assertEqual(self.has(0, 3, 2), [False, True, False])
        self.assertEqual(self.has(1128, 1000, 1127), [True, False, False])

    def test_least(self):
        """The worker with the fewest is never large, so that one always accepts."""
        for counts in ((0, 9, 9), (5, 5, 5), (100, 1, 1)):
            large = self.has(*counts)
            self.assertFalse(large[counts.index(min(counts))])

    def test_absent(self):
        """Absent workers do not count."""
        alone = Shares(3).of(1)
        alone.count = lambda: 1000
        self.assertFalse(alone.isLarge())
        self.has(0, 1000, 1000)
        self.shares.clear(0)
        self.assertFalse(self.share[1].isLarge())

    def test_refreshing(self):
        """The numbers of clients that leave are published even if no client connects."""
        self.has(50, 50, 0)
        clock = Clock()
        service = self.share[2].refreshing(clock)
        service.startService()
        self.addCleanup(service.stopService)
        self.assertTrue(self.share[0].isLarge())
        self.counts[2] = 50
        clock.advance(0.5)
        self.assertFalse(self.share[0].isLarge())

    def test_otherProcess(self):
        """What one process writes, others read."""
        self.has(10, 10, 10)
        child = os.fork()
        if child == 0:
            self.counts[2] = 0
            self.share[2].refresh()
            os._exit(0)
        os.waitpid(child, 0)
        self.assertTrue(self.share[0].isLarge())
