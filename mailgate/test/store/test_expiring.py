"""
Tests for L{mailgate.store.expiring}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.expiring import Expiring


class ExpiringTests(SynchronousTestCase):
    """L{Expiring}."""

    def test_ends(self):
        """A value is there until its moment."""
        rows: Expiring[str, int] = Expiring(10)
        rows.put("a", 1, 5.0, 0.0)
        self.assertEqual((rows.get("a", 4.9), rows.left("a", 4.0)), (1, 1.0))
        self.assertEqual([*rows.items(4.0)], [("a", 1, 5.0)])
        self.assertEqual([*rows.items(5.0)], [])
        self.assertEqual((rows.get("a", 5.0), rows.left("a", 5.0), len(rows)), (None, 0.0, 0))

    def test_rewritten(self):
        """The last value counts, with its own end; one that has ended already removes it."""
        rows: Expiring[str, int] = Expiring(10)
        rows.put("a", 1, 5.0, 0.0)
        rows.put("a", 2, 9.0, 0.0)
        self.assertEqual(rows.get("a", 7.0), 2)
        rows.put("a", 3, 7.0, 7.0)
        self.assertIsNone(rows.get("a", 7.0))
        rows.put("b", 1, 9.0, 0.0)
        rows.drop("b")
        rows.drop("none")
        self.assertIsNone(rows.get("b", 0.0))

    def test_bounded(self):
        """Those that have ended go first, then those that were not written for the longest time."""
        rows: Expiring[int, int] = Expiring(32)
        for key in range(32):
            rows.put(key, key, 1.0 if key % 2 else 99.0, 0.0)
        rows.put(100, 0, 99.0, 2.0)
        self.assertEqual([key for key, _, _ in rows.items(2.0)], [*range(0, 32, 2), 100])
        rows.put(0, 0, 99.0, 2.0)
        for key in range(200, 300):
            rows.put(key, 0, 99.0, 2.0)
            self.assertTrue(len(rows) <= 32)
        self.assertIsNone(rows.get(2, 2.0))
        self.assertEqual(rows.get(299, 2.0), 0)
