"""
Tests for L{mailgate.sandbox.demo}.
"""

from __future__ import annotations

import io
import sys

from twisted.internet.error import CannotListenError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.sandbox.demo import Demo

TEXT = """[mail]
proxy_pass = 10.0.0.1:143
[server imap]
listen = 127.0.0.1:1143
protocol = imap
[sandbox]
imap = 127.0.0.1:7143
smtp = 127.0.0.1:7025
"""


class Reactor(MemoryReactorClock):
    """A reactor with C{taken} ports that cannot be bound."""

    taken = ()

    def listenTCP(self, port, factory, backlog=50, interface=""):
        if port in self.taken:
            raise CannotListenError(interface, port, OSError(98, "Address already in use"))
        return super().listenTCP(port, factory, backlog, interface)


class DemoTests(SynchronousTestCase):
    """Tests for L{Demo}."""

    def setUp(self):
        self.stdout = io.StringIO()
        self.patch(sys, "__stdout__", self.stdout)
        self.reactor = Reactor()
        self.demo = Demo(parse(TEXT, "x.ini"), self.reactor)

    def ports(self):
        return [port for port, *_ in self.reactor.tcpServers]

    def test_binds(self):
        """Its servers are bound to the configured addresses, once; the welcome is printed when the reactor runs."""
        self.assertEqual(self.ports(), [])
        self.demo.privilegedStartService()
        self.assertEqual(sorted(self.ports()), [7025, 7143, 10080, 10110, 14190])
        self.demo.startService()
        self.assertEqual(len(self.ports()), 5)
        self.assertEqual(self.stdout.getvalue(), "")
        self.reactor.run()
        self.assertIn("127.0.0.1:1143", self.stdout.getvalue())
        self.assertIn("alice", self.stdout.getvalue())
        self.successResultOf(self.demo.stopService())

    def test_taken(self):
        """An address in use is a problem of its option, with its line, however the service is started."""
        self.reactor.taken = (7025,)
        for start in (self.demo.privilegedStartService, self.demo.startService):
            error = self.assertRaises(ConfigurationError, start)
            self.assertEqual(
                str(error), "x.ini:8: [sandbox] smtp = 127.0.0.1:7025: cannot be bound: Address already in use"
            )

    def test_default(self):
        """So is a default address, with the line of its section."""
        self.reactor.taken = (10080,)
        error = self.assertRaises(ConfigurationError, self.demo.privilegedStartService)
        self.assertTrue(str(error).startswith("x.ini:6: [sandbox] auth_http = 127.0.0.1:10080: cannot be"), error)
