"""
Tests of L{bench.clients}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from bench.clients import opened, together
from bench.processes import BenchmarkError
from bench.test.direct import entered, services


class ClientsTests(SynchronousTestCase):
    """L{opened}, L{together} and the commands."""

    def setUp(self):
        site, children = entered(self, services())
        self.clients = entered(self, opened(children, 2))
        together(self.clients, "aim", host="127.0.0.1", port=site.backendPort, tls=False)

    def test_held(self):
        """Sessions grow to a number in each process, are alive, fetch, and can be closed."""
        together(self.clients, "grow", count=3, concurrency=2)
        together(self.clients, "grow", count=5, concurrency=2)
        self.assertEqual(together(self.clients, "count"), [{"alive": 5}] * 2)
        fetched = together(self.clients, "fetch", sessions=4, size=1000, seconds=1)
        self.assertEqual([result["done"] for result in fetched], [4, 4])
        together(self.clients, "close")
        self.assertEqual(together(self.clients, "count"), [{"alive": 0}] * 2)

    def test_saturate(self):
        """Logins are counted, for the given time."""
        for result in together(self.clients, "saturate", seconds=0.1, concurrency=4):
            self.assertGreater(result["done"], 3)
            # It is taken from the first login on, a moment later.
            self.assertGreaterEqual(result["seconds"], 0.05)

    def test_paced(self):
        """There is a latency for each login."""
        for result in together(self.clients, "paced", rate=100.0, count=10):
            self.assertEqual(len(result["latencies"]), 10)
            self.assertGreater(min(result["latencies"]), 0)
            self.assertGreaterEqual(result["late"], 0)

    def test_failed(self):
        """A failed command is an error, and later commands are obeyed."""
        self.clients[0].begin("aim", host="127.0.0.1", port=1, tls=False)
        self.clients[0].finish()
        error = self.assertRaises(BenchmarkError, together, self.clients, "grow", count=1, concurrency=1)
        self.assertIn("Connection refused", str(error))
        self.assertEqual(together(self.clients, "count"), [{"alive": 0}, {"alive": 1}])

    def test_ended(self):
        """The end of a process is an error, with its output."""
        self.clients[0].child.stop()
        self.clients[0].control.settimeout(5)
        error = self.assertRaises(BenchmarkError, self.clients[0].finish)
        self.assertIn("bench.clients has ended", str(error))
