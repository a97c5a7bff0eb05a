"""Tests for L{mailgate.backend.uses}."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend import uses
from mailgate.backend.uses import Uses
from mailgate.config import parse
from mailgate.net.naming import NamingReactor
from mailgate.registry import PROTOCOLS
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

TEXT = """
[mail]
proxy_ssl = on
[server one]
protocol = imap
listen = 127.0.0.1:10143
proxy_pass = 127.0.0.1:993
[server two]
protocol = imap
listen = 127.0.0.1:10144
proxy_pass = 127.0.0.1:993
[server three]
protocol = pop3
listen = 127.0.0.1:10110
proxy_pass = 127.0.0.1:995
"""


class UsesTests(SynchronousTestCase):
    """Tests for L{Uses}."""

    def test_shared(self) -> None:
        """Servers of one protocol with the same directives share their TLS contexts; the order is kept."""
        made: list[str] = []

        def make(settings: BackendTLSSettings, alpn: str) -> BackendContexts:
            made.append(alpn)
            return BackendContexts(settings, alpn)

        self.patch(uses, "BackendContexts", make)
        settings = parse(TEXT)
        naming = NamingReactor(MemoryReactorClock())
        found = Uses(Upstreams(settings, naming), naming)
        for server in settings.servers:
            record = PROTOCOLS[server.protocol]
            use = found.add(server, record.client, record.alpn, record.ports, "gate.test", None)
            self.assertEqual((use.server, use.client, use.serverName), (server, record.client, "gate.test"))
        self.assertEqual([use.server.name for use in found.all], ["one", "two", "three"])
        self.assertEqual(made, ["imap", "pop3"])
