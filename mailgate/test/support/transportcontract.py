"""
The behaviour of stream transports towards their protocols, by L{twisted.internet.interfaces}: scenarios that hold for
Twisted's own transports and for mailgate's. L{mailgate.test.lean.test_transport_contract} lists the transports for
which they run.

The end under test is a L{Near}. The other end is a L{Peer}, a plain socket that reads, ends and resets when the
scenario says so.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred, ensureDeferred, gatherResults, maybeDeferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPullProducer,
    IPushProducer,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Mixin
else:
    # Scenarios become tests only where a kind of transport and a TestCase are mixed in.
    Mixin = object

MiB = 1024 * 1024
CONTENT = random.Random(3501).randbytes(8 * MiB)
"""More than the buffers of the kernel hold, and without repetition, so that a test notices lost or doubled bytes."""

RECEIVE_BUFFER = 256 * 1024


@implementer(IHandshakeListener)
class Near(Protocol):
    """
    The end under test. C{told} are its events, with consecutive C{data} events counted as one; C{deliveries} counts the
    calls of C{dataReceived}. A reaction with the name of an event is called with the protocol when the event comes.
    """

    transport: Any

    def __init__(self, **reactions: Callable[[Any], object]) -> None:
        self.told: list[str] = []
        self.received = bytearray()
        self.deliveries = 0
        self.reason: Any = None
        self._reactions = reactions

    def _note(self, event: str) -> None:
        if event != "data" or self.told[-1:] != ["data"]:
            self.told.append(event)
        reaction = self._reactions.get(event)
        if reaction is not None:
            reaction(self)

    def connectionMade(self) -> None:
        self._note("made")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.deliveries += 1
        self._note("data")

    def handshakeCompleted(self) -> None:
        self._note("handshake")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason.value
        self._note("lost")


@implementer(IHalfCloseableProtocol)
class HalfCloseableNear(Near):
    """A protocol that continues when one direction has ended."""

    def readConnectionLost(self) -> None:
        self._note("ended")

    def writeConnectionLost(self) -> None:
        self._note("writeEnded")


class NearFactory(ClientFactory):
    """Connects the protocols that C{make} returns. C{told} are its events, C{addresses} those of the peers."""

    noisy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self.told: list[str] = []
        self.addresses: list[Any] = []
        self.reason: Any = None
        self._make = make

    def startFactory(self) -> None:
        self.told.append("start")

    def stopFactory(self) -> None:
        self.told.append("stop")

    def buildProtocol(self, addr: Any) -> Any:
        self.addresses.append(addr)
        return self._make()

    def startedConnecting(self, connector: Any) -> None:
        self.told.append("connecting")

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.told.append("failed")
        self.reason = reason.value

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.told.append("lost")
        self.reason = reason.value


class Peer:
    """The other end: a non-blocking socket. C{received} are bytes that no scenario has taken."""

    PIECE = 256 * 1024

    def __init__(self, turn: Callable[[], Deferred[None]], connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.received = bytearray()
        self._turn = turn

    async def _whenReady(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        """Return the result of C{operation} as soon as it does not block."""
        while True:
            try:
                return operation(*arguments)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                await self._turn()

    async def _read(self, most: int) -> bool:
        """Read up to C{most} bytes. Return whether anything but the end arrived."""
        try:
            piece = await self._whenReady(self.connection.recv, min(most, self.PIECE))
        except ssl.SSLZeroReturnError:
            return False
        self.received += piece
        await self._turn()
        return bool(piece)

    async def send(self, data: bytes) -> None:
        """Send all of C{data}."""
        left = memoryview(data)
        while left:
            sent = await self._whenReady(self.connection.send, left[: self.PIECE])
            left = left[sent:]

    async def receive(self, length: int) -> bytes:
        """Return the next C{length} bytes; fewer if the connection ends before."""
        while len(self.received) < length and await self._read(length - len(self.received)):
            pass
        taken = bytes(self.received[:length])
        del self.received[:length]
        return taken

    async def rest(self) -> bytes:
        """
        Return all bytes up to the end.

        @raise ConnectionResetError: the connection was reset; C{received} has the bytes before.
        @raise ssl.SSLEOFError: the end came without a close_notify.
        """
        while await self._read(self.PIECE):
            pass
        taken = bytes(self.received)
        self.received.clear()
        return taken

    async def arrived(self) -> None:
        """Wait until the socket has unread bytes."""
        await self._whenReady(self.connection.recv, 1, socket.MSG_PEEK)

    def end(self) -> None:
        """Send an end of file."""
        self.connection.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection. A unix socket is reset only if bytes are unread."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@implementer(IPushProducer)
class Source:
    """
    Writes C{content} to C{transport} as fast as that allows, and then unregisters itself. C{calls} are the calls by the
    transport.
    """

    PIECE = 64 * 1024

    def __init__(self, transport: Any, content: bytes) -> None:
        self.calls: list[str] = []
        self.left = memoryview(content)
        self.finished = False
        self._transport = transport
        transport.registerProducer(self, True)

    def produce(self) -> None:
        while self.left and self.calls[-1:] not in (["pause"], ["stop"]):
            piece, self.left = self.left[: self.PIECE], self.left[self.PIECE :]
            self._transport.write(bytes(piece))
        if not self.left and not self.finished:
            self.finished = True
            self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.produce()

    def stopProducing(self) -> None:
        self.calls.append("stop")


@implementer(IPullProducer)
class Pieces:
    """Writes one of C{pieces} at each request, and unregisters itself with the last."""

    def __init__(self, transport: Any, pieces: list[bytes]) -> None:
        self.asked = 0
        self.stopped = 0
        self._transport = transport
        self._pieces = pieces
        transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self._transport.write(self._pieces[self.asked])
        self.asked += 1
        if self.asked == len(self._pieces):
            self._transport.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped += 1


class Bench(Mixin):
    """
    The base of scenarios for a kind of transport. The C{timeout} of each test limits all waiting.

    A kind provides C{makeReactor()} and states its properties in attributes. A way to connect provides
    C{connect(near)}, which returns the socket of the other end.
    """

    timeout = 30
    patience = 10.0
    """Seconds to wait for anything: less than C{timeout}, so that the failure shows what was missing."""
    family = socket.AF_INET
    accepted = True
    """Whether the other end connected."""

    repeatsEnd: bool
    """A transport that is resumed after the end of file reports it again."""
    halfClosesTLS: bool
    """Under TLS too, each direction can end alone."""
    masksReasons: bool
    """Under TLS, a connection that this side ended is reported as L{ConnectionLost}, whatever the reason."""
    keepsDecrypted: bool
    """
    Under TLS, a transport that is paused or aborted during a delivery delivers nothing more that it has decrypted.
    """

    def makeReactor(self) -> Any:
        raise NotImplementedError

    async def connect(self, near: Near) -> socket.socket:
        raise NotImplementedError

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.clock: Any = reactor
        self.deadline = self.clock.seconds() + self.patience
        self.reactor = self.makeReactor()
        self.nears: list[Near] = []
        self.ports: list[Any] = []
        self._sockets: list[socket.socket] = []
        # The path of mktemp may be too long for a unix socket.
        self.folder = tempfile.mkdtemp()

    async def tearDown(self) -> None:  # type: ignore[override]
        """Check that in every scenario the connection is made first, and lost last and once."""
        self.deadline = self.clock.seconds() + self.patience
        for port in self.ports:
            await maybeDeferred(port.stopListening)
        for near in self.nears:
            if near.told and "lost" not in near.told:
                near.transport.abortConnection()
                await self.assertLost(near, Exception)
        await self.turns()
        # Cleanups would close them too early.
        for each in self._sockets:
            each.close()
        shutil.rmtree(self.folder)
        for near in self.nears:
            for event, place in (("made", 0), ("lost", -1)):
                self.assertEqual([near.told.count(event), near.told[place]] if near.told else [1, event], [1, event])

    def turn(self) -> Deferred[None]:
        """Return a Deferred that fires in the reactor's next turn. Fails if the time is over."""
        if self.clock.seconds() > self.deadline:
            self.fail("It did not happen in time.")
        return deferLater(self.clock, 0, lambda: None)

    async def turns(self) -> None:
        """Wait long enough for a transport to notice what is in its socket's buffer."""
        for _ in range(20):
            await self.turn()

    async def until(self, condition: Callable[..., object], *arguments: object) -> None:
        """Wait until C{condition} of C{arguments} is true."""
        while not condition(*arguments):
            await self.turn()

    async def untilTold(self, end: Any, event: str) -> None:
        """Wait until C{end}, a L{Near} or its factory, gets the event C{event}."""
        await self.until(lambda: event in end.told)

    def makeNear(self, halfCloseable: bool = False, **reactions: Callable[[Any], object]) -> Near:
        near = (HalfCloseableNear if halfCloseable else Near)(**reactions)
        self.nears.append(near)
        return near

    def keep(self, connection: socket.socket) -> socket.socket:
        """Close C{connection} after the test."""
        self._sockets.append(connection)
        return connection

    def makeSocket(self) -> socket.socket:
        """Return a socket with a limited receive buffer. It is closed after the test."""
        made = self.keep(socket.socket(self.family))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return made

    def bind(self) -> socket.socket:
        """Return a listening socket with a new address."""
        bound = self.makeSocket()
        if self.family == socket.AF_UNIX:
            bound.bind(os.path.join(self.folder, str(len(self._sockets))))
        else:
            bound.bind(("::1" if self.family == socket.AF_INET6 else "127.0.0.1", 0))
        bound.listen(128)
        bound.setblocking(False)
        return bound

    def listen(self, factory: Any) -> tuple[Any, Any]:
        """Return a port of the reactor under test, which is stopped after the test, and its address."""
        bound = self.bind()
        address = bound.getsockname()
        port = self.reactor.adoptStreamPort(bound.fileno(), self.family, factory)
        bound.close()
        self.ports.append(port)
        return port, address

    def dial(self, address: Any) -> socket.socket:
        """Return a plain client that is connected to C{address}."""
        far = self.makeSocket()
        far.connect(address)
        return far

    def crowded(self) -> socket.socket:
        """Return a listening socket that accepts no more connections."""
        bound = self.keep(socket.socket())
        bound.bind(("127.0.0.1", 0))
        bound.listen(0)
        self.dial(bound.getsockname())
        return bound

    async def accept(self, bound: socket.socket) -> socket.socket:
        """Return the next connection of C{bound}."""
        while True:
            try:
                far, _ = bound.accept()
            except BlockingIOError:
                await self.turn()
            else:
                return self.keep(far)

    async def open(self, halfCloseable: bool = False, **reactions: Callable[[Any], object]) -> tuple[Any, Peer]:
        """Return both ends of a new connection."""
        near = self.makeNear(halfCloseable, **reactions)
        far = await self.connect(near)
        await self.until(lambda: near.told)
        return near, Peer(self.turn, far)

    async def assertLost(self, near: Any, kind: type[BaseException] | tuple[type[BaseException], ...]) -> None:
        """Check that C{near} loses its connection for a reason of C{kind}, and that the reason has a text."""
        await self.untilTold(near, "lost")
        self.assertIsInstance(near.reason, kind)
        self.assertTrue(str(near.reason))

    async def assertReset(self, peer: Peer) -> None:
        """Check that C{peer} gets a reset and no end of file, if its kind of socket has resets."""
        if self.family == socket.AF_UNIX:
            await peer.rest()
            return
        try:
            await peer.rest()
        except ConnectionResetError:
            return
        self.fail("There was an end of file.")

    async def stalled(self, source: Source) -> None:
        """Wait until C{source} makes no more progress before its end."""
        left = -1
        while left != len(source.left):
            left = len(source.left)
            await self.turns()
        self.assertGreater(left, 0)

    def assertSame(self, received: bytes | bytearray, expected: bytes) -> None:
        """Compare bytes, without printing megabytes that differ."""
        self.assertEqual(len(received), len(expected))
        self.assertTrue(received == expected, "the content differs")

    async def together(self, *doings: Any) -> list[Any]:
        """Run C{doings} concurrently, and return their results."""
        results: list[Any] = await gatherResults([ensureDeferred(each) for each in doings], consumeErrors=True)
        return results


class Accepted(Bench):
    """The end under test accepts the connection."""

    async def connect(self, near: Near) -> socket.socket:
        _, address = self.listen(NearFactory(lambda: near))
        return self.dial(address)


class Connected(Bench):
    """The end under test makes the connection."""

    accepted = False

    async def connect(self, near: Near) -> socket.socket:
        bound = self.bind()
        if self.family == socket.AF_UNIX:
            self.reactor.connectUNIX(bound.getsockname(), NearFactory(lambda: near), 20)
        else:
            self.reactor.connectTCP(*bound.getsockname(), NearFactory(lambda: near), 20)
        return await self.accept(bound)


class Transfer(Bench):
    """Bytes in both directions."""

    async def test_interfaces(self) -> None:
        """A transport is a consumer and a push producer that can start TLS and has not done so."""
        near, _ = await self.open()
        for interface in (ITCPTransport, ITLSTransport, IConsumer, IPushProducer):
            self.assertTrue(interface.providedBy(near.transport), interface)
        self.assertFalse(ISSLTransport.providedBy(near.transport))

    async def test_addresses(self) -> None:
        """Each end has the address that the other end reports."""
        near, peer = await self.open()
        raw = [peer.connection.getpeername(), peer.connection.getsockname()]
        if self.family == socket.AF_UNIX:
            names: list[Any] = [UNIXAddress(each or None) for each in raw]
        else:
            names = [IPv4Address("TCP", *each) for each in raw]
        self.assertEqual([near.transport.getHost(), near.transport.getPeer()], names)

    async def test_connected(self) -> None:
        """A transport reports whether it is connected, and whether it is closing."""
        states: list[tuple[bool, bool]] = []

        def look(near: Any) -> None:
            states.append((bool(near.transport.connected), bool(near.transport.disconnecting)))

        near, _ = await self.open(made=look)
        look(near)
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        look(near)
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)
        self.assertEqual(states, [(True, False), (True, False), (True, True)])
        self.assertFalse(near.transport.connected)

    async def test_greeting(self) -> None:
        """Bytes that are written in C{connectionMade} are sent."""
        _, peer = await self.open(made=lambda near: near.transport.write(b"+OK ready\r\n"))
        self.assertEqual(await peer.receive(11), b"+OK ready\r\n")

    async def test_answer(self) -> None:
        """Bytes that are written in C{dataReceived} are sent; the connection stays open."""
        near, peer = await self.open(data=lambda near: near.transport.write(b"+OK\r\n"))
        for _ in range(3):
            await peer.send(b"NOOP\r\n")
            self.assertEqual(await peer.receive(5), b"+OK\r\n")
        self.assertEqual((near.deliveries, near.told), (3, ["made", "data"]))

    async def test_received(self) -> None:
        """Megabytes from the peer are delivered completely and in order."""
        near, peer = await self.open()
        await peer.send(CONTENT)
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_order(self) -> None:
        """Many small writes, of one piece or several, arrive in order; empty ones have no effect."""
        near, peer = await self.open()
        lines = [b"%d\r\n" % number for number in range(3000)]
        for start in range(0, len(lines), 3):
            near.transport.write(lines[start])
            near.transport.write(b"")
            near.transport.writeSequence([])
            near.transport.writeSequence(lines[start + 1 : start + 3])
        expected = b"".join(lines)
        self.assertEqual(await peer.receive(len(expected)), expected)

    async def test_large(self) -> None:
        """A write that no buffer holds is sent as fast as the peer reads; small ones follow it."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.writeSequence([b"and ", b"more"])
        near.transport.write(b" yet")
        await self.turns()
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertEqual(await peer.receive(12), b"and more yet")

    async def test_bothWays(self) -> None:
        """Megabytes in both directions at the same time arrive correctly."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        _, received = await self.together(peer.send(CONTENT), peer.receive(len(CONTENT)))
        self.assertSame(received, CONTENT)
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_afterTheEnd(self) -> None:
        """Calls of a lost transport do nothing."""
        near, peer = await self.open()
        peer.end()
        await self.assertLost(near, ConnectionDone)
        transport = near.transport
        transport.write(b"x")
        transport.writeSequence([b"x", b"y"])
        transport.pauseProducing()
        transport.resumeProducing()
        transport.unregisterProducer()
        transport.stopProducing()
        transport.loseConnection()
        transport.abortConnection()
        await self.turns()
        self.assertEqual(near.told, ["made", "lost"])

    async def test_options(self) -> None:
        """TCP's options can be set and read; a unix socket, which has none, ignores them."""
        near, _ = await self.open()
        transport = near.transport
        for value in (True, False):
            transport.setTcpNoDelay(value)
            self.assertEqual(bool(transport.getTcpNoDelay()), value and self.family != socket.AF_UNIX)
            transport.setTcpKeepAlive(value)
            self.assertEqual(bool(transport.getTcpKeepAlive()), value)

    async def test_error(self) -> None:
        """An exception in C{dataReceived} is logged once and ends that connection only."""
        other, otherPeer = await self.open()
        near, peer = await self.open(data=lambda near: 1 // 0)
        await peer.send(b"x")
        await self.assertLost(near, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(await peer.rest(), b"")
        await otherPeer.send(b"still here")
        await self.until(lambda: other.received == b"still here")
        self.assertEqual(other.told, ["made", "data"])


class Pausing(Bench):
    """A transport as a producer."""

    async def test_paused(self) -> None:
        """A paused transport delivers nothing. After that it delivers everything in order."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        near.transport.pauseProducing()
        await peer.send(CONTENT[:1000])
        await self.turns()
        await peer.send(CONTENT[1000:100_000])
        await self.turns()
        self.assertEqual(near.deliveries, 0)
        near.transport.resumeProducing()
        near.transport.resumeProducing()
        await self.until(lambda: len(near.received) >= 100_000)
        self.assertSame(near.received, CONTENT[:100_000])

    async def test_holdsThePeer(self) -> None:
        """If the reader is paused, the sender can only fill the buffers of the kernel."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        sending = ensureDeferred(peer.send(CONTENT))
        await self.turns()
        self.assertFalse(sending.called)
        self.assertEqual(near.deliveries, 0)
        near.transport.resumeProducing()
        await sending
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_inDelivery(self) -> None:
        """A transport that is paused during a delivery delivers nothing more until it is resumed."""
        near, peer = await self.open(data=lambda near: near.transport.pauseProducing())
        expected = 0
        for start in range(0, 600_000, 200_000):
            await peer.send(CONTENT[start : start + 100_000])
            while len(near.received) < start // 2 + 100_000:
                expected += 1
                await self.until(lambda least: near.deliveries >= least, expected)
                await self.turns()
                self.assertEqual(near.deliveries, expected)
                near.transport.resumeProducing()
        self.assertSame(near.received, CONTENT[:100_000] + CONTENT[200_000:300_000] + CONTENT[400_000:500_000])

    async def test_resumedInDelivery(self) -> None:
        """A transport that is paused and resumed at once continues."""

        def hesitate(near: Any) -> None:
            near.transport.pauseProducing()
            near.transport.resumeProducing()

        near, peer = await self.open(made=hesitate, data=hesitate)
        await peer.send(CONTENT)
        await self.until(lambda: len(near.received) >= len(CONTENT))
        self.assertSame(near.received, CONTENT)

    async def test_notAtOnce(self) -> None:
        """C{resumeProducing} itself delivers nothing, because the protocol is busy."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        await peer.send(b"x")
        await self.turns()
        near.transport.resumeProducing()
        self.assertEqual(near.deliveries, 0)
        await self.until(lambda: near.received == b"x")

    async def test_pausedAgain(self) -> None:
        """A transport that is resumed and paused again at once stays paused."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        await peer.send(b"x")
        await self.turns()
        near.transport.resumeProducing()
        near.transport.pauseProducing()
        await self.turns()
        self.assertEqual(near.deliveries, 0)
        near.transport.resumeProducing()
        await self.until(lambda: near.received == b"x")

    async def test_end(self) -> None:
        """The end of file follows the data, also if the transport was paused."""
        for halfCloseable, expected in ((False, ["made", "data", "lost"]), (True, ["made", "data", "ended"])):
            near, peer = await self.open(halfCloseable)
            near.transport.pauseProducing()
            await peer.send(b"last")
            peer.end()
            await self.turns()
            self.assertEqual(near.told, ["made"])
            near.transport.resumeProducing()
            await self.untilTold(near, expected[-1])
            self.assertEqual(near.told, expected)
            self.assertEqual(near.received, b"last")

    async def test_endAfterPause(self) -> None:
        """A transport that is paused by the last data reports the end only after it is resumed."""
        near, peer = await self.open(data=lambda near: near.transport.pauseProducing())
        await peer.send(b"last")
        peer.end()
        await self.until(lambda: near.deliveries)
        await self.turns()
        self.assertEqual(near.told, ["made", "data"])
        near.transport.resumeProducing()
        await self.assertLost(near, ConnectionDone)

    async def test_resumedAfterEnd(self) -> None:
        """Nothing is delivered to a protocol that resumes its transport after the end of file."""
        near, peer = await self.open(halfCloseable=True)
        peer.end()
        await self.untilTold(near, "ended")
        near.transport.resumeProducing()
        await self.turns()
        self.assertEqual(near.told.count("ended") > 1, self.repeatsEnd)
        self.assertEqual(set(near.told), {"made", "ended"})

    async def test_pausedWriter(self) -> None:
        """A paused transport sends what is written to it, and can be closed."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), CONTENT)
        await self.assertLost(near, ConnectionDone)

    async def test_pausedAndLost(self) -> None:
        """A paused transport notices a reset when it writes."""
        near, peer = await self.open()
        near.transport.pauseProducing()
        near.transport.write(b"unread")
        await peer.arrived()
        peer.reset()
        await self.turns()
        near.transport.write(b"x")
        await self.assertLost(near, ConnectionLost)


class Producing(Bench):
    """A transport as a consumer."""

    async def test_backPressure(self) -> None:
        """A producer is paused while the peer does not read, and resumed when the buffer is empty, in turn."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        source.produce()
        await self.stalled(source)
        self.assertEqual(source.calls[-1], "pause")
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertTrue(source.finished)
        self.assertEqual(source.calls, (["pause", "resume"] * len(source.calls))[: len(source.calls)])

    async def test_notPaused(self) -> None:
        """A producer that writes less than the buffer holds is neither paused nor resumed."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        for start in range(0, 20_000, 1000):
            near.transport.write(CONTENT[start : start + 1000])
            self.assertSame(await peer.receive(1000), CONTENT[start : start + 1000])
        self.assertEqual(source.calls, [])

    async def test_registeredFull(self) -> None:
        """A producer that is registered while the buffer is full is paused, and resumed when the peer reads."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        source = Source(near.transport, b"more")
        await self.turns()
        self.assertNotIn("resume", source.calls)
        near.transport.write(b"!")
        self.assertEqual(source.calls, ["pause"])
        self.assertSame(await peer.receive(len(CONTENT) + 5), CONTENT + b"!more")
        self.assertEqual(source.calls, ["pause", "resume"])

    async def test_pull(self) -> None:
        """A pull producer is asked once for each piece, and not after it is unregistered."""
        near, peer = await self.open()
        pieces = [CONTENT[start : start + 200_000] for start in range(0, 4 * MiB, 200_000)]
        source = Pieces(near.transport, pieces)
        await self.turns()
        self.assertLess(source.asked, len(pieces))
        expected = b"".join(pieces)
        self.assertSame(await peer.receive(len(expected)), expected)
        await self.turns()
        self.assertEqual((source.asked, source.stopped), (len(pieces), 0))

    async def test_second(self) -> None:
        """A second producer is rejected until the first is unregistered; unregistering needs no producer."""
        near, peer = await self.open()
        near.transport.unregisterProducer()
        first = Source(near.transport, CONTENT)
        self.assertRaises(RuntimeError, Source, near.transport, CONTENT)
        self.assertRaises(RuntimeError, Pieces, near.transport, [b"x"])
        near.transport.unregisterProducer()
        second = Source(near.transport, CONTENT)
        second.produce()
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        self.assertEqual(first.calls, [])
        self.assertIn("resume", second.calls)

    async def test_unregistered(self) -> None:
        """An unregistered producer is not called any more, although it was paused."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        near.transport.write(CONTENT)
        self.assertEqual(source.calls, ["pause"])
        near.transport.unregisterProducer()
        self.assertSame(await peer.receive(len(CONTENT)), CONTENT)
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(source.calls, ["pause"])

    async def test_stopped(self) -> None:
        """A producer is stopped once when the connection is lost."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        near.transport.write(b"unread")
        await peer.arrived()
        peer.reset()
        await self.assertLost(near, ConnectionLost)
        await self.turns()
        self.assertEqual(source.calls, ["stop"])

    async def test_tooLate(self) -> None:
        """A producer that is registered after the end is stopped at once; a pull producer is asked for nothing."""
        near, peer = await self.open()
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(Source(near.transport, CONTENT).calls, ["stop"])
        late = Pieces(near.transport, [b"x"])
        self.assertEqual((late.asked, late.stopped), (0, 1))

    async def test_closing(self) -> None:
        """C{loseConnection} waits for a paused producer: everything that it still writes arrives."""
        near, peer = await self.open()
        source = Source(near.transport, CONTENT)
        source.produce()
        await self.until(lambda: source.calls[-1:] == ["pause"])
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), CONTENT)
        self.assertTrue(source.finished)
        await self.assertLost(near, ConnectionDone)

    async def test_closingPull(self) -> None:
        """C{loseConnection} waits for a pull producer."""
        near, peer = await self.open()
        pieces = [CONTENT[start : start + 200_000] for start in range(0, MiB, 200_000)]
        Pieces(near.transport, pieces)
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), b"".join(pieces))
        await self.assertLost(near, ConnectionDone)


class Closing(Bench):
    """The end of one direction, and of both."""

    async def test_unsent(self) -> None:
        """C{loseConnection} sends the unsent bytes and the end of file; then the connection is lost."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        near.transport.loseConnection()
        await self.turns()
        self.assertEqual(near.told, ["made"])
        self.assertSame(await peer.rest(), CONTENT)
        await self.assertLost(near, ConnectionDone)

    async def test_toldLater(self) -> None:
        """The protocol loses its connection after the call that ends it, never inside it."""
        for end, kind in (
            ("loseConnection", ConnectionDone),
            ("stopProducing", ConnectionDone),
            ("abortConnection", ConnectionAborted),
        ):
            told: list[list[str]] = []

            def leave(near: Any, end: str = end, told: list[list[str]] = told) -> None:
                getattr(near.transport, end)()
                getattr(near.transport, end)()
                told.append(list(near.told))

            near, peer = await self.open(data=leave)
            await peer.send(b"x")
            await self.assertLost(near, kind)
            self.assertEqual(told, [["made", "data"]])
            near, peer = await self.open()
            leave(near)
            await self.assertLost(near, kind)
            self.assertEqual(told[1:], [["made"]])

    async def test_atOnce(self) -> None:
        """A connection may be closed as soon as it is made. Bytes that were written before are sent."""

        def refuse(near: Any) -> None:
            near.transport.write(b"-ERR busy\r\n")
            near.transport.loseConnection()

        near, peer = await self.open(made=refuse)
        self.assertEqual(await peer.rest(), b"-ERR busy\r\n")
        await self.assertLost(near, ConnectionDone)

    async def test_inAnswer(self) -> None:
        """A connection may be closed after an answer. Bytes that arrive while it is sent are not delivered."""

        def leave(near: Any) -> None:
            near.transport.write(CONTENT)
            near.transport.loseConnection()

        near, peer = await self.open(data=leave)
        await peer.send(b"QUIT\r\n")
        await self.until(lambda: near.deliveries)
        await peer.send(b"NOOP\r\n")
        await self.turns()
        self.assertEqual((near.received, near.told), (b"QUIT\r\n", ["made", "data"]))
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)

    async def test_resetWhileClosing(self) -> None:
        """A reset ends the wait for unsent data."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        await peer.arrived()
        peer.reset()
        await self.assertLost(near, ConnectionLost)

    async def test_abort(self) -> None:
        """C{abortConnection} drops unsent bytes; the peer gets a reset."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.abortConnection()
        near.transport.write(b"x")
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)
        self.assertLess(len(peer.received), len(CONTENT))

    async def test_abortWhileClosing(self) -> None:
        """C{abortConnection} ends the wait of C{loseConnection}, which has no effect after it."""
        near, peer = await self.open()
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        near.transport.abortConnection()
        near.transport.loseConnection()
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)

    async def test_abortPausedProducer(self) -> None:
        """C{abortConnection} stops a producer without waiting for it."""
        near, _ = await self.open()
        source = Source(near.transport, CONTENT)
        source.produce()
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)
        self.assertEqual(source.calls[-1], "stop")
        self.assertEqual(source.calls.count("stop"), 1)

    async def test_abortInDelivery(self) -> None:
        """After C{abortConnection} nothing is delivered, not even bytes that have arrived."""
        near, peer = await self.open(data=lambda near: near.transport.abortConnection())
        await peer.send(CONTENT[:100_000])
        await self.assertLost(near, ConnectionAborted)
        self.assertEqual(near.deliveries, 1)

    async def test_abortAtOnce(self) -> None:
        """C{abortConnection} may be the first call of a protocol."""
        near, peer = await self.open(made=lambda near: near.transport.abortConnection())
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)

    async def test_reset(self) -> None:
        """After a peer's reset, protocols of both kinds get C{ConnectionLost}."""
        for halfCloseable in (False, True):
            near, peer = await self.open(halfCloseable)
            near.transport.write(b"unread")
            await peer.arrived()
            peer.reset()
            await self.assertLost(near, ConnectionLost)
            self.assertEqual(near.told, ["made", "lost"])

    async def test_peerEnds(self) -> None:
        """The peer's end of file ends the connection of a protocol without half-close, after the last data."""
        near, peer = await self.open()
        await peer.send(b"last words")
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.received, b"last words")
        self.assertEqual(await peer.rest(), b"")

    async def test_halfClose(self) -> None:
        """A half-closeable protocol learns once of the end, can still write, and ends the connection itself."""
        near, peer = await self.open(halfCloseable=True)
        await peer.send(b"LOGOUT\r\n")
        peer.end()
        await self.untilTold(near, "ended")
        await self.turns()
        self.assertEqual(near.told, ["made", "data", "ended"])
        near.transport.write(CONTENT)
        near.transport.loseConnection()
        self.assertSame(await peer.rest(), CONTENT)
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.told, ["made", "data", "ended", "lost"])

    async def test_writeEnd(self) -> None:
        """
        C{loseWriteConnection} sends the unsent bytes and the end of file. The protocol learns of it, and still reads.
        """
        near, peer = await self.open(halfCloseable=True)
        near.transport.write(CONTENT)
        near.transport.loseWriteConnection()
        await self.turns()
        self.assertEqual(near.told, ["made"])
        self.assertSame(await peer.rest(), CONTENT)
        await self.untilTold(near, "writeEnded")
        near.transport.write(b"too late")
        await peer.send(b"answer")
        await self.until(lambda: near.received == b"answer")
        self.assertEqual(near.told, ["made", "writeEnded", "data"])
        peer.end()
        await self.untilTold(near, "ended")
        self.assertEqual(await peer.rest(), b"")

    async def test_bothEnds(self) -> None:
        """After the end of both directions, in either order, the protocol closes the connection itself."""
        for first in (0, 1):
            near, peer = await self.open(halfCloseable=True)
            steps = [near.transport.loseWriteConnection, peer.end]
            for step, count in ((steps[first], 1), (steps[1 - first], 2)):
                step()
                await self.until(lambda near, count: len(near.told) > count, near, count)
            self.assertEqual(set(near.told[:3]), {"made", "writeEnded", "ended"})
            near.transport.loseConnection()
            await self.assertLost(near, ConnectionDone)
            self.assertEqual(len(near.told), 4)

    async def test_writeEndAlone(self) -> None:
        """A protocol without half-close can end its direction; the peer's end then ends the connection."""
        near, peer = await self.open()
        near.transport.loseWriteConnection()
        self.assertEqual(await peer.rest(), b"")
        await self.turns()
        self.assertEqual(near.told, ["made"])
        await peer.send(b"answer")
        peer.end()
        await self.assertLost(near, ConnectionDone)
        self.assertEqual(near.received, b"answer")

    async def test_abortAfterHalfClose(self) -> None:
        """A connection with one ended direction can be aborted."""
        near, peer = await self.open(halfCloseable=True)
        peer.end()
        await self.untilTold(near, "ended")
        near.transport.write(CONTENT)
        near.transport.abortConnection()
        await self.assertLost(near, ConnectionAborted)
        await self.assertReset(peer)
