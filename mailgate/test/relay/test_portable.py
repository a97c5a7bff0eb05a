"""Tests for L{mailgate.relay.portable} with fake transports."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ISSLTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from mailgate.net.endpoints import makeNoDelay
from mailgate.relay.base import HELD
from mailgate.relay.portable import Relay, Relays
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.terms import Terms
from mailgate.session import Outcome
from mailgate.test.support.relaytransport import RelayTransport
from mailgate.testing.fakes import makeSession

IDLE = 100.0
LINGER = 10.0


class Listening(RelayedProtocol):
    """A dialogue that notes its events."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def dialogueReceived(self, data: bytes) -> None:
        self.told.append(data)

    def dialogueEnded(self) -> None:
        self.told.append("ended")

    def dialogueLost(self, reason: Failure) -> None:
        self.told.append("lost")


class Relayed:
    """A running relay between two fake connections."""

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
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        self.done = 0
        self.client, self.backend = RelayTransport(), RelayTransport()
        for side in (self.client, self.backend):
            if tls or (backendTLS and side is self.backend):
                alsoProvides(side, ISSLTransport)
            side.connect(Listening())
        terms = Terms(Relays(self.clock), idle, linger, self._finished)
        self.relay = Relay(terms, self.client.protocol, self.backend.protocol, self.session)
        self.relay.start(toClient, toBackend)

    def _finished(self, relay: Relay) -> None:
        self.done += 1

    def hear(self, side: RelayTransport) -> bytes:
        """What C{side} was sent since the previous call."""
        heard: bytes = side.value()
        side.clear()
        return heard


class RelayedProtocolTests(SynchronousTestCase):
    """A protocol before and after the hand-over."""

    def test_interface(self) -> None:
        """It handles half-closed connections."""
        self.assertTrue(verifyObject(IHalfCloseableProtocol, RelayedProtocol()))

    def test_dialogue(self) -> None:
        """Before the hand-over the dialogue receives all events."""
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
        """A dialogue may ignore all events."""
        protocol = RelayedProtocol()
        RelayTransport().connect(protocol)
        protocol.dataReceived(b"x")
        protocol.readConnectionLost()
        protocol.connectionLost()

    def test_relayed(self) -> None:
        """After the hand-over it receives none."""
        relayed = Relayed()
        for side in (relayed.client, relayed.backend):
            self.assertTrue(side.protocol.relayed)
            side.protocol.dataReceived(b"x")
            side.protocol.readConnectionLost()
            side.protocol.writeConnectionLost()
            side.lose()
            self.assertEqual(side.protocol.told, [])

    def test_noDelay(self) -> None:
        """TCP_NODELAY is set. Nothing happens on a transport that lacks it or is closed."""

        class Gone(RelayTransport):
            def setTcpNoDelay(self, enabled: bool) -> None:
                raise OSError("gone")

        transport = RelayTransport()
        makeNoDelay(transport)
        self.assertTrue(transport.noDelay)
        makeNoDelay(Gone())
        makeNoDelay(StringTransport())


class BytesTests(SynchronousTestCase):
    """Where the bytes go."""

    def test_bothWays(self) -> None:
        """The bytes of each side are sent to the other, unchanged and at once."""
        relayed = Relayed()
        relayed.client.protocol.dataReceived(b"a2 SELECT \0\xff\r\n")
        self.assertEqual((relayed.hear(relayed.client), relayed.hear(relayed.backend)), (b"", b"a2 SELECT \0\xff\r\n"))
        relayed.backend.protocol.dataReceived(b"* 3")
        relayed.backend.protocol.dataReceived(b" EXISTS\r\n")
        self.assertEqual((relayed.hear(relayed.client), relayed.hear(relayed.backend)), (b"* 3 EXISTS\r\n", b""))

    def test_readAhead(self) -> None:
        """Bytes that the dialogues read ahead are relayed first, and counted."""
        relayed = Relayed(b"a1 OK done\r\n", b"a2 NOOP\r\n")
        relayed.client.protocol.dataReceived(b"a3 NOOP\r\n")
        relayed.backend.protocol.dataReceived(b"a2 OK\r\n")
        self.assertEqual(relayed.hear(relayed.backend), b"a2 NOOP\r\na3 NOOP\r\n")
        self.assertEqual(relayed.hear(relayed.client), b"a1 OK done\r\na2 OK\r\n")
        relayed.client.lose()
        relayed.backend.lose()
        self.assertEqual((relayed.session.received, relayed.session.sent), (18, 19))

    def test_resumed(self) -> None:
        """The backend is paused until the relay begins. Then both sides are resumed, also if the dialogue paused."""
        client, backend = RelayTransport(), RelayTransport()
        for side in (client, backend):
            side.connect(Listening())
        client.pauseProducing()
        session = makeSession("imap", "", "", 0.0)
        relays = Relays(Clock())
        relay = relays.between(
            client.protocol, backend.protocol, session, Terms(relays, IDLE, LINGER, lambda relay: None)
        )
        self.assertEqual((client.producerState, backend.producerState), ("paused", "paused"))
        relay.start(b"", b"")
        self.assertEqual((client.producerState, backend.producerState), ("producing", "producing"))

    def test_producers(self) -> None:
        """Each side is the other's streaming producer: a slow receiver pauses its sender."""
        relayed = Relayed()
        for receiver, sender in ((relayed.client, relayed.backend), (relayed.backend, relayed.client)):
            self.assertTrue(receiver.streaming)
            producer: Any = receiver.producer
            self.assertTrue(verifyObject(IPushProducer, producer))
            for call, state in ((producer.pauseProducing, "paused"), (producer.resumeProducing, "producing")):
                call()
                self.assertEqual((sender.producerState, receiver.producerState), (state, "producing"))
            # Its own end decides: the other transport may only have ended first.
            producer.stopProducing()
            self.assertEqual(sender.producerState, "producing")
            self.assertFalse(sender.disconnecting)

    def test_lateBytes(self) -> None:
        """Bytes that one side sends after the other has closed are dropped."""
        relayed = Relayed()
        relayed.client.lose(ConnectionLost())
        relayed.backend.protocol.dataReceived(b"* BYE\r\n")
        relayed.backend.lose()
        self.assertEqual(relayed.done, 1)


class EndTests(SynchronousTestCase):
    """How a relay ends. Nothing is left afterwards."""

    def assertFinished(self, relayed: Relayed, outcome: Outcome = Outcome.RELAYED) -> None:
        self.assertEqual(relayed.done, 1)
        self.assertIs(relayed.session.outcome, outcome)
        self.assertIsNone(relayed.client.producer)
        self.assertIsNone(relayed.backend.producer)
        self.assertEqual(relayed.clock.getDelayedCalls(), [])

    def sides(self, **changes: Any) -> list[tuple[Relayed, RelayTransport, RelayTransport]]:
        """Two relays, each with the side that ends first and the other side: once the client, once the backend."""
        first, second = Relayed(**changes), Relayed(**changes)
        return [(first, first.client, first.backend), (second, second.backend, second.client)]

    def test_lost(self) -> None:
        """When one connection is closed, the other receives its buffered bytes and is closed."""
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
        """A side that does not take its buffered bytes is aborted after the linger limit."""
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
        """When one side sends its end of file, it is passed on, and the other side may still answer."""
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
        """The other side may close instead of answering."""
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
        """The end of file does not overtake bytes that were sent before it."""
        for _, ended, other in self.sides():
            ended.protocol.readConnectionLost()
            self.assertEqual(other.calls[-2:], ["unregisterProducer", "loseWriteConnection"])

    def test_answerThatTakesTime(self) -> None:
        """An answer may take its time while bytes arrive."""
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
        """If no bytes arrive for the linger limit, both sides are closed, and later aborted."""
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
        """TLS has no half-close: a close_notify is sent, and bytes that still arrive are relayed."""
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
        """The end of a plain client is passed on to a backend over TLS after the backend was silent for a while."""
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
        """If the backend ends first, or is lost, the relay does not wait."""
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
        """A relay without bytes for C{idle} seconds is closed, and later aborted."""
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
        """Bytes that arrive while both sides are being closed are dropped, because nothing would pause their sender."""
        for relayed, sender, other in self.sides():
            relayed.clock.advance(IDLE)
            for _ in range(3):
                sender.protocol.dataReceived(b"x" * 65536)
            self.assertEqual(other.value(), b"")
            for side in (sender, other):
                side.lose()
            self.assertFinished(relayed, Outcome.IDLE)

    def test_notIdle(self) -> None:
        """Bytes in either direction count. nginx closes sessions in which only the backend sends."""
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
        """Relaying bytes sets no timers."""
        relayed = Relayed()
        timers = relayed.clock.getDelayedCalls()
        when = timers[0].getTime()
        relayed.clock.advance(1)
        relayed.client.protocol.dataReceived(b"x")
        relayed.backend.protocol.dataReceived(b"x")
        self.assertEqual(relayed.clock.getDelayedCalls(), timers)
        self.assertEqual(timers[0].getTime(), when)

    def test_lingersNoLongerThanIdle(self) -> None:
        """The linger limit is at most C{idle}."""
        relayed = Relayed(idle=3, linger=60)
        relayed.client.lose()
        relayed.clock.advance(3)
        self.assertTrue(relayed.backend.aborted)
        relayed.backend.lose()

    def test_chattyAfterTheEnd(self) -> None:
        """A TLS peer that goes on sending after the close is aborted in time."""
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
        """A relay can be aborted at once."""
        relayed = Relayed()
        relayed.session.conclude(Outcome.STOPPED)
        relayed.relay.abort()
        self.assertTrue(relayed.client.aborted and relayed.backend.aborted)
        for side in (relayed.client, relayed.backend):
            side.producer = None
            side.lose()
        self.assertFinished(relayed, Outcome.STOPPED)

    def test_abortTheRest(self) -> None:
        """Aborting leaves a closed side alone."""
        for relayed, gone, left in self.sides():
            gone.lose()
            relayed.relay.abort()
            self.assertFalse(gone.aborted)
            self.assertTrue(left.aborted)
            left.lose()

    def test_counters(self) -> None:
        """At the end the session has the number of bytes from and to the client."""
        for relayed, first, second in self.sides():
            relayed.client.protocol.dataReceived(b"12345")
            relayed.backend.protocol.dataReceived(b"123")
            first.lose()
            self.assertEqual((relayed.session.received, relayed.session.sent), (0, 0))
            second.lose()
            self.assertEqual((relayed.session.received, relayed.session.sent), (5, 3))

    def test_bothAtOnce(self) -> None:
        """Both sides may end before either learns of the other's end, in each of the ways."""
        for relayed, first, second in self.sides():
            first.protocol.readConnectionLost()
            second.protocol.readConnectionLost()
            first.protocol.readConnectionLost()
            second.lose()
            first.lose()
            self.assertFinished(relayed)
