"""
Tests of L{bench.measuring}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.measuring import AuthCounter, Meter, Sessions, percentile
from bench.processes import BenchmarkError
from bench.test.direct import Direct, entered, services


class PercentileTests(SynchronousTestCase):
    """L{percentile}."""

    def test_middle(self):
        """Half of the figures do not exceed the 50th percentile, which is their median."""
        self.assertEqual(percentile([5.0, 1.0, 3.0], 50), 3.0)

    def test_rare(self):
        """The 99th percentile is near the maximum, and not beyond it."""
        figures = [float(figure) for figure in range(101)]
        self.assertEqual(percentile(figures, 99), 99.0)
        self.assertLessEqual(percentile([1.0, 2.0], 99), 2.0)
        self.assertEqual(round(percentile(figures, 99.9), 6), 99.9)


class MeterTests(SynchronousTestCase):
    """L{Meter} and L{Sessions}."""

    def setUp(self):
        self.site, children = entered(self, services())
        self.proxy = Direct("direct")
        self.meter = Meter(self.proxy.start(self.site, children), AuthCounter(self.site.authPort))

    def test_unasked(self):
        """If every login should query the authentication service and none does, there is no figure."""
        self.proxy.asksAuth = True
        error = self.assertRaises(BenchmarkError, self.meter.loginCPU, "plain", 40)
        self.assertEqual(str(error), "direct asked the authentication service 0 times for 40 logins")

    def test_latencies(self):
        """There is a latency for every login and every message, and none is 0."""
        for figures in (self.meter.loginLatencies(False, 4), self.meter.fetchLatencies(False, 4)):
            self.assertEqual(len(figures), 4)
            self.assertGreater(min(figures), 0)

    def test_grow(self):
        """Sessions grow to a number, which includes existing ones."""
        sessions = Sessions(self.meter, tls=False)
        self.addCleanup(sessions.close)
        self.assertEqual([len(sessions.grow(3)), len(sessions.grow(5))], [3, 2])
        self.assertEqual(len({one.fileno() for one in sessions.connections}), 5)

    def test_close(self):
        """Closed sessions hold no descriptor."""
        sessions = Sessions(self.meter, tls=False)
        sessions.grow(2)
        sessions.close()
        self.assertEqual([one.fileno() for one in sessions.connections], [-1, -1])

    def test_nothingCounted(self):
        """Work of other processes does not count: neither clients nor the backend."""
        self.assertEqual(self.meter.loginCPU("plain", 40), 0)
        self.assertEqual(self.meter.pingCPU(False, 16), 0)
        self.assertEqual(self.meter.relayCPU(False, False, 1), 0)
