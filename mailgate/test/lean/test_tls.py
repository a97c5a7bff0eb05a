"""
Tests for L{mailgate.lean.tls}: cases that L{mailgate.test.lean.test_transport_contract}, which also tests Twisted's own
transports, cannot cause; over a socket pair, with both kinds of engine and a reactor that the tests drive.
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.lean import tls as tlslayer
from mailgate.lean.poller import Poller
from mailgate.lean.tls import TLSLayer
from mailgate.lean.transport import StreamTransport
from mailgate.test.support.pollers import Reactor
from mailgate.test.support.tlsengines import FAST, Peer
from mailgate.test.support.tlspair import makePair, settingsFor
from mailgate.test.support.transportends import HalfCloseableNear, Near
from mailgate.tls.engine import PublicEngine
from mailgate.tls.fastengine import FastEngine
from mailgate.tls.makeengine import makeEngine
from mailgate.tls.server import ServerTLS

if TYPE_CHECKING:
    Mixin = SynchronousTestCase
else:
    # Scenarios become tests only in classes that mix in a kind of engine and a TestCase.
    Mixin = object


class Case(Mixin):
    """A server C{near} that has accepted, and its client C{peer} at the other end, the socket C{far}."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    kind: Any = None

    def setUp(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        self.creator = ServerTLS(settingsFor(makePair(folder, "ec")), "imap")
        self.reactor = Reactor()
        self.poller = Poller(self.reactor)
        self.peer = self.newPeer()
        self.addCleanup(self.assertNothingLeft)

    def newPeer(self) -> Peer:
        """A client that has sent nothing."""
        connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        connection.set_connect_state()
        return Peer(connection)

    def assertNothingLeft(self) -> None:
        if self.near.transport is not None:
            self.near.transport.abortConnection()
        self.reactor.advance(0)
        self.far.close()
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))

    def open(self, near: Near) -> Any:
        """Connect C{near}, before TLS starts, and return its transport."""
        end, self.far = socket.socketpair()
        self.far.setblocking(False)
        end.setblocking(False)
        self.near = near
        transport: Any = StreamTransport(self.poller, end.detach(), socket.AF_UNIX, None)
        transport.accepted = True
        transport.open(near)
        # As startTLS does, except for the kind.
        transport.tls = TLSLayer(transport, makeEngine(self.creator, True, self.kind))
        transport.tls.start()
        return transport

    def exchange(self) -> None:
        """Let both ends exchange data until neither has any."""
        for _ in range(100):
            said = self.peer.output()
            if said:
                self.far.send(said)
            self.poller.doRead()
            self.reactor.advance(0)
            heard = self.hear()
            self.peer.feed(heard)
            if not self.peer.handshaken:
                self.peer.handshake()
            if not said and not heard:
                return
        self.fail("they talk on and on")

    def hear(self) -> bytes:
        """What has arrived at the other end."""
        try:
            return self.far.recv(1 << 20)
        except BlockingIOError:
            return b""

    def secure(self, near: Near) -> Any:
        """Connect C{near}, complete the handshake, and return its transport."""
        transport = self.open(near)
        self.peer.handshake()
        self.exchange()
        self.assertEqual(near.told, ["made", "handshake"])
        return transport


class Scenarios(Case):
    """Tests for every kind of engine."""

    def test_lastWords(self) -> None:
        """
        Data and a C{loseConnection} before the end of the handshake: the data are sent and the connection ends, even if
        the peer does nothing.
        """
        near = Near()
        transport = self.open(near)
        transport.write(b"* BYE busy\r\n")
        transport.loseConnection()
        self.assertEqual(near.told, ["made"])
        self.peer.handshake()
        self.exchange()
        self.assertEqual(near.told[-1], "lost")
        self.assertIsInstance(near.reason, ConnectionDone)
        self.assertEqual(self.peer.tls.recv(100), b"* BYE busy\r\n")
        self.assertRaises(SSL.ZeroReturnError, self.peer.tls.recv, 100)

    def test_unwritable(self) -> None:
        """
        If OpenSSL cannot encrypt any more, the connection is lost a little later. The caller of write() gets no
        exception.
        """

        class Broken:
            handshaken = True
            connection = None

            def write(self, data: bytes) -> None:
                raise SSL.Error([("SSL routines", "", "protocol is shutdown")])

            def output(self) -> bytes:
                return b""

        near = Near()
        transport = self.secure(near)
        transport.tls.engine = Broken()
        transport.write(b"* OK\r\n")
        self.assertEqual(near.told[-1], "handshake")
        self.reactor.advance(0)
        self.assertEqual(near.told[-1], "lost")
        self.assertIsInstance(near.reason, SSL.Error)

    def test_writeEndEarly(self) -> None:
        """
        Data and a C{loseWriteConnection} before the end of the handshake: the handshake completes, the data are sent,
        then a close_notify. Data of the peer are still received.
        """
        near = HalfCloseableNear()
        transport = self.open(near)
        transport.write(b"question")
        transport.loseWriteConnection()
        self.assertEqual(near.told, ["made"])
        self.peer.handshake()
        self.exchange()
        self.assertEqual(self.peer.tls.recv(100), b"question")
        self.assertRaises(SSL.ZeroReturnError, self.peer.tls.recv, 100)
        self.peer.tls.send(b"answer")
        self.exchange()
        self.assertEqual(near.received, b"answer")
        self.assertEqual(near.told.count("writeEnded"), 1)
        self.assertNotIn("lost", near.told)

    def test_renewedPause(self) -> None:
        """A protocol that pauses repeatedly receives all decrypted data once, and none while paused."""
        near = Near(data=lambda near: near.transport.pauseProducing())
        transport = self.secure(near)
        expected = b"".join(b"%04d" % number * 1000 for number in range(20))
        for number in range(20):
            self.peer.tls.send(b"%04d" % number * 1000)
        self.far.send(self.peer.output())
        for _ in range(40):
            before = near.deliveries
            self.poller.doRead()
            self.reactor.advance(0)
            self.assertLessEqual(near.deliveries, before + 1)
            transport.resumeProducing()
        self.assertEqual(bytes(near.received), expected)

    def test_notWhileUnread(self) -> None:
        """Received data that are not read yet are not lost."""
        near = Near(data=lambda near: near.transport.pauseProducing())
        transport = self.secure(near)
        self.peer.tls.send(bytes(10_000))
        self.peer.tls.send(bytes(5_000))
        self.exchange()
        self.assertTrue(near.deliveries)
        for _ in range(10):
            transport.resumeProducing()
            self.exchange()
        self.assertEqual(len(near.received), 15_000)


class FastLayerTests(Scenarios, SynchronousTestCase):
    """The engine that can release memory after a large burst."""

    kind = FAST

    def buffers(self, engine: FastEngine) -> list[int]:
        """The two memory BIOs of C{engine}."""
        return [int(ffi.cast("uintptr_t", bio)) for bio in (engine._intoSSL, engine._fromSSL)]

    def test_settled(self) -> None:
        """After a large burst, in the handshake or later, in either direction, OpenSSL's buffers are new ones."""
        near = Near(data=lambda near: near.transport.write(bytes(len(near.received))))
        transport = self.secure(near)
        engine = transport.tls.engine
        self.assertFalse(engine._grown)
        before = self.buffers(engine)
        self.peer.tls.send(bytes(16_000))
        self.exchange()
        self.assertFalse(engine._grown)
        for bio in (engine._intoSSL, engine._fromSSL):
            self.assertEqual(lib.BIO_get_mem_data(bio, ffi.NULL), 0)
        self.assertNotEqual(self.buffers(engine), before)
        self.assertEqual(len(self.peer.read()), 16_000)

    def test_noCostIdle(self) -> None:
        """If a burst left nothing, nothing is released."""
        transport = self.secure(Near())
        engine = transport.tls.engine
        before = self.buffers(engine)
        self.peer.tls.send(b"a001 NOOP\r\n")
        self.exchange()
        self.assertEqual(self.buffers(engine), before)


class LazyTests(Case, SynchronousTestCase):
    """A server's TLS before the first byte of its client."""

    def start(self, near: Near) -> Any:
        """Start TLS as a dialogue does, and return the transport."""
        transport = self.open(near)
        transport.tls = None
        transport.startTLS(self.creator)
        return transport

    def test_nothingMade(self) -> None:
        """There is no handle, no certificate and no output."""
        transport = self.start(Near())
        self.poller.doRead()
        self.assertEqual((transport.getHandle(), transport.getPeerCertificate()), (None, None))
        self.assertFalse(transport.tls.handshaken)
        self.assertTrue(ISSLTransport.providedBy(transport))
        self.assertEqual(self.hear(), b"")

    def test_firstByte(self) -> None:
        """It begins with the first byte, and is then as any other."""
        for at in (1, 5, 100):
            near = Near()
            transport = self.start(near)
            self.peer = self.newPeer()
            self.peer.handshake()
            said = self.peer.output()
            self.far.send(said[:at])
            self.poller.doRead()
            self.assertIsInstance(transport.getHandle(), SSL.Connection)
            self.far.send(said[at:])
            self.exchange()
            self.assertEqual(near.told, ["made", "handshake"])
            transport.write(b"* OK\r\n")
            self.exchange()
            self.assertEqual(self.peer.tls.recv(100), b"* OK\r\n")
            self.assertNothingLeft()

    def test_newContext(self) -> None:
        """The connection is made by the creator at that moment: tickets are of the current key."""
        transport = self.start(Near())
        made = []
        connect = self.creator.newConnection

        def noting() -> Any:
            made.append(connect())
            return made[-1]

        self.patch(self.creator, "newConnection", noting)
        self.peer.handshake()
        self.exchange()
        self.assertEqual(made, [transport.getHandle()])

    def test_ends(self) -> None:
        """It can end before in every way: by either side, by a close or a reset."""
        for end, reason in (
            (lambda: self.far.shutdown(socket.SHUT_WR), ConnectionLost),
            (lambda: self.far.close(), ConnectionLost),
            (lambda: self.near.transport.loseConnection(), ConnectionAborted),
            (lambda: self.near.transport.abortConnection(), ConnectionAborted),
            (lambda: self.near.transport.failed(Failure(KeyError())), KeyError),
        ):
            near = Near()
            self.start(near)
            end()
            if self.reactor.readers:
                self.poller.doRead()
            self.reactor.advance(0)
            self.assertEqual(near.told, ["made", "lost"])
            self.assertIsInstance(near.reason, reason)
            self.assertNothingLeft()

    def test_garbage(self) -> None:
        """Invalid bytes are answered by an alert, or by a close, and lose the connection."""
        near = Near()
        self.start(near)
        self.far.send(b"a LOGIN joe sesame\r\n")
        self.poller.doRead()
        self.reactor.advance(0)
        self.assertEqual(near.told, ["made", "lost"])
        self.assertIsInstance(near.reason, SSL.Error)

    def test_paused(self) -> None:
        """While the protocol is paused no engine is made."""
        near = Near()
        transport = self.start(near)
        transport.pauseProducing()
        self.peer.handshake()
        self.far.send(self.peer.output())
        self.poller.doRead()
        self.assertIsNone(transport.getHandle())
        transport.resumeProducing()
        self.exchange()
        self.assertEqual(near.told, ["made", "handshake"])

    def test_unmakeable(self) -> None:
        """If a creator fails then, the error is logged, and only this connection is lost."""
        near = Near()
        transport = self.open(near)
        transport.tls = None
        transport.startTLS(object())
        self.far.send(b"x")
        self.poller.doRead()
        self.reactor.advance(0)
        self.assertEqual(near.told, ["made", "lost"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def askedFor(self, layer: TLSLayer, pieces: int) -> list[int]:
        """The number of acknowledgements requested after each of C{pieces} of a ClientHello."""
        asked: list[int] = []
        self.patch(tlslayer, "acknowledge", asked.append)
        self.near.transport.tls = layer
        self.peer.handshake()
        hello = self.peer.output()
        size = len(hello) // pieces + 1
        counts = []
        for start in range(0, len(hello), size):
            self.far.send(hello[start : start + size])
            self.poller.doRead()
            counts.append(len(asked))
        self.assertEqual(set(asked), {self.near.transport.fd} if asked else set())
        self.exchange()
        self.assertEqual((self.near.told, len(asked)), (["made", "handshake"], counts[-1]))
        return counts

    def test_pieces(self) -> None:
        """
        A piece of a handshake message has no answer, and is acknowledged at once, because the client may hold the rest
        back. A whole message is answered, and needs no system call.
        """
        for pieces, counts in ((3, [1, 2, 2]), (1, [0])):
            self.peer = self.newPeer()
            transport = self.open(Near())
            self.assertEqual(self.askedFor(TLSLayer(transport, None, self.creator), pieces), counts)
            self.assertNothingLeft()

    def test_piecesForTickets(self) -> None:
        """The same for a piece of a ClientHello that is parsed for its tickets."""
        self.patch(ServerTLS, "readsTickets", True)
        transport = self.open(Near())
        self.assertEqual(self.askedFor(TLSLayer(transport, None, self.creator), 3), [1, 2, 2])

    def test_client(self) -> None:
        """The client's side sends its ClientHello at once."""
        transport = self.open(Near())
        transport.tls = None
        transport.startTLS(ClientCreator(), False)
        self.assertIsInstance(transport.getHandle(), SSL.Connection)
        self.assertEqual(self.hear()[:1], b"\x16")

    def test_startTLS(self) -> None:
        """Plain data that were written before are sent before. Nothing is sent after them until the client begins."""
        near = Near()
        transport = self.open(near)
        transport.tls = None
        transport.write(b"a OK begin\r\n")
        transport.startTLS(self.creator)
        self.assertEqual(self.hear(), b"a OK begin\r\n")
        self.peer.handshake()
        self.exchange()
        self.assertEqual(near.told, ["made", "handshake"])


class ClientCreator:
    """Makes connections of clients that do not verify certificates."""

    def getContext(self) -> SSL.Context:
        return SSL.Context(SSL.TLS_CLIENT_METHOD)


class PublicLayerTests(Scenarios, SynchronousTestCase):
    """The same with the engine that uses nothing private."""

    kind = PublicEngine
