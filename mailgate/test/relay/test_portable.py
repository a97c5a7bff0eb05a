"""
Tests for L{mailgate.relay.portable}: over fake transports what it asks of them, over sockets what it comes to.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer, ISSLTransport
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import alsoProvides, implementer
from zope.interface.verify import verifyObject

from mailgate.relay.base import HELD
from mailgate.relay.portable import Relay, Relays
from mailgate.relay.protocol import RelayedProtocol, makeNoDelay
from mailgate.session import Outcome, Session
from mailgate.test.support.relaytransport import RelayTransport
from mailgate.test.support.tlspair import makePair, settingsFor
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.server import ServerTLS

IDLE = 100.0
LINGER = 10.0


class Listening(RelayedProtocol):
    """A dialogue that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def dialogueReceived(self, data: bytes) -> None:
        self.told.append(data)

    def dialogueEnded(self) -> None:
        self.told.append("ended")

    def dialogueLost(self, reason: Failure) -> None:
        self.told.append("lost")


class Relayed:
    """A relay between two fake connections, under way."""

    def __init__(
        self,
        toClient: bytes = b"",
        toBackend: bytes = b"",
        idle: float = IDLE,
        linger: float = LINGER,
        tls: bool = False,
        backendTLS: bool = False,
    ) -> None:
        self.clock = Clock()
        self.session = Session("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        self.done = 0
        self.client, self.backend = RelayTransport(), RelayTransport()
        for side in (self.client, self.backend):
            if tls or (backendTLS and side is self.backend):
                alsoProvides(side, ISSLTransport)
            side.connect(Listening())
        self.relay = Relay(
            Relays(self.clock), self.client.protocol, self.backend.protocol, self.session, idle, linger, self._finished
        )
        self.relay.start(toClient, toBackend)

    def _finished(self, relay: Relay) -> None:
        self.done += 1

    def hear(self, side: RelayTransport) -> bytes:
        """What C{side} has been sent since this was last asked."""
        heard: bytes = side.value()
        side.clear()
        return heard


class RelayedProtocolTests(SynchronousTestCase):
    """A protocol before the relay has it, and after."""

    def test_interface(self) -> None:
        """It hears of half-closes."""
        self.assertTrue(verifyObject(IHalfCloseableProtocol, RelayedProtocol()))

    def test_dialogue(self) -> None:
        """Until the relay takes over everything is the dialogue's."""
        protocol = Listening()
        transport = RelayTransport()
        transport.connect(protocol)
        self.assertFalse(protocol.relayed)
        protocol.dataReceived(b"a1 NOOP\r\n")
        protocol.readConnectionLost()
        protocol.writeConnectionLost()
        transport.lose()
        self.assertEqual(protocol.told, [b"a1 NOOP\r\n", "ended", "lost"])

    def test_indifference(self) -> None:
        """A dialogue need not care."""
        protocol = RelayedProtocol()
        RelayTransport().connect(protocol)
        protocol.dataReceived(b"x")
        protocol.readConnectionLost()
        protocol.connectionLost()

    def test_relayed(self) -> None:
        """From then on nothing is."""
        relayed = Relayed()
        for side in (relayed.client, relayed.backend):
            self.assertTrue(side.protocol.relayed)
            side.protocol.dataReceived(b"x")
            side.protocol.readConnectionLost()
            side.protocol.writeConnectionLost()
            side.lose()
            self.assertEqual(side.protocol.told, [])

    def test_noDelay(self) -> None:
        """Small writes are sent at once; where that cannot be asked for, or not any more, nothing happens."""

        class Gone(RelayTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                raise OSError("gone")

        transport = RelayTransport()
        makeNoDelay(transport)
        self.assertTrue(transport.noDelay)
        makeNoDelay(Gone())
        makeNoDelay(StringTransport())


class BytesTests(SynchronousTestCase):
    """What goes where."""

    def test_bothWays(self) -> None:
        """Each side's bytes go to the other, unchanged and at once."""
        relayed = Relayed()
        relayed.client.protocol.dataReceived(b"a2 SELECT \0\xff\r\n")
        self.assertEqual((relayed.hear(relayed.client), relayed.hear(relayed.backend)), (b"", b"a2 SELECT \0\xff\r\n"))
        relayed.backend.protocol.dataReceived(b"* 3")
        relayed.backend.protocol.dataReceived(b" EXISTS\r\n")
        self.assertEqual((relayed.hear(relayed.client), relayed.hear(relayed.backend)), (b"* 3 EXISTS\r\n", b""))

    def test_readAhead(self) -> None:
        """What the dialogues had read ahead goes first, and counts."""
        relayed = Relayed(b"a1 OK done\r\n", b"a2 NOOP\r\n")
        relayed.client.protocol.dataReceived(b"a3 NOOP\r\n")
        relayed.backend.protocol.dataReceived(b"a2 OK\r\n")
        self.assertEqual(relayed.hear(relayed.backend), b"a2 NOOP\r\na3 NOOP\r\n")
        self.assertEqual(relayed.hear(relayed.client), b"a1 OK done\r\na2 OK\r\n")
        relayed.client.lose()
        relayed.backend.lose()
        self.assertEqual((relayed.session.received, relayed.session.sent), (18, 19))

    def test_resumed(self) -> None:
        """Both sides, which the dialogues had paused, are read from again."""
        client, backend = RelayTransport(), RelayTransport()
        for side in (client, backend):
            side.connect(Listening())
            side.pauseProducing()
        session = Session("imap", "", "", 0.0)
        relays = Relays(Clock())
        relays.between(client.protocol, backend.protocol, session, IDLE, LINGER, lambda relay: None).start(b"", b"")
        self.assertEqual((client.producerState, backend.producerState), ("producing", "producing"))

    def test_producers(self) -> None:
        """Each side is the other's streaming producer: who is slow to take pauses who is quick to send."""
        relayed = Relayed()
        self.assertIs(relayed.client.producer, relayed.backend)
        self.assertIs(relayed.backend.producer, relayed.client)
        self.assertTrue(relayed.client.streaming)
        self.assertTrue(relayed.backend.streaming)
        self.assertTrue(verifyObject(IPushProducer, relayed.client))

    def test_lateBytes(self) -> None:
        """What one side still sends after the other has gone reaches nobody, and harms nothing."""
        relayed = Relayed()
        relayed.client.lose(ConnectionLost())
        relayed.backend.protocol.dataReceived(b"* BYE\r\n")
        relayed.backend.lose()
        self.assertEqual(relayed.done, 1)


class EndTests(SynchronousTestCase):
    """How a relay ends: every way of it leaves nothing behind."""

    def assertFinished(self, relayed: Relayed, outcome: Outcome = Outcome.RELAYED) -> None:
        self.assertEqual(relayed.done, 1)
        self.assertIs(relayed.session.outcome, outcome)
        self.assertIsNone(relayed.client.producer)
        self.assertIsNone(relayed.backend.producer)
        self.assertEqual(relayed.clock.getDelayedCalls(), [])

    def sides(self, **changes: Any) -> list[tuple[Relayed, RelayTransport, RelayTransport]]:
        """Two relays, and of each the side that ends first and the other: once the client, once the backend."""
        first, second = Relayed(**changes), Relayed(**changes)
        return [(first, first.client, first.backend), (second, second.backend, second.client)]

    def test_lost(self) -> None:
        """When one connection is gone the other is closed, after it has been given what is on its way."""
        for relayed, gone, left in self.sides():
            gone.protocol.dataReceived(b"last words")
            gone.lose(ConnectionLost())
            self.assertEqual(left.value(), b"last words")
            self.assertEqual(left.calls[-3:], ["unregisterProducer", "resumeProducing", "loseConnection"])
            self.assertFalse(left.aborted)
            self.assertEqual(relayed.done, 0)
            left.lose()
            gone.producer = None
            self.assertFinished(relayed)

    def test_lingering(self) -> None:
        """One that does not take what is on its way is aborted after a while."""
        for relayed, gone, left in self.sides():
            gone.lose()
            gone.producer = None
            relayed.clock.advance(LINGER - 0.1)
            self.assertFalse(left.aborted)
            relayed.clock.advance(0.1)
            self.assertTrue(left.aborted)
            self.assertEqual(relayed.done, 0)
            left.lose()
            self.assertFinished(relayed)

    def test_halfClose(self) -> None:
        """When one side says its last word the other is told so, and may still answer."""
        for relayed, ended, other in self.sides():
            ended.protocol.dataReceived(b"last words")
            ended.protocol.readConnectionLost()
            self.assertEqual(other.value(), b"last words")
            self.assertTrue(other.writingClosed)
            self.assertFalse(other.disconnecting)
            self.assertFalse(ended.disconnecting)
            self.assertFalse(ended.writingClosed)
            other.protocol.dataReceived(b"an answer")
            self.assertEqual(ended.value(), b"an answer")
            other.protocol.readConnectionLost()
            self.assertTrue(other.disconnecting)
            self.assertTrue(ended.disconnecting)
            self.assertFalse(ended.aborted or other.aborted)
            ended.lose()
            other.lose()
            self.assertFinished(relayed)

    def test_halfCloseThenLost(self) -> None:
        """The answer may be that the connection is gone."""
        for relayed, ended, other in self.sides():
            ended.protocol.readConnectionLost()
            other.protocol.dataReceived(b"an answer")
            other.lose()
            self.assertEqual(ended.value(), b"an answer")
            self.assertTrue(ended.disconnecting)
            self.assertFalse(ended.aborted)
            ended.lose()
            self.assertFinished(relayed)

    def test_lastWordsFirst(self) -> None:
        """What one side had sent is not overtaken by its end of file: nothing holds it back any more."""
        for _, ended, other in self.sides():
            ended.protocol.readConnectionLost()
            self.assertEqual(other.calls[-2:], ["unregisterProducer", "loseWriteConnection"])

    def test_answerThatTakesTime(self) -> None:
        """As long as an answer is coming it may take its time."""
        for relayed, ended, other in self.sides():
            ended.protocol.readConnectionLost()
            for _ in range(20):
                relayed.clock.advance(LINGER - 1)
                other.protocol.dataReceived(b"more")
            self.assertEqual(ended.value(), b"more" * 20)
            self.assertFalse(other.disconnecting)
            other.lose()
            ended.lose()
            self.assertFinished(relayed)

    def test_noAnswer(self) -> None:
        """When no more of it has come for a while both are closed, and a while later aborted."""
        for relayed, ended, other in self.sides():
            ended.protocol.readConnectionLost()
            other.protocol.dataReceived(b"more")
            relayed.clock.advance(LINGER - 0.1)
            self.assertFalse(ended.disconnecting or other.disconnecting)
            relayed.clock.advance(0.1)
            self.assertTrue(ended.disconnecting and other.disconnecting)
            self.assertFalse(ended.aborted or other.aborted)
            relayed.clock.advance(LINGER)
            self.assertTrue(ended.aborted and other.aborted)
            ended.lose()
            other.lose()
            self.assertFinished(relayed)

    def test_halfCloseOverTLS(self) -> None:
        """TLS has no half-close of its own: its close_notify is sent, and what still comes is still relayed."""
        for relayed, ended, other in self.sides(tls=True):
            ended.protocol.readConnectionLost()
            self.assertFalse(other.writingClosed)
            self.assertTrue(other.disconnecting)
            other.protocol.dataReceived(b"an answer")
            self.assertEqual(ended.value(), b"an answer")
            other.lose()
            ended.lose()
            self.assertFinished(relayed)

    def test_held(self) -> None:
        """A backend over TLS hears of the end of a client in the clear when it has been silent for a while."""
        relayed = Relayed(backendTLS=True)
        relayed.client.protocol.readConnectionLost()
        for _ in range(5):
            relayed.clock.advance(HELD - 0.1)
            relayed.backend.protocol.dataReceived(b"more")
        relayed.clock.advance(HELD - 0.1)
        self.assertFalse(relayed.backend.disconnecting)
        relayed.clock.advance(0.1)
        self.assertTrue(relayed.backend.disconnecting)
        self.assertFalse(relayed.client.disconnecting)
        relayed.backend.protocol.dataReceived(b".")
        self.assertEqual(relayed.client.value(), b"more" * 5 + b".")
        relayed.clock.advance(LINGER)
        self.assertTrue(relayed.client.disconnecting)
        relayed.backend.lose()
        relayed.client.lose()
        self.assertFinished(relayed)

    def test_heldUntilItEnds(self) -> None:
        """Where the backend ends first, or is lost, nothing is waited for."""
        for lost in (False, True):
            relayed = Relayed(backendTLS=True)
            relayed.client.protocol.readConnectionLost()
            if lost:
                relayed.backend.lose()
                relayed.backend.producer = None
            else:
                relayed.backend.protocol.readConnectionLost()
                self.assertTrue(relayed.backend.disconnecting)
            self.assertTrue(relayed.client.disconnecting)
            relayed.backend.lose()
            relayed.client.lose()
            self.assertFinished(relayed)

    def test_idle(self) -> None:
        """A relay over which nothing has gone for C{idle} seconds is closed, and then aborted."""
        relayed = Relayed()
        relayed.clock.advance(IDLE - 0.1)
        self.assertFalse(relayed.client.disconnecting or relayed.backend.disconnecting)
        relayed.clock.advance(0.1)
        for side in (relayed.client, relayed.backend):
            self.assertTrue(side.disconnecting)
            self.assertFalse(side.aborted)
            self.assertEqual(side.value(), b"")
        relayed.clock.advance(LINGER)
        self.assertTrue(relayed.client.aborted and relayed.backend.aborted)
        relayed.client.lose()
        relayed.backend.lose()
        self.assertFinished(relayed, Outcome.IDLE)

    def test_nothingPilesUpWhileClosing(self) -> None:
        """What one side still sends while both are closed is dropped: nobody holds it back any more."""
        for relayed, sender, other in self.sides():
            relayed.clock.advance(IDLE)
            for _ in range(3):
                sender.protocol.dataReceived(b"x" * 65536)
            self.assertEqual(other.value(), b"")
            for side in (sender, other):
                side.lose()
            self.assertFinished(relayed, Outcome.IDLE)

    def test_notIdle(self) -> None:
        """Bytes in either direction count; nginx cut sessions in which only the backend spoke."""
        for relayed, busy, other in self.sides():
            for _ in range(5):
                relayed.clock.advance(IDLE - 1)
                busy.protocol.dataReceived(b"x")
            self.assertFalse(other.disconnecting)
            relayed.clock.advance(IDLE - 1)
            self.assertFalse(other.disconnecting)
            relayed.clock.advance(1)
            self.assertTrue(other.disconnecting)
            for side in (busy, other):
                side.lose()
            self.assertFinished(relayed, Outcome.IDLE)

    def test_noTimerPerByte(self) -> None:
        """Bytes cost the clock nothing."""
        relayed = Relayed()
        timers = relayed.clock.getDelayedCalls()
        when = timers[0].getTime()
        relayed.clock.advance(1)
        relayed.client.protocol.dataReceived(b"x")
        relayed.backend.protocol.dataReceived(b"x")
        self.assertEqual(relayed.clock.getDelayedCalls(), timers)
        self.assertEqual(timers[0].getTime(), when)

    def test_lingersNoLongerThanIdle(self) -> None:
        """Where C{idle} is the shorter time it is that of the end, too."""
        relayed = Relayed(idle=3, linger=60)
        relayed.client.lose()
        relayed.clock.advance(3)
        self.assertTrue(relayed.backend.aborted)
        relayed.backend.lose()

    def test_chattyAfterTheEnd(self) -> None:
        """A TLS peer that goes on sending after we have closed is aborted in time all the same."""
        for relayed, gone, left in self.sides(tls=True):
            gone.lose()
            gone.producer = None
            for _ in range(10):
                relayed.clock.advance(LINGER / 10)
                left.protocol.dataReceived(b"and another thing")
            self.assertTrue(left.aborted)
            left.lose()
            self.assertFinished(relayed)

    def test_abort(self) -> None:
        """A relay can be ended at once."""
        relayed = Relayed()
        relayed.session.conclude(Outcome.STOPPED)
        relayed.relay.abort()
        self.assertTrue(relayed.client.aborted and relayed.backend.aborted)
        for side in (relayed.client, relayed.backend):
            side.producer = None
            side.lose()
        self.assertFinished(relayed, Outcome.STOPPED)

    def test_abortTheRest(self) -> None:
        """What is gone already is left alone."""
        for relayed, gone, left in self.sides():
            gone.lose()
            relayed.relay.abort()
            self.assertFalse(gone.aborted)
            self.assertTrue(left.aborted)
            left.lose()

    def test_counters(self) -> None:
        """The session knows at the end how many bytes came from the client and how many were sent to it."""
        for relayed, first, second in self.sides():
            relayed.client.protocol.dataReceived(b"12345")
            relayed.backend.protocol.dataReceived(b"123")
            first.lose()
            self.assertEqual((relayed.session.received, relayed.session.sent), (0, 0))
            second.lose()
            self.assertEqual((relayed.session.received, relayed.session.sent), (5, 3))

    def test_bothAtOnce(self) -> None:
        """Both sides may end before either hears of the other, in any of the ways."""
        for relayed, first, second in self.sides():
            first.protocol.readConnectionLost()
            second.protocol.readConnectionLost()
            first.protocol.readConnectionLost()
            second.lose()
            first.lose()
            self.assertFinished(relayed)


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class End(Protocol):
    """
    A client of the gateway, or a backend: over TLS where it has a C{contextFactory}. C{ready} fires once it is
    connected, C{gone} when it is not any more; at the other's end of file it calls C{onEnd} and closes.
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
        """Fires once C{octets} bytes have come, which must not have yet."""
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
    """The gateway's side of either connection."""

    def __init__(self, contextFactory: Any = None) -> None:
        self.contextFactory = contextFactory
        self.ready: Deferred[None] = Deferred()

    connectionMade = End.connectionMade
    handshakeCompleted = End.handshakeCompleted


@implementer(IPushProducer)
class Watched:
    """A producer that tells of the first time it is paused."""

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
    """Sends C{total} bytes to C{transport}, as fast as it takes them, and then calls C{done}."""

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
        """What C{total} bytes of it look like."""
        return (cls.CHUNK * (total // len(cls.CHUNK) + 1))[:total]


class SocketTests(TestCase):
    """A relay between a client and a backend on loopback sockets."""

    timeout = 60
    MANY = 10 * 1024 * 1024

    async def start(self, tls: bool = False, small: bool = False) -> None:
        """Connect client, gateway and backend; with C{small} socket buffers on the way to the client."""
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
        self.session = Session("imap", "", "", 0.0)
        self.done: Deferred[None] = Deferred()
        self.relay = Relays(self.reactor).between(
            self.near, self.far, self.session, 50.0, 50.0, lambda relay: self.done.callback(None)
        )
        self.addCleanup(self._stop)

    async def _connect(self, client: Any, server: Any, small: bool = False) -> None:
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(_Single(server))
        if small:
            # Accepted sockets have that of the listening one.
            port.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        # Not by an endpoint, which would wrap the protocol.
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
        """The answer to a client that has said its last word arrives whole, and so does the end behind it."""
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
        """A backend that has said its last word still hears what the client sends."""
        await self.start()
        self.relay.start(b"", b"")
        heard = self.backend.until(4)
        self.client.onEnd = lambda: (self.client.transport.write(b"bye!"), self.client.transport.loseConnection())
        self.backend.transport.loseWriteConnection()
        await heard
        await self.done
        self.assertEqual(self.backend.received, b"bye!")

    async def test_stuckReceiver(self) -> None:
        """A client that does not read holds the backend back; once it reads it gets everything."""
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
        """One that never reads again does not keep the relay from being aborted."""
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
        """Many bytes each way at the same time, and then both ends."""
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
        """Ten megabytes each way arrive as they were sent, in the clear."""
        await self.everything(tls=False)

    async def test_TLS(self) -> None:
        """So they do over TLS on both sides."""
        await self.everything(tls=True)

    async def test_lastWordsOverTLS(self) -> None:
        """What a side has sent right before it closes arrives over TLS too, in either direction."""
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
