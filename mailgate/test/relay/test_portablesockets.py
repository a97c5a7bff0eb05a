"""
Tests for L{mailgate.relay.portable} over sockets.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailgate.relay.portable import Relays
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.terms import Terms
from mailgate.session import Outcome
from mailgate.test.support.tlspair import makePair, settingsFor
from mailgate.testing.fakes import makeSession
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.server import ServerTLS


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class End(Protocol):
    """
    A client of the gateway, or a backend, over TLS if it has a C{contextFactory}. C{ready} fires when it is connected,
    C{gone} when its connection is closed. At the end of file it calls C{onEnd} and closes.
    """

    transport: Any

    def __init__(self, contextFactory: Any = None) -> None:
        self.contextFactory = contextFactory
        self.received = bytearray()
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[Any] = Deferred()
        self.ended = False
        self.onEnd: Any = None
        self._wanted = 0
        self._waiting: Deferred[None] | None = None

    def connectionMade(self) -> None:
        if self.contextFactory is None:
            self.ready.callback(None)
        else:
            self.transport.startTLS(self.contextFactory)

    def handshakeCompleted(self) -> None:
        self.ready.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._waiting is not None and len(self.received) >= self._wanted:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def until(self, octets: int) -> Deferred[None]:
        """Fires when C{octets} bytes have arrived."""
        self._wanted, self._waiting = octets, Deferred()
        return self._waiting

    def readConnectionLost(self) -> None:
        self.ended = True
        if self.onEnd is not None:
            self.onEnd()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(reason.value)


@implementer(IHandshakeListener)
class Near(RelayedProtocol):
    """The gateway's side of each connection."""

    def __init__(self, contextFactory: Any = None) -> None:
        self.contextFactory = contextFactory
        self.ready: Deferred[None] = Deferred()

    connectionMade = End.connectionMade
    handshakeCompleted = End.handshakeCompleted


@implementer(IPushProducer)
class Watched:
    """A producer that reports when it is paused first."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer
        self.paused: Deferred[None] = Deferred()

    def pauseProducing(self) -> None:
        self._producer.pauseProducing()
        if not self.paused.called:
            self.paused.callback(None)

    def resumeProducing(self) -> None:
        self._producer.resumeProducing()

    def stopProducing(self) -> None:
        self._producer.stopProducing()


@implementer(IPushProducer)
class Torrent:
    """Sends C{total} bytes to C{transport} as fast as it takes them, and then calls C{done}."""

    CHUNK = bytes(range(256)) * 64

    def __init__(self, transport: Any, total: int, done: Any) -> None:
        self._transport = transport
        self._left = total
        self._done = done
        self._paused = False
        self._running = False
        transport.registerProducer(self, True)
        self.resumeProducing()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self._running:
            return
        self._running = True
        while self._left and not self._paused:
            chunk = self.CHUNK[: self._left]
            self._left -= len(chunk)
            self._transport.write(chunk)
        self._running = False
        if not self._left:
            self._left = 0
            self._transport.unregisterProducer()
            done, self._done = self._done, lambda: None
            done()

    def stopProducing(self) -> None:
        self._paused = True

    @classmethod
    def content(cls, total: int) -> bytes:
        """The C{total} bytes that it sends."""
        return (cls.CHUNK * (total // len(cls.CHUNK) + 1))[:total]


class SocketTests(TestCase):
    """A relay between a client and a backend on loopback sockets."""

    timeout = 60
    MANY = 10 * 1024 * 1024

    async def start(self, tls: bool = False, small: bool = False) -> None:
        """Connect client, gateway and backend, with small socket buffers towards the client if C{small}."""
        from twisted.internet import reactor

        self.reactor: Any = reactor
        clientSide = backendSide = serverTLS = None
        if tls:
            folder = self.mktemp()
            os.mkdir(folder)
            pair = makePair(folder, "loopback")
            trust = loadTrust(pair.certificate)
            serverTLS = ServerTLS(settingsFor(pair), "imap")
            clientSide, backendSide = backendTLS("localhost", True, trust), backendTLS("127.0.0.1", True, trust)
        self.client, self.backend = End(clientSide), End(serverTLS)
        self.near, self.far = Near(serverTLS), Near(backendSide)
        await self._connect(self.far, self.backend)
        await self._connect(self.client, self.near, small)
        self.session = makeSession("imap", "", "", 0.0)
        self.done: Deferred[None] = Deferred()
        relays = Relays(self.reactor)
        terms = Terms(relays, 50.0, 50.0, lambda relay: self.done.callback(None))
        self.relay = relays.between(self.near, self.far, self.session, terms)
        self.addCleanup(self._stop)

    async def _connect(self, client: Any, server: Any, small: bool = False) -> None:
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(_Single(server))
        if small:
            # Accepted sockets inherit the option.
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        # An endpoint would wrap the protocol.
        self.reactor.connectTCP("127.0.0.1", port.getHost().port, _Single(client))
        await DeferredList([client.ready, server.ready], fireOnOneErrback=True)
        if small:
            client.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        await port.stopListening()

    def _stop(self) -> Deferred[Any]:
        for protocol in (self.client, self.backend, self.near, self.far):
            if protocol.transport is not None:
                protocol.transport.abortConnection()
        return DeferredList([self.client.gone, self.backend.gone, self.done])

    async def test_halfClose(self) -> None:
        """The answer to a client that has sent its end of file arrives complete, and then the end."""
        await self.start()
        self.relay.start(b"", b"")
        answered = self.client.until(1000000)
        self.backend.onEnd = lambda: (
            self.backend.transport.write(b"x" * 1000000),
            self.backend.transport.loseConnection(),
        )
        self.client.transport.write(b"a9 FETCH 1 BODY[]\r\n")
        self.client.transport.loseWriteConnection()
        await answered
        await self.done
        self.assertEqual(self.backend.received, b"a9 FETCH 1 BODY[]\r\n")
        self.assertEqual(len(self.client.received), 1000000)
        await self.client.gone
        self.assertTrue(self.client.ended)
        self.assertEqual((self.session.received, self.session.sent), (19, 1000000))
        self.assertIs(self.session.outcome, Outcome.RELAYED)

    async def test_backendEndsFirst(self) -> None:
        """A backend that has sent its end of file still receives the client's bytes."""
        await self.start()
        self.relay.start(b"", b"")
        heard = self.backend.until(4)
        self.client.onEnd = lambda: (self.client.transport.write(b"bye!"), self.client.transport.loseConnection())
        self.backend.transport.loseWriteConnection()
        await heard
        await self.done
        self.assertEqual(self.backend.received, b"bye!")

    async def test_stuckReceiver(self) -> None:
        """A client that does not read pauses the backend. When it reads, it receives everything."""
        await self.start(small=True)
        self.client.transport.pauseProducing()
        self.relay.start(b"", b"")
        watched = Watched(self.far.transport)
        self.near.transport.unregisterProducer()
        self.near.transport.registerProducer(watched, True)
        arrived = self.client.until(self.MANY)
        Torrent(self.backend.transport, self.MANY, lambda: None)
        await watched.paused
        end: Any = self.far._successor
        taken = end.moved
        for _ in range(50):
            await deferLater(self.reactor, 0)
        self.assertEqual(end.moved, taken)
        self.assertLess(taken, 1024 * 1024)
        self.client.transport.resumeProducing()
        await arrived
        self.assertEqual(self.client.received, Torrent.content(self.MANY))

    async def test_stuckForEver(self) -> None:
        """A relay with a client that never reads can be aborted."""
        await self.start(small=True)
        self.client.transport.pauseProducing()
        self.relay.start(b"", b"")
        watched = Watched(self.far.transport)
        self.near.transport.unregisterProducer()
        self.near.transport.registerProducer(watched, True)
        Torrent(self.backend.transport, self.MANY, lambda: None)
        await watched.paused
        self.relay.abort()
        await self.done
        await self.backend.gone

    async def everything(self, tls: bool) -> None:
        """Send many bytes each way at the same time, and then both ends of file."""
        await self.start(tls)
        self.relay.start(b"first ", b"early ")
        arrived = [each.until(self.MANY + 6) for each in (self.client, self.backend)]
        for each in (self.client, self.backend):
            Torrent(each.transport, self.MANY, lambda: None)
        await DeferredList(arrived, fireOnOneErrback=True)
        content = Torrent.content(self.MANY)
        self.assertEqual(self.client.received, b"first " + content)
        self.assertEqual(self.backend.received, b"early " + content)
        self.client.transport.loseConnection()
        await self.backend.gone
        await self.done
        self.assertEqual((self.session.received, self.session.sent), (self.MANY + 6, self.MANY + 6))

    async def test_plain(self) -> None:
        """Ten megabytes each way arrive unchanged."""
        await self.everything(tls=False)

    async def test_TLS(self) -> None:
        """The same over TLS on both sides."""
        await self.everything(tls=True)

    async def test_lastWordsOverTLS(self) -> None:
        """Bytes that a side sends right before it closes arrive over TLS, in both directions."""
        for first in ("client", "backend"):
            await self.start(tls=True)
            self.relay.start(b"", b"")
            speaker, listener = self.client, self.backend
            if first == "backend":
                speaker, listener = listener, speaker
            arrived = listener.until(self.MANY)
            Torrent(speaker.transport, self.MANY, speaker.transport.loseConnection)
            await arrived
            await self.done
            await listener.gone
            self.assertEqual(listener.received, Torrent.content(self.MANY))


class _Single(ClientFactory):
    """Makes, or accepts, one connection."""

    noisy = False

    def __init__(self, server: Any) -> None:
        self._server = server

    def buildProtocol(self, addr: Any) -> Any:
        return self._server
