"""
Tests of L{bench.measuring}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

import os
import signal

from twisted.trial.unittest import SynchronousTestCase

from bench import measuring
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


class WorkerTests(SynchronousTestCase):
    """L{Meter.newWorker}, with processes that exist in lists only."""

    MASTER, ZYGOTE, OLD, OTHER, NEW = range(1 << 23, (1 << 23) + 5)

    def setUp(self):
        site, children = entered(self, services())
        self.meter = Meter(Direct("direct").start(site, children), AuthCounter(site.authPort))
        self.killed: list[tuple[int, int]] = []
        self.patch(os, "kill", lambda *arguments: self.killed.append(arguments))
        self.patch(measuring, "_PAUSE", 0)

    def appear(self, *moments):
        """The processes of the gateway at one moment after the other; it remains as in the last one."""
        left = list(moments)
        self.patch(measuring, "descendants", lambda pids: left.pop(0) if left[1:] else left[0])

    def test_late(self):
        """The workers are awaited, as is the new one. The newest of the old ones is killed."""
        head = [self.MASTER, self.ZYGOTE]
        self.appear(
            [self.MASTER], head, [*head, self.OLD], [*head, self.OLD, self.OTHER], [*head, self.OLD], [*head, self.NEW]
        )
        self.assertEqual(self.meter.newWorker(), (0, 0))
        self.assertEqual(self.killed, [(self.OTHER, signal.SIGKILL)])

    def test_none(self):
        """Without workers nothing is killed, and the message says what is missing."""
        self.patch(measuring, "_STARTING", 0)
        self.appear([self.MASTER, self.ZYGOTE, self.OLD])
        error = self.assertRaises(BenchmarkError, self.meter.newWorker)
        self.assertEqual(str(error), "direct has started 1 of 2 workers in 0 seconds")
        self.assertEqual(self.killed, [])

    def test_notReplaced(self):
        """If a worker is not replaced, there is no figure."""
        self.patch(measuring, "_STARTING", 0)
        self.appear([self.MASTER, self.ZYGOTE, self.OLD, self.OTHER])
        self.assertRaises(BenchmarkError, self.meter.newWorker)
        self.assertEqual(len(self.killed), 1)
