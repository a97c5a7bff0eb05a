"""Tests for both relays as L{IConnection}: sessions with a limited time."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.interfaces import IConnection
from mailgate.login import Trouble
from mailgate.session import Outcome
from mailgate.test.relay import test_portable as portable
from mailgate.test.support import relaycase as stream


class PortableTests(SynchronousTestCase):
    """L{mailgate.relay.portable.Relay}."""

    def expire(self, relayed: portable.Relayed) -> None:
        """The session expires: both sides are closed, and no timer is left."""
        self.assertTrue(relayed.client.disconnecting and relayed.backend.disconnecting)
        self.assertFalse(relayed.client.aborted or relayed.backend.aborted)
        self.assertIs(relayed.session.outcome, Outcome.EXPIRED)
        relayed.client.lose()
        relayed.backend.lose()
        self.assertEqual(relayed.done, 1)
        self.assertEqual(relayed.clock.getDelayedCalls(), [])

    def test_interface(self) -> None:
        """It provides the interface."""
        self.assertTrue(verifyObject(IConnection, portable.Relayed().relay))

    def test_dismissed(self) -> None:
        """C{dismiss} sets the outcome, and writes nothing into the stream."""
        relayed = portable.Relayed()
        relayed.relay.dismiss(Outcome.DENIED, Trouble.REFUSED)
        self.assertTrue(relayed.client.disconnecting and relayed.backend.disconnecting)
        self.assertEqual((relayed.client.value(), relayed.backend.value()), (b"", b""))
        self.assertIs(relayed.session.outcome, Outcome.DENIED)

    def test_limit(self) -> None:
        """Both sides are closed at the limit, although bytes move."""
        relayed = portable.Relayed()
        relayed.relay.limit(3.5 * portable.IDLE)
        for _ in range(6):
            relayed.clock.advance(portable.IDLE / 2)
            relayed.client.protocol.dataReceived(b"x")
        self.assertFalse(relayed.client.disconnecting)
        relayed.clock.advance(portable.IDLE / 2)
        self.expire(relayed)

    def test_stubborn(self) -> None:
        """A side that does not close is reset after the linger limit."""
        relayed = portable.Relayed()
        relayed.relay.limit(1.0)
        relayed.clock.advance(1)
        self.assertFalse(relayed.client.aborted)
        relayed.clock.advance(portable.LINGER)
        self.assertTrue(relayed.client.aborted and relayed.backend.aborted)

    def test_lifted(self) -> None:
        """The latest limit counts. Without a limit, or with a late one, the idle limit applies."""
        for moment in (None, 100 * portable.IDLE):
            relayed = portable.Relayed()
            relayed.relay.limit(1.0)
            relayed.relay.limit(moment)
            relayed.clock.advance(portable.IDLE - 1)
            self.assertFalse(relayed.client.disconnecting)
            relayed.clock.advance(1)
            self.assertTrue(relayed.client.disconnecting)
            self.assertIs(relayed.session.outcome, Outcome.IDLE)

    def test_closing(self) -> None:
        """A relay that is being closed keeps its linger time."""
        relayed = portable.Relayed()
        relayed.relay.close()
        relayed.relay.limit(0.0)
        relayed.clock.advance(portable.LINGER - 1)
        self.assertFalse(relayed.client.aborted)
        relayed.clock.advance(1)
        self.assertTrue(relayed.client.aborted)
        self.assertIs(relayed.session.outcome, Outcome.RELAYED)

    def test_halfClosed(self) -> None:
        """A relay that is half-closed expires, too."""
        relayed = portable.Relayed()
        relayed.relay.limit(1.0)
        relayed.client.protocol.readConnectionLost()
        relayed.clock.advance(1)
        self.assertTrue(relayed.backend.disconnecting)


class StreamTests(stream.RelayCase):
    """L{mailgate.relay.stream.StreamRelay}, with timers that are exact to one second."""

    def test_interface(self) -> None:
        """It provides the interface."""
        relayed = self.relayed()
        self.assertTrue(verifyObject(IConnection, relayed.relay))
        self.end(relayed)

    def test_limit(self) -> None:
        """Both sides are closed gracefully at the limit, although bytes move."""
        for combination in stream.COMBINATIONS:
            relayed = self.relayed(*combination)
            relayed.relay.limit(self.turns.clock.seconds() + 3 * stream.IDLE)
            for _ in range(5):
                self.advance(stream.IDLE / 2)
                relayed.backend.send(b"x")
                self.settle()
            self.assertEqual(relayed.done, 0)
            self.advance(stream.IDLE / 2 + 2)
            for peer in (relayed.client, relayed.backend):
                self.assertTrue(peer.ended)
                self.assertIsNone(peer.error)
                self.assertEqual(peer.saidGoodbye, peer.engine is not None)
            self.assertFinished(relayed, Outcome.EXPIRED)

    def test_lifted(self) -> None:
        """The latest limit counts. Without a limit, or with a late one, the idle limit applies."""
        for moment in (None, 1e6):
            relayed = self.relayed()
            relayed.relay.limit(self.turns.clock.seconds() + 5)
            relayed.relay.limit(moment)
            self.advance(stream.IDLE - 1)
            self.assertEqual(relayed.done, 0)
            self.advance(3)
            self.assertFinished(relayed, Outcome.IDLE)

    def test_beforehand(self) -> None:
        """A limit that was set before the relay applies to the relay."""
        relayed = self.prepared()
        relayed.session.expires = self.turns.clock.seconds() + 5
        relayed.start()
        self.advance(4)
        self.assertEqual(relayed.done, 0)
        self.advance(3)
        self.assertFinished(relayed, Outcome.EXPIRED)

    def test_closing(self) -> None:
        """A relay that is being closed keeps its linger time."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(stream.CONTENT)
        self.settle()
        relayed.relay.close()
        relayed.relay.limit(self.turns.clock.seconds())
        self.advance(stream.LINGER - 3)
        self.assertEqual(relayed.done, 0)
        self.advance(5)
        self.assertFinished(relayed)

    def test_oneTick(self) -> None:
        """A limit needs no second entry in the clock."""
        relayed = self.relayed()
        before = self.turns.clock.getDelayedCalls()
        ticks = relayed.relay.means.clock._ticks
        waiting = sum(map(len, ticks.values()))
        relayed.relay.limit(self.turns.clock.seconds() + 5)
        self.assertEqual(sum(map(len, ticks.values())), waiting)
        self.assertEqual(len(self.turns.clock.getDelayedCalls()), len(before))
        self.end(relayed)
