"""Tests for L{mailgate.limits.rates}."""

from __future__ import annotations

import os
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.interfaces import IRates
from mailgate.limits.rates import LocalRates, earliness, take
from mailgate.limits.sharedtables import SharedTables

KEY = b"connection imap a"


class LeakyBucket:
    """nginx's C{limit_req}: the excess in events. It is the oracle."""

    def __init__(self) -> None:
        self.excess: float | None = None
        self.last = 0.0

    def take(self, interval: float, burst: int, now: float) -> bool:
        excess = 0.0 if self.excess is None else max(0.0, self.excess - (now - self.last) / interval + 1)
        if excess > burst + 1e-6:
            return False
        self.excess, self.last = excess, now
        return True


def event(rates: IRates, key: bytes, interval: float, burst: int, now: float) -> bool:
    """Count an event of a key, unless it is too early."""
    return take(rates.at(key), interval, earliness(interval, burst), now)


class RatesTests(SynchronousTestCase):
    """L{LocalRates} and L{mailgate.limits.rates.SharedRates}."""

    now = 0.0

    def setUp(self) -> None:
        self.tables = SharedTables.made(1)
        self.addCleanup(os.close, self.tables.descriptor)
        self.addCleanup(self.tables.close)

    def both(self) -> list[IRates]:
        return [LocalRates(), self.tables.rates()]

    def test_burst(self) -> None:
        """nginx's C{rate=1r/s burst=5} lets 6 through at once, and then one a second."""
        for rates in self.both():
            self.assertEqual([event(rates, KEY, 1.0, 5, 100.0) for _ in range(8)], [True] * 6 + [False] * 2)
            self.assertFalse(event(rates, KEY, 1.0, 5, 100.9))
            self.assertEqual([event(rates, KEY, 1.0, 5, 101.0) for _ in range(2)], [True, False])
            # Refused events are not counted.
            self.assertEqual([event(rates, KEY, 1.0, 5, 200.0) for _ in range(7)], [True] * 6 + [False])

    def test_keys(self) -> None:
        """Each key has its own rate."""
        for rates in self.both():
            self.assertEqual(
                [event(rates, b"%d" % key, 60.0, 0, 5.0) for key in (1, 2, 1, 2)], [True, True, False, False]
            )

    def test_early(self) -> None:
        """To look counts nothing."""
        for rates in self.both():
            self.assertLessEqual(rates.at(KEY).due, 10.0)
            event(rates, KEY, 2.0, 9, 10.0)
            event(rates, KEY, 2.0, 9, 10.0)
            self.assertEqual([rates.at(KEY).due, rates.at(KEY).due], [14.0, 14.0])

    def test_neverLower(self) -> None:
        """An event of one key does not set a cell that it shares with another to an earlier time."""
        rates = self.tables.rates()
        first, second = rates._cellsOf(KEY)
        rates._table[first] = 5000.0
        self.assertTrue(event(rates, KEY, 1.0, 0, 100.0))
        self.assertEqual((rates._table[first], rates._table[second]), (5000.0, 101.0))

    def test_shared(self) -> None:
        """All workers fill one bucket."""
        one, other = self.tables.rates(), SharedTables(self.tables.descriptor).rates()
        self.assertEqual([event(one, KEY, 1.0, 1, 7.0), event(other, KEY, 1.0, 1, 7.0)], [True, True])
        self.assertEqual([event(one, KEY, 1.0, 1, 7.0), event(other, KEY, 1.0, 1, 7.0)], [False, False])

    def test_bounded(self) -> None:
        """A flood of keys drops the oldest, many at once: a new key costs no walk over the gaps of those before."""
        rates = LocalRates()
        event(rates, KEY, 60.0, 0, 1.0)
        sizes = []
        for number in range(70000):
            event(rates, b"%d" % number, 60.0, 0, 1.0)
            sizes.append(len(rates._buckets))
        self.assertEqual(max(sizes), 13000)
        shrunk = [number for number, (size, after) in enumerate(pairwise(sizes)) if after < size]
        self.assertTrue(shrunk)
        self.assertGreaterEqual(min(after - before for before, after in pairwise(shrunk)), 800)
        self.assertTrue(event(rates, KEY, 60.0, 0, 1.0))
        # Most of those that are remembered stay, the latest first of all.
        for number in (69999, 60000):
            self.assertFalse(event(rates, b"%d" % number, 60.0, 0, 1.0))

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from([0.5, 1.0, 2.0, 60.0]),
        st.integers(0, 6),
        st.lists(st.sampled_from([0.0, 0.0, 0.25, 1.0, 7.0]), max_size=40),
    )
    def test_nginx(self, interval: float, burst: int, waits: list[float]) -> None:
        """The verdicts are those of nginx's bucket."""
        # The table is the same in all examples. What an earlier one has left is past.
        self.now += 1e6
        oracle, now, key = LeakyBucket(), self.now, b"%f" % self.now
        both = LocalRates(), self.tables.rates()
        for wait in waits:
            now += wait
            expected = oracle.take(interval, burst, now)
            self.assertEqual([event(rates, key, interval, burst, now) for rates in both], [expected, expected])
