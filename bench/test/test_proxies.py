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
from bench.proxies import VARIANTS, MailgateProxy, Proxy, Running, Site, freePorts, search


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


class ScaledTests(SynchronousTestCase):
    """Numbers of workers, and reloads."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.site = Site(self.folder, 1001, 1002, "c", "k", "b", 1024)

    def configuration(self, proxy, name, site=None):
        proxy.commands(self.folder, site or self.site, 1, 2)
        with open(os.path.join(self.folder, name), encoding="utf-8") as stream:
            return stream.read()

    def test_workers(self):
        """Every proxy that can be scaled has the given number of workers."""
        nginx = Nginx("/bin/false").scaled(2, self.site)
        self.assertIn("worker_processes 2;", self.configuration(nginx, "nginx.conf"))
        mailgate = MailgateProxy("/nowhere", "cached").scaled(2, self.site)
        text = self.configuration(mailgate, "gateway.ini")
        self.assertIn("worker_processes = 2", text)
        self.assertIn("auth_cache_ttl", text)
        self.assertFalse(mailgate.asksAuth)
        self.assertIsNone(Dovecot().scaled(2, self.site))

    def test_threads(self):
        """HAProxy has threads, or processes where one lacks descriptors; with several backends it uses all."""
        self.assertIn("nbthread 2", self.configuration(HAProxy().scaled(2, self.site), "haproxy.cfg"))
        wide = Site(self.folder, 1001, 1002, "c", "k", "b", 1024, morePorts=(1003,))
        proxy = HAProxy().scaled(2, wide)
        text = self.configuration(proxy, "haproxy.cfg", wide)
        for part in ("nbthread 1", "127.0.0.1:1001", "127.0.0.1:1003"):
            self.assertIn(part, text)
        self.assertEqual(len(proxy.commands(self.folder, wide, 1, 2)), 2)

    def test_reload(self):
        """A reload writes the new configuration, and tells the running process."""
        waits = "import signal, time\nsignal.signal(signal.SIGHUP, lambda *_: (print('again', flush=True), exit(0)))\n"
        with Children(self.folder) as children:
            child = children.start("one", [sys.executable, "-c", f"{waits}print('up', flush=True)\ntime.sleep(20)"])
            while "up" not in child.said():
                child.check()
            running = Running(MailgateProxy("/nowhere"), children, [child], ("", 1), ("", 2), self.folder)
            running.reload(Site(self.folder, 1001, 1009, "c", "k", "b", 1024))
            child.process.wait(20)
            self.assertIn("again", child.said())
        with open(os.path.join(self.folder, "gateway.ini"), encoding="utf-8") as stream:
            self.assertIn("127.0.0.1:1009/auth", stream.read())


class StartTests(SynchronousTestCase):
    """L{Proxy.start}."""

    def test_broken(self):
        """A proxy that does not start is an error with its output, and leaves nothing behind."""
        with tempfile.TemporaryDirectory() as folder, Children(folder) as children:
            site = Site(folder, 1, 1, "", "", "", 1024)
            error = self.assertRaises(BenchmarkError, Broken().start, site, children)
        self.assertEqual(str(error), "Broken has ended (1); it said: bad configuration")
        self.assertFalse(os.path.exists(folder))
