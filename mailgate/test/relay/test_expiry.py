"""Tests for both relays: how a session ends whose time is over."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Trouble
from mailgate.relay.base import LAST, LATEST, QUIET
from mailgate.session import Outcome
from mailgate.test.relay import test_portable as portable
from mailgate.test.support import relaycase as stream
from mailgate.test.support.relaycase import CONTENT, MiB

EXPIRES = 5.0


def producing(receiver: Any) -> Any:
    """What C{receiver}, a transport, pauses while it takes nothing."""
    return receiver.producer


class PortableTests(SynchronousTestCase):
    """L{mailgate.relay.portable.Relay}, with an exact clock."""

    def relayed(self) -> portable.Relayed:
        """A session with a limit, 4.5 seconds after its begin."""
        relayed = portable.Relayed()
        relayed.relay.limit(EXPIRES)
        relayed.clock.advance(4.5)
        return relayed

    def assertClosed(self, relayed: portable.Relayed, toClient: bytes = b"", toBackend: bytes = b"") -> None:
        """Both sides are closed in an orderly way, have got what the other side sent, and nothing else."""
        for side, expected in ((relayed.client, toClient), (relayed.backend, toBackend)):
            self.assertTrue(side.disconnecting)
            self.assertFalse(side.aborted)
            self.assertEqual(side.value(), expected)
        self.assertIs(relayed.session.outcome, Outcome.EXPIRED)
        relayed.client.lose()
        relayed.backend.lose()
        self.assertEqual((relayed.session.received, relayed.session.sent), (len(toBackend), len(toClient)))
        self.assertEqual(relayed.clock.getDelayedCalls(), [])

    def test_quiet(self) -> None:
        """A session in which nothing moves ends at once."""
        relayed = self.relayed()
        relayed.clock.advance(0.4)
        self.assertFalse(relayed.client.disconnecting)
        relayed.clock.advance(0.1)
        self.assertClosed(relayed)

    def test_busy(self) -> None:
        """In the middle of a transfer it ends one second after the last byte."""
        relayed = self.relayed()
        for _ in range(20):
            relayed.backend.protocol.dataReceived(b"x" * 1000)
            relayed.clock.advance(0.5)
            self.assertFalse(relayed.client.disconnecting)
        relayed.clock.advance(QUIET - 0.5)
        self.assertClosed(relayed, toClient=20 * 1000 * b"x")

    def test_latest(self) -> None:
        """A side that sends a byte each half second ends with a minute."""
        for direction in range(2):
            relayed = self.relayed()
            side = (relayed.client, relayed.backend)[direction]
            count = 0
            while relayed.clock.seconds() < EXPIRES + LATEST - 0.5:
                self.assertFalse(relayed.client.disconnecting)
                side.protocol.dataReceived(b"x")
                count += 1
                relayed.clock.advance(0.5)
            relayed.clock.advance(0.5)
            side.protocol.dataReceived(b"too late")
            self.assertClosed(relayed, *((b"", count * b"x"), (count * b"x", b""))[direction])

    def test_stuck(self) -> None:
        """While bytes wait for one side, the silence of the other does not count. After a minute both are reset."""
        relayed = self.relayed()
        producing(relayed.client).pauseProducing()
        relayed.clock.pump([0.5] * 120)
        self.assertFalse(relayed.client.disconnecting)
        relayed.clock.advance(0.5)
        self.assertTrue(relayed.client.aborted and relayed.backend.aborted)
        self.assertIs(relayed.session.outcome, Outcome.EXPIRED)

    def test_unstuck(self) -> None:
        """Once the waiting bytes are taken, a second of silence ends the session."""
        relayed = self.relayed()
        producing(relayed.client).pauseProducing()
        relayed.clock.pump([0.5] * 40)
        producing(relayed.client).resumeProducing()
        relayed.backend.protocol.dataReceived(b"the rest")
        relayed.clock.pump([0.5] * 4)
        self.assertClosed(relayed, toClient=b"the rest")

    def test_unanswered(self) -> None:
        """A message that is complete is waited for: the client would send it again. Its answer ends the session."""
        for pieces in ((b"DATA\r\n", b"text\r\n.\r\n"), (b"DATA\r\n", b"text\r\n", b".\r\n")):
            relayed = self.relayed()
            for piece in pieces:
                relayed.client.protocol.dataReceived(piece)
                if piece == b"DATA\r\n":
                    relayed.backend.protocol.dataReceived(b"354\r\n")
            relayed.clock.pump([0.5] * 40)
            self.assertFalse(relayed.client.disconnecting)
            relayed.backend.protocol.dataReceived(b"250\r\n")
            relayed.clock.pump([0.5] * 4)
            self.assertClosed(relayed, toClient=b"354\r\n250\r\n", toBackend=b"".join(pieces))

    def test_incomplete(self) -> None:
        """A message that is not complete is not waited for."""
        relayed = self.relayed()
        relayed.client.protocol.dataReceived(b"DATA\r\n")
        relayed.backend.protocol.dataReceived(b"354\r\n")
        relayed.client.protocol.dataReceived(b"text\r\n")
        relayed.clock.pump([0.5] * 2)
        self.assertClosed(relayed, toClient=b"354\r\n", toBackend=b"DATA\r\ntext\r\n")

    def test_never(self) -> None:
        """If the answer does not come, a minute is the limit."""
        relayed = self.relayed()
        relayed.client.protocol.dataReceived(b"DATA\r\n")
        relayed.client.protocol.dataReceived(b".\r\n")
        relayed.clock.pump([0.5] * 120)
        self.assertFalse(relayed.client.disconnecting)
        relayed.clock.advance(0.5)
        self.assertClosed(relayed, toBackend=b"DATA\r\n.\r\n")

    def test_drips(self) -> None:
        """A side that does not close is reset soon after the minute, even if it takes a byte now and then."""
        relayed = self.relayed()
        while not relayed.client.disconnecting:
            relayed.client.protocol.dataReceived(b"x")
            relayed.clock.advance(0.5)
        for _ in range(round(2 * LAST) - 1):
            self.assertFalse(relayed.client.aborted)
            relayed.relay.moved()
            relayed.clock.advance(0.5)
        relayed.clock.advance(0.5)
        self.assertTrue(relayed.client.aborted and relayed.backend.aborted)

    def test_dismissed(self) -> None:
        """An operator does not wait."""
        relayed = self.relayed()
        for _ in range(3):
            relayed.client.protocol.dataReceived(b"x")
            relayed.clock.advance(0.5)
        relayed.relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.assertTrue(relayed.client.disconnecting and relayed.backend.disconnecting)
        self.assertIs(relayed.session.outcome, Outcome.STOPPED)

    def test_past(self) -> None:
        """A limit in the past is a limit now: the side that is slow has its time."""
        relayed = portable.Relayed()
        relayed.clock.advance(90)
        relayed.relay.limit(2.0)
        relayed.clock.advance(0)
        self.assertTrue(relayed.client.disconnecting)
        self.assertFalse(relayed.client.aborted)


class StreamTests(stream.RelayCase):
    """L{mailgate.relay.stream.StreamRelay}, with timers that are exact to one second."""

    def expiring(self, clientTLS: bool = False, backendTLS: bool = False, small: bool = False) -> stream.Relayed:
        """A session whose time ends in five seconds."""
        relayed = self.relayed(clientTLS, backendTLS, small)
        relayed.relay.limit(self.turns.clock.seconds() + EXPIRES)
        return relayed

    def assertOrderly(self, relayed: stream.Relayed) -> None:
        """Both sides got close_notify where there is TLS, and the end of file."""
        self.untilOver(relayed.client, relayed.backend)
        for peer in (relayed.client, relayed.backend):
            self.assertIsNone(peer.error)
            self.assertTrue(peer.ended)
            self.assertEqual(peer.saidGoodbye, peer.engine is not None)
        self.assertFinished(relayed, Outcome.EXPIRED)

    def test_quiet(self) -> None:
        """A session in which nothing moves ends within about a second, and nothing is written into the stream."""
        for combination in stream.COMBINATIONS:
            relayed = self.expiring(*combination)
            relayed.client.send(b"a IDLE\r\n")
            relayed.backend.send(b"+ idling\r\n")
            self.advance(EXPIRES)
            self.assertEqual(relayed.done, 0)
            self.advance(1)
            self.assertOrderly(relayed)
            self.assertEqual((relayed.client.received, relayed.backend.received), (b"+ idling\r\n", b"a IDLE\r\n"))
            self.assertEqual(relayed.counters, (8, 10))

    def test_transfers(self) -> None:
        """A large message, in either direction, arrives whole although the time ends in its middle."""
        for combination in stream.COMBINATIONS:
            for isUpload in (False, True):
                relayed = self.expiring(*combination)
                pair = relayed.client, relayed.backend
                sender, receiver = pair if isUpload else pair[::-1]
                receiver.reading = False
                sender.send(CONTENT)
                self.settle()
                self.advance(EXPIRES + 20)
                self.assertEqual(relayed.done, 0)
                receiver.reading = True
                self.assertReceived(receiver, CONTENT)
                self.advance(QUIET + 2)
                self.assertOrderly(relayed)
                self.assertEqual(sum(relayed.counters), len(CONTENT))

    def test_unanswered(self) -> None:
        """A message that is complete is waited for: the client would send it again. Its answer ends the session."""
        for combination in stream.COMBINATIONS:
            relayed = self.expiring(*combination)
            relayed.client.send(b"DATA\r\n")
            self.untilHas(relayed.backend, 6)
            relayed.backend.send(b"354\r\n")
            self.untilHas(relayed.client, 5)
            relayed.client.send(b"text\r\n.\r\n")
            self.untilHas(relayed.backend, 15)
            self.advance(EXPIRES + 30)
            self.assertEqual(relayed.done, 0)
            relayed.backend.send(b"250\r\n")
            self.untilHas(relayed.client, 10)
            self.advance(QUIET + 2)
            self.assertOrderly(relayed)

    def test_latest(self) -> None:
        """A client that sends a byte each half second is cut after a minute. All of its bytes arrive."""
        relayed = self.expiring()
        sent = 0
        while not relayed.done:
            self.assertLess(self.turns.clock.seconds(), EXPIRES + LATEST + 2)
            relayed.client.send(b"x")
            sent += 1
            self.settle()
            self.turns.clock.advance(0.5)
            self.settle()
        self.assertGreaterEqual(self.turns.clock.seconds(), EXPIRES + LATEST)
        self.assertFinished(relayed, Outcome.EXPIRED)
        self.assertTrue(relayed.backend.ended)
        self.assertEqual(len(relayed.backend.received), sent)

    def test_stuck(self) -> None:
        """A client that reads nothing is reset after a minute."""
        for combination in stream.COMBINATIONS:
            relayed = self.expiring(*combination, small=True)
            relayed.client.reading = False
            relayed.backend.send(CONTENT[: 4 * MiB])
            self.settle()
            self.advance(EXPIRES + LATEST - 1)
            self.assertEqual(relayed.done, 0)
            self.advance(3)
            self.assertFinished(relayed, Outcome.EXPIRED)

    def test_stubborn(self) -> None:
        """A client that takes a little now and then is reset soon after the minute."""
        relayed = self.expiring(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        while not relayed.done:
            self.assertLess(self.turns.clock.seconds(), EXPIRES + LATEST + LAST + 2)
            relayed.client.connection.recv(16384)
            self.turns.clock.advance(0.5)
            self.settle()
        self.assertGreaterEqual(self.turns.clock.seconds(), EXPIRES + LATEST)
        self.assertFinished(relayed, Outcome.EXPIRED)

    def test_stopped(self) -> None:
        """An operator does not wait."""
        relayed = self.expiring()
        self.advance(EXPIRES - 1)
        relayed.backend.send(b"x")
        self.settle()
        self.advance(1.5)
        relayed.backend.send(b"x")
        self.settle()
        self.assertEqual(relayed.done, 0)
        relayed.relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        self.settle()
        self.assertFinished(relayed, Outcome.STOPPED)
