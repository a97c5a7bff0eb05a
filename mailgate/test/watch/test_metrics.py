"""
Tests for L{mailgate.watch.metrics}.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from mailgate.session import Outcome, Phase
from mailgate.watch.metrics import METRICS, Kind, named, word

LABELS = frozenset(
    (
        *("auth", "backend", "cipher", "direction", "method", "name", "outcome", "phase", "protocol", "reason"),
        *("action", "level", "result", "rule", "server", "state", "table", "version", "worker"),
    )
)
"""
The labels that a metric may have. Each has few values. A user name, an address or the id of a session is no label: each
value would be a time series of its own, and clients choose them.
"""


class TableTests(SynchronousTestCase):
    """The table."""

    def test_names(self) -> None:
        """Names are unique, and follow Prometheus: a prefix, base units, and no C{_total}, which the writer adds."""
        self.assertEqual(len({metric.name for metric in METRICS}), len(METRICS))
        for metric in METRICS:
            self.assertTrue(re.fullmatch("mailgate_[a-z_]+", metric.name), metric.name)
            self.assertFalse(metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_info")), metric.name)
            self.assertTrue(metric.help.endswith("."), metric.name)
            self.assertIs(named(metric.name), metric)

    def test_labels(self) -> None:
        """Only reviewed labels."""
        for metric in METRICS:
            self.assertEqual(set(metric.labels) - LABELS, set(), metric.name)
            self.assertEqual(metric.bound == 1, not metric.labels, metric.name)

    def test_buckets(self) -> None:
        """Histograms have ascending buckets, in seconds, and nothing else has buckets."""
        for metric in METRICS:
            self.assertEqual(bool(metric.buckets), metric.kind is Kind.HISTOGRAM)
            self.assertEqual(list(metric.buckets), sorted(set(metric.buckets)))
            if metric.buckets:
                self.assertTrue(metric.name.endswith("_seconds"))

    def test_unknown(self) -> None:
        """Other names are errors."""
        self.assertRaises(KeyError, named, "mailgate_users_of_joe")

    def test_words(self) -> None:
        """Names of members are fit for labels."""
        self.assertEqual(word(Outcome.CLIENT_LEFT), "client_left")
        for member in (*Outcome, *Phase):
            self.assertTrue(re.fullmatch("[a-z_]+", word(member)))
