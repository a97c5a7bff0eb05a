"""
Tests of L{bench.measuring} and L{bench.groups}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.groups import Bench
from bench.measures import Sizes
from bench.measuring import AuthCounter, Meter, Sessions, percentile
from bench.processes import BenchmarkError
from bench.results import Results
from bench.test.direct import Direct, services

_TINY = Sizes(logins=40, tlsLogins=1, relayed=1, pings=16, latencies=5, growthLogins=40, sessions=(3, 5))


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


class MeterTests(SynchronousTestCase):
    """L{Meter} and L{Sessions}."""

    def setUp(self):
        running = services()
        self.site, children = running.__enter__()
        self.addCleanup(running.__exit__, None, None, None)
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


class BenchTests(SynchronousTestCase):
    """L{Bench}."""

    def setUp(self):
        running = services()
        site, children = running.__enter__()
        self.addCleanup(running.__exit__, None, None, None)
        self.said = []
        self.results = Results("2026-01-02", ["nginx", "mailgate"])
        self.bench = Bench(site, children, _TINY, 3, self.results, self.said.append)
        self.bench.proxies += [Direct("nginx"), Direct("mailgate")]

    def figures(self, key):
        return {proxy: len(figures) for proxy, figures in self.results.figures[key].items()}

    def test_turns(self):
        """In every repeat every proxy is measured once before the next measure."""
        order = []

        def take(meter, measure):
            order.append((measure.key, meter.name))
            return 1.5

        self.bench.turns("ping", take)
        once = [(key, name) for key in ("ping.plain", "ping.tls") for name in ("nginx", "mailgate")]
        self.assertEqual(order, once * 3)
        self.assertEqual(self.figures("ping.tls"), {"nginx": 3, "mailgate": 3})
        self.assertEqual(self.said[0], "ping 1/3, nginx: plain: 1.500")
        self.assertEqual(self.said[-1], "ping 3/3, mailgate: TLS: 1.500")

    def test_variants(self):
        """A variant is measured only for its own measures, and its figures are in mailgate's column."""
        self.bench.variants["cached"] = Direct("mailgate, cached")
        self.bench.turns("login", lambda meter, measure: 1.0, variants=True)
        self.assertEqual(self.figures("login.plain.cached"), {"mailgate": 3})
        self.assertEqual(self.figures("login.plain"), {"nginx": 3, "mailgate": 3})
        self.assertNotIn("login.plain.info", self.results.figures)

    def test_growth(self):
        """Logins are measured without sessions, and beside each number of sessions, for mailgate and nginx only."""
        self.bench.proxies.append(Direct("HAProxy"))
        self.bench.measure("growth")
        self.assertEqual([measure.sessions for measure in self.results.measures], [0, 3, 5])
        self.assertEqual(self.figures("growth.5"), {"nginx": 2, "mailgate": 2})

    def test_worker(self):
        """The resources of a new worker are measured in each repeat, and are in mailgate's column."""
        self.bench.variants["workers"] = Direct("mailgate, workers")
        self.patch(Meter, "newWorker", lambda meter: (6.5, 9.0))
        self.bench.measure("worker")
        self.assertEqual(self.results.figures["worker.memory"], {"mailgate": [6.5] * 3})
        self.assertEqual(self.results.figures["worker.start"], {"mailgate": [9.0] * 3})

    def test_noWorkers(self):
        """A mailgate without workers has no such figures."""
        self.bench.measure("worker")
        self.assertEqual(self.results.figures, {})
