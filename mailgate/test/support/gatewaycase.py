"""
A gateway with the sandbox as its backends, in the process of the tests.
"""

from __future__ import annotations

import os

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailgate.config import GatewaySettings, parse
from mailgate.interfaces import IConnection
from mailgate.sandbox.certificate import withCertificate
from mailgate.sandbox.service import SandboxService
from mailgate.sandbox.settings import SandboxSettings
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.integration.transports import withTransports
from mailgate.test.support.talk import Talk
from mailgate.testing.fakes import makeSession

__all__ = ["SANDBOX", "TEXT", "GatewayCase", "Stuck", "settingsFrom"]

TEXT = """
[mailgate]
error_log = stderr info
[mail]
server_name = mx.test
auth_http = http://127.0.0.1:{auth}/auth
[server imap]
protocol = imap
listen =
    127.0.0.1:{imap}
    127.0.0.1:{other}
[server pop3]
protocol = pop3
listen = 127.0.0.1:{pop3}
"""

SANDBOX = """
[sandbox]
imap = 127.0.0.1:0
pop3 = 127.0.0.1:0
smtp = 127.0.0.1:0
sieve = 127.0.0.1:0
auth_http = 127.0.0.1:{auth}
"""


def settingsFrom(text: str) -> tuple[GatewaySettings, dict[str, int]]:
    """Return the settings of C{text}, and the free ports of 127.0.0.1 that were inserted, by name."""
    ports = {name: freePort() for name in ("imap", "other", "pop3", "sieve", "auth")}
    return parse(text.format(**ports)), ports


class GatewayCase(TestCase):
    """
    A gateway with the sandbox, over the transports that C{use} names. Trial checks that nothing is left on the reactor.
    """

    timeout = 30
    use = "epoll"

    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        # Without this the user's own demo certificate is replaced, and a running demo presents another one.
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": os.path.abspath(self.mktemp())})
        self.make(TEXT + SANDBOX)

    def make(self, text):
        """Make a gateway with the configuration C{text}."""
        settings, self.ports = settingsFrom(withTransports(text, self.use))
        self.gateway = self.beforeSandbox(withCertificate(settings, self.mktemp(), lambda server: "mx.test"))

    def beforeSandbox(self, settings, sockets=None):
        """Return a gateway with C{settings}. If they have a sandbox, it starts and stops with the gateway."""
        gateway = Gateway(settings, self.reactor, sockets=sockets)
        sandbox = settings.find(SandboxSettings)
        if sandbox is not None:
            SandboxService(sandbox, self.reactor).setServiceParent(gateway)
        return gateway

    def start(self):
        """Start the gateway as twistd does. It is stopped at the end of the test."""
        self.gateway.privilegedStartService()
        self.gateway.startService()
        self.addCleanup(self.stop)

    def stop(self):
        return self.gateway.stopService() if self.gateway.running else None

    async def client(self, name="imap"):
        """Connect a client to the server C{name}."""
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.ports[name])
        client = await endpoint.connect(Factory.forProtocol(Talk))
        self.addCleanup(client.transport.abortConnection)
        return client

    async def loggedIn(self):
        """Return a client that has logged in."""
        client = await self.client()
        await client.hears(b"* OK IMAP4 ready\r\n")
        await client.asks(b"a LOGIN alice wonderland", b"\r\na OK")
        return client

    async def assertRefused(self, name):
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.ports[name])
        await self.assertFailure(endpoint.connect(Factory.forProtocol(Talk)), ConnectionRefusedError)


@implementer(IConnection)
class Stuck:
    """A connection that does not end."""

    stopped = dismissed = 0

    def __init__(self):
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.1:1", 0.0)

    def dismiss(self, outcome, trouble):
        self.dismissed += 1
        self.session.conclude(outcome)

    def stop(self):
        self.stopped += 1

    def limit(self, moment):
        self.session.expires = moment
