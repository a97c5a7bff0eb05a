"""
Tests of L{bench.comparison}.
"""

from __future__ import annotations

from statistics import median

from twisted.trial.unittest import SynchronousTestCase

from bench.comparison import Comparison, order, tables
from bench.spread import AFTER, BEFORE, Spread, medianWithin


class SpreadTests(SynchronousTestCase):
    """L{Spread}."""

    def test_of(self):
        """Quartiles are between minimum and maximum, by interpolation; the middle is the median."""
        self.assertEqual(Spread.of([5.0, 1.0, 2.0, 4.0, 3.0]), Spread(1.0, 2.0, 3.0, 4.0, 5.0))
        figures = [1.0, 2.0, 3.0, 10.0]
        self.assertEqual(Spread.of(figures), Spread(1.0, 1.75, median(figures), 4.75, 10.0))

    def test_one(self):
        """One figure is all of its spread."""
        self.assertEqual(Spread.of([2.5]), Spread(2.5, 2.5, 2.5, 2.5, 2.5))


class MedianWithinTests(SynchronousTestCase):
    """L{medianWithin}."""

    def test_ranks(self):
        """The ranks are those of tables of the sign test: 6th and 15th of 20, 2nd and 9th of 10, all of 6."""
        for count, ranks in ((20, (6, 15)), (10, (2, 9)), (6, (1, 6)), (100, (40, 61))):
            figures = [float(rank) for rank in range(count, 0, -1)]
            self.assertEqual(medianWithin(figures), ranks)

    def test_tooFew(self):
        """Fewer than six figures are too few."""
        self.assertIs(medianWithin([1.0] * 5), None)


class ComparisonTests(SynchronousTestCase):
    """L{Comparison}."""

    def setUp(self):
        self.row = Comparison("plain", {BEFORE: [1.0, 2.0, 4.0], AFTER: [1.1, 2.0, 8.0]})

    def test_ratio(self):
        """The medians are compared, and so is each pair of bursts."""
        self.assertEqual(self.row.ratio, 1.0)
        self.assertEqual(self.row.pairs, [1.1, 1.0, 2.0])

    def test_connections(self):
        """Connections are counted per login, and are L{None} without logins."""
        self.row.asked[AFTER], self.row.connections[AFTER] = 200, 5
        self.assertEqual(self.row.connectionsPerLogin(AFTER), 0.025)
        self.assertIs(self.row.connectionsPerLogin(BEFORE), None)

    def test_order(self):
        """Each side is first equally often."""
        self.assertEqual([order(burst)[0] for burst in range(4)], [BEFORE, AFTER] * 2)
        self.assertEqual({frozenset(order(burst)) for burst in range(4)}, {frozenset((BEFORE, AFTER))})

    def test_tables(self):
        """There is a line for each side, and one for the ratios."""
        self.row.asked[AFTER], self.row.connections[AFTER] = 200, 5
        said = [line.split() for line in tables([self.row]).splitlines()]
        self.assertIn(["plain", "before", "1.000", "1.500", "2.000", "3.000", "4.000", "-"], said)
        self.assertIn(["plain", "after", "1.100", "1.550", "2.000", "5.000", "8.000", "0.025"], said)
        self.assertIn(["plain", "1.000", "1.100", "1.050", "1.550", "-", "3"], said)
