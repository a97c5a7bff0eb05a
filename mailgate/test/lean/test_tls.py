"""
Tests for L{mailgate.lean.tls}: what L{mailgate.test.lean.test_transport_contract}, which has the same happen to
Twisted's own transports, cannot ask; over a socket pair, with either kind of engine and a reactor that does nothing by
itself.
"""

from __future__ import annotations

import os
import select
import socket
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.address import UNIXAddress
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
from mailgate.test.support.transportcontract import HalfCloseableNear, Near
from mailgate.tls.engine import PublicEngine
from mailgate.tls.fastengine import FastEngine
from mailgate.tls.makeengine import makeEngine
from mailgate.tls.server import ServerTLS

if TYPE_CHECKING:
    Mixin = SynchronousTestCase
else:
    # Scenarios become tests only where a kind of engine and a TestCase are mixed in.
    Mixin = object


class Case(Mixin):
    """A server that has been connected to, C{near}, and its client, C{peer}, at the other end, the socket C{far}."""

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
        """A client that has said nothing."""
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
        """Have C{near} connected, and about to speak TLS; gives its transport."""
        end, self.far = socket.socketpair()
        self.far.setblocking(False)
        end.setblocking(False)
        self.near = near
        transport: Any = StreamTransport(self.poller, end.detach(), socket.AF_UNIX, UNIXAddress(None))
        transport.accepted = True
        transport.open(near)
        # As startTLS does it, but for the kind.
        transport.tls = TLSLayer(transport, makeEngine(self.creator, True, self.kind))
        transport.tls.start()
        return transport

    def exchange(self) -> None:
        """Let both ends talk until neither has more to say."""
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
        """Have C{near} connected, and shake hands; gives its transport."""
        transport = self.open(near)
        self.peer.handshake()
        self.exchange()
        self.assertEqual(near.told, ["made", "handshake"])
        return transport


class Scenarios(Case):
    """What holds with every kind of engine."""

    def test_lastWords(self) -> None:
        """
        What is written, and a C{loseConnection}, before hands are shaken: the words are sent and the connection ends,
        though the peer does nothing to that end.
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
        """Where OpenSSL will not encrypt any more the connection is lost, a little later; whoever wrote is not told."""

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
        What is written, and a C{loseWriteConnection}, before hands are shaken: hands are shaken all the same, the words
        are sent, and then TLS's end; what the peer has to say is still heard.
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
        """One that takes its data by and by is given all that has been decrypted, none twice, and none while paused."""
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
        """What has come and nobody has taken yet is not lost over it."""
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
    """The kind that can give back what a large flight made grow."""

    kind = FAST

    def buffers(self, engine: FastEngine) -> list[int]:
        """Where the two memory BIOs of C{engine} are."""
        return [int(ffi.cast("uintptr_t", bio)) for bio in (engine._intoSSL, engine._fromSSL)]

    def test_settled(self) -> None:
        """
        When a large flight is over, the handshake, or one of data in either direction, nothing of what it took is kept:
        OpenSSL's buffers are new ones.
        """
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
        """Where a flight has left nothing behind nothing is given back."""
        transport = self.secure(Near())
        engine = transport.tls.engine
        before = self.buffers(engine)
        self.peer.tls.send(b"a001 NOOP\r\n")
        self.exchange()
        self.assertEqual(self.buffers(engine), before)


class LazyTests(Case, SynchronousTestCase):
    """A server's TLS before its client has said anything."""

    def start(self, near: Near) -> Any:
        """As a dialogue starts TLS; gives the transport."""
        transport = self.open(near)
        transport.tls = None
        transport.startTLS(self.creator)
        return transport

    def test_nothingMade(self) -> None:
        """OpenSSL has nothing of it: there is no handle, nor a certificate, and nothing is said."""
        transport = self.start(Near())
        self.poller.doRead()
        self.assertEqual((transport.getHandle(), transport.getPeerCertificate()), (None, None))
        self.assertFalse(transport.tls.handshaken)
        self.assertTrue(ISSLTransport.providedBy(transport))
        self.assertEqual(self.hear(), b"")

    def test_firstByte(self) -> None:
        """It begins with the first byte, whatever comes with it, and is as any other."""
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
        """The connection is made by what its creator has at that moment: tickets are by the key that is in force."""
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
        """It can end in every way before: by either side, with a goodbye or without."""
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
        """What is no TLS is answered by an alert, or by the end alone, and loses the connection."""
        near = Near()
        self.start(near)
        self.far.send(b"a LOGIN joe sesame\r\n")
        self.poller.doRead()
        self.reactor.advance(0)
        self.assertEqual(near.told, ["made", "lost"])
        self.assertIsInstance(near.reason, SSL.Error)

    def test_paused(self) -> None:
        """While nobody wants to read no engine is made, and then it is."""
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
        """A creator that fails then costs this connection, and is logged."""
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
        """How often the system has been asked to acknowledge, after each of C{pieces} of a ClientHello."""
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
        A piece of what the client says in the handshake has no answer, and is acknowledged at once, as the client may
        keep the rest back until then. What is whole is answered, and needs no system call.
        """
        for pieces, counts in ((3, [1, 2, 2]), (1, [0])):
            self.peer = self.newPeer()
            transport = self.open(Near())
            self.assertEqual(self.askedFor(TLSLayer(transport, None, self.creator), pieces), counts)
            self.assertNothingLeft()

    def test_piecesForTickets(self) -> None:
        """So is a piece of a ClientHello that is looked at for its tickets before the handshake begins."""
        self.patch(ServerTLS, "readsTickets", True)
        transport = self.open(Near())
        self.assertEqual(self.askedFor(TLSLayer(transport, None, self.creator), 3), [1, 2, 2])

    def test_client(self) -> None:
        """The side of the client, which speaks first, does so at once."""
        transport = self.open(Near())
        transport.tls = None
        transport.startTLS(ClientCreator(), False)
        self.assertIsInstance(transport.getHandle(), SSL.Connection)
        self.assertEqual(self.hear()[:1], b"\x16")

    def test_startTLS(self) -> None:
        """What has been written in the clear before goes out before, and nothing after it until the client begins."""
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
    """Makes connections of clients that trust everybody."""

    def getContext(self) -> SSL.Context:
        return SSL.Context(SSL.TLS_CLIENT_METHOD)


class PublicLayerTests(Scenarios, SynchronousTestCase):
    """What every kind does, by the one that does without what is private."""

    kind = PublicEngine
