"""
Tests of L{bench.program}.
"""

from __future__ import annotations

import signal
import socket

from twisted.trial.unittest import SynchronousTestCase

from bench import program
from bench.processes import BenchmarkError
from bench.program import caption, conclude, machine, openSite, revision


class ConcludeTests(SynchronousTestCase):
    """L{conclude}."""

    def setUp(self):
        self.said = []
        self.patch(program, "say", self.said.append)
        self.addCleanup(signal.signal, signal.SIGTERM, signal.getsignal(signal.SIGTERM))

    def status(self, error=None):
        def work():
            if error is not None:
                raise error

        return conclude(work)

    def test_status(self):
        """Success is 0; an error is printed; Control-C is 130, as in shells."""
        self.assertEqual((self.status(), self.said), (0, []))
        self.assertEqual((self.status(BenchmarkError("no luck")), self.said), (1, ["given up: no luck"]))
        self.assertEqual(self.status(KeyboardInterrupt()), 130)


class SiteTests(SynchronousTestCase):
    """L{openSite}, L{revision} and L{machine}."""

    def test_capabilities(self):
        """The backend's greeting has the given capabilities; the services have different ports."""
        with openSite(64, "IMAP4rev1 SPECIAL") as (site, _):
            with socket.create_connection(("127.0.0.1", site.backendPort), timeout=10) as connection:
                self.assertEqual(connection.recv(100), b"* OK [CAPABILITY IMAP4rev1 SPECIAL] ready\r\n")
            self.assertNotEqual(site.authPort, site.backendPort)

    def test_facts(self):
        """The machine has a name; a folder without git has no revision."""
        self.assertEqual([name for name, _ in machine()], ["machine", "kernel"])
        self.assertEqual(revision("/nowhere"), "unknown")
        self.assertEqual(
            caption([("machine", "Fast, 2 cores"), ("kernel", "Linux 9, x86_64")]), "Fast, 2 cores, Linux 9"
        )

    def test_backends(self):
        """The authentication service names several backends in turns."""
        with openSite(64, backends=2) as (site, _):
            self.assertEqual(len(set(site.backendPorts)), 2)
            named = []
            for _ in range(4):
                with socket.create_connection(("127.0.0.1", site.authPort), timeout=10) as connection:
                    connection.sendall(b"GET /auth HTTP/1.0\r\n\r\n")
                    answer = connection.recv(1000)
                named.append(int(answer.partition(b"Auth-Port: ")[2].split()[0]))
            self.assertEqual(named, [*site.backendPorts] * 2)
