"""
Tests of L{bench.groups}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench import groups, sites
from bench.groups import Bench, Entrant
from bench.measures import SiteSet, Sizes
from bench.measuring import Meter
from bench.processes import BenchmarkError
from bench.results import Results
from bench.test.direct import Direct, entered, services

_TINY = Sizes(
    logins=40,
    tlsLogins=1,
    relayed=1,
    pings=16,
    latencies=5,
    growthLogins=40,
    sessions=(3, 5),
    renew=2,
    saturated=0.05,
    halfLogins=8,
    rateRepeats=3,
    siteSets=(SiteSet(1, False),),
    site=6,
    siteBusy=4,
    siteSeconds=1,
    siteLogins=4,
)


class BenchTests(SynchronousTestCase):
    """L{Bench}."""

    def setUp(self):
        site, children = entered(self, services())
        self.said = []
        self.results = Results("2026-01-02", ["nginx", "mailgate"])
        self.bench = Bench(site, children, _TINY, 3, self.results, self.said.append, open=services)
        self.enter("nginx")
        self.enter("mailgate")

    def enter(self, name, variant=""):
        self.bench.entrants.append(Entrant(name, Direct(name), variant))

    def figures(self, key):
        return {proxy: len(figures) for proxy, figures in self.results.figures[key].items()}

    def test_turns(self):
        """
        In every repeat every proxy is measured once before the next measure. Each is as often first as another, and all
        are restarted after some repeats.
        """
        order, started = [], []

        def take(meter, measure):
            order.append((measure.key, meter.name))
            return 1.5

        start = Direct.start
        self.patch(Direct, "start", lambda proxy, *arguments: started.append(proxy.name) or start(proxy, *arguments))
        self.bench.turns("ping", take)
        names = ["nginx", "mailgate"]
        once = [(key, name) for key in ("ping.plain", "ping.tls") for name in names]
        reversed = [(key, name) for key in ("ping.plain", "ping.tls") for name in names[::-1]]
        self.assertEqual(order, once + reversed + once)
        self.assertEqual(started, names * 2)
        self.assertEqual(self.figures("ping.tls"), {"nginx": 3, "mailgate": 3})
        self.assertEqual(self.said[0], "ping 1/3, nginx: plain: 1.500")
        self.assertEqual(self.said[-1], "ping 3/3, mailgate: TLS: 1.500")

    def test_variants(self):
        """A variant is measured only for its own measures, and its figures are in the column of its tree."""
        self.enter("mailgate", "cached")
        self.enter("before")
        self.enter("before", "cached")
        self.bench.turns("login", lambda meter, measure: 1.0, variants=True)
        self.assertEqual(self.figures("login.plain.cached"), {"mailgate": 3, "before": 3})
        self.assertEqual(self.figures("login.plain"), {"nginx": 3, "mailgate": 3, "before": 3})
        self.assertNotIn("login.plain.info", self.results.figures)

    def test_failed(self):
        """A measure that fails for a proxy is left out for it from then on, with the reason; the others are not."""
        tries = []

        def take(meter, measure):
            tries.append(meter.name)
            if (meter.name, measure.key) == ("nginx", "ping.tls"):
                raise BenchmarkError("no\nluck")
            return 1.0

        self.bench.turns("ping", take)
        self.assertEqual(self.results.omitted, ["nginx, ping, TLS: no luck"])
        self.assertEqual(self.figures("ping.tls"), {"mailgate": 3})
        self.assertEqual(self.figures("ping.plain"), {"nginx": 3, "mailgate": 3})
        self.assertEqual(tries.count("nginx"), 4)

    def test_notStarted(self):
        """A proxy that does not start is left out, and the others are measured."""
        start = Direct.start

        def failing(proxy, *arguments):
            if proxy.name == "nginx":
                raise BenchmarkError("bad configuration")
            return start(proxy, *arguments)

        self.patch(Direct, "start", failing)
        self.bench.turns("ping", lambda meter, measure: 1.0)
        self.assertEqual(self.results.omitted, ["nginx: bad configuration"] * 2)
        self.assertEqual(self.figures("ping.tls"), {"mailgate": 3})
        self.bench.measure("growth")
        self.assertEqual(self.results.omitted[2:], ["nginx, growth: bad configuration"])

    def test_growth(self):
        """Logins are measured without sessions, and beside each number of sessions, for mailgate and nginx only."""
        self.enter("HAProxy")
        self.bench.measure("growth")
        self.assertEqual([measure.sessions for measure in self.results.measures], [0, 3, 5])
        self.assertEqual(self.figures("growth.5"), {"nginx": 1, "mailgate": 1})

    def test_worker(self):
        """The resources of a new worker are measured in each repeat, and are in mailgate's column."""
        self.enter("mailgate", "workers")
        self.patch(Meter, "newWorker", lambda meter: (6.5, 9.0))
        self.bench.measure("worker")
        self.assertEqual(self.results.figures["worker.memory"], {"mailgate": [6.5] * 3})
        self.assertEqual(self.results.figures["worker.start"], {"mailgate": [9.0] * 3})

    def test_noWorkers(self):
        """A mailgate without workers has no such figures."""
        self.bench.measure("worker")
        self.assertEqual(self.results.figures, {})

    def test_rate(self):
        """
        Each kind of login has its rate for one and two workers, in turns, with the latencies at half of it. The report
        has what limited it.
        """
        # There is no TLS without a proxy.
        self.patch(groups, "KINDS", (("asked", False, ""), ("cached", False, "cached")))
        self.bench.measure("rate")
        self.assertEqual(self.figures("rate.asked.1"), {"nginx": 3, "mailgate": 3})
        self.assertEqual(self.figures("half.asked.2.p50"), {"nginx": 2, "mailgate": 2})
        self.assertEqual(self.figures("half.asked.1.p999"), {"nginx": 1, "mailgate": 1})
        self.assertNotIn("rate.cached.1", self.results.figures)
        self.assertTrue(self.results.remarks[0].startswith("nginx, plain, asked, 1 worker: limited by the "))
        self.assertEqual(self.results.omitted, [])

    def test_site(self):
        """Sessions are held, fetch, and survive a reload."""
        self.patch(sites, "_BEYOND", 0.1)
        self.bench.measure("site")
        self.assertEqual(self.results.omitted, [])
        self.assertEqual(self.figures("idle.plain.1.p50"), {"nginx": 1, "mailgate": 1})
        self.assertEqual(self.results.figures["reload.plain.1.lost"], {"nginx": [0], "mailgate": [0]})
        self.assertEqual({row.table for row in self.results.measures}, {"idle", "busy", "reload"})
        self.assertEqual({row.sessions for row in self.results.measures}, {6})
