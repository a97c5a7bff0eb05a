"""
Tests for L{mailgate.watch.tally}.
"""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from mailgate.watch.distinct import hashed, smallest
from mailgate.watch.metrics import named
from mailgate.watch.tally import Tally, merged

LOGINS = "mailgate_logins"
WAIT = "mailgate_login_seconds"
LABELS = ("imap", "plain", "accepted")


class TallyTests(SynchronousTestCase):
    """One process."""

    def setUp(self) -> None:
        self.tally = Tally()

    def test_empty(self) -> None:
        """Nothing has happened."""
        self.assertEqual(self.tally.totals(), {})

    def test_counts(self) -> None:
        """Counters, also those that begin at 0."""
        self.tally.count(LOGINS, LABELS)
        self.tally.count(LOGINS, LABELS, 2)
        self.tally.count("mailgate_auth_cache", ("hit",), 0)
        expected = {LOGINS: [[[*LABELS], 3]], "mailgate_auth_cache": [[["hit"], 0]]}
        self.assertEqual(self.tally.totals(), expected)

    def test_buckets(self) -> None:
        """A bucket includes its bound; the last one has what is beyond all; the sum follows."""
        for seconds in (0.0005, 0.001, 0.0011, 1000.0):
            self.tally.observe(WAIT, ("imap",), seconds)
        (((labels, value),),) = self.tally.totals().values()
        self.assertEqual(labels, ["imap"])
        self.assertEqual(len(value), len(named(WAIT).buckets) + 2)
        self.assertEqual((value[:2], value[-2]), ([2, 1], 1))
        self.assertAlmostEqual(value[-1], 1000.0026)

    def test_together(self) -> None:
        """Observations that are counted together are counted as each by itself."""
        bounds = named(WAIT).buckets
        for several in (
            [0.3],
            [bounds[-1] + 1, *bounds, 0.0, -1.0],
            [bounds[0]] * 3,
            [bounds[-1] * 2, bounds[-1] * 3],
            [each * 0.999 for each in bounds],
        ):
            for seconds in several:
                self.tally.observe(WAIT, ("imap",), seconds)
            self.tally.observeAll(WAIT, ("pop3",), several)
            one, together = (value for _, value in self.tally.totals()[WAIT])
            self.assertEqual(one[:-1], together[:-1])
            self.assertAlmostEqual(one[-1], together[-1])

    def test_setBack(self) -> None:
        """After the system's clock was set back, the sum does not fall."""
        self.tally.observe(WAIT, ("imap",), 2.0)
        self.tally.observe(WAIT, ("imap",), -5.0)
        ((_, value),) = self.tally.totals()[WAIT]
        self.assertEqual((sum(value[:-1]), value[-1]), (2, 2.0))

    def test_copies(self) -> None:
        """Totals do not change later, and are JSON."""
        self.tally.prepare(WAIT, ("imap",))
        before = self.tally.totals()
        self.tally.observe(WAIT, ("imap",), 1.0)
        self.assertEqual(sum(before[WAIT][0][1]), 0)
        self.assertEqual(json.loads(json.dumps(before)), before)

    def test_unknown(self) -> None:
        """There are no other metrics."""
        self.assertRaises(KeyError, self.tally.count, "mailgate_others", ())
        self.assertRaises(KeyError, self.tally.observe, "mailgate_others", (), 1.0)


class MergedTests(SynchronousTestCase):
    """Several processes."""

    def test_kinds(self) -> None:
        """Each metric is merged in its way."""
        one, other = Tally(), Tally()
        for tally in (one, other):
            tally.count(LOGINS, LABELS)
            tally.observe(WAIT, ("imap",), 0.5)
        sessions, up, draining = "mailgate_sessions", "mailgate_backend_up", "mailgate_backend_draining"
        users = "mailgate_users"
        both = merged(
            [
                {
                    **tally.totals(),
                    sessions: [[["imap", "relay"], 3]],
                    up: [[["a"], value]],
                    draining: [[["a"], value]],
                    users: [[[], smallest(map(hashed, names))]],
                }
                for tally, value, names in ((one, 0, (b"joe", b"amy")), (other, 1, (b"joe",)))
            ]
        )
        self.assertEqual(both[LOGINS], [[[*LABELS], 2]])
        self.assertEqual(both[sessions], [[["imap", "relay"], 6]])
        self.assertEqual((both[up], both[draining]), ([[["a"], 0]], [[["a"], 1]]))
        self.assertEqual(both[users], [[[], smallest(map(hashed, (b"joe", b"amy")))]])
        ((_, histogram),) = both[WAIT]
        self.assertEqual((sum(histogram[:-1]), histogram[-1]), (2, 1.0))

    def test_unknown(self) -> None:
        """A metric of a later release is left out."""
        self.assertEqual(merged([{"mailgate_news": [[[], 1]]}]), {})
        self.assertEqual(merged([]), {})
