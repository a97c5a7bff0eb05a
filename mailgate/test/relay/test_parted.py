"""Tests for both relays: clients that wait because their backend has closed the connection."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Backend, Trouble
from mailgate.session import Outcome
from mailgate.test.relay import test_portable as portable
from mailgate.test.support import relaycase as stream
from mailgate.test.support.relaycase import CONTENT, MiB
from mailgate.upstream.peer import Peer

SPREAD = 10.0


def crowded(spread: float = SPREAD, sessions: int = 20) -> Peer:
    """A server of a group, at which the two sessions that go at once have just been lost."""
    peer = Peer(Backend("192.0.2.1", 143), ("192.0.2.1", 143))
    peer.spread, peer.connections = spread, sessions
    for _ in range(2):
        peer.lost(0.0)
        peer.ended()
    return peer


def producing(receiver: Any) -> Any:
    """What C{receiver}, a transport, pauses while it takes nothing."""
    return receiver.producer


class PortableTests(SynchronousTestCase):
    """L{mailgate.relay.portable.Relay}."""

    def relayed(self, peer: Peer | None, **changes: Any) -> portable.Relayed:
        """A session at C{peer}."""
        relayed = portable.Relayed(**changes)
        relayed.session.place = peer
        return relayed

    def parted(self, **changes: Any) -> portable.Relayed:
        """A session whose client waits until 1.5."""
        relayed = self.relayed(crowded(), **changes)
        relayed.backend.protocol.dataReceived(b"* 3 EXISTS\r\n")
        relayed.backend.lose(ConnectionLost())
        self.assertFalse(relayed.client.disconnecting)
        self.assertTrue(relayed.relay.isParted)
        return relayed

    def assertGone(self, relayed: portable.Relayed, outcome: Outcome = Outcome.RELAYED) -> None:
        """The client was let go, and nothing is left."""
        self.assertTrue(relayed.client.disconnecting)
        self.assertFalse(relayed.client.aborted)
        relayed.client.lose()
        self.assertEqual(relayed.done, 1)
        self.assertIs(relayed.session.outcome, outcome)
        self.assertFalse(relayed.relay.isParted)
        self.assertEqual(relayed.clock.getDelayedCalls(), [])

    def test_lost(self) -> None:
        """The client has what the backend sent, waits, and is let go at its moment without another byte."""
        relayed = self.parted()
        self.assertEqual(relayed.client.value(), b"* 3 EXISTS\r\n")
        relayed.clock.advance(1.4)
        self.assertFalse(relayed.client.disconnecting or relayed.client.writingClosed)
        relayed.clock.advance(0.1)
        self.assertEqual(relayed.client.value(), b"* 3 EXISTS\r\n")
        self.assertGone(relayed)

    def test_ended(self) -> None:
        """So it is after the backend's end of file. The connection to the backend is closed at once."""
        relayed = self.relayed(crowded())
        relayed.backend.protocol.readConnectionLost()
        self.assertTrue(relayed.backend.disconnecting)
        self.assertFalse(relayed.client.disconnecting or relayed.client.writingClosed)
        relayed.backend.lose()
        self.assertFalse(relayed.client.disconnecting)
        relayed.clock.pump([1.0, 0.5])
        self.assertGone(relayed)

    def test_counted(self) -> None:
        """The backend does not count a session whose client only waits."""
        peer = crowded()
        relayed = self.relayed(peer)
        relayed.backend.lose(ConnectionLost())
        self.assertEqual(peer.connections, 17)
        self.assertIsNone(relayed.session.place)

    def test_input(self) -> None:
        """What the client sends is dropped and not counted."""
        relayed = self.parted()
        relayed.client.protocol.dataReceived(b"a1 NOOP\r\n")
        self.assertEqual(relayed.backend.value(), b"")
        relayed.clock.pump([1.0, 0.5])
        self.assertGone(relayed)
        self.assertEqual((relayed.session.received, relayed.session.sent), (0, 12))

    def test_leaves(self) -> None:
        """A client that leaves while it waits ends the session."""
        relayed = self.parted()
        relayed.client.protocol.readConnectionLost()
        self.assertGone(relayed)
        relayed = self.parted()
        relayed.client.lose(ConnectionLost())
        self.assertEqual(relayed.done, 1)
        self.assertEqual(relayed.clock.getDelayedCalls(), [])

    def test_paused(self) -> None:
        """A client that was not read, as the backend took nothing, is read again."""
        relayed = self.relayed(crowded())
        producing(relayed.backend).pauseProducing()
        self.assertEqual(relayed.client.producerState, "paused")
        relayed.backend.lose(ConnectionLost())
        self.assertEqual(relayed.client.producerState, "producing")
        self.assertTrue(relayed.relay.isParted)
        self.assertFalse(relayed.relay.isStuck)

    def test_operator(self) -> None:
        """An operator does not wait."""
        relayed = self.parted()
        relayed.relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.assertGone(relayed, Outcome.STOPPED)
        relayed = self.parted()
        relayed.relay.stop()
        self.assertTrue(relayed.client.aborted)

    def test_expired(self) -> None:
        """The time of the session goes on."""
        relayed = self.parted()
        relayed.relay.limit(0.5)
        relayed.clock.advance(0.5)
        self.assertGone(relayed, Outcome.EXPIRED)

    def test_goodbyes(self) -> None:
        """A client that has said goodbye does not wait, however many there are, and does not count in the wave."""
        peer = crowded(sessions=100)
        for line in (b"a1 LOGOUT\r\n", b"QUIT\r\n"):
            for _ in range(20):
                relayed = self.relayed(peer)
                relayed.client.protocol.dataReceived(line)
                relayed.backend.protocol.dataReceived(b"bye\r\n")
                relayed.backend.lose()
                self.assertGone(relayed)
        peer = crowded()
        relayed = self.relayed(peer)
        relayed.client.protocol.dataReceived(b"QUIT\r\n")
        relayed.backend.protocol.readConnectionLost()
        self.assertTrue(relayed.client.writingClosed)
        self.assertFalse(relayed.relay.isParted)

    def test_clientFirst(self) -> None:
        """A client that has closed its side does not wait."""
        relayed = self.relayed(crowded())
        relayed.client.protocol.readConnectionLost()
        relayed.backend.lose()
        self.assertGone(relayed)

    def test_off(self) -> None:
        """Outside of groups, or without a delay, the client is let go at once."""
        for peer in (None, crowded(spread=0.0)):
            relayed = self.relayed(peer)
            relayed.backend.lose(ConnectionLost())
            self.assertGone(relayed)

    def test_many(self) -> None:
        """Twenty sessions end over the whole time, at an even pace, and the last one in time."""
        peer = Peer(Backend("192.0.2.1", 143), ("192.0.2.1", 143))
        peer.spread, peer.connections = SPREAD, 20
        sessions = [self.relayed(peer) for _ in range(20)]
        for relayed in sessions:
            relayed.backend.lose(ConnectionLost())
        gone = []
        for _ in range(11):
            gone.append(sum(relayed.client.disconnecting for relayed in sessions))
            for relayed in sessions:
                relayed.clock.advance(1.0)
        self.assertEqual(gone, [2, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20])
        self.assertEqual(peer.connections, 0)


class StreamTests(stream.RelayCase):
    """L{mailgate.relay.stream.StreamRelay}."""

    def at(
        self, peer: Peer | None, clientTLS: bool = False, backendTLS: bool = False, small: bool = False
    ) -> stream.Relayed:
        """A session at C{peer}."""
        relayed = self.relayed(clientTLS, backendTLS, small)
        relayed.session.place = peer
        return relayed

    def crowded(self) -> Peer:
        """L{crowded}, now."""
        peer = Peer(Backend("192.0.2.1", 143), ("192.0.2.1", 143))
        peer.spread, peer.connections = SPREAD, 20
        for _ in range(2):
            peer.lost(self.turns.clock.seconds())
            peer.ended()
        return peer

    def parted(self, *combination: bool, reset: bool = False) -> stream.Relayed:
        """A session whose client waits for 1.5 seconds."""
        relayed = self.at(self.crowded(), *combination)
        relayed.backend.send(b"* 3 EXISTS\r\n")
        self.assertReceived(relayed.client, b"* 3 EXISTS\r\n")
        (relayed.backend.reset if reset else relayed.backend.close)()
        self.settle(20)
        self.assertTrue(relayed.relay.isParted)
        self.assertFalse(relayed.client.over or relayed.client.saidGoodbye)
        return relayed

    def assertGone(self, relayed: stream.Relayed, outcome: Outcome = Outcome.RELAYED) -> None:
        """The client was let go in an orderly way, and nothing is left."""
        self.untilOver(relayed.client)
        self.assertIsNone(relayed.client.error)
        self.assertEqual(relayed.client.saidGoodbye, relayed.client.engine is not None)
        self.assertFinished(relayed, outcome)
        self.assertEqual(self.relays.partings.delays, {})

    def test_waits(self) -> None:
        """The client waits for its moment, exactly, whether the backend has closed or reset the connection."""
        for combination in stream.COMBINATIONS:
            for reset in (False, True):
                relayed = self.parted(*combination, reset=reset)
                self.assertEqual(relayed.relay._backend.fd, -1)
                self.turns.clock.pump([0.5, 0.5, 0.4])
                self.settle()
                self.assertFalse(relayed.client.over or relayed.client.saidGoodbye)
                self.turns.clock.advance(0.11)
                self.assertGone(relayed)
                self.assertEqual(relayed.client.received, b"* 3 EXISTS\r\n")
                self.assertEqual(relayed.counters, (0, 12))

    def test_input(self) -> None:
        """What the client sends is dropped, however much it is, and not counted."""
        for combination in stream.COMBINATIONS:
            relayed = self.parted(*combination)
            relayed.client.send(CONTENT)
            self.until(lambda client=relayed.client: not client.unsent)
            self.settle(20)
            self.assertEqual(relayed.held(), 0)
            self.assertEqual(relayed.done, 0)
            self.turns.clock.pump([1.0, 0.6])
            self.assertGone(relayed)
            self.assertEqual(relayed.counters, (0, 12))

    def test_leaves(self) -> None:
        """A client that leaves while it waits ends the session."""
        for combination in stream.COMBINATIONS:
            for reset in (False, True):
                relayed = self.parted(*combination)
                (relayed.client.reset if reset else relayed.client.close)()
                self.until(lambda relayed=relayed: relayed.done)
                self.assertFinished(relayed)

    def test_halfClosed(self) -> None:
        """A client that closes its side is let go at once."""
        relayed = self.parted()
        relayed.client.fin()
        self.assertGone(relayed)

    def test_slow(self) -> None:
        """A client that is slow gets all that the backend had sent."""
        for combination in stream.COMBINATIONS:
            relayed = self.at(self.crowded(), *combination)
            relayed.client.reading = False
            relayed.backend.send(CONTENT[:MiB])
            self.until(lambda relayed=relayed: not relayed.backend.unsent)
            relayed.backend.goodbye()
            self.settle(20)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT[:MiB])
            self.assertTrue(relayed.relay.isParted)
            self.turns.clock.pump([1.0, 0.6])
            self.assertGone(relayed)

    def test_unread(self) -> None:
        """A client that was not read, as the backend took nothing, is read again."""
        relayed = self.at(self.crowded(), small=True)
        relayed.backend.reading = False
        relayed.client.send(CONTENT[: 4 * MiB])
        self.settle(20)
        self.assertTrue(relayed.client.unsent)
        relayed.client._finish = None
        relayed.relay._client._size = 0
        relayed.backend.reset()
        self.until(lambda: relayed.relay.isParted and not relayed.client.unsent)
        self.turns.clock.pump([1.0, 0.6])
        self.assertGone(relayed)

    def test_operator(self) -> None:
        """An operator does not wait."""
        relayed = self.parted()
        relayed.relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.assertGone(relayed, Outcome.STOPPED)
        relayed = self.parted()
        relayed.relay.stop()
        self.settle(20)
        self.assertIsInstance(relayed.client.error, OSError)
        self.assertFinished(relayed, Outcome.STOPPED)

    def test_expired(self) -> None:
        """The time of the session goes on."""
        relayed = self.parted()
        relayed.relay.limit(self.turns.clock.seconds() + 0.1)
        self.turns.clock.advance(1.0)
        self.assertGone(relayed, Outcome.EXPIRED)

    def test_goodbyes(self) -> None:
        """A client that has said goodbye does not wait, however many there are."""
        peer = self.crowded()
        peer.connections = 100
        for combination in stream.COMBINATIONS:
            for line in (b"a1 NOOP\r\na2 LOGOUT\r\n", b"QUIT\r\n"):
                relayed = self.at(peer, *combination)
                relayed.client.send(b"NOOP\r\n")
                relayed.client.send(line)
                self.untilHas(relayed.backend, len(line) + 6)
                relayed.backend.say(b"bye\r\n")
                self.assertReceived(relayed.client, b"bye\r\n")
                self.until(lambda client=relayed.client: client.over or client.saidGoodbye)
                relayed.client.close()
                relayed.backend.close()
                self.assertFinished(relayed)

    def test_afterGoodbye(self) -> None:
        """A client that goes on after its goodbye, as it was none, waits like others."""
        relayed = self.at(self.crowded())
        relayed.client.send(b"QUIT\r\n")
        self.untilHas(relayed.backend, 6)
        relayed.client.send(b"a1 SELECT {5}\r\n")
        self.untilHas(relayed.backend, 21)
        relayed.backend.close()
        self.settle(20)
        self.assertTrue(relayed.relay.isParted)
        self.turns.clock.pump([1.0, 0.6])
        self.assertGone(relayed)

    def test_bulk(self) -> None:
        """A client that has just sent a message through a pipe does not wait: its goodbye may have gone with it."""
        relayed = self.at(self.crowded())
        relayed.client.send(CONTENT[:MiB])
        self.assertReceived(relayed.backend, CONTENT[:MiB])
        relayed.client.send(b".\r\nQUIT\r\n")
        self.untilHas(relayed.backend, MiB + 9)
        relayed.backend.connection.shutdown(socket.SHUT_WR)
        self.until(lambda: relayed.client.ended)
        self.end(relayed)

    def test_bulkWithoutPipe(self) -> None:
        """Where no pipe was left for the message, each piece was looked at: the client waits after its next command."""
        self.pipes.most = 0
        relayed = self.at(self.crowded())
        relayed.client.send(CONTENT[:MiB])
        self.assertReceived(relayed.backend, CONTENT[:MiB])
        relayed.client.send(b".\r\nNOOP\r\n")
        self.untilHas(relayed.backend, MiB + 9)
        relayed.backend.close()
        self.settle(20)
        self.assertTrue(relayed.relay.isParted)
        self.turns.clock.pump([1.0, 0.6])
        self.assertGone(relayed)

    def test_off(self) -> None:
        """Outside of groups, or without a delay, the client is let go at once."""
        for peer in (None, crowded(spread=0.0)):
            relayed = self.at(peer)
            relayed.backend.reset()
            self.assertGone(relayed)
