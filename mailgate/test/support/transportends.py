"""
The two ends of a connection in tests of stream transports. The end under test is a L{Near}. The other end is a L{Peer},
a plain socket that reads, ends and resets when the scenario says so.
"""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPullProducer,
    IPushProducer,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

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
