"""
Tests of L{bench.sites}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench import sites
from bench.clients import opened
from bench.measures import Sizes
from bench.measuring import AuthCounter, Meter
from bench.processes import BenchmarkError
from bench.sites import NEW, Held, Probe, settled
from bench.test.direct import Direct, entered, services


class SettledTests(SynchronousTestCase):
    """L{settled}."""

    def test_moment(self):
        """From the end of that login on, all logins meet the new configuration: a failed one does not."""
        probes = [Probe(number, number + 0.5, new) for number, new in enumerate((False, True, None, True, True))]
        self.assertEqual(settled(probes), 3.5)
        self.assertEqual(settled(probes[:2]), 1.5)
        self.assertIsNone(settled(probes[:3]))
        self.assertIsNone(settled([]))


class HeldTests(SynchronousTestCase):
    """L{Held}."""

    def setUp(self):
        site, children = entered(self, services())
        clients = entered(self, opened(children, 2))
        sizes = Sizes(siteBusy=4, siteSeconds=1, siteLogins=4)
        running = Direct("direct").start(site, children)
        self.held = Held(Meter(running, AuthCounter(site.authPort)), clients, False, 6, sizes)
        self.idle = {end: figure for _, end, figure in self.held.idle()}

    def test_idle(self):
        """Sessions are open; without a proxy they take nothing."""
        self.assertEqual(
            {end: self.idle.pop(end) for end in ("memory", "total", "cpu")},
            dict.fromkeys(("memory", "total", "cpu"), 0),
        )
        self.assertGreater(self.idle["p99"], self.idle["p50"] * 0.99)

    def test_busy(self):
        """Some of them fetch, and logins beside them have a latency."""
        busy = {end: figure for _, end, figure in self.held.busy()}
        self.assertEqual(busy["cpu"], 0)
        self.assertGreater(busy["p50"], 0)

    def test_reload(self):
        """The new configuration is found; no session is lost."""
        after, _ = entered(self, services(capabilities=NEW))
        self.patch(sites, "_BEYOND", 0.1)
        found = {end: figure for _, end, figure in self.held.reload(after)}
        self.assertEqual((found["lost"], found["failed"]), (0, 0))
        self.assertGreater(found["until"], 0)
        self.assertGreater(found["longest"], 0)

    def test_notReloaded(self):
        """A proxy that keeps its configuration is an error."""
        after, _ = entered(self, services())
        self.patch(sites, "_LONGEST", 0.2)
        error = self.assertRaises(BenchmarkError, list, self.held.reload(after))
        self.assertIn("direct does not serve a new configuration", str(error))

    def test_lost(self):
        """Sessions that have ended during the reload are counted, and so are failed logins."""
        after, _ = entered(self, services(capabilities=NEW))
        self.patch(sites, "_BEYOND", 0.1)
        figures = self.held.reload(after)
        first = next(figures)
        self.assertEqual(first[:2], ("reload", "until"))
        self.held.clients[0].begin("close")
        self.held.clients[0].finish()
        found = {end: figure for _, end, figure in figures}
        self.assertEqual(found["lost"], 3)
        self.held.meter.running.plain = ("127.0.0.1", 1)
        self.assertIsNone(self.held._probe(0.0).new)
