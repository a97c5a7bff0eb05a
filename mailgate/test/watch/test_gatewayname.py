"""Tests for L{mailgate.watch.gatewayname}."""

from __future__ import annotations

import socket

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.service import Gateway
from mailgate.watch.gatewayname import NameSettings

TEXT = """
[mailgate]
{name}
[server imap]
protocol = imap
listen = 127.0.0.1:10143
proxy_pass = 127.0.0.1:11143
"""


class NameTests(SynchronousTestCase):
    """C{gateway_name}."""

    def test_default(self) -> None:
        """Without a name, ids have none, and answers show the name of the host."""
        settings = parse(TEXT.format(name=""))[NameSettings]
        self.assertEqual((settings.name, settings.shown), (None, socket.gethostname().lower()))

    def test_name(self) -> None:
        """Letters, digits and hyphens, at most ten."""
        for name in ("g1", "G-1", "0", "gateway-10"):
            settings = parse(TEXT.format(name=f"gateway_name = {name}"))[NameSettings]
            self.assertEqual((settings.name, settings.shown), (name, name))
        for name in ("g.1", "g 1", "gateway-100", "g\u00e4", "g_1", "\u0661"):
            with self.assertRaisesRegex(ConfigurationError, "must be 1 to 10 letters, digits and hyphens"):
                parse(TEXT.format(name=f"gateway_name = {name}"))

    def test_gateways(self) -> None:
        """A gateway continues the ids of the gateway that it replaces, with its own name."""
        reactor = MemoryReactorClock()
        old = Gateway(parse(TEXT.format(name="gateway_name = g1")), reactor)
        new = Gateway(parse(TEXT.format(name="gateway_name = g2")), reactor, state=old.state)
        first, second = (gateway.factories[0].listener.ids.new() for gateway in (old, new))
        member = old.state.ids.member
        self.assertEqual((first, second), (f"g1.{member}.00", f"g2.{member}.100"))
