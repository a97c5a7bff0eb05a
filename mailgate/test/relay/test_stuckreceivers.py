"""
Tests for L{mailgate.relay.streamend} and L{mailgate.relay.stream} with receivers that read nothing, over real sockets
of their usual size: what waits for them, in memory and in pipes that others could use.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from mailgate.lean.descriptors import sendingRoom
from mailgate.relay import streamend as relayend
from mailgate.relay.streamend import MOST_MOVED, MUCH, SAFE
from mailgate.test.support.relaycase import COMBINATIONS, CONTENT, MiB, RelayCase, Relayed
from mailgate.test.support.tlsengines import FAST
from mailgate.tls import makeengine as tlsengine
from mailgate.tls.engine import PublicEngine

if TYPE_CHECKING:
    Mixin = SynchronousTestCase
else:
    # Scenarios become tests only where a kind of engine and a TestCase are mixed in.
    Mixin = object

FLOOD = CONTENT * 4
"""More than all buffers of the kernel hold, as large as they grow."""


class RoomTests(SynchronousTestCase):
    """How much the system takes at once."""

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
        """It is less by what is on its way, and about nothing where the system takes no more; then it grows again."""
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
        """Where the system does not tell, it is nothing."""
        ends = os.pipe()
        for end in ends:
            self.addCleanup(os.close, end)
        self.assertEqual([sendingRoom(end) for end in (*ends, -1)], [0, 0, 0])


class StuckCase(RelayCase):
    """Sessions whose client stops to read."""

    def flooded(self, *combination: bool, read: int = 0) -> Relayed:
        """A session whose backend floods a client that has read C{read} bytes and reads no more."""
        relayed = self.relayed(*combination)
        relayed.backend.send(FLOOD)
        if read:
            self.untilHas(relayed.client, read)
        relayed.client.reading = False
        self.settle()
        self.assertTrue(relayed.backend.unsent)
        return relayed

    def assertComplete(self, relayed: Relayed) -> None:
        """The client reads again, and has been sent all of it, which has been counted."""
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
        """It is little for one that has read nothing at all."""
        for combination in COMBINATIONS:
            relayed = self.flooded(*combination)
            self.assertGreater(relayed.held(), 0)
            self.assertLessEqual(relayed.held(), 2 * SAFE)
            self.assertComplete(relayed)

    def test_later(self) -> None:
        """It is no more for one that has been fast, and was sent much at a time."""
        for combination in COMBINATIONS:
            relayed = self.flooded(*combination, read=4 * MiB)
            self.assertLessEqual(relayed.held(), 2 * SAFE)
            self.assertComplete(relayed)

    def test_fast(self) -> None:
        """One that reads is sent much at a time: the room is asked for, and there is some."""
        sizes: list[int] = []
        fitting = relayend.RelayEnd._fitting

        def noting(end: Any, size: int) -> int:
            sizes.append(fitting(end, size))
            return sizes[-1]

        self.patch(relayend.RelayEnd, "_fitting", noting)
        for combination in COMBINATIONS:
            sizes.clear()
            relayed = self.relayed(*combination)
            relayed.backend.send(FLOOD)
            self.assertReceived(relayed.client, FLOOD)
            self.assertGreaterEqual(max(sizes), MUCH)
            self.end(relayed)

    def test_untold(self) -> None:
        """Where the system does not tell how much room there is, little is sent at a time, and all of it arrives."""
        self.patch(relayend, "sendingRoom", lambda fd: 0)
        for combination in COMBINATIONS:
            relayed = self.flooded(*combination, read=MiB)
            self.assertLessEqual(relayed.held(), SAFE + SAFE // 8)
            self.assertComplete(relayed)

    def test_buffers(self) -> None:
        """TLS's own buffers are given back while it is stuck, though the client goes on talking."""
        for combination in COMBINATIONS[1:]:
            relayed = self.flooded(*combination, read=4 * MiB)
            for _ in range(4):
                relayed.client.send(b"NOOP\r\n")
                self.settle()
                self.advance(1)
            ends = (relayed.relay._client, relayed.relay._backend)
            self.assertFalse(any(end._engine is not None and end._engine._grown for end in ends))
            relayed.client.reading = True
            self.assertReceived(relayed.client, FLOOD)
            self.end(relayed)


class PipeTests(StuckCase):
    """Pipes that a receiver which reads nothing does not keep."""

    def moved(self, read: int = MiB) -> Relayed:
        """A session whose client has had a pipe, and has it no more."""
        relayed = self.flooded(read=read)
        self.assertIsInstance(self.waiting(relayed), tuple)
        self.advance(4)
        self.assertIsInstance(self.waiting(relayed), bytes)
        return relayed

    def test_givenBack(self) -> None:
        """After some seconds the pipe is free; what was in it is kept, and sent to the client before what follows."""
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
        """It is not moved before a second without progress is over."""
        relayed = self.flooded()
        self.advance(1)
        self.assertIsInstance(self.waiting(relayed), tuple)
        self.assertComplete(relayed)

    def test_others(self) -> None:
        """Those who read nothing, as many as there are pipes, keep nobody from having one."""
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
        """One that reads slowly is sent everything in order, whether or not its pipe was taken from it meanwhile."""
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
        """More than is to be held in memory stays where it is, until it is less."""
        self.patch(relayend, "MOST_MOVED", 0)
        relayed = self.flooded()
        self.advance(5)
        self.assertIsInstance(self.waiting(relayed), tuple)
        self.patch(relayend, "MOST_MOVED", MOST_MOVED)
        self.advance(2)
        self.assertIsInstance(self.waiting(relayed), bytes)
        self.assertComplete(relayed)

    def test_endOfBackend(self) -> None:
        """A backend that ends has everything delivered that it has said, and the end behind that."""
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
        """What the client says goes to the backend meanwhile, also what comes while its pipe is taken from it."""
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
        """Nothing is left when such a session breaks off, before or after, nor when it is ended by us."""
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
                self.assertEqual(self.relays._piped, {})
                self.assertIsNone(self.relays._emptying)

    def test_noTimerLeft(self) -> None:
        """Where nothing waits in pipes any more there is no timer."""
        relayed = self.flooded()
        self.assertIsNotNone(self.relays._emptying)
        relayed.client.reading = True
        self.assertReceived(relayed.client, FLOOD)
        self.advance(2)
        self.assertEqual((self.relays._piped, self.relays._emptying), ({}, None))
        self.end(relayed)


class EncryptScenarios(Mixin):
    """C{encrypt} of an engine, in whichever pieces it is done."""

    kind: Any = None

    def setUp(self) -> None:
        self.engine: Any
        self.engine, self.peer = tlsengine._acquainted(self.kind)

    def received(self, *ciphertext: bytes) -> bytes:
        """What the other end understands of it."""
        for each in ciphertext:
            self.peer.feed(each)
        plain = bytearray()
        while (data := self.peer.read()) is not None:
            plain += data
        return bytes(plain)

    def test_sizes(self) -> None:
        """All that is given is encrypted, nothing is left for later, whatever kind of bytes it is."""
        for size in (0, 1, SAFE, SAFE + 1, 3 * SAFE - 1, MUCH - 1, MUCH, MUCH + 1, MiB):
            for data in (CONTENT[:size], bytearray(CONTENT[:size]), memoryview(CONTENT)[:size]):
                sealed = bytes(self.engine.encrypt(data))
                self.assertEqual(bytes(self.engine.output()), b"")
                self.assertTrue(self.received(sealed) == CONTENT[:size], size)

    def test_behindOthers(self) -> None:
        """What was to be sent before comes first, also where that is more than a buffer holds."""
        for before in (10, 100_000, MUCH):
            self.engine.write(CONTENT[:before])
            sealed = bytes(self.engine.encrypt(CONTENT[before : before + MUCH]))
            self.assertEqual(bytes(self.engine.output()), b"")
            self.assertTrue(self.received(sealed) == CONTENT[: before + MUCH], before)

    def test_closed(self) -> None:
        """Behind a goodbye nothing can be sent."""
        self.engine.closeNotify()
        for size in (10, MUCH):
            self.assertRaises(SSL.Error, self.engine.encrypt, CONTENT[:size])


class FastEncryptTests(EncryptScenarios, SynchronousTestCase):
    """That of L{mailgate.tls.fastengine.FastEngine}."""

    kind = staticmethod(FAST)

    def test_pieces(self) -> None:
        """OpenSSL is given as much at a time as may wait for a receiver: its buffer grows to that."""
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
