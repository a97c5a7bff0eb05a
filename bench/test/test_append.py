"""
Tests of L{bench.append}, with clients that reach the benchmark's own backend without a gateway.
"""

from __future__ import annotations

import imaplib

from twisted.trial.unittest import SynchronousTestCase

from bench.append import GOAL, KINDS, Endpoint, Row, measure, noop
from bench.options import REPOSITORY, appending
from bench.processes import BenchmarkError
from bench.test.direct import entered, services


class RowTests(SynchronousTestCase):
    """Summaries of figures."""

    def test_cells(self):
        """Medians, and the difference between the last and the first."""
        for last, added, reached in ((2.0, "1.000", "yes"), (1 + GOAL + 0.5, "2.500", "no"), (0.5, "0.000", "yes")):
            row = Row("x", {"direct": [9.0, 1.0, 1.0], "before": [45.0], "mailgate": [last]})
            self.assertEqual(row.medians(), {"direct": 1.0, "before": 45.0, "mailgate": last})
            self.assertEqual(row.cells()[0:3:2], ("x", "45.0"))
            self.assertEqual(row.cells()[-2:], (added, reached))


class MeasureTests(SynchronousTestCase):
    """The work for a row."""

    def setUp(self):
        self.site, _ = entered(self, services())

    def endpoint(self, name):
        return Endpoint(name, {"plain": self.site.backendPort}, "joe")

    def test_kinds(self):
        """Each command is sent equally often to all servers; the first one does not count."""
        for command, (title, _) in KINDS.items():
            row = measure("plain", command, [self.endpoint("one"), self.endpoint("other")], 3)
            self.assertEqual(row.title, f"{title}, plain")
            self.assertEqual({name: len(taken) for name, taken in row.figures.items()}, {"one": 3, "other": 3})

    def test_refused(self):
        """A refused command and a missing server end the run."""
        with self.endpoint("one").session("plain") as client:
            client.readline = iter([b"* OK\r\n", b"two NO\r\n", b""]).__next__
            self.assertRaises(imaplib.IMAP4.error, noop, client)
            self.assertRaises(imaplib.IMAP4.error, noop, client)
            del client.readline
            while not client.readline().startswith(b"two"):
                pass
            client.readline()
        nobody = Endpoint("nobody", {"plain": 1}, "joe")
        error = self.assertRaises(BenchmarkError, measure, "plain", "append", [nobody], 1)
        self.assertIn("nobody, plain", str(error))


class OptionsTests(SynchronousTestCase):
    """L{appending}."""

    def test_defaults(self):
        """By default only this tree is measured, with fifty of each."""
        options = appending().parse_args([])
        self.assertEqual((options.mailgate, options.before, options.count), (REPOSITORY, None, 50))
        self.assertEqual((options.more, options.process), ([], []))
