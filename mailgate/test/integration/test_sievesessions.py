"""
ManageSieve sessions with a gateway in the process of the tests, over both kinds of transports: lists, kicks, numbers
and drains, with the sandbox behind.
"""

from __future__ import annotations

import base64

from twisted.internet.task import deferLater

from mailgate.keeper.filters import Filter
from mailgate.keeper.kick import kick
from mailgate.keeper.sessions import listSessions
from mailgate.sandbox.service import SandboxService
from mailgate.sandbox.settings import SandboxSettings
from mailgate.service import Gateway, ProcessState
from mailgate.test.integration.test_kick import CACHED, OneProcess
from mailgate.test.support.gatewaycase import SANDBOX, GatewayCase
from mailgate.test.support.watching import surveyed

LOGIN = b'AUTHENTICATE "PLAIN" "%b"' % base64.b64encode(b"\0alice\0wonderland")

SIEVE = """
[server sieve]
protocol = sieve
listen = 127.0.0.1:{sieve}
"""


class SieveSessionTests(GatewayCase):
    """Over mailgate's own transports."""

    def setUp(self):
        super().setUp()
        self.make(CACHED + SIEVE + SANDBOX)
        self.start()
        self.keeper = OneProcess(self.gateway)

    def beforeSandbox(self, settings, sockets=None):
        """Like that of all tests here, and watched, as it is with an admin server."""
        gateway = Gateway(settings, self.reactor, sockets=sockets, state=ProcessState.of(self.reactor, isWatched=True))
        SandboxService(settings[SandboxSettings], self.reactor).setServiceParent(gateway)
        return gateway

    async def until(self, condition):
        """Wait for C{condition}; the time limit of the test is the deadline."""
        while not condition():
            await deferLater(self.reactor, 0.01)

    async def greeted(self):
        """A client that has got the greeting."""
        client = await self.client("sieve")
        await client.hears(b'\r\nOK "')
        client.heard = b""
        return client

    async def loggedIn(self):
        client = await self.greeted()
        await client.asks(LOGIN, b'OK "Logged in."\r\n')
        client.heard = b""
        return client

    async def page(self, **filter):
        return (await listSessions(self.keeper, Filter.fromJSON(filter)))["sessions"]

    async def test_list(self):
        """Sessions are listed by their protocol, and counted with its label."""
        relayed = await self.loggedIn()
        await relayed.asks(b"LISTSCRIPTS", b'OK "Scripts listed."\r\n')
        await self.greeted()
        first, second = await self.page(protocol="sieve")
        self.assertEqual((first["protocol"], first["server"], first["phase"]), ("sieve", "sieve", "relay"))
        self.assertEqual((first["user"], first["method"]), ("alice", "plain"))
        self.assertEqual((second["phase"], second["user"]), ("command", ""))
        self.assertEqual(await self.page(protocol="imap"), [])
        watcher = self.keeper.view.watcher
        logins = [pair for pair in watcher.totals()["mailgate_logins"] if pair[1]]
        self.assertEqual(logins, [[["sieve", "plain", "accepted"], 1]])
        gauges = [pair for pair in surveyed(watcher, [self.gateway])["mailgate_sessions"] if pair[1]]
        self.assertCountEqual(gauges, [[["sieve", "relay"], 1], [["sieve", "command"], 1]])

    async def test_kick(self):
        """A kick says BYE before the login, and ends a relay without a byte of its own."""
        relayed, waiting = await self.loggedIn(), await self.greeted()
        answer = await kick(self.keeper, Filter.fromJSON({"protocol": "sieve"}), "password changed", "uid 0")
        self.assertEqual(answer["ended"], 2)
        await relayed.lost
        await waiting.lost
        self.assertEqual(relayed.heard, b"")
        self.assertRegex(waiting.heard, rb'\ABYE \(TRYLATER\) "[^"]+"\r\n\Z')
        await self.until(lambda: not self.gateway.connections)

    async def test_drain(self):
        """A drain says BYE to clients before the login; a relay continues until its client leaves."""
        relayed, waiting = await self.loggedIn(), await self.greeted()
        drained = self.gateway.drain(farewell=True, patience=None)
        await waiting.lost
        self.assertEqual(waiting.heard, b'BYE (TRYLATER) "Gateway is shutting down, closing connection"\r\n')
        await relayed.asks(b'PUTSCRIPT "a" {5+}\r\nkeep;', b'OK "Stored."\r\n')
        self.assertNoResult(drained)
        await relayed.asks(b"LOGOUT", b'OK "Logout completed."\r\n')
        await relayed.lost
        self.assertEqual(await drained, 0)

    async def test_capabilities(self):
        """The gateway announces what the sandbox offers; after the login the client sees the sandbox's own list."""
        client = await self.client("sieve")
        await client.hears(b'\r\nOK "')
        self.assertIn(b'"SIEVE" "fileinto', client.heard)
        self.assertNotIn(b"OWNER", client.heard)
        await client.asks(LOGIN, b'OK "Logged in."\r\n')
        client.heard = b""
        await client.asks(b"CAPABILITY", b'"OWNER" "alice"\r\n')


class SieveSessionOverReactorTests(SieveSessionTests):
    """Over Twisted's transports."""

    use = "reactor"
