"""
Tests for L{mailgate.watch.distinct}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.watch.distinct import MOST, hashed, isValid, size, smallest, union


def users(first: int, end: int) -> str:
    """The hashes of numbered users."""
    return smallest({hashed(b"user%d@example.org" % number) for number in range(first, end)})


class DistinctTests(SynchronousTestCase):
    """Counting distinct names."""

    def test_exact(self) -> None:
        """Few names are counted exactly, over several processes, too."""
        for count in (0, 1, 2, MOST - 1):
            self.assertEqual(size(users(0, count)), count)
        self.assertEqual(size(union([users(0, 600), users(300, 900), users(0, 0)])), 900)
        self.assertEqual(size(union([users(0, 5)])), 5)

    def test_estimate(self) -> None:
        """Many are estimated, and what is sent does not grow."""
        for count in (10_000, 60_000):
            found = users(0, count)
            self.assertEqual(len(found), MOST * 10)
            self.assertTrue(0.93 < size(found) / count < 1.07, size(found))
        both = union([users(0, 10_000), users(5_000, 15_000)])
        self.assertEqual(both, users(0, 15_000))

    def test_valid(self) -> None:
        """What another process sends is checked."""
        self.assertTrue(isValid(users(0, 10_000)))
        self.assertTrue(isValid(""))
        for value in (None, 7, "0123", "x" * 10, "A" * 10, "0" * 10 * (MOST + 1)):
            self.assertFalse(isValid(value))

    def test_noNames(self) -> None:
        """The hashes do not contain the names."""
        self.assertNotIn(b"joe".hex(), smallest([hashed(b"joe")]))
        self.assertNotEqual(hashed(b"joe"), hashed(b"joe "))
