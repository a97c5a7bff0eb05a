"""
Tests for L{mailgate.relay.portable}: over fake transports what it asks of them, over sockets what it comes to.
"""

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

from mailgate.relay.base import HELD
from mailgate.relay.portable import Relay, Relays
from mailgate.relay.protocol import RelayedProtocol, makeNoDelay
from mailgate.session import Outcome, Session
from mailgate.test.support.relaytransport import RelayTransport

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
