"""
Tests of how a gateway stops and drains.
"""

from __future__ import annotations

import os
import socket
import tempfile

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import formatEvent, globalLogPublisher

from mailgate.net.sockets import ListeningSockets
from mailgate.service import Gateway
from mailgate.test.support.gatewaycase import SANDBOX, TEXT, GatewayCase, settingsFrom
from mailgate.upstream.following import Following


class StopTests(GatewayCase):
    """Stopping a gateway."""

    def test_following(self):
        """A gateway that retires follows no names any more: its sessions may last for days."""
        settings, _ = settingsFrom(TEXT + "[upstream store]\nserver = mail.test:143 resolve\n")
        gateway = Gateway(settings, MemoryReactorClock())
        self.assertEqual([type(service) for service in gateway if isinstance(service, Following)], [Following])
        gateway.drain(farewell=True, patience=None)
        self.assertEqual([service for service in gateway if isinstance(service, Following)], [])

    async def test_ports(self):
        """New clients cannot connect, and each port can be bound again."""
        self.start()
        await self.loggedIn()
        await self.gateway.stopService()
        for name, port in self.ports.items():
            await self.assertRefused(name)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))

    async def test_connections(self):
        """All connections end, in every phase; after the stop there are none."""
        self.start()
        silent, reading = await self.client(), await self.loggedIn()
        midway = await self.client("pop3")
        await midway.asks(b"USER alice", b"+OK\r\n")
        await silent.hears(b"ready\r\n")
        self.assertEqual(len(self.gateway.connections), 3)
        await self.gateway.stopService()
        self.assertEqual(self.gateway.connections, [])
        for client in (silent, reading, midway):
            await client.lost

    async def test_story(self):
        """The log gives the stop of the gateway as the reason of each end."""
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.start()
        await self.loggedIn()
        silent = await self.client()
        await silent.hears(b"ready\r\n")
        await self.gateway.stopService()
        told = [formatEvent(event) for event in events if "outcome" in event]
        self.assertEqual([text for text in told if "outcome gateway stopped" not in text], [])
        self.assertEqual(len(told), 2)

    async def test_unanswered(self):
        """A login whose authentication service never answers does not delay the stop."""
        deaf = self.reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(deaf.stopListening)
        self.make(TEXT.replace("{auth}", str(deaf.getHost().port)))
        self.start()
        client = await self.client()
        await client.hears(b"ready\r\n")
        client.transport.write(b"a LOGIN alice wonderland\r\n")
        while not any(connection.session.user for connection in self.gateway.connections):
            turn = Deferred()
            self.reactor.callLater(0, turn.callback, None)
            await turn
        await self.gateway.stopService()
        await client.lost
        self.assertNotIn(b"a ", client.heard.replace(b"IMAP4 ready", b""))

    async def test_idleOnes(self):
        """Without clients the stop is immediate."""
        self.start()
        await self.gateway.stopService()
        self.assertEqual(self.gateway.connections, [])


class DrainTests(GatewayCase):
    """Draining a gateway."""

    async def test_stopListening(self):
        """New clients cannot connect; connected clients continue, and may log in."""
        self.start()
        client, reading = await self.client(), await self.loggedIn()
        await client.hears(b"ready\r\n")
        await self.gateway.stopListening()
        await self.assertRefused("imap")
        await client.asks(b"a LOGIN alice wonderland", b"\r\na OK")
        await reading.asks(b"b NOOP", b"b OK")

    async def test_drain(self):
        """The drain ends with the last session, and none is cut."""
        self.start()
        silent, reading = await self.client("pop3"), await self.loggedIn()
        await silent.hears(b"ready\r\n")
        drained = self.gateway.drain(farewell=True, patience=None)
        await silent.hears(b"-ERR [SYS/TEMP] Gateway is shutting down, closing connection\r\n")
        await silent.lost
        await reading.asks(b"b NOOP", b"b OK")
        self.assertNoResult(drained)
        reading.transport.loseConnection()
        self.assertEqual(await drained, 0)
        self.assertEqual((self.gateway.connections, self.gateway.cut), ([], 0))

    async def test_cut(self):
        """Sessions that exceed the time are ended and counted."""
        self.start()
        clients = [await self.loggedIn() for _ in range(3)]
        self.assertEqual(await self.gateway.drain(farewell=False, patience=0.05, pace=0.2), 3)
        for client in clients:
            await client.lost
        self.assertEqual(self.gateway.cut, 3)

    async def test_sockets(self):
        """Sockets that were passed in stay open, and later clients are served by the next gateway."""
        path = os.path.join(tempfile.mkdtemp(), "imap.sock")
        self.addCleanup(os.rmdir, os.path.dirname(path))
        self.make(TEXT.replace("127.0.0.1:{other}", f"unix:{path}") + SANDBOX)
        sockets = ListeningSockets().opened(self.gateway.settings.servers)
        self.addCleanup(sockets.close)
        waiting = []
        for _ in range(3):
            self.gateway = self.beforeSandbox(self.gateway.settings, sockets)
            self.gateway.privilegedStartService()
            self.gateway.startService()
            for client in waiting:
                await client.hears(b"* OK IMAP4 ready\r\n")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
            await self.loggedIn()
            await self.gateway.stopService()
            waiting = [await self.client()]
            self.assertEqual(waiting[0].heard, b"")


class DrainOverReactorTests(DrainTests):
    """The same with the reactor's own transports."""

    use = "reactor"


class StopOverReactorTests(StopTests):
    """The same with the reactor's own transports."""

    use = "reactor"
