"""
Tests for L{mailgate.relay.streamend} and L{mailgate.relay.stream} with receivers that read nothing, over real sockets
of their usual size: what waits for them in memory and in pipes.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailgate.lean.descriptors import ask, sendingRoom
from mailgate.relay import streamend as relayend
from mailgate.relay.streamend import MOST_MOVED, MUCH, SAFE
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, MiB, RelayCase, Relayed
from mailgate.test.support.tlsengines import FAST
from mailgate.tls import makeengine as tlsengine
from mailgate.tls.engine import PublicEngine

if TYPE_CHECKING:
    Mixin = SynchronousTestCase
else:
    # Scenarios become tests only in classes that mix in a kind of engine and a TestCase.
    Mixin = object

FLOOD = CONTENT * 4
"""More bytes than all buffers of the kernel can hold."""


class RoomTests(SynchronousTestCase):
    """L{sendingRoom}."""

    def pair(self, family: int) -> tuple[socket.socket, socket.socket]:
        if family == socket.AF_UNIX:
            ours, theirs = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listening:
                ours = socket.create_connection(listening.getsockname())
                theirs, _ = listening.accept()
        for each in (ours, theirs):
            self.addCleanup(each.close)
            each.setblocking(False)
        return ours, theirs

    def test_shrinks(self) -> None:
        """It shrinks by the bytes on their way, to about nothing if the system takes no more. Then it grows again."""
        for family in (socket.AF_INET, socket.AF_UNIX):
            ours, theirs = self.pair(family)
            empty = sendingRoom(ours.fileno())
            self.assertGreater(empty, 4096)
            while True:
                try:
                    ours.send(bytes(4096))
                except BlockingIOError:
                    break
            full = sendingRoom(ours.fileno())
            self.assertLess(full, SAFE)
            while True:
                try:
                    theirs.recv(1 << 20)
                except BlockingIOError:
                    break
            self.assertGreater(sendingRoom(ours.fileno()), full)

    def test_unknown(self) -> None:
        """It is 0 if the system does not report it."""
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        self.assertEqual([sendingRoom(end) for end in (*ends, -1)], [0, 0, 0])


class StuckCase(RelayCase):
    """Sessions whose client stops reading."""

    def flooded(self, *combination: bool, read: int = 0) -> Relayed:
        """A session whose backend floods a client that has read C{read} bytes and stopped."""
        relayed = self.relayed(*combination)
        # Else the kernel's buffer may grow until it holds everything.
        ask(relayed.relay._backend.fd, socket.AF_INET, "setsockopt", socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * MiB)
        relayed.backend.send(FLOOD)
        if read:
            self.untilHas(relayed.client, read)
        relayed.client.reading = False
        self.settle()
        self.assertTrue(relayed.backend.unsent)
        return relayed

    def assertComplete(self, relayed: Relayed) -> None:
        """The client reads again, and receives everything, which is counted."""
        relayed.client.reading = True
        self.assertReceived(relayed.client, FLOOD)
        self.assertEqual(relayed.held(), 0)
        self.end(relayed)
        self.assertEqual(relayed.counters, (0, len(FLOOD)))

    def waiting(self, relayed: Relayed) -> Any:
        return relayed.relay._client.waiting


class BoundTests(StuckCase):
    """How much waits for a receiver that reads nothing."""

    def test_never(self) -> None:
        """Little waits for a receiver that has read nothing at all."""
        for combination in COMBINATIONS:
            relayed = self.flooded(*combination)
            self.assertGreater(relayed.held(), 0)
            self.assertLessEqual(relayed.held(), 2 * SAFE)
            self.assertComplete(relayed)

    def test_later(self) -> None:
        """No more waits for a receiver that was fast and was sent large pieces."""
        for combination in COMBINATIONS:
            relayed = self.flooded(*combination, read=4 * MiB)
            self.assertLessEqual(relayed.held(), 2 * SAFE)
            self.assertComplete(relayed)

    def test_fast(self) -> None:
        """A fast receiver is sent large pieces, because the system has room for them."""
        sizes: list[int] = []
        spend = relayend.RelayEnd._spend

        def noting(end: Any, count: int, size: int) -> None:
            sizes.append(size)
            spend(end, count, size)

        self.patch(relayend.RelayEnd, "_spend", noting)
        for combination in COMBINATIONS:
            sizes.clear()
            relayed = self.relayed(*combination)
            relayed.backend.send(FLOOD)
            self.assertReceived(relayed.client, FLOOD)
            self.assertGreaterEqual(max(sizes), MUCH)
            self.end(relayed)

    def test_seldom(self) -> None:
        """The system is not asked for its room before each message that fits anyway."""
        asked: list[int] = []
        self.patch(relayend, "sendingRoom", asked.append)
        message = CONTENT[:20_000]
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            for _ in range(20):
                relayed.backend.send(message)
                self.assertReceived(relayed.client, message)
                relayed.client.received.clear()
            self.end(relayed)
        self.assertEqual(asked, [])

    def test_untold(self) -> None:
        """If the system does not report its room, the pieces are small, and everything arrives."""
        self.patch(relayend, "sendingRoom", lambda fd: 0)
        for combination in COMBINATIONS:
            relayed = self.flooded(*combination, read=MiB)
            self.assertLessEqual(relayed.held(), SAFE + SAFE // 8)
            self.assertComplete(relayed)

    def test_buffers(self) -> None:
        """OpenSSL's buffers are released while the receiver is stuck, even if the client still sends."""
        for combination in COMBINATIONS[1:]:
            relayed = self.flooded(*combination, read=4 * MiB)
            for _ in range(4):
                relayed.client.send(b"NOOP\r\n")
                self.settle()
                self.advance(1)
            ends = (relayed.relay._client, relayed.relay._backend)
            self.assertFalse(any(end.isEncrypted and end._engine._grown for end in ends))
            relayed.client.reading = True
            self.assertReceived(relayed.client, FLOOD)
            self.end(relayed)


class PipeTests(StuckCase):
    """A receiver that reads nothing does not keep a pipe."""

    def moved(self, read: int = MiB) -> Relayed:
        """A session whose client had a pipe, which was taken from it."""
        relayed = self.flooded(read=read)
        self.assertIsInstance(self.waiting(relayed), tuple)
        self.advance(4)
        self.assertIsInstance(self.waiting(relayed), bytes)
        return relayed

    def test_givenBack(self) -> None:
        """After some seconds the pipe is free. Its bytes are sent to the client before what follows."""
        for read in (0, MiB, 4 * MiB):
            relayed = self.flooded(read=read)
            held = relayed.held()
            self.assertIsInstance(self.waiting(relayed), tuple)
            self.assertEqual(self.pipes.taken, self.pipes.given + 1)
            self.advance(4)
            self.assertEqual((self.pipes.taken, self.pipes.dropped), (self.pipes.given, 0))
            self.assertEqual(relayed.held(), held)
            self.assertComplete(relayed)

    def test_notAtOnce(self) -> None:
        """The bytes stay in the pipe until there was no progress for one second."""
        relayed = self.flooded()
        self.advance(1)
        self.assertIsInstance(self.waiting(relayed), tuple)
        self.assertComplete(relayed)

    def test_others(self) -> None:
        """As many stuck receivers as there are pipes do not keep other sessions from getting one."""
        self.pipes.most = 3
        stuck = [self.flooded() for _ in range(5)]
        self.assertEqual([isinstance(self.waiting(each), tuple) for each in stuck], [True] * 3 + [False] * 2)
        self.advance(4)
        taken, refused = self.pipes.taken, self.pipes.refused
        other = self.relayed()
        other.backend.send(FLOOD)
        self.assertReceived(other.client, FLOOD)
        self.assertGreater(self.pipes.taken, taken)
        self.assertEqual(self.pipes.refused, refused)
        self.end(other)
        for each in stuck:
            self.assertComplete(each)

    def test_slow(self) -> None:
        """A slow receiver receives everything in order, whether or not its pipe was taken."""
        relayed = self.flooded()
        while len(relayed.client.received) < len(FLOOD) // 2:
            before = len(relayed.client.received)
            relayed.client.reading = True
            self.until(lambda before=before: len(relayed.client.received) > before)
            relayed.client.reading = False
            self.settle()
            self.advance(3)
        self.assertComplete(relayed)

    def test_tooMuch(self) -> None:
        """Too many bytes for memory stay in the pipe until they are fewer."""
        self.patch(relayend, "MOST_MOVED", 0)
        relayed = self.flooded()
        self.advance(5)
        self.assertIsInstance(self.waiting(relayed), tuple)
        self.patch(relayend, "MOST_MOVED", MOST_MOVED)
        self.advance(2)
        self.assertIsInstance(self.waiting(relayed), bytes)
        self.assertComplete(relayed)

    def test_endOfBackend(self) -> None:
        """When the backend ends, all its bytes are delivered, and then the end."""
        relayed = self.relayed()
        relayed.client.reading = False
        relayed.backend.say(FLOOD)
        self.settle()
        self.advance(4)
        self.assertIsInstance(self.waiting(relayed), bytes)
        relayed.client.reading = True
        self.assertReceived(relayed.client, FLOOD)
        self.untilOver(relayed.client)
        relayed.client.send(b"BYE")
        self.assertReceived(relayed.backend, b"BYE")
        self.end(relayed)
        self.assertEqual(relayed.counters, (3, len(FLOOD)))

    def test_otherDirection(self) -> None:
        """The client's bytes are relayed meanwhile, also those that arrive while its pipe is taken."""
        relayed = self.flooded()
        for number in range(6):
            relayed.client.send(b"%d NOOP\r\n" % number)
            self.advance(1)
        self.assertIsInstance(self.waiting(relayed), bytes)
        self.assertReceived(relayed.backend, b"".join(b"%d NOOP\r\n" % number for number in range(6)))
        relayed.client.reading = True
        self.assertReceived(relayed.client, FLOOD)
        self.end(relayed)

    def test_lost(self) -> None:
        """Nothing is left if such a session is lost, before or after, or is stopped by the gateway."""
        ends: list[Any] = [
            lambda relayed: relayed.client.reset(),
            lambda relayed: relayed.relay.abort(),
        ]
        for end in ends:
            for seconds in (0, 1, 4):
                relayed = self.flooded()
                self.advance(seconds)
                end(relayed)
                self.assertFinished(relayed)
                self.assertEqual(self.pipes.taken, self.pipes.given + self.pipes.dropped)
                self.assertEqual(self.relays.stuck, {})
                self.assertIsNone(self.relays._emptying)

    def test_noTimerLeft(self) -> None:
        """When nothing waits in pipes, there is no timer."""
        relayed = self.flooded()
        self.assertIsNotNone(self.relays._emptying)
        relayed.client.reading = True
        self.assertReceived(relayed.client, FLOOD)
        self.advance(2)
        self.assertEqual((self.relays.stuck, self.relays._emptying), ({}, None))
        self.end(relayed)


class EncryptScenarios(Mixin):
    """C{encrypt} of an engine."""

    kind: Any = None

    def setUp(self) -> None:
        self.engine: Any
        self.engine, self.peer = tlsengine._acquainted(self.kind)

    def received(self, *ciphertext: bytes) -> bytes:
        """What the peer decrypts."""
        for each in ciphertext:
            self.peer.feed(each)
        plain = bytearray()
        while (data := self.peer.read()) is not None:
            plain += data
        return bytes(plain)

    def test_sizes(self) -> None:
        """Data of every size and type are encrypted completely."""
        for size in (0, 1, SAFE, SAFE + 1, 3 * SAFE - 1, MUCH - 1, MUCH, MUCH + 1, MiB):
            for data in (CONTENT[:size], bytearray(CONTENT[:size]), memoryview(CONTENT)[:size]):
                sealed = bytes(self.engine.encrypt(data))
                self.assertEqual(bytes(self.engine.output()), b"")
                self.assertTrue(self.received(sealed) == CONTENT[:size], size)

    def test_behindOthers(self) -> None:
        """Output that waited comes first, even if it is more than a buffer holds."""
        for before in (10, 100_000, MUCH):
            self.engine.write(CONTENT[:before])
            sealed = bytes(self.engine.encrypt(CONTENT[before : before + MUCH]))
            self.assertEqual(bytes(self.engine.output()), b"")
            self.assertTrue(self.received(sealed) == CONTENT[: before + MUCH], before)

    def test_closed(self) -> None:
        """After a close_notify nothing can be sent."""
        self.engine.closeNotify()
        for size in (10, MUCH):
            self.assertRaises(SSL.Error, self.engine.encrypt, CONTENT[:size])


class FastEncryptTests(EncryptScenarios, SynchronousTestCase):
    """That of L{mailgate.tls.fastengine.FastEngine}."""

    kind = staticmethod(FAST)

    def test_pieces(self) -> None:
        """OpenSSL receives pieces no larger than what may wait for a receiver, which limits its buffer."""
        given: list[int] = []
        binding = self.engine._binding
        write = binding.sslWrite

        def noting(ssl: Any, data: Any, size: int) -> int:
            given.append(size)
            return int(write(ssl, data, size))

        self.patch(binding, "sslWrite", noting)
        self.received(bytes(self.engine.encrypt(CONTENT[: MUCH - 1])))
        self.assertEqual(given, [SAFE, SAFE, SAFE, SAFE - 1])
        self.assertTrue(self.engine._grown)
        self.engine.settle()
        self.assertFalse(self.engine._grown)


class PublicEncryptTests(EncryptScenarios, SynchronousTestCase):
    """That of L{mailgate.tls.engine.PublicEngine}."""

    kind = PublicEngine
