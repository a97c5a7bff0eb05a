"""
Relays over real sockets and a real poller. The tests drive its turns and its clock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import select
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from mailgate.lean.clock import CoarseClock
from mailgate.lean.poller import Poller
from mailgate.lean.tls import TLSLayer
from mailgate.lean.transport import StreamTransport
from mailgate.relay import streamend as relayend
from mailgate.relay.base import HELD
from mailgate.relay.pipes import Pipe, PipePool
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.stream import StreamRelays
from mailgate.relay.terms import Terms
from mailgate.session import Outcome
from mailgate.test.support.tlsengines import FAST
from mailgate.test.support.tlspair import makePair, settingsFor
from mailgate.testing.fakes import makeSession
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust
from mailgate.tls.engine import PeerClosed, PublicEngine, TLSEngine
from mailgate.tls.makeengine import makeEngine
from mailgate.tls.server import ServerTLS

__all__ = [
    "COMBINATIONS",
    "CONTENT",
    "IDLE",
    "LINGER",
    "MANY_TURNS",
    "PATIENCE",
    "SMALL",
    "Dialogue",
    "Keys",
    "MiB",
    "Peer",
    "RelayCase",
    "Relayed",
    "Substitute",
    "Trusting",
    "Turns",
    "Watched",
    "octetsIn",
]

IDLE = 100.0
LINGER = 10.0
MiB = 1024 * 1024
CONTENT = random.Random(3502).randbytes(8 * MiB)
"""More than the buffers of the kernel hold, and without repetition, so that a test notices lost or doubled bytes."""

SMALL = 128 * 1024
"""Bytes of a small buffer: two segments of the loopback interface. With less, the kernel waits for timers."""

COMBINATIONS = [(client, backend) for client in (False, True) for backend in (False, True)]
"""Whether the client uses TLS, and whether the backend does."""

PATIENCE = 10000
"""Milliseconds that the kernel may take to deliver bytes."""

MANY_TURNS = 20000
"""More turns than any test needs that is not in an endless loop."""


class Turns:
    """A reactor that runs a turn when a test asks for it."""

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
    A client or a backend: a non-blocking socket, with TLS if it has an C{engine}. It reads everything while C{reading}
    is true, and sends as fast as the socket allows.
    """

    PIECE = 256 * 1024

    def __init__(self, connection: socket.socket, engine: TLSEngine | None = None) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.engine = engine
        self.received = bytearray()
        self.reading = True
        self.saidGoodbye = False
        """Whether a close_notify arrived."""
        self.ended = False
        """Whether the end of file arrived."""
        self.error: Exception | None = None
        """Why the connection failed, if it did."""
        self.alert = b""
        self._left: deque[memoryview] = deque()
        self._wire = memoryview(b"")
        self._finish: Callable[[], object] | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will arrive."""
        return self.ended or self.error is not None

    @property
    def unsent(self) -> bool:
        """Whether there are bytes to send."""
        return bool(self._wire or self._left)

    def wants(self) -> int:
        """Return the events to wait for, as for C{select.poll}."""
        if self.error is not None or self.connection.fileno() < 0:
            return 0
        return select.POLLIN * (self.reading and not self.over) | select.POLLOUT * self.unsent

    def send(self, data: bytes) -> None:
        """Send C{data} as soon as possible."""
        self._left.append(memoryview(data))
        self.pump()

    def pump(self) -> None:
        """Read and write as much as possible without waiting."""
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
        """Continue the handshake, and return whether it is complete."""
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
        """Send C{data} unencrypted, after the bytes that wait already."""
        self._wire = memoryview(bytes(self._wire) + data)
        self._push()

    def raw(self, data: bytes) -> None:
        """Send C{data} without TLS."""
        self._write(data)

    def say(self, data: bytes, goodbye: bool = True) -> None:
        """
        Send C{data} and end the direction: with a close_notify under TLS if C{goodbye}, and with an end of file
        otherwise.
        """
        self._finish = self.goodbye if goodbye else self.fin
        self.send(data)

    def goodbye(self) -> None:
        """Send a close_notify under TLS, and an end of file otherwise."""
        if self.engine is not None:
            self.engine.closeNotify()
            self._write(bytes(self.engine.output()))
        else:
            self.fin()

    def fin(self) -> None:
        """Send an end of file."""
        self.connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the socket."""
        self.connection.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class Watched(PipePool):
    """A pool of C{most} pipes that counts how many were taken, refused, given back and dropped."""

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
            raise AssertionError("it contains bytes of another session")
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
    """Return how many bytes C{pipe} contains."""
    answer = fcntl.ioctl(pipe.output, termios.FIONREAD, bytes(4))
    return int.from_bytes(answer, "little")


class Trusting:
    """Makes the TLS of clients that trust every server. C{secrets} are the TLS secrets by name."""

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
    """A protocol before the relay takes over. It calls C{reaction} with the next data that it receives."""

    reaction: Any = None

    def dialogueReceived(self, data: bytes) -> None:
        if self.reaction is not None:
            reaction, self.reaction = self.reaction, None
            reaction(data)


class Relayed:
    """A session before or during its relay, with its peers C{client} and C{backend}."""

    def __init__(self, case: RelayCase, clientTLS: bool, backendTLS: bool, small: bool) -> None:
        self._case = case
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0)
        self.done = 0
        self.creator = Trusting()
        self.client, self.near = case.connect(True, clientTLS, self.creator, small)
        self.backend, self.far = case.connect(False, backendTLS, self.creator, small)

    def start(self, toClient: bytes = b"", toBackend: bytes = b"", idle: float = IDLE, linger: float = LINGER) -> None:
        """Hand both connections to the relay."""
        near, far = self.near, self.far
        relays = self._case.relays
        self.relay: Any = relays.between(near, far, self.session, Terms(relays, idle, linger, self._finished))
        self.relay.start(toClient, toBackend)

    def _finished(self, relay: Any) -> None:
        self.done += 1

    @property
    def counters(self) -> tuple[int, int]:
        return self.session.received, self.session.sent

    def held(self) -> int:
        """Return how many bytes the relay has read and not sent, including those in pipes."""
        held = 0
        for end in (self.relay._client, self.relay._backend):
            waiting = end.waiting
            held += waiting[1] if isinstance(waiting, tuple) else len(waiting or b"")
        return held


class RelayCase(SynchronousTestCase):
    """Common code of the tests: a poller, a clock, and sessions."""

    kind: Any = staticmethod(FAST)
    """The engines of the gateway's ends."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.poller = Poller(self.turns)
        turns: Any = self.turns
        self.relays = StreamRelays(self.poller, CoarseClock(turns))
        self.pipes = self.relays.pipes = Watched()
        self.peers: list[Peer] = []
        self._pair: Any = None

    def tearDown(self) -> None:
        """Check that every test leaves no connection, no pipe and no timer."""
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
        """A certificate and its key."""
        if self._pair is None:
            folder = self.mktemp()
            os.mkdir(folder)
            self._pair = makePair(folder, "relay")
            self._trust = loadTrust(self._pair.certificate)
        return self._pair

    def connect(self, accepted: bool, tls: bool, creator: Trusting, small: bool) -> tuple[Peer, Dialogue]:
        """Return a peer, and the gateway's end of its connection: C{accepted} from a client, or made to a backend."""
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
        transport = StreamTransport(self.poller, ours.detach(), socket.AF_INET, ("127.0.0.1", 0))
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
        """Return a session before the relay; C{small} makes the buffers of its sockets small."""
        return Relayed(self, clientTLS, backendTLS, small)

    def relayed(self, clientTLS: bool = False, backendTLS: bool = False, small: bool = False, **start: Any) -> Relayed:
        """Return a session that is being relayed."""
        relayed = self.prepared(clientTLS, backendTLS, small)
        relayed.start(**start)
        return relayed

    def sides(self, *arguments: bool, **start: Any) -> Iterator[tuple[Relayed, Peer, Peer]]:
        """
        Yield two sessions, each with the peer that acts first and the other peer: first the client, then the backend.
        """
        relayed = self.relayed(*arguments, **start)
        yield relayed, relayed.client, relayed.backend
        relayed = self.relayed(*arguments, **start)
        yield relayed, relayed.backend, relayed.client

    def step(self, patience: int = 0) -> bool:
        """
        Let all peers and the gateway act once. Return whether there was an event at once or within C{patience}
        milliseconds.
        """
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
        """Continue until C{condition} of C{arguments} is true, and return the number of turns."""
        for count in range(MANY_TURNS):
            if condition(*arguments):
                return count
            if not self.step(PATIENCE):
                self.fail("No event came in time.")
        self.fail("The events do not end.")

    def untilOver(self, *peers: Peer) -> None:
        """Continue until nothing more will arrive at any of C{peers}."""
        self.until(lambda: all(peer.over for peer in peers))

    def untilHas(self, peer: Peer, size: int) -> int:
        """Continue until C{peer} has received at least C{size} bytes, and return the number of turns."""
        return self.until(lambda: len(peer.received) >= size)

    def settle(self, patience: int = 0) -> None:
        """
        Continue until there are no events for C{patience} milliseconds. Fails if there is no end, which means a busy
        loop. A busy system may take some time to deliver what one side sent.
        """
        for _ in range(MANY_TURNS):
            if not self.step(patience):
                return
        self.fail("The events do not end.")

    def advance(self, seconds: float) -> None:
        """Advance the clock in steps of one second, and let everything that waits for it happen."""
        while seconds > 0:
            self.turns.clock.advance(min(1, seconds))
            seconds -= 1
        self.settle()

    def untilTold(self, relayed: Relayed, ended: Peer) -> None:
        """
        Let time pass until a backend with TLS learns that C{ended}, a client without TLS, has ended its direction.
        """
        if ended is relayed.client and ended.engine is None and relayed.backend.engine is not None:
            self.settle()
            self.assertFalse(relayed.backend.ended)
            self.advance(HELD + 1)

    def assertReceived(self, peer: Peer, expected: bytes) -> None:
        """Check that C{peer} receives exactly C{expected}, without printing megabytes that differ."""
        self.until(lambda: len(peer.received) >= len(expected) or peer.over)
        self.settle()
        self.assertEqual(len(peer.received), len(expected))
        same = hashlib.sha256(peer.received).digest() == hashlib.sha256(expected).digest()
        self.assertTrue(same, "the content differs")

    def assertFinished(self, relayed: Relayed, outcome: Outcome = Outcome.RELAYED) -> None:
        """Check that the session is over, ended once, and left nothing."""
        self.settle()
        self.assertEqual(relayed.done, 1)
        self.assertIs(relayed.session.outcome, outcome)
        self.assertEqual(relayed.relay.tick, 0)
        self.assertEqual([name for name in ("_client", "_backend") if hasattr(relayed.relay, name)], [])

    def end(self, relayed: Relayed) -> None:
        """Close both peers."""
        relayed.client.close()
        relayed.backend.close()
        self.assertFinished(relayed)


class Keys:
    """The keys of a TLS 1.3 client that has sent no data, for TLS_AES_256_GCM_SHA384 (RFC 8446, section 7)."""

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
        """Return the record of C{data}."""
        nonce = int.from_bytes(self._iv, "big") ^ self._sequence
        self._sequence += 1
        header = struct.pack(">BHH", 23, 0x0303, len(data) + 17)
        return header + AESGCM(self._key).encrypt(nonce.to_bytes(12, "big"), data + bytes([kind]), header)

    def update(self) -> bytes:
        """Change the keys, and return the record that announces this and requests the same."""
        record = self.sealed(b"\x18\0\0\x01\x01", 22)
        self._derive(self._expand(b"traffic upd", 48))
        return record


class Substitute:
    """The module C{module}, with other C{functions}."""

    def __init__(self, module: Any, **functions: Any) -> None:
        self.__dict__.update(vars(module), **functions)
