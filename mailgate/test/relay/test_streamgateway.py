"""
Tests for L{mailgate.relay.stream} in a whole gateway.
"""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from types import CoroutineType
from typing import Any

from OpenSSL import SSL
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import TestCase

from mailgate.backend.coroutine import Task
from mailgate.config import parse
from mailgate.frontend.loginflow import Login
from mailgate.lean.tls import TLSLayer
from mailgate.lean.transport import StreamTransport
from mailgate.login import Client, Credentials, LoginRequest
from mailgate.protocols.imap4.command import CommandParser
from mailgate.registry import PROTOCOLS
from mailgate.relay.stream import StreamRelay
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.talk import Talk
from mailgate.test.support.tlspair import makePair


class Backend(Protocol):
    """An IMAP server that replies OK to everything."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.write(b"* OK ready\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"".join(line.split(b" ")[0] + b" OK\r\n" for line in data.splitlines()))


GATEWAY = """
[mail]
server_name = mx.test
proxy_pass = 127.0.0.1:{backend}
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
[server imap]
protocol = imap
listen =
    127.0.0.1:{plain}
    127.0.0.1:{ssl} ssl
"""


class GatewayTests(TestCase):
    """Sessions of a whole gateway on the real reactor."""

    timeout = 30

    reactor: Any
    gateway: Any
    port: Any
    clients: list[Talk]

    def setUp(self):
        from twisted.internet import reactor

        self.reactor = reactor
        folder = self.mktemp()
        os.mkdir(folder)
        pair = makePair(folder, "gateway")
        self.port = self.reactor.listenTCP(0, Factory.forProtocol(Backend), interface="127.0.0.1")
        self.ports = {"plain": freePort(), "ssl": freePort()}
        settings = parse(GATEWAY.format(backend=self.port.getHost().port, pair=pair, **self.ports))
        self.gateway = Gateway(settings, reactor)
        self.gateway.privilegedStartService()
        self.gateway.startService()
        self.clients = []

    async def tearDown(self) -> None:  # type: ignore[override]
        """Stopping the gateway closes every client."""
        await self.gateway.stopService()
        for client in self.clients:
            await client.lost
        await self.port.stopListening()

    async def loggedIn(self, name: str) -> Talk:
        """A client with a proxied session."""
        endpoint: Any = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.ports[name])
        if name == "ssl":
            endpoint = wrapClientTLS(CertificateOptions(), endpoint)
        client: Talk = await endpoint.connect(Factory.forProtocol(Talk))
        self.clients.append(client)
        await client.hears(b"ready\r\n")
        await client.asks(b"a LOGIN alice wonderland", b"a OK")
        return client

    def alive(self) -> Counter[type]:
        """The number of living objects of the classes of the dialogue and the login."""
        protocol = PROTOCOLS["imap"]
        kinds = (
            *(protocol.server, protocol.client, StreamTransport, TLSLayer, SSL.Connection),
            *(Login, Task, CoroutineType, LoginRequest, Client, Credentials, CommandParser),
        )
        return Counter(type(each) for each in gc.get_objects() if type(each) in kinds)

    async def test_dialogue(self) -> None:
        """While clients are logged in, the dialogues are freed, without garbage collection."""
        for name in ("plain", "ssl"):
            await self.loggedIn(name)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for name, own in (("plain", {}), ("ssl", {SSL.Connection: 1})):
            before = self.alive()
            client = await self.loggedIn(name)
            await client.asks(b"b NOOP", b"b OK")
            self.assertEqual(self.alive() - before, Counter(own))
            self.assertEqual({type(each) for each in self.gateway.connections}, {StreamRelay})

    async def test_memory(self) -> None:
        """An idle session takes less than 770 bytes, besides its places in two sets and a list."""
        await self.loggedIn("plain")
        (relay,) = self.gateway.connections
        session = relay.session
        own = [relay, relay._client, relay._backend, session, session.client, session.user, session.started]
        own += [session.number]
        # What it counts for in limits is the name of the user.
        self.assertIs(session.counted, session.user)
        own += [relay.tick, relay.active, *(number for end in own[1:3] for number in (end.fd, end.moved))]
        self.assertLess(sum(map(sys.getsizeof, own)), 770)
        # Sessions share equal values.
        await self.loggedIn("plain")
        one, other = self.gateway.connections
        for name in ("listener", "backend"):
            self.assertIs(getattr(one.session, name), getattr(other.session, name), name)
        for name in ("terms", "_limit"):
            self.assertIs(getattr(one, name), getattr(other, name), name)
