"""
Tests of L{bench.store} and L{bench.storecalls}.
"""

from __future__ import annotations

import os

from bench.limits import ON
from bench.options import REPOSITORY
from bench.processes import BenchmarkError
from bench.spread import AFTER, BEFORE
from bench.store import AGAIN, FIRST, STAYING, _calls, _Found, _rows, sides, storeCPU
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
        self.assertEqual(set(found), {"time", "cpu", "together", "known"})
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
        found = _Found()
        for kind, more in ((AGAIN, 30.0), (STAYING, 40.0), (FIRST, 90.0)):
            found.add(kind, BEFORE, [1.0, 1.0, 5.0], 50.0)
            found.add(kind, AFTER, [1.0 + more / 1000] * 3, 50.0 + more)
        calls = {"time": 80.0, "cpu": 60.0, "together": 20.0, "known": 5.0}
        rows = _rows(found, calls, (20.0, 2000.0, 6000.0))
        self.assertEqual(rows[1][1:], ("30.0", "-", "150"))
        self.assertEqual([row[1] for row in rows[2:6]], ["90.0", "30.0", "40.0", "90.0"])
        self.assertEqual(rows[3][1:], ("30.0", "-", "40.0"))
        self.assertEqual(found.latest(AGAIN), "before 1000 and 50 us, after 1030 and 80 us")
