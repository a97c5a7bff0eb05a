"""
Tests of L{bench.proxies} and L{bench.otherproxies} that need none of the proxies.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile

from twisted.trial.unittest import SynchronousTestCase

from bench.otherproxies import Dovecot, HAProxy, Nginx, Perdition
from bench.processes import BenchmarkError, Children
from bench.proxies import VARIANTS, MailgateProxy, Proxy, Site, freePorts, search


class Broken(Proxy):
    """A proxy that exits at once."""

    name = "Broken"

    def find(self):
        return None

    def version(self):
        return "Broken 1"

    def commands(self, folder, site, plain, tls):
        return [[sys.executable, "-c", "import sys; sys.exit('bad configuration')"]]


class FindTests(SynchronousTestCase):
    """A missing program is reported as missing."""

    def test_freePorts(self):
        """Free ports differ, and can be bound."""
        ports = freePorts(5)
        self.assertEqual(len(set(ports)), 5)
        for port in ports:
            socket.create_server(("127.0.0.1", port)).close()

    def test_search(self):
        """A missing version is unknown."""
        self.assertEqual(search(r"nginx/(\S+)", "nginx version: nginx/1.22.1\n"), "1.22.1")
        self.assertEqual(search(r"nginx/(\S+)", "command not found"), "unknown")

    def test_missing(self):
        """A program that is not installed is named."""
        for proxy in (HAProxy(), Dovecot(), Perdition()):
            proxy.path = ""
            self.assertEqual(proxy.find(), f"no {proxy.command} is installed here")
        self.assertEqual(Nginx("/nowhere/nginx").find(), "no nginx is installed here")

    def test_names(self):
        """Every variant of mailgate has a name of its own."""
        names = [MailgateProxy("/nowhere", variant).name for variant in VARIANTS]
        self.assertEqual(names[:4], ["mailgate", "mailgate, cached", "mailgate, info", "mailgate, workers"])
        self.assertEqual(len(set(names)), len(VARIANTS))


class StartTests(SynchronousTestCase):
    """L{Proxy.start}."""

    def test_broken(self):
        """A proxy that does not start is an error with its output, and leaves nothing behind."""
        with tempfile.TemporaryDirectory() as folder, Children(folder) as children:
            site = Site(folder, 1, 1, "", "", "", 1024)
            error = self.assertRaises(BenchmarkError, Broken().start, site, children)
        self.assertEqual(str(error), "Broken has ended (1); it said: bad configuration")
        self.assertFalse(os.path.exists(folder))
