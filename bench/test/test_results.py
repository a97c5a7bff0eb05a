"""
Tests of L{bench.results}.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from bench.measures import Measure
from bench.results import Results

PLAIN = Measure("login.plain", "plain", goal=1.3)
CACHED = Measure("login.plain.cached", "plain, cached", 0.9, "login.plain", "cached")
UNAIMED = Measure("login.tls", "TLS")


class ResultsTests(SynchronousTestCase):
    """L{Results}."""

    def setUp(self):
        self.results = Results("2026-01-02", ["nginx", "mailgate", "HAProxy"])
        for theirs, ours in ((2.0, 2.6), (9.0, 2.4), (1.0, 9.0)):
            self.results.add(PLAIN, "nginx", theirs)
            self.results.add(PLAIN, "mailgate", ours)

    def test_median(self):
        """A figure is the median over the repeats: a single outlier does not change it."""
        self.assertEqual(self.results.figure("login.plain", "nginx"), 2.0)
        self.assertEqual(self.results.figure("login.plain", "mailgate"), 2.6)

    def test_missing(self):
        """Without a measurement there is no figure, no ratio and no verdict."""
        self.assertIsNone(self.results.figure("login.plain", "HAProxy"))
        self.assertIsNone(self.results.figure("login.other", "nginx"))
        self.results.add(UNAIMED, "mailgate", 1.0)
        self.assertIsNone(self.results.ratio(UNAIMED))
        self.assertIsNone(self.results.reached(UNAIMED))

    def test_ratio(self):
        """The ratio is the median of the repeats' ratios: both were measured under the same conditions."""
        self.assertEqual(self.results.pairs(PLAIN), [1.3, 2.4 / 9, 9.0])
        self.assertEqual(self.results.ratio(PLAIN), 1.3)
        self.assertEqual(self.results.spread(PLAIN).threeQuarters, (1.3 + 9) / 2)

    def test_unpaired(self):
        """If a repeat failed for one of them, or nginx's figure is 0, the ratio is that of the medians, or none."""
        self.results.add(PLAIN, "mailgate", 4.0)
        self.assertEqual(self.results.ratio(PLAIN), (2.6 + 4) / 2 / 2)
        self.assertIsNone(self.results.spread(PLAIN))
        for proxy in self.results.proxies:
            self.results.add(UNAIMED, proxy, 0.0)
        self.assertIsNone(self.results.ratio(UNAIMED))

    def test_before(self):
        """A tree before has variants, too. No worse is reached if the lower quartile is."""
        row = Measure("login.plain.cached", "cached", 0.9, "login.plain", "cached", goalBefore=0.75)
        same = Measure("relay.tls.big", "TLS", goalBefore=1)
        for before, ours in ((2.0, 1.4), (2.0, 1.5), (2.0, 3.0)):
            for measure in (row, same):
                self.results.add(measure, "before", before)
                self.results.add(measure, "mailgate", ours)
        self.assertEqual(self.results.figureIn(row, "before"), 2.0)
        self.assertEqual(self.results.ratio(row, "before"), 0.75)
        self.assertIs(self.results.reachedBefore(row), True)
        self.assertIs(self.results.reachedBefore(same), True)
        self.assertIsNone(self.results.reachedBefore(PLAIN))
        for _ in range(9):
            self.results.add(same, "before", 2.0)
            self.results.add(same, "mailgate", 2.1)
        self.assertIs(self.results.reachedBefore(same), False)

    def test_reached(self):
        """A goal is reached at exactly its figure, and missed above it."""
        self.assertIs(self.results.reached(PLAIN), True)
        worse = Measure("login.tls", "TLS", goal=0.95)
        self.results.add(worse, "nginx", 1.0)
        self.results.add(worse, "mailgate", 0.96)
        self.assertIs(self.results.reached(worse), False)

    def test_noGoal(self):
        """Without a goal there is a ratio, and no verdict."""
        self.results.add(UNAIMED, "nginx", 1.0)
        self.results.add(UNAIMED, "mailgate", 4.0)
        self.assertEqual((self.results.ratio(UNAIMED), self.results.reached(UNAIMED)), (4.0, None))

    def test_variant(self):
        """A variant of mailgate is compared with nginx without one."""
        self.results.add(CACHED, "mailgate", 1.6)
        self.assertEqual(self.results.ratio(CACHED), 0.8)
        self.assertEqual(self.results.figureIn(CACHED, "nginx"), 2.0)

    def test_columns(self):
        """Only measured proxies have a column."""
        self.assertEqual(self.results.columns(self.results.rows("login")), ["nginx", "mailgate"])

    def test_data(self):
        """JSON contains every single figure beside the medians."""
        data = json.loads(json.dumps(self.results.asData()))
        self.assertEqual(data["started"], "2026-01-02")
        (row,) = data["measures"]
        self.assertEqual(row["figures"], {"nginx": [2.0, 9.0, 1.0], "mailgate": [2.6, 2.4, 9.0]})
        self.assertEqual(row["medians"], {"nginx": 2.0, "mailgate": 2.6})
        self.assertEqual((row["ratio"], row["goal"], row["reached"]), (1.3, 1.3, True))
        self.assertEqual(row["ratios"]["nginx"]["median"], 1.3)
        self.assertIsNone(row["ratios"]["before"])
