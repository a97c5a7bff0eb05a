"""
Tests of L{bench.measures}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.measures import GROUPS, QUICK, SHORT, TABLES, SiteSet, Sizes, measuresOf, siteCount
from bench.proxies import VARIANTS


class MeasureTests(SynchronousTestCase):
    """The rows of the table."""

    def setUp(self):
        self.rows = [measure for group in GROUPS for measure in measuresOf(group, Sizes())]

    def test_keys(self):
        """No two have the same key, and each key begins with its group."""
        keys = [row.key for row in self.rows]
        self.assertEqual(len(set(keys)), len(keys))
        for group in GROUPS:
            self.assertEqual({row.group for row in measuresOf(group, QUICK)}, {group})
        self.assertEqual({row.table for row in self.rows}, set(TABLES))
        self.assertEqual(set(SHORT), set(TABLES))

    def test_baselines(self):
        """The baseline of a variant is measured too, without the variant."""
        byKey = {row.key: row for row in self.rows}
        for row in self.rows:
            self.assertIn(row.variant, VARIANTS)
            self.assertEqual(bool(row.variant), row.baseline is not None)
            if row.baseline is not None:
                self.assertEqual(byKey[row.baseline].variant, "")

    def test_sessions(self):
        """
        Memory is measured for every number of sessions, without and with TLS, before and after a message; growth from 0
        on.
        """
        self.assertEqual(len(measuresOf("memory", Sizes(sessions=(10, 20)))), 8)
        growth = measuresOf("growth", Sizes(sessions=(10, 20)))
        self.assertEqual([row.sessions for row in growth], [0, 10, 20])

    def test_site(self):
        """A worker holds half as many sessions as it has descriptors, less some; two hold twice that."""
        one, two = SiteSet(1, False), SiteSet(2, True)
        self.assertEqual([siteCount(each, Sizes(), 20000) for each in (one, two)], [9500, 19000])
        self.assertEqual([siteCount(each, Sizes(site=7), 20000) for each in (one, two)], [7, 14])
        rows = measuresOf("site", Sizes(siteSets=(one, two)), 20000)
        self.assertEqual({row.sessions for row in rows}, {9500, 19000})
        self.assertTrue(rows[0].title.startswith("9,500 plain, 1 worker: "))
        self.assertTrue(rows[-1].title.startswith("19,000 TLS, 2 workers: "))
