"""
Tests for L{mailgate.relay.stream}: real sockets and a real poller, but turns and a clock that the tests make go.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import hashlib
import os
import random
import select
import socket
import struct
import sys
import termios
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides

from mailgate.config import parse
from mailgate.lean.clock import CoarseClock
from mailgate.lean.poller import Poller
from mailgate.lean.tls import TLSLayer
from mailgate.lean.transport import StreamTransport
from mailgate.login import Trouble
from mailgate.registry import PROTOCOLS
from mailgate.relay import streamend as relayend
from mailgate.relay.base import HELD
from mailgate.relay.pipes import Pipe, PipePool
from mailgate.relay.portable import Relay
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.stream import StreamRelay, StreamRelays
from mailgate.relay.streamend import LITTLE, MUCH
from mailgate.service import Gateway
from mailgate.session import Outcome, Session
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.relaytransport import RelayTransport
from mailgate.test.support.talk import Talk
from mailgate.test.support.tlsengines import FAST, FORGED
from mailgate.test.support.tlspair import makePair, settingsFor
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.engine import PeerClosed, PublicEngine, TLSEngine
from mailgate.tls.makeengine import makeEngine
from mailgate.tls.server import ServerTLS

IDLE = 100.0
LINGER = 10.0
MiB = 1024 * 1024

CONTENT = random.Random(3502).randbytes(8 * MiB)
"""More than the buffers of the kernel hold, and nowhere like itself, so that what is lost or doubled shows."""

SMALL = 128 * 1024
"""Bytes of a small buffer, twice a segment of the loopback: with less the kernel waits for timers of its own."""

COMBINATIONS = [(client, backend) for client in (False, True) for backend in (False, True)]
"""Whether the client speaks TLS, and whether the backend does."""

PATIENCE = 10000
"""Milliseconds for which the kernel may keep to itself what has been sent."""

MANY_TURNS = 20000
"""More than anything here takes that is not going round in circles."""


class Turns:
    """A reactor that has its turn when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.seconds = self.clock.seconds
        self.callLater = self.clock.callLater
        self.readers: set[Any] = set()

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def turn(self) -> None:
        for reader in list(self.readers):
            reader.doRead()
        self.clock.advance(0)


class Peer:
    """
    A client or a backend: a socket that never blocks, and its TLS if it has an C{engine}. It reads whatever comes,
    unless C{reading} is false, and sends what it was given as far as that is taken.
    """

    PIECE = 256 * 1024

    def __init__(self, connection: socket.socket, engine: TLSEngine | None = None) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.engine = engine
        self.received = bytearray()
        self.reading = True
        self.saidGoodbye = False
        """Whether its TLS was told that no more comes."""
        self.ended = False
        """Whether there was an end of file."""
        self.error: Exception | None = None
        """Why it can be used no more, if not for that."""
        self.alert = b""
        self._left: deque[memoryview] = deque()
        self._wire = memoryview(b"")
        self._finish: Callable[[], object] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended or self.error is not None

    @property
    def unsent(self) -> bool:
        """Whether something was not taken yet."""
        return bool(self._wire or self._left)

    def wants(self) -> int:
        """What to wait for, as C{select.poll} has it."""
        if self.error is not None or self.connection.fileno() < 0:
            return 0
        return select.POLLIN * (self.reading and not self.over) | select.POLLOUT * self.unsent

    def send(self, data: bytes) -> None:
        """Send C{data}, sooner or later."""
        self._left.append(memoryview(data))
        self.pump()

    def pump(self) -> None:
        """Do what can be done now."""
        if self.connection.fileno() < 0 or self.error is not None:
            return
        try:
            if self.reading and not self.over:
                self._pull()
            self._push()
        except BlockingIOError:
            return
        except (OSError, SSL.Error) as error:
            self.error = error

    def _pull(self) -> None:
        try:
            data = self.connection.recv(self.PIECE)
        except BlockingIOError:
            return
        if not data:
            self.ended = True
        elif self.engine is None:
            self.received += data
        else:
            self._decrypt(self.engine, data)

    def _decrypt(self, engine: TLSEngine, data: bytes) -> None:
        engine.feed(data)
        try:
            if not engine.handshaken and not self.shakeHands():
                return
            while (plain := engine.read()) is not None:
                self.received += plain
        except PeerClosed:
            self.saidGoodbye = True
        self._write(bytes(engine.output()))

    def shakeHands(self) -> bool:
        """Go on with the handshake; whether it is over."""
        assert self.engine is not None
        done = self.engine.handshake()
        self._write(bytes(self.engine.output()))
        return done

    def _push(self) -> None:
        while self.unsent:
            if not self._wire:
                self._wire = self._sealed(self._left[0][: self.PIECE])
                self._left[0] = self._left[0][self.PIECE :]
                if not self._left[0]:
                    self._left.popleft()
            self._wire = self._wire[self.connection.send(self._wire) :]
        if self._finish is not None:
            finish, self._finish = self._finish, None
            finish()

    def _sealed(self, data: memoryview) -> memoryview:
        if self.engine is None:
            return data
        self.engine.write(bytes(data))
        return memoryview(bytes(self.engine.output()))

    def _write(self, data: bytes) -> None:
        """Put C{data} on the wire as they are, behind what is there already."""
        self._wire = memoryview(bytes(self._wire) + data)
        self._push()

    def raw(self, data: bytes) -> None:
        """Send C{data} without TLS."""
        self._write(data)

    def say(self, data: bytes, goodbye: bool = True) -> None:
        """Send C{data}, and then that no more will come: TLS's goodbye, where there is TLS, and an end of file."""
        self._finish = self.goodbye if goodbye else self.fin
        self.send(data)

    def goodbye(self) -> None:
        """Say that no more will come."""
        if self.engine is not None:
            self.engine.closeNotify()
            self._write(bytes(self.engine.output()))
        else:
            self.fin()

    def fin(self) -> None:
        """Send no more."""
        self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close, in whichever way the system finds fit."""
        self.connection.close()

    def reset(self) -> None:
        """Go without a goodbye."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class Watched(PipePool):
    """A pool of C{most} pipes that counts: how often one was taken, refused, given back and dropped."""

    def __init__(self, most: int = 48) -> None:
        super().__init__()
        self.most = most
        self.taken = self.refused = self.given = self.dropped = 0
        self.pipes: set[Pipe] = set()

    def take(self) -> Pipe | None:
        pipe = super().take() if self.taken - self.given - self.dropped < self.most else None
        if pipe is None:
            self.refused += 1
            return None
        self.taken += 1
        self.pipes.add(pipe)
        if octetsIn(pipe):
            raise AssertionError("bytes of somebody else's")
        return pipe

    def give(self, pipe: Pipe) -> None:
        self.given += 1
        if octetsIn(pipe):
            raise AssertionError("given back with bytes in it")
        super().give(pipe)

    def drop(self, pipe: Pipe) -> None:
        self.dropped += 1
        self.pipes.discard(pipe)
        super().drop(pipe)


def octetsIn(pipe: Pipe) -> int:
    """How many bytes are in C{pipe}."""
    answer = fcntl.ioctl(pipe.output, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, "little")


class Trusting:
    """Makes the TLS of clients that believe everybody, and notes the secrets in C{secrets} by their names."""

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}

    def getContext(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_keylog_callback(self._noted)
        return context

    def _noted(self, connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.decode().split(" ")
        self.secrets[label] = bytes.fromhex(secret)


class Dialogue(RelayedProtocol):
    """A protocol before the hand-over: it calls C{reaction} with all that it hears."""

    reaction: Any = None

    def dialogueReceived(self, data: bytes) -> None:
        if self.reaction is not None:
            reaction, self.reaction = self.reaction, None
            reaction(data)


class Relayed:
    """One session that is relayed, or is about to be: L{client} and L{backend} are its peers."""

    def __init__(self, case: RelayCase, clientTLS: bool, backendTLS: bool, small: bool) -> None:
        self._case = case
        self.session = Session("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        self.done = 0
        self.creator = Trusting()
        self.client, self.near = case.connect(True, clientTLS, self.creator, small)
        self.backend, self.far = case.connect(False, backendTLS, self.creator, small)

    def start(self, toClient: bytes = b"", toBackend: bytes = b"", idle: float = IDLE, linger: float = LINGER) -> None:
        """Hand both connections over."""
        near, far = self.near, self.far
        self.relay: Any = self._case.relays.between(near, far, self.session, idle, linger, self._finished)
        self.relay.start(toClient, toBackend)

    def _finished(self, relay: Any) -> None:
        self.done += 1

    @property
    def counters(self) -> tuple[int, int]:
        return self.session.received, self.session.sent

    def held(self) -> int:
        """Bytes that have been read and not been sent, the kernel's in pipes too."""
        held = 0
        for end in (self.relay._client, self.relay._backend):
            waiting = end.waiting
            held += waiting[1] if isinstance(waiting, tuple) else len(waiting or b"")
        return held


class RelayCase(SynchronousTestCase):
    """What these tests need: a poller, the time, and sessions."""

    kind: Any = staticmethod(FAST)
    """Of the engines of the gateway's ends."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.poller = Poller(self.turns)
        turns: Any = self.turns
        self.relays = StreamRelays(self.poller, CoarseClock(turns))
        self.pipes = self.relays.pipes = Watched()
        self.peers: list[Peer] = []
        self._pair: Any = None

    def tearDown(self) -> None:
        """Whatever has happened, in the end no connection, no pipe and no timer is left."""
        for peer in self.peers:
            peer.close()
        for owner in [owner for owner in self.poller._owners if owner is not None]:
            if isinstance(owner, StreamTransport):
                self.poller.release(owner.fd)
            elif isinstance(owner, relayend.RelayEnd) and owner.fd >= 0:
                owner.relay.abort()
        self.turns.turn()
        self.assertEqual(self.pipes.taken, self.pipes.given + self.pipes.dropped)
        self.pipes.close()
        self.assertEqual(self.turns.readers, set())
        self.assertEqual(self.turns.clock.getDelayedCalls(), [])

    @property
    def pair(self) -> Any:
        """A certificate, and its key."""
        if self._pair is None:
            folder = self.mktemp()
            os.mkdir(folder)
            self._pair = makePair(folder, "relay")
            self._trust = loadTrust(self._pair.certificate)
        return self._pair

    def connect(self, accepted: bool, tls: bool, creator: Trusting, small: bool) -> tuple[Peer, Dialogue]:
        """A peer, and our end of its connection: C{accepted} from a client, or made to a backend."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            other = socket.socket()
            if small:
                for each in (listening, other):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL)
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            other.connect(listening.getsockname())
            ours, _ = listening.accept()
        ours.setblocking(False)
        ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = StreamTransport(self.poller, ours.detach(), socket.AF_INET, IPv4Address("TCP", "127.0.0.1", 0))
        transport.accepted = accepted
        protocol = Dialogue()
        transport.open(protocol)
        peer = Peer(other)
        self.peers.append(peer)
        if tls:
            self._secure(peer, transport, creator)
        return peer, protocol

    def _secure(self, peer: Peer, transport: StreamTransport, creator: Trusting) -> None:
        accepting = ServerTLS(settingsFor(self.pair), "imap")
        ours: Any = accepting if transport.accepted else backendTLS("localhost", True, self._trust)
        theirs: Any = creator if transport.accepted else accepting
        peer.engine = makeEngine(theirs, not transport.accepted, PublicEngine)
        transport.tls = TLSLayer(transport, makeEngine(ours, transport.accepted, self.kind))
        directlyProvides(transport, ISSLTransport)
        transport.tls.start()
        peer.shakeHands()
        tls, engine = transport.tls, peer.engine
        self.until(lambda: tls.handshaken and engine.handshaken)

    def prepared(self, clientTLS: bool = False, backendTLS: bool = False, small: bool = False) -> Relayed:
        """A session before the hand-over; with C{small} buffers of the sockets."""
        return Relayed(self, clientTLS, backendTLS, small)

    def relayed(self, clientTLS: bool = False, backendTLS: bool = False, small: bool = False, **start: Any) -> Relayed:
        """A session after the hand-over."""
        relayed = self.prepared(clientTLS, backendTLS, small)
        relayed.start(**start)
        return relayed

    def sides(self, *arguments: bool, **start: Any) -> Iterator[tuple[Relayed, Peer, Peer]]:
        """Sessions, and the peer that is the first to do something and the other: once the client, once the backend."""
        relayed = self.relayed(*arguments, **start)
        yield relayed, relayed.client, relayed.backend
        relayed = self.relayed(*arguments, **start)
        yield relayed, relayed.backend, relayed.client

    def step(self, patience: int = 0) -> bool:
        """Everybody's turn; gives whether there was anything to do, at once or after C{patience} milliseconds."""
        waiting = select.poll()
        for peer in self.peers:
            wanted = peer.wants()
            if wanted:
                waiting.register(peer.connection, wanted)
        for reader in self.turns.readers:
            waiting.register(reader.fileno(), select.POLLIN)
        events = waiting.poll(patience)
        for peer in self.peers:
            peer.pump()
        self.turns.turn()
        return bool(events)

    def until(self, condition: Callable[..., object], *arguments: Any) -> int:
        """Go on until C{condition} of C{arguments} is true; gives in how many turns."""
        for count in range(MANY_TURNS):
            if condition(*arguments):
                return count
            if not self.step(PATIENCE):
                self.fail("Nothing happens any more.")
        self.fail("There is no end to it.")

    def untilOver(self, *peers: Peer) -> None:
        """Go on until all of C{peers} know that nothing more will come."""
        self.until(lambda: all(peer.over for peer in peers))

    def untilHas(self, peer: Peer, size: int) -> int:
        """Go on until C{peer} has received C{size} bytes, at least; gives in how many turns."""
        return self.until(lambda: len(peer.received) >= size)

    def settle(self, patience: int = 0) -> None:
        """
        Go on until nobody has anything to do, for C{patience} milliseconds; that there is no end to it would be a busy
        loop. A system that is busy may take its time to bring what one side has sent to the other.
        """
        for _ in range(MANY_TURNS):
            if not self.step(patience):
                return
        self.fail("There is no end to it.")

    def advance(self, seconds: float) -> None:
        """Let time pass, a second at a time, and whoever is told of it act."""
        while seconds > 0:
            self.turns.clock.advance(min(1, seconds))
            seconds -= 1
        self.settle()

    def untilTold(self, relayed: Relayed, ended: Peer) -> None:
        """Let a backend over TLS hear that C{ended}, a client in the clear, has."""
        if ended is relayed.client and ended.engine is None and relayed.backend.engine is not None:
            self.settle()
            self.assertFalse(relayed.backend.ended)
            self.advance(HELD + 1)

    def assertReceived(self, peer: Peer, expected: bytes) -> None:
        """C{peer} receives C{expected}, and nothing behind it; without printing megabytes that differ."""
        self.until(lambda: len(peer.received) >= len(expected) or peer.over)
        self.settle()
        self.assertEqual(len(peer.received), len(expected))
        same = hashlib.sha256(peer.received).digest() == hashlib.sha256(expected).digest()
        self.assertTrue(same, "the content differs")

    def assertFinished(self, relayed: Relayed, outcome: Outcome = Outcome.RELAYED) -> None:
        """The session is over, once, with nothing left of it."""
        self.settle()
        self.assertEqual(relayed.done, 1)
        self.assertIs(relayed.session.outcome, outcome)
        self.assertEqual(relayed.relay.tick, 0)
        self.assertEqual([name for name in ("_client", "_backend") if hasattr(relayed.relay, name)], [])

    def end(self, relayed: Relayed) -> None:
        """Both peers leave."""
        relayed.client.close()
        relayed.backend.close()
        self.assertFinished(relayed)


class BytesTests(RelayCase):
    """What goes where, between peers with TLS and without."""

    def test_words(self) -> None:
        """A few bytes arrive as they are, each way, in all combinations, and are counted when both have left."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            relayed.client.send(b"a2 SELECT \0\xff\r\n")
            relayed.backend.send(b"* 3")
            relayed.backend.send(b" EXISTS\r\n")
            self.assertReceived(relayed.backend, b"a2 SELECT \0\xff\r\n")
            self.assertReceived(relayed.client, b"* 3 EXISTS\r\n")
            self.end(relayed)
            self.assertEqual(relayed.counters, (14, 12))

    def test_pieces(self) -> None:
        """Megabytes arrive each way at the same time, however they are cut."""
        cuts = random.Random(7)
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            sent = CONTENT[: 2 * MiB]
            position = 0
            while position < len(sent):
                size = cuts.choice((1, 5, 1460, LITTLE - 1, LITTLE, LITTLE + 1, 65536, 200_000, MUCH))
                piece = sent[position : position + size]
                position += size
                relayed.client.send(piece)
                relayed.backend.send(piece)
                if cuts.random() < 0.5:
                    self.step()
            self.assertReceived(relayed.client, sent)
            self.assertReceived(relayed.backend, sent)
            self.end(relayed)
            self.assertEqual(relayed.counters, (len(sent), len(sent)))

    def test_much(self) -> None:
        """So do eight of them in one go, and what follows."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            for peer in (relayed.client, relayed.backend):
                peer.send(CONTENT)
            self.untilHas(relayed.client, len(CONTENT))
            relayed.backend.send(b"a1 OK done\r\n")
            self.assertReceived(relayed.client, CONTENT + b"a1 OK done\r\n")
            self.assertReceived(relayed.backend, CONTENT)
            self.end(relayed)
            self.assertEqual(relayed.counters, (len(CONTENT), len(CONTENT) + 12))

    def test_readAhead(self) -> None:
        """What the dialogues had read ahead goes first, and counts."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination)
            relayed.client.send(b"a3 NOOP\r\n")
            relayed.backend.send(b"* BYE\r\n")
            relayed.start(b"a1 OK done\r\n", b"a2 NOOP\r\n")
            self.assertReceived(relayed.client, b"a1 OK done\r\n* BYE\r\n")
            self.assertReceived(relayed.backend, b"a2 NOOP\r\na3 NOOP\r\n")
            self.end(relayed)
            self.assertEqual(relayed.counters, (18, 19))

    def test_unsent(self) -> None:
        """What the dialogues had said and was not taken yet goes before all else; only what is relayed counts."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination, small=True)
            for peer, protocol in ((relayed.client, relayed.near), (relayed.backend, relayed.far)):
                peer.reading = False
                protocol.transport.write(CONTENT[:MiB])
                self.assertTrue(protocol.transport.unsent)
            relayed.start(b"to the client", b"to the backend")
            relayed.client.send(b" and more")
            self.settle()
            self.assertEqual(relayed.relay._client.moved, len(b"to the backend"))
            for peer in (relayed.client, relayed.backend):
                peer.reading = True
            self.assertReceived(relayed.client, CONTENT[:MiB] + b"to the client")
            self.assertReceived(relayed.backend, CONTENT[:MiB] + b"to the backend and more")
            self.end(relayed)
            self.assertEqual(relayed.counters, (23, 13))

    def test_paused(self) -> None:
        """What came while the dialogues did not listen is heard, though nothing follows it."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination)
            for peer, protocol in ((relayed.client, relayed.near), (relayed.backend, relayed.far)):
                protocol.transport.pauseProducing()
                peer.send(b"early")
            self.settle()
            relayed.start()
            self.assertReceived(relayed.client, b"early")
            self.assertReceived(relayed.backend, b"early")
            self.end(relayed)

    def test_undelivered(self) -> None:
        """What had been decrypted, and not been given to the dialogue, is not lost: its end, say."""
        for tls in (False, True):
            relayed = self.prepared(tls, True)
            relayed.far.reaction = lambda data, relayed=relayed: relayed.start(data)
            relayed.backend.say(b"a1 OK done\r\n")
            self.assertReceived(relayed.client, b"a1 OK done\r\n")
            self.assertTrue(relayed.client.ended)
            self.end(relayed)

    def test_handOverInTheMiddle(self) -> None:
        """A dialogue may give its connection away while it is being told of data."""
        for combination in COMBINATIONS:
            relayed = self.prepared(*combination)
            relayed.near.transport.pauseProducing()
            relayed.far.reaction = lambda data, relayed=relayed: relayed.start(data, b"early")
            for peer in (relayed.backend, relayed.client):
                peer.send(CONTENT[:MiB])
            self.assertReceived(relayed.backend, b"early" + CONTENT[:MiB])
            self.assertReceived(relayed.client, CONTENT[:MiB])
            self.end(relayed)

    def test_changeOfKeys(self) -> None:
        """A client that changes its keys, and asks for ours to be changed, is understood, and answered in TLS."""
        relayed = self.relayed(True)
        keys = Keys(relayed.creator)
        relayed.client.raw(keys.update())
        relayed.client.raw(keys.sealed(b"a1 NOOP\r\n"))
        self.assertReceived(relayed.backend, b"a1 NOOP\r\n")
        relayed.backend.send(b"a1 OK\r\n")
        self.assertReceived(relayed.client, b"a1 OK\r\n")
        self.assertIsNone(relayed.client.error)
        self.end(relayed)
        self.assertEqual(relayed.counters, (9, 7))


class PublicBytesTests(BytesTests):
    """The same over engines that use nothing private."""

    kind = staticmethod(PublicEngine)


class Keys:
    """The keys of a TLS 1.3 client who has not sent a byte of data yet, of TLS_AES_256_GCM_SHA384 (RFC 8446, 7)."""

    def __init__(self, creator: Trusting) -> None:
        self._derive(creator.secrets["CLIENT_TRAFFIC_SECRET_0"])

    def _derive(self, secret: bytes) -> None:
        self._secret = secret
        self._key, self._iv = self._expand(b"key", 32), self._expand(b"iv", 12)
        self._sequence = 0

    def _expand(self, label: bytes, length: int) -> bytes:
        name = b"tls13 " + label
        info = struct.pack(">HB", length, len(name)) + name + b"\0"
        return HKDFExpand(hashes.SHA384(), length, info).derive(self._secret)

    def sealed(self, data: bytes, kind: int = 23) -> bytes:
        """The record of C{data}."""
        nonce = int.from_bytes(self._iv, "big") ^ self._sequence
        self._sequence += 1
        header = struct.pack(">BHH", 23, 0x0303, len(data) + 17)
        return header + AESGCM(self._key).encrypt(nonce.to_bytes(12, "big"), data + bytes([kind]), header)

    def update(self) -> bytes:
        """The record that says that the keys change, and asks for the same; they are changed."""
        record = self.sealed(b"\x18\0\0\x01\x01", 22)
        self._derive(self._expand(b"traffic upd", 48))
        return record


class BulkTests(RelayCase):
    """What pipes are for."""

    def test_bulk(self) -> None:
        """64 MiB to the client, and 16 MiB from it, by a digest."""
        relayed = self.relayed()
        sent = hashlib.sha256()
        for _ in range(8):
            relayed.backend.send(CONTENT)
            sent.update(CONTENT)
        relayed.client.send(CONTENT)
        relayed.client.send(CONTENT)
        received, size = hashlib.sha256(), 0
        while size < 64 * MiB:
            self.untilHas(relayed.client, 1)
            received.update(relayed.client.received)
            size += len(relayed.client.received)
            del relayed.client.received[:]
        self.assertEqual((size, received.digest()), (64 * MiB, sent.digest()))
        self.assertReceived(relayed.backend, CONTENT + CONTENT)
        self.end(relayed)
        self.assertEqual(relayed.counters, (16 * MiB, 64 * MiB))

    def test_pipes(self) -> None:
        """Many bytes go through a pipe, few do not; one at a time is enough, and is given back empty."""
        pipes = self.pipes
        relayed = self.relayed()
        relayed.backend.send(b"x" * 10000)
        self.assertReceived(relayed.client, b"x" * 10000)
        self.assertEqual(pipes.taken, 0)
        relayed.backend.send(CONTENT)
        self.assertReceived(relayed.client, b"x" * 10000 + CONTENT)
        self.assertGreater(pipes.taken, 0)
        self.assertEqual(len(pipes.pipes), 1)
        self.assertEqual((pipes.given, pipes.dropped), (pipes.taken, 0))
        self.end(relayed)

    def test_notUnderTLS(self) -> None:
        """Where one end speaks TLS no pipe is of use."""
        pipes = self.pipes
        for combination in COMBINATIONS[1:]:
            relayed = self.relayed(*combination)
            relayed.backend.send(CONTENT)
            self.assertReceived(relayed.client, CONTENT)
            self.end(relayed)
        self.assertEqual(pipes.taken, 0)

    def test_withoutPipes(self) -> None:
        """When there are no pipes left bytes are copied."""
        pipes = self.pipes
        pipes.most = 0
        relayed = self.relayed()
        for peer in (relayed.client, relayed.backend):
            peer.send(CONTENT)
        self.assertReceived(relayed.client, CONTENT)
        self.assertReceived(relayed.backend, CONTENT)
        self.assertGreater(pipes.refused, 0)
        self.end(relayed)
        self.assertEqual(relayed.counters, (len(CONTENT), len(CONTENT)))

    def test_withoutSplice(self) -> None:
        """So they are by a Python that knows no splice."""
        splice = os.splice
        del os.splice
        self.addCleanup(setattr, os, "splice", splice)
        self.pipes = self.relays.pipes = Watched()
        relayed = self.relayed()
        relayed.backend.send(CONTENT)
        self.assertReceived(relayed.client, CONTENT)
        self.end(relayed)

    def test_nothingToSplice(self) -> None:
        """Nothing is lost by an event that brings nothing; the pipe that was taken for it is given back."""
        relayed = self.relayed()
        relayed.backend.send(b"x" * 100_000)
        self.assertReceived(relayed.client, b"x" * 100_000)
        end, taken = relayed.relay._backend, self.pipes.taken
        end.ready(end.fd, select.EPOLLIN)
        self.assertEqual((self.pipes.taken, self.pipes.given), (taken + 1, taken + 1))
        relayed.backend.send(b"more")
        self.assertReceived(relayed.client, b"x" * 100_000 + b"more")
        self.end(relayed)

    def test_endInAPipe(self) -> None:
        """The end of file may come when a pipe is asked for more."""
        for size in (LITTLE, LITTLE * 4, LITTLE * 5, MiB):
            relayed = self.relayed()
            relayed.backend.say(CONTENT[:size])
            self.assertReceived(relayed.client, CONTENT[:size])
            self.assertTrue(relayed.client.ended)
            relayed.client.close()
            self.assertFinished(relayed)
            self.assertEqual(relayed.counters, (0, size))


class BackPressureTests(RelayCase):
    """Receivers that do not take what they are sent."""

    def stuck(self, clientTLS: bool = False, backendTLS: bool = False, content: bytes = CONTENT) -> Relayed:
        """A session whose backend has sent C{content}, as much of it as it could to a client that does not read."""
        relayed = self.relayed(clientTLS, backendTLS, True)
        relayed.client.reading = False
        relayed.backend.send(content)
        self.settle()
        self.assertTrue(relayed.backend.unsent)
        self.assertGreater(relayed.held(), 0)
        return relayed

    def test_stuck(self) -> None:
        """A client that does not read stops its backend, and is sent everything, in order, once it reads."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            moved = relayed.relay._backend.moved
            self.settle()
            self.assertEqual(relayed.relay._backend.moved, moved)
            self.assertLess(moved, 2 * MiB)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)
            self.assertEqual(relayed.held(), 0)
            self.end(relayed)
            self.assertEqual(relayed.counters, (0, len(CONTENT)))

    def test_stuckBackend(self) -> None:
        """So does a backend its client."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.backend.reading = False
            relayed.client.send(CONTENT)
            self.settle()
            self.assertTrue(relayed.client.unsent)
            relayed.backend.reading = True
            self.assertReceived(relayed.backend, CONTENT)
            self.end(relayed)
            self.assertEqual(relayed.counters, (len(CONTENT), 0))

    def test_copying(self) -> None:
        """It is the same when there are no pipes left."""
        self.pipes.most = 0
        relayed = self.stuck()
        self.assertIsInstance(relayed.relay._client.waiting, bytes | memoryview)
        relayed.client.reading = True
        self.assertReceived(relayed.client, CONTENT)
        self.end(relayed)

    def test_bounded(self) -> None:
        """Who never took much has little waiting for him: one read, of a size that begins small."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            self.assertLessEqual(relayed.held(), MUCH + MUCH // 8)

    def test_beginsAgain(self) -> None:
        """Who was stuck is sent little at first."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            source, sink = relayed.relay._backend, relayed.relay._client
            relayed.client.reading = True
            while sink.waiting is not None:
                relayed.client.pump()
                sink.ready(sink.fd, select.EPOLLOUT)
            moved = source.moved
            source.ready(source.fd, select.EPOLLIN)
            self.assertLessEqual(source.moved - moved, LITTLE)
            self.assertReceived(relayed.client, CONTENT)

    def test_boundedAgain(self) -> None:
        """Nor does it become more for one who gets stuck again and again."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            most = 0
            while len(relayed.client.received) < len(CONTENT) // 2:
                relayed.client.pump()
                relayed.client.reading = True
                relayed.client.pump()
                relayed.client.reading = False
                self.step()
                most = max(most, relayed.held())
            self.assertLessEqual(most, MUCH + MUCH // 8)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)

    def test_otherDirection(self) -> None:
        """The other direction goes on, both of a few bytes and of many."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            relayed.client.send(b"DONE\r\n")
            self.assertReceived(relayed.backend, b"DONE\r\n")
            relayed.client.send(CONTENT)
            self.assertReceived(relayed.backend, b"DONE\r\n" + CONTENT)
            self.assertEqual(len(relayed.client.received), 0)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)
            self.end(relayed)

    def test_bothStuck(self) -> None:
        """Both directions may be stuck at once, and one begins to move before the other."""
        for combination in COMBINATIONS:
            relayed = self.stuck(*combination)
            relayed.backend.reading = False
            relayed.client.send(CONTENT)
            self.settle()
            self.assertTrue(relayed.client.unsent)
            relayed.backend.reading = True
            self.assertReceived(relayed.backend, CONTENT)
            self.assertTrue(relayed.backend.unsent)
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT)
            self.end(relayed)

    def test_otherSessions(self) -> None:
        """Other sessions go on, and never see a byte of the one that is stuck."""
        pipes = self.pipes
        stuck = self.stuck()
        other = self.relayed()
        content = CONTENT[::-1]
        other.backend.send(content)
        self.assertReceived(other.client, content)
        self.assertEqual(len(pipes.pipes), 2)
        stuck.client.reading = True
        self.assertReceived(stuck.client, CONTENT)
        self.assertEqual((pipes.given, pipes.dropped), (pipes.taken, 0))
        self.end(stuck)
        self.end(other)

    def test_exhausted(self) -> None:
        """When all pipes are stuck others are served by copying."""
        pipes = self.pipes
        pipes.most = 3
        stuck = [self.stuck() for _ in range(5)]
        inPipes = [isinstance(each.relay._client.waiting, tuple) for each in stuck]
        self.assertEqual(inPipes, [True] * 3 + [False] * 2)
        other = self.relayed()
        other.backend.send(CONTENT)
        self.assertReceived(other.client, CONTENT)
        for each in stuck:
            each.client.reading = True
            self.assertReceived(each.client, CONTENT)

    def test_endsInAPipe(self) -> None:
        """A pipe in which bytes are stuck when their session ends is closed; the next session has one of its own."""
        pipes = self.pipes
        for end in (lambda relayed: relayed.relay.abort(), lambda relayed: relayed.client.reset()):
            relayed = self.stuck()
            pipe, count = relayed.relay._client.waiting
            self.assertEqual(octetsIn(pipe), count)
            dropped = pipes.dropped
            end(relayed)
            self.assertFinished(relayed)
            self.assertEqual(pipes.dropped, dropped + 1)
            self.assertNotIn(pipe, pipes._kept)
            self.assertEqual(pipes.taken, pipes.given + pipes.dropped)
            after = self.relayed()
            content = CONTENT[::-1]
            after.backend.send(content)
            self.assertReceived(after.client, content)
            self.end(after)

    def test_flood(self) -> None:
        """Beside a session that sends as fast as it can another has its answer as soon as ever."""
        for combination in COMBINATIONS:
            flood, ping = self.relayed(*combination), self.relayed(*combination)
            for _ in range(16):
                flood.backend.send(CONTENT)
            self.untilHas(flood.client, 1)
            for number in range(1, 6):
                ping.client.send(b"ping\r\n")
                turns = self.untilHas(ping.backend, 6 * number)
                ping.backend.send(b"pong\r\n")
                turns += self.untilHas(ping.client, 6 * number)
                self.assertLessEqual(turns, 6)
            self.assertTrue(flood.backend.unsent)
            flood.client.reset()
            flood.backend.reset()
            self.end(ping)

    def test_onceATurn(self) -> None:
        """However much there is, one event is one read."""
        relayed = self.relayed()
        relayed.backend.send(b"x" * 100_000)
        end = relayed.relay._backend
        end.ready(end.fd, select.EPOLLIN)
        self.assertEqual(end.moved, LITTLE)
        self.settle()
        self.end(relayed)

    def test_changesOfKeys(self) -> None:
        """Who asks for changes of keys and never reads the answers does not make them pile up: he is cut off."""
        relayed = self.stuck(True, content=b"x" * 4 * MiB)
        keys = Keys(relayed.creator)
        flood = b"".join(keys.update() for _ in range(1000))
        most = 0
        for _ in range(100):
            relayed.client.raw(flood)
            self.settle()
            if relayed.done:
                break
            flood = b"".join(keys.update() for _ in range(1000))
            most = max(most, relayed.held())
        self.assertLess(most, 2 * MiB)
        self.assertEqual(relayed.done, 1)


class EndTests(RelayCase):
    """How a session ends."""

    def test_lost(self) -> None:
        """When one side has closed both are, and the other is given what was on its way."""
        for combination in COMBINATIONS:
            for relayed, gone, left in self.sides(*combination):
                gone.say(b"last words")
                self.settle()
                gone.close()
                self.assertReceived(left, b"last words")
                self.untilTold(relayed, gone)
                self.assertTrue(left.ended)
                left.close()
                self.assertFinished(relayed)

    def test_halfClose(self) -> None:
        """When one side has said its last word the other is told so, and may still answer, at length."""
        for combination in COMBINATIONS:
            for relayed, ended, other in self.sides(*combination):
                ended.say(b"last words")
                self.assertReceived(other, b"last words")
                self.untilTold(relayed, ended)
                self.assertTrue(other.ended)
                self.assertEqual(other.saidGoodbye, other.engine is not None)
                self.assertEqual((ended.over, relayed.done), (False, 0))
                other.say(CONTENT)
                self.assertReceived(ended, CONTENT)
                self.assertTrue(ended.ended)
                self.assertEqual(ended.saidGoodbye, ended.engine is not None)
                self.assertFinished(relayed)
                self.assertEqual(sorted(relayed.counters), [10, len(CONTENT)])

    def test_held(self) -> None:
        """A backend over TLS has answered all before it hears of the end, and is no longer kept than that."""
        relayed = self.relayed(backendTLS=True)
        relayed.client.say(b"last words")
        for _ in range(5):
            self.advance(HELD - 1)
            relayed.backend.send(b"more")
            self.settle()
            self.assertFalse(relayed.backend.ended)
        relayed.backend.say(b".")
        self.assertReceived(relayed.client, b"more" * 5 + b".")
        self.assertTrue(relayed.backend.saidGoodbye)
        self.assertFinished(relayed)

    def test_heldWhileStuck(self) -> None:
        """It hears of it no earlier than the client has taken what it is given, but is not waited for for ever."""
        relayed = self.relayed(backendTLS=True, small=True)
        relayed.client.reading = False
        relayed.client.say(b"last words")
        relayed.backend.send(CONTENT)
        self.settle(100)
        self.advance(LINGER - 2)
        self.assertFalse(relayed.backend.saidGoodbye)
        self.advance(2 * LINGER)
        self.assertTrue(relayed.backend.over)
        self.assertFinished(relayed)

    def test_heldOfGone(self) -> None:
        """A client that has gone is noticed by what it is sent."""
        relayed = self.relayed(backendTLS=True)
        relayed.client.close()
        self.settle()
        for _ in range(3):
            relayed.backend.send(b"more")
            self.settle()
        self.assertTrue(relayed.backend.ended)
        self.assertFinished(relayed)

    def test_halfCloseThenLost(self) -> None:
        """The answer may be that the connection is gone."""
        for relayed, ended, other in self.sides():
            ended.say(b"last words")
            self.untilOver(other)
            other.send(b"an answer")
            other.reset()
            self.assertFinished(relayed)
            self.assertTrue(ended.over)

    def test_endBehindStuck(self) -> None:
        """Who did not read gets everything, and then the end."""
        for combination in COMBINATIONS:
            for size in (600_000, 3 * MiB):
                for relayed, ended, other in self.sides(*combination, True):
                    other.reading = False
                    ended.say(CONTENT[:size])
                    self.settle()
                    self.assertEqual(relayed.done, 0)
                    other.reading = True
                    self.assertReceived(other, CONTENT[:size])
                    self.untilTold(relayed, ended)
                    self.assertTrue(other.ended)
                    self.assertEqual(other.saidGoodbye, other.engine is not None)
                    other.close()
                    self.assertFinished(relayed)

    def test_endWhileStuck(self) -> None:
        """Nor is anybody asked for more when he has ended, once the other has taken everything."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.client.reading = False
            relayed.backend.send(CONTENT)
            self.settle()
            source = relayed.relay._backend
            source._ended()
            moved = source.moved
            relayed.client.reading = True
            self.assertReceived(relayed.client, CONTENT[:moved])
            self.assertTrue(relayed.client.ended)
            self.assertEqual(source.moved, moved)

    def test_bothAtOnce(self) -> None:
        """Both sides may end before either hears of the other."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            relayed.client.say(b"bye")
            relayed.backend.say(b"BYE")
            self.assertReceived(relayed.client, b"BYE")
            self.assertReceived(relayed.backend, b"bye")
            self.assertFinished(relayed)
            for peer in (relayed.client, relayed.backend):
                self.assertTrue(peer.ended)
                self.assertIsNone(peer.error)

    def test_reset(self) -> None:
        """A side that breaks off ends the other, with nothing logged."""
        for combination in COMBINATIONS:
            for relayed, gone, left in self.sides(*combination):
                gone.reset()
                self.untilOver(left)
                self.assertFinished(relayed)
                self.assertEqual(relayed.counters, (0, 0))

    def test_resetStuck(self) -> None:
        """So does one that breaks off while it has not read what it was sent."""
        for combination in COMBINATIONS:
            for relayed, gone, left in self.sides(*combination, True):
                gone.reading = False
                left.send(CONTENT)
                gone.send(b"unread")
                self.settle()
                gone.reset()
                self.untilOver(left)
                self.assertFinished(relayed)

    def test_resetWhileTheOtherIsStuck(self) -> None:
        """What was on its way to one that does not read is sent when it does, though the sender is gone."""
        for relayed, gone, left in self.sides(False, False, True):
            left.reading = False
            gone.send(CONTENT[: 2 * MiB])
            self.settle()
            gone.reset()
            self.settle()
            left.reading = True
            self.untilOver(left)
            self.assertTrue(CONTENT.startswith(bytes(left.received)))
            self.assertGreater(len(left.received), LITTLE)
            self.assertFinished(relayed)

    def test_cutOff(self) -> None:
        """TLS that ends without a goodbye is a connection that broke off: both are closed at once."""
        for relayed, gone, left in self.sides(True, True):
            gone.say(b"last words", goodbye=False)
            self.assertReceived(left, b"last words")
            self.untilOver(left)
            self.assertFinished(relayed)

    def test_garbage(self) -> None:
        """What is no TLS is refused in TLS's own words, and ends both; nothing of it is passed on."""
        for garbage in (FORGED, b"a1 NOOP\r\n" * 20, bytes(100)):
            for relayed, odd, other in self.sides(True, True):
                odd.raw(garbage)
                self.untilOver(odd)
                self.assertIsInstance(odd.error, SSL.Error)
                self.assertIn("alert", str(odd.error))
                self.untilOver(other)
                self.assertTrue(other.saidGoodbye)
                self.assertEqual(bytes(other.received), b"")
                self.assertFinished(relayed)

    def test_garbageBehindData(self) -> None:
        """What came before the garbage is passed on."""
        for relayed, odd, other in self.sides(True, True):
            odd.send(b"good")
            odd.raw(FORGED)
            self.assertReceived(other, b"good")
            self.assertFinished(relayed)

    def test_lastWordsBeforeUnread(self) -> None:
        """That a client had something to say that nobody will hear does not cost it our last words."""
        for relayed, gone, left in self.sides():
            left.reading = False
            gone.send(CONTENT[: 512 * 1024])
            self.settle()
            left.send(b"unheard")
            relayed.relay.close()
            self.settle()
            left.reading = True
            self.assertReceived(left, CONTENT[: 512 * 1024])
            self.assertTrue(left.ended)
            self.assertFinished(relayed)

    def test_changeOfKeysBehindGoodbye(self) -> None:
        """A client that has been told of the end may still change its keys, and go on."""
        relayed = self.relayed(True)
        relayed.backend.say(b"BYE")
        self.untilOver(relayed.client)
        keys = Keys(relayed.creator)
        relayed.client.raw(keys.update())
        relayed.client.raw(keys.sealed(b"last words"))
        self.assertReceived(relayed.backend, b"last words")
        self.assertEqual(relayed.done, 0)
        self.end(relayed)

    def test_nothingBehindGoodbye(self) -> None:
        """After TLS's goodbye nothing more is sent to that side: neither sealed nor, least of all, in the clear."""
        relayed = self.relayed(True)
        client = relayed.relay._client
        relayed.client.reading = False
        relayed.relay.close()
        self.settle()
        for _ in range(3):
            client.send(b"secret")
        relayed.client.reading = True
        self.untilOver(relayed.client)
        self.assertEqual(bytes(relayed.client.received), b"")
        self.assertTrue(relayed.client.saidGoodbye)

    def test_nothingBehindTheEnd(self) -> None:
        """The same for a side that is told that the other sends no more, and for one that is to be closed."""
        relayed = self.relayed(True, small=True)
        client = relayed.relay._client
        relayed.client.reading = False
        relayed.backend.send(CONTENT[: 2 * MiB])
        self.settle()
        moved = relayed.relay._backend.moved
        client.finishWriting()
        client.send(b"secret")
        client.close()
        client.send(b"secret")
        relayed.client.reading = True
        self.untilOver(relayed.client)
        self.assertEqual(bytes(relayed.client.received), CONTENT[:moved])
        self.assertTrue(relayed.client.saidGoodbye)

    def test_dropsWhatComesWhileClosing(self) -> None:
        """What is decrypted while both are being closed is dropped, and not counted."""
        relayed = self.relayed(True, True)
        relayed.client.send(CONTENT[:MiB])
        backend = relayed.relay._backend
        passed: list[int] = []

        def send(data: Any) -> None:
            passed.append(len(data))
            relayed.relay.close()

        self.patch(relayend.RelayEnd, "send", lambda end, data: send(data))
        self.until(getattr, relayed, "done")
        self.assertEqual(backend.fd, -1)
        self.assertEqual(relayed.counters, (passed[0], 0))
        self.assertEqual(len(passed), 1)

    def test_dismiss(self) -> None:
        """When the gateway drains both get what is on its way to them, and then the end."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        relayed.relay.dismiss(Outcome.STOPPED, Trouble.STOPPING)
        relayed.client.reading = True
        self.untilOver(relayed.client, relayed.backend)
        self.assertFinished(relayed, Outcome.STOPPED)
        self.assertIsNone(relayed.client.error)

    def test_stop(self) -> None:
        """When the gateway stops both connections are broken off, whatever is on its way."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        relayed.relay.stop()
        self.assertFinished(relayed, Outcome.STOPPED)
        relayed.client.reading = True
        self.untilOver(relayed.client, relayed.backend)
        self.assertIsInstance(relayed.client.error, ConnectionResetError)
        self.assertIsInstance(relayed.backend.error, ConnectionResetError)


class TimeTests(RelayCase):
    """How long a session lasts."""

    def test_idle(self) -> None:
        """One over which nothing has gone for C{idle} seconds is closed, in an orderly way."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            self.advance(IDLE - 1)
            self.assertFalse(relayed.client.over or relayed.backend.over)
            self.advance(3)
            for peer in (relayed.client, relayed.backend):
                self.assertTrue(peer.ended)
                self.assertIsNone(peer.error)
                self.assertEqual(peer.saidGoodbye, peer.engine is not None)
                self.assertEqual(bytes(peer.received), b"")
            self.assertFinished(relayed, Outcome.IDLE)

    def test_notIdle(self) -> None:
        """Bytes in either direction count."""
        for relayed, busy, _ in self.sides():
            for _ in range(5):
                self.advance(IDLE - 2)
                busy.send(b"x")
                self.settle()
            self.advance(IDLE - 2)
            self.assertEqual(relayed.done, 0)
            self.advance(4)
            self.assertFinished(relayed, Outcome.IDLE)

    def test_notIdleInPipes(self) -> None:
        """So do those that go through a pipe."""
        relayed = self.relayed()
        relayed.backend.send(b"x" * 100_000)
        self.settle()
        for _ in range(5):
            self.advance(IDLE - 2)
            taken = self.pipes.taken
            relayed.backend.send(b"x" * 20_000)
            self.settle()
            self.assertGreater(self.pipes.taken, taken)
        self.assertReceived(relayed.client, b"x" * 200_000)
        self.end(relayed)

    def test_slowAtTheEnd(self) -> None:
        """While both are being closed one who was stuck may take his time, as long as he takes something."""
        self.pipes.most = 0
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        sink, moved = relayed.relay._client, relayed.relay._backend.moved
        relayed.relay.close()
        relayed.client.reading = True
        while len(relayed.client.received) < SMALL:
            relayed.client.pump()
        self.patch(relayend, "os", Substitute(os, write=lambda fd, data: os.write(fd, data[:1])))
        for _ in range(3):
            for _ in range(int(LINGER) - 2):
                self.turns.clock.advance(1)
            held = relayed.held()
            sink.ready(sink.fd, select.EPOLLOUT)
            self.assertEqual(relayed.held(), held - 1)
        self.patch(relayend, "os", os)
        self.assertReceived(relayed.client, CONTENT[:moved])
        self.assertFinished(relayed)

    def test_closedTwice(self) -> None:
        """That it is closed again does not give it more time."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        relayed.relay.close()
        self.advance(LINGER - 3)
        relayed.relay.close()
        self.assertEqual(relayed.done, 0)
        self.advance(5)
        self.assertFinished(relayed)

    def test_slow(self) -> None:
        """So does it that one who was stuck takes a few of them."""
        relayed = self.relayed(small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        for _ in range(5):
            self.advance(IDLE - 2)
            relayed.client.reading = True
            relayed.client.pump()
            self.step(100)
            relayed.client.reading = False
            self.settle()
        self.assertEqual(relayed.done, 0)
        self.assertTrue(relayed.backend.unsent)
        self.advance(IDLE + LINGER + 3)
        self.assertFinished(relayed, Outcome.IDLE)

    def test_stuckWhileIdle(self) -> None:
        """One that takes nothing at all has C{linger} seconds to do so when it is closed, and then is broken off."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.client.reading = False
            relayed.backend.send(CONTENT)
            self.settle(100)
            self.advance(IDLE + 2)
            self.assertTrue(relayed.backend.over)
            self.assertEqual(relayed.done, 0)
            self.advance(LINGER - 3)
            self.assertEqual(relayed.done, 0)
            self.advance(4)
            self.assertFinished(relayed, Outcome.IDLE)
            relayed.client.reading = True
            self.untilOver(relayed.client)
            self.assertIsInstance(relayed.client.error, ConnectionResetError)

    def test_noAnswer(self) -> None:
        """When one side has ended and no answer comes for C{linger} seconds both are closed."""
        for combination in COMBINATIONS:
            for relayed, ended, other in self.sides(*combination):
                ended.say(b"last words")
                self.settle()
                self.advance(LINGER - 2)
                self.assertFalse(ended.over)
                self.advance(4)
                self.untilOver(ended)
                self.assertTrue(other.ended)
                self.assertIsNone(ended.error)
                self.assertFinished(relayed)

    def test_answerThatTakesTime(self) -> None:
        """As long as an answer is coming it may take its time."""
        for relayed, ended, other in self.sides():
            ended.say(b"last words")
            self.settle()
            for _ in range(10):
                self.advance(LINGER - 2)
                other.send(b"more")
                self.settle()
            self.assertReceived(ended, b"more" * 10)
            other.close()
            self.assertFinished(relayed)

    def test_lostWhileStuck(self) -> None:
        """One that does not take what is on its way when the other has gone is broken off after C{linger} seconds."""
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination, small=True)
            relayed.client.reading = False
            relayed.backend.say(CONTENT[: 2 * MiB])
            self.settle()
            relayed.relay._backend.relay.lost(relayed.relay._backend)
            self.assertEqual(relayed.done, 0)
            self.advance(LINGER + 2)
            self.assertFinished(relayed)

    def test_heldEndIsNotTaken(self) -> None:
        """A backend that cannot be written to when the held end is passed on ends the session, and every wait."""
        relayed = self.relayed(backendTLS=True)
        relayed.client.say(b"")
        self.settle()
        with socket.socket(fileno=os.dup(relayed.relay._backend.fd)) as same:
            same.shutdown(socket.SHUT_WR)
        self.advance(HELD + 2)
        self.assertFinished(relayed)
        self.assertEqual(self.turns.clock.getDelayedCalls(), [])

    def test_lingersNoLongerThanIdle(self) -> None:
        """Where C{idle} is the shorter time it is that of the end, too."""
        relayed = self.relayed(idle=3, linger=60)
        relayed.client.say(b"")
        self.settle()
        self.advance(5)
        self.assertFinished(relayed)

    def test_noTimerPerByte(self) -> None:
        """Bytes cost the clock nothing."""
        relayed = self.relayed()
        timers = self.turns.clock.getDelayedCalls()
        tick = relayed.relay.tick
        for peer in (relayed.client, relayed.backend):
            peer.send(b"x")
        self.settle()
        self.assertEqual((self.turns.clock.getDelayedCalls(), relayed.relay.tick), (timers, tick))


class SettlingTests(RelayCase):
    """What large flights have made TLS's buffers grow by."""

    def grown(self, relayed: Relayed) -> int:
        """How many engines have not given it back."""
        ends = (relayed.relay._client, relayed.relay._backend)
        return sum(end._engine is not None and end._engine._grown for end in ends)

    def test_atOnce(self) -> None:
        """A single flight leaves nothing behind; of a row of them the rest is given back when all are over."""
        relayed = self.relayed(True)
        relayed.backend.send(CONTENT[:2000])
        self.assertReceived(relayed.client, CONTENT[:2000])
        self.assertEqual(self.grown(relayed), 0)
        relayed.backend.send(CONTENT[2000:4000])
        self.assertReceived(relayed.client, CONTENT[:4000])
        self.assertEqual(self.grown(relayed), 1)
        self.advance(3)
        self.assertEqual(self.grown(relayed), 0)
        self.end(relayed)

    def test_givenBack(self) -> None:
        """However long a flight was, and wherever it was cut, a while later nothing is left of it."""
        for combination in COMBINATIONS[1:]:
            relayed = self.relayed(*combination)
            for size in (2000, LITTLE, LITTLE + 100, 5 * LITTLE, 5 * LITTLE + 1, MiB, len(CONTENT)):
                for sender, receiver in ((relayed.client, relayed.backend), (relayed.backend, relayed.client)):
                    del receiver.received[:]
                    sender.send(CONTENT[:size])
                    self.assertReceived(receiver, CONTENT[:size])
                    self.advance(3)
                    self.assertEqual(self.grown(relayed), 0, size)
            self.end(relayed)

    def test_stuck(self) -> None:
        """Nor while the receiver is stuck."""
        relayed = self.relayed(True, True, small=True)
        relayed.client.reading = False
        relayed.backend.send(CONTENT)
        self.settle()
        self.advance(3)
        self.assertEqual(self.grown(relayed), 0)
        relayed.client.reading = True
        self.assertReceived(relayed.client, CONTENT)
        self.end(relayed)


class TroubleTests(RelayCase):
    """What must not happen, and what comes of it when it does."""

    def test_defect(self) -> None:
        """A defect of ours ends the session that met it, is logged, and told of in its ledger; no other suffers."""
        relayed, other = self.relayed(), self.relayed()
        end = relayed.relay._backend
        end.waiting = "no bytes"
        end._stick()
        self.settle()
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertFinished(relayed, Outcome.INTERNAL)
        self.untilOver(relayed.client, relayed.backend)
        other.client.send(b"a1 NOOP\r\n")
        self.assertReceived(other.backend, b"a1 NOOP\r\n")
        self.end(other)

    def test_bothFail(self) -> None:
        """Both connections may fail in the same call: what one was to be sent, and the goodbye of the other."""
        for combination in COMBINATIONS:
            for relayed, first, second in self.sides(*combination):
                first.send(b"never heard")
                second.reset()
                first.reset()
                self.assertFinished(relayed)

    def test_failingPieces(self) -> None:
        """A connection may be lost in the middle of what was decrypted for it, in any of the pieces."""
        for number in range(4):
            relayed = self.relayed(True, True)
            calls: list[int] = []

            def failing(fd: int, data: Any, number: int = number, calls: list[int] = calls) -> int:
                calls.append(fd)
                if len(calls) > number:
                    raise OSError(errno.EPIPE, "gone")
                return os.write(fd, data)

            relayed.client.send(CONTENT[: 2 * MiB])
            self.patch(relayend, "os", Substitute(os, write=failing))
            for _ in range(20):
                self.turns.turn()
                relayed.client.pump()
            self.patch(relayend, "os", os)
            self.assertEqual((relayed.done, len(calls) > number), (1, True))
            self.assertFinished(relayed)

    def test_failingPipes(self) -> None:
        """A connection may be lost when a pipe is emptied into it, at once or later: the pipe is dropped."""
        for stuck in (False, True):
            pipes = self.pipes
            dropped = pipes.dropped
            relayed = self.relayed(small=True)
            relayed.client.reading = not stuck
            relayed.backend.send(CONTENT)
            end = relayed.relay._client
            self.until(getattr, pipes, "taken")
            if stuck:
                self.settle()

            def failing(source: int, target: int, count: int, flags: int, fd: int = end.fd) -> int:
                if target == fd:
                    raise OSError(errno.EPIPE, "gone")
                return os.splice(source, target, count, flags=flags)

            self.patch(relayend, "os", Substitute(os, splice=failing, write=os.write))
            if stuck:
                end.ready(end.fd, select.EPOLLIN | select.EPOLLOUT | select.EPOLLERR | select.EPOLLHUP)
            else:
                self.until(getattr, relayed, "done")
            self.patch(relayend, "os", os)
            self.assertFinished(relayed)
            self.assertEqual(pipes.dropped, dropped + 1)
            self.assertEqual(pipes.taken, pipes.given + pipes.dropped)

    def test_lateEvents(self) -> None:
        """Events that come for a connection that has just been closed are nobody's, nor is a failure."""
        relayed = self.relayed()
        client, backend = relayed.relay._client, relayed.relay._backend
        relayed.relay.abort()
        for end in (client, backend):
            for events in (select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                end.ready(-1, events)
            end.failed(None)
            end.release()
            end.close()
            end.abort()
            end.send(b"x")
        self.assertFinished(relayed)

    def test_goneBeforeTheStart(self) -> None:
        """A side that has gone by the time of the hand-over ends the session, with what was read ahead or without."""
        for combination in COMBINATIONS:
            for client in (True, False):
                for words in (b"", b"words"):
                    relayed = self.prepared(*combination)
                    gone = relayed.client if client else relayed.backend
                    gone.reset()
                    relayed.start(words, words)
                    self.assertFinished(relayed)

    def test_otherTransports(self) -> None:
        """Where one of the connections is another kind of transport the relay is that over any transport."""
        relayed = self.prepared()
        other = RelayedProtocol()
        other.makeConnection(RelayTransport())
        relay = self.relays.between(relayed.near, other, relayed.session, IDLE, LINGER, relayed._finished)
        self.assertIsInstance(relay, Relay)
        self.assertIsNotNone(relayed.near.transport)
        relayed.near.transport.abortConnection()
        self.turns.turn()
        other.connectionLost()
        self.assertEqual(relayed.done, 1)


class Substitute:
    """The module C{module}, but for C{functions}."""

    def __init__(self, module: Any, **functions: Any) -> None:
        self.__dict__.update(vars(module), **functions)


class FreedTests(RelayCase):
    """What is left of a session, without the collector of cycles."""

    def setUp(self) -> None:
        super().setUp()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)

    def alive(self, *kinds: type) -> int:
        """How many objects of C{kinds} there are."""
        return sum(type(each) in kinds for each in gc.get_objects())

    def assertFreed(self, end: Callable[[Relayed], object], *tls: bool) -> None:
        kinds = (StreamRelay, relayend.RelayEnd)
        before = self.alive(*kinds)
        relayed = self.relayed(*tls)
        self.assertEqual(self.alive(*kinds), before + 3)
        relayed.client.send(CONTENT[:MiB])
        relayed.backend.send(CONTENT[:MiB])
        self.settle()
        end(relayed)
        self.until(getattr, relayed, "done")
        self.settle()
        del relayed.relay
        self.assertEqual(self.alive(*kinds), before)

    def test_session(self) -> None:
        """Once a session has ended nothing is left of it, however it ended."""

        def bothEnd(relayed: Relayed) -> None:
            for peer in (relayed.client, relayed.backend):
                peer.say(b"")

        def bothClose(relayed: Relayed) -> None:
            for peer in (relayed.client, relayed.backend):
                peer.close()

        ways: list[Callable[[Relayed], object]] = [
            bothEnd,
            bothClose,
            lambda relayed: relayed.backend.reset(),
            lambda relayed: relayed.client.raw(FORGED) if relayed.client.engine else relayed.client.reset(),
            lambda relayed: relayed.relay.stop(),
            lambda relayed: self.advance(IDLE + LINGER + 3),
        ]
        for combination in COMBINATIONS:
            for way in ways:
                self.assertFreed(way, *combination)

    def test_dialogue(self) -> None:
        """While a session goes on nothing is left of what came before: protocols, transports, TLS's connections."""
        kinds = (Dialogue, StreamTransport, TLSLayer)
        before = self.alive(*kinds)
        for combination in COMBINATIONS:
            relayed = self.relayed(*combination)
            del relayed.near, relayed.far
            self.settle()
            self.assertEqual(self.alive(*kinds), before)
            for end in (relayed.relay._client, relayed.relay._backend):
                if end._engine is not None:
                    self.assertIsNone(end._engine.connection)


class Backend(Protocol):
    """An IMAP server that says OK to everything."""

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
    """Sessions of a whole gateway, on the real reactor."""

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
        """The gateway's end is that of every client."""
        await self.gateway.stopService()
        for client in self.clients:
            await client.lost
        await self.port.stopListening()

    async def loggedIn(self, name: str) -> Talk:
        """A client whose session is relayed."""
        endpoint: Any = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.ports[name])
        if name == "ssl":
            endpoint = wrapClientTLS(CertificateOptions(), endpoint)
        client: Talk = await endpoint.connect(Factory.forProtocol(Talk))
        self.clients.append(client)
        await client.hears(b"ready\r\n")
        await client.asks(b"a LOGIN alice wonderland", b"a OK")
        return client

    def alive(self) -> Counter[type]:
        """How many objects there are of the kinds that a dialogue needs."""
        protocol = PROTOCOLS["imap"]
        kinds = (protocol.server, protocol.client, StreamTransport, TLSLayer, SSL.Connection)
        return Counter(type(each) for each in gc.get_objects() if type(each) in kinds)

    async def test_dialogue(self) -> None:
        """While clients are logged in nothing is left of the dialogues, though no cycles are collected."""
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
        """A session that is idle takes less than 850 bytes, besides its places in two sets and in a list."""
        await self.loggedIn("plain")
        (relay,) = self.gateway.connections
        session = relay.session
        own = [relay, relay._client, relay._backend, session, session.client, session.user, session.started]
        own += [relay.tick, relay._active, *(number for end in own[1:3] for number in (end.fd, end.moved))]
        self.assertLess(sum(map(sys.getsizeof, own)), 850)
        # What does not differ between sessions is shared by them.
        await self.loggedIn("plain")
        one, other = self.gateway.connections
        for name in ("protocol", "server", "backend"):
            self.assertIs(getattr(one.session, name), getattr(other.session, name), name)
        for name in ("means", "_done", "_limit", "_linger"):
            self.assertIs(getattr(one, name), getattr(other, name), name)
