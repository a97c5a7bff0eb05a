"""
Tests of L{bench.compare}, with clients that reach the backend without a proxy.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from bench import compare as module
from bench.compare import COMPARED, Compared, Side, compare
from bench.measuring import Meter
from bench.options import COMPARISONS, REPOSITORY
from bench.processes import BenchmarkError
from bench.proxies import MailgateProxy, Variant
from bench.spread import AFTER, BEFORE
from bench.test.direct import Direct, entered, services


@frozen
class Nothing:
    """A side without a proxy."""

    name: str

    def proxy(self, way):
        return Direct(self.name)


class CompareTests(SynchronousTestCase):
    """L{compare}."""

    def setUp(self):
        self.site, self.children = entered(self, services())
        self.patch(module, "say", lambda text: None)

    def test_turns(self):
        """Both sides take turns, each is first equally often, and both are restarted after some bursts."""
        taken, started = [], []

        def loginCPU(meter, kind, count):
            taken.append((meter.name, kind, count))
            return 2.0 if meter.name == AFTER else 1.0

        start = Direct.start
        self.patch(Meter, "loginCPU", loginCPU)
        self.patch(Direct, "start", lambda proxy, *arguments: started.append(proxy.name) or start(proxy, *arguments))
        sizes = argparse.Namespace(bursts=3, logins=2, renew=2, concurrency=1)
        sides = [Nothing(BEFORE), Nothing(AFTER)]
        row = compare(Compared("some", "plain", Variant()), sides, self.site, self.children, sizes)
        self.assertEqual([name for name, _, _ in taken], [BEFORE, AFTER, AFTER, BEFORE, BEFORE, AFTER])
        self.assertEqual({burst[1:] for burst in taken}, {("plain", 2)})
        self.assertEqual(started, [BEFORE, AFTER] * 2)
        self.assertEqual((row.title, row.ratio, row.pairs), ("some", 2.0, [2.0] * 3))
        self.assertEqual(row.asked, {BEFORE: 0, AFTER: 0})


class SideTests(SynchronousTestCase):
    """L{Side}, and how it runs mailgate."""

    def test_known(self):
        """Every row of the options exists."""
        self.assertEqual(tuple(COMPARED), COMPARISONS)

    def test_lines(self):
        """The lines of one side follow those of the row, in the configuration of that side only."""
        self.patch(MailgateProxy, "find", lambda proxy: None)
        with tempfile.TemporaryDirectory() as folder, services() as (site, _):
            for more in ((), ("max_errors = 7",)):
                side = Side("one", REPOSITORY, ("worker_rlimit_nofile = 512",), more)
                side.proxy(COMPARED["passthrough"].way).commands(folder, site, 1143, 1993)
                with open(os.path.join(folder, "gateway.ini"), encoding="utf-8") as stream:
                    written = stream.read()
                process, mail, *_ = written.split("\n[")
                self.assertIn("worker_rlimit_nofile = 512", process)
                self.assertIn(f"proxy_pass = 127.0.0.1:{site.backendPort}", mail)
                self.assertNotIn("auth_http", written)
                self.assertEqual("max_errors = 7" in mail, bool(more))

    def test_unknown(self):
        """An option that this side's mailgate does not know is named."""
        error = self.assertRaises(BenchmarkError, Side("before", REPOSITORY, (), ("colour = red",)).proxy, Variant())
        self.assertEqual(str(error), "mailgate, before: this mailgate does not know colour")

    def test_location(self):
        """A tree is imported from its own folder; another one, or none, is an error."""
        self.assertEqual(MailgateProxy(REPOSITORY).location(), os.path.realpath(REPOSITORY))
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "mailgate"))
            with open(os.path.join(folder, "mailgate", "__init__.py"), "w", encoding="utf-8") as stream:
                stream.write(f"__path__ = [{os.path.join(REPOSITORY, 'mailgate')!r}]\n__version__ = '0'\n")
            error = self.assertRaises(BenchmarkError, MailgateProxy(folder).location)
            with open(os.path.join(folder, "mailgate", "__init__.py"), "w", encoding="utf-8") as stream:
                stream.write("raise ValueError('broken')\n")
            broken = self.assertRaises(BenchmarkError, MailgateProxy(folder).location)
        self.assertIn(f"imports mailgate from elsewhere: {REPOSITORY}", str(error))
        self.assertIn("ValueError: broken", str(broken))
