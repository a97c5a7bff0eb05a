"""
Tests of L{bench.store} and L{bench.storecalls}.
"""

from __future__ import annotations

import os

from bench.limits import ON
from bench.options import REPOSITORY
from bench.processes import BenchmarkError
from bench.spread import AFTER, BEFORE
from bench.store import _calls, _rows, sides, storeCPU
from bench.test.test_cluster import StoreCase
from mailgate.config import parse
from mailgate.store.settings import StoreSettings


class StoreTests(StoreCase):
    """The parts of the benchmark."""

    def test_sides(self) -> None:
        """Both sides have workers and the same limits; one has the store. The configuration is valid."""
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        before, after = sides("source", folder, "/run/store.sock")
        self.assertEqual((before.name, after.name), (BEFORE, AFTER))
        texts = []
        for side in (before, after):
            process, mail = "\n".join(side.process), "\n".join(side.more)
            self.assertEqual(tuple(side.more), ON)
            server = "[server imap]\nlisten = 127.0.0.1:143\nproxy_pass = imap.example.com:143\n"
            texts.append(parse(f"[mailgate]\n{process}\n[mail]\n{mail}\n{server}"))
        addresses = [settings[StoreSettings].address for settings in texts]
        self.assertIsNone(addresses[0])
        self.assertEqual(str(addresses[1]), "unix:/run/store.sock")

    def test_calls(self) -> None:
        """Questions to the store are timed, in a process of their own."""
        server = self.serve()
        found = _calls(server, 50, REPOSITORY)
        self.assertEqual(set(found), {"time", "cpu", "together"})
        self.assertTrue(all(0 < each < 1e6 for each in found.values()), found)
        server.child.stop()
        self.assertRaises(BenchmarkError, _calls, server, 50, os.path.dirname(REPOSITORY))

    def test_rate(self) -> None:
        """The logins come at the rate that is asked for, if that is low."""
        percent, logins, commands = storeCPU(self.serve(), 100, 0.5)
        self.assertGreater(percent, 0.0)
        self.assertGreater(logins, 10)
        self.assertGreater(commands, 20)

    def test_rows(self) -> None:
        """The table says what the store costs more."""
        times, cpus = {BEFORE: [1000.0], AFTER: [1120.0]}, {BEFORE: [50.0], AFTER: [80.0]}
        rows = _rows(times, cpus, {"time": 80.0, "cpu": 60.0, "together": 20.0}, (20.0, 2000.0, 6000.0))
        self.assertEqual(rows[1][1:], ("120.0", "-", "150"))
        self.assertEqual(rows[2][1:], ("30.0", "-", "40.0"))
