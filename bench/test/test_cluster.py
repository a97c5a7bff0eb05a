"""
Tests of L{bench.cluster} and L{bench.storeserver}.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from unittest import SkipTest

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from bench.cluster import BEATS, Flow, Population, Simulation, _fits, _report, flow
from bench.options import clustering
from bench.processes import BenchmarkError, Children
from bench.proxies import SEARCH
from bench.storeserver import Server, serve

LITTLE = Population(3, 600, minutes=1.0)


class StoreCase(SynchronousTestCase):
    """A store."""

    def serve(self) -> Server:
        if not any(shutil.which(name, path=SEARCH) for name in ("valkey-server", "redis-server")):
            raise SkipTest("needs redis-server")
        folder = tempfile.mkdtemp(prefix="bench-")
        self.addCleanup(shutil.rmtree, folder)
        children = Children(folder)
        self.addCleanup(children.__exit__, None, None, None)
        return serve(folder, children)


class FlowTests(SynchronousTestCase):
    """L{flow}."""

    def test_logins(self) -> None:
        """As many sessions begin as end. Each login is a question, a success, and is told in a beat."""
        found = flow(LITTLE)
        self.assertEqual((found.successes, found.checks, found.places), (10.0, 10.2, 20.0))
        self.assertAlmostEqual(found.beats, 20.0 + 300 / 1800)

    def test_beats(self) -> None:
        """A gateway with little to tell beats every 15 seconds, one with much ten times a second."""
        self.assertAlmostEqual(flow(evolve(LITTLE, sessions=3, minutes=1e6)).beats, 3 / 15)
        self.assertEqual(flow(Population()).beats, 50 * BEATS)

    def test_places(self) -> None:
        """Without C{sticky} there are none."""
        self.assertEqual(flow(evolve(LITTLE, isSticky=False)).places, 0.0)


class SimulationTests(StoreCase):
    """L{Simulation} with a real server."""

    def test_filled(self) -> None:
        """The store has what the gateways have told, and everything has an end."""
        direct = self.serve().connect()
        simulation = Simulation(LITTLE, direct)
        for work in (simulation.sessions, simulation.counts, simulation.places, simulation.known):
            work()
        simulation.failures(5)
        simulation.blocks(5)
        found = self.successResultOf(simulation.store.gateways())
        self.assertEqual(set(found), {"g0", "g1", "g2"})
        self.assertEqual(len(self.successResultOf(simulation.store.sessionsAt("g0", 1000))), 200)
        self.assertEqual(self.successResultOf(simulation.store.sessionsOf(simulation.user(0))), {"g0": 2})
        calls = direct.calls
        simulation.second(Flow(10.0, 2.0, 10.0, 20.0, 3.0))
        self.assertGreater(direct.calls - calls, 30)
        keys = direct.ask("KEYS", "*")
        self.assertGreater(len(keys), 1000)
        self.assertEqual([key for key in keys if direct.ask("PTTL", key) == -1], [])

    def test_error(self) -> None:
        """An error of the store ends the benchmark."""
        direct = self.serve().connect()
        self.assertRaises(BenchmarkError, direct.ask, "NOCOMMAND")

    def test_tooMany(self) -> None:
        """More sessions than the memory has room for are refused."""
        error = self.assertRaises(BenchmarkError, _fits, evolve(LITTLE, sessions=10**12), 500.0)
        self.assertIn("take fewer (--sessions)", str(error))
        _fits(LITTLE, 500.0)

    def test_report(self) -> None:
        """The whole report, with few sessions."""
        self.serve()
        text = _report(
            clustering().parse_args(["--sessions", "2000", "--pairs", "10", "--blocks", "2", "--seconds", "1"])
        )
        self.assertIn("session (r)", text)
        self.assertIn("commands a second", text)
        self.assertNotIn(os.sep + "tmp", text)
