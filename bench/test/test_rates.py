"""
Tests of L{bench.rates}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.clients import opened
from bench.measuring import AuthCounter, Meter
from bench.processes import BenchmarkError
from bench.rates import Rate, Saturation, limit
from bench.test.direct import Direct, entered, services


class RateTests(SynchronousTestCase):
    """L{Rate}."""

    def setUp(self):
        site, children = entered(self, services())
        clients = entered(self, opened(children, 2))
        self.proxy = Direct("direct")
        self.rate = Rate(Meter(self.proxy.start(site, children), AuthCounter(site.authPort)), clients, False)

    def test_saturate(self):
        """Logins of all processes count; without a proxy none of the used processors is its."""
        one = self.rate.saturate(0.2)
        self.assertGreater(one.perSecond, 20)
        self.assertEqual(one.processors, 0)
        self.assertGreater(one.machine, 0)

    def test_unasked(self):
        """If every login should query the authentication service and none does, there is no figure."""
        self.proxy.asksAuth = True
        error = self.assertRaises(BenchmarkError, self.rate.saturate, 0.1)
        self.assertIn("direct asked the authentication service 0 times for ", str(error))

    def test_paced(self):
        """There is a latency for each login."""
        self.assertEqual(len(self.rate.paced(200, 20)), 20)


class SaturationTests(SynchronousTestCase):
    """L{Saturation} and L{limit}."""

    def test_figures(self):
        """The rate by the proxy's own time does not depend on the clients; without such time there is none."""
        figures = dict(Saturation(100.0, 0.5, 1.0).figures())
        self.assertEqual(figures, {"rate": 100.0, "processors": 0.5, "efficiency": 200.0})
        self.assertNotIn("efficiency", dict(Saturation(100.0, 0.0, 1.0).figures()))

    def test_medians(self):
        """Several bursts have the medians of their figures."""
        bursts = [Saturation(1.0, 9.0, 5.0), Saturation(3.0, 7.0, 6.0), Saturation(2.0, 8.0, 4.0)]
        self.assertEqual(Saturation.of(bursts), Saturation(2.0, 8.0, 5.0))

    def test_limit(self):
        """A proxy that uses a processor for each worker is its own limit; else the machine is, or the clients are."""
        self.assertEqual(limit(Saturation(1.0, 0.95, 1.5), 1, 2), [])
        self.assertEqual(limit(Saturation(1.0, 1.85, 2.0), 4, 2), [])
        (machine,) = limit(Saturation(1.0, 1.2, 1.95), 2, 2)
        self.assertEqual(
            machine, "limited by the machine: the proxy used 1.20 of 2 processors, clients and services the rest of 2"
        )
        (clients,) = limit(Saturation(1.0, 0.3, 1.2), 1, 4)
        self.assertTrue(clients.startswith("limited by the clients and services: the proxy used 0.30 of 1 "))
