"""
Unix sockets in memory: a listening socket that outlives those who accept on it, as the keeper's does, and connections
that deliver bytes in pieces and make a writer wait for a reader.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.listening import Rendezvous
from mailgate.keeper.peers import Peer

HIGH = 65536


class End:
    """One end of a connection: the transport of one protocol."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self.other: End = self
        self.protocol: Any = None
        self.buffer = bytearray()
        self.most = 0
        self.isDeaf = False
        self.isLost = False
        self.disconnecting = False
        self._clock = clock
        self._random = random
        self._producer: Any = None
        self._isPaused = False
        self._isScheduled = False

    def attach(self, protocol: Any) -> None:
        self.protocol = protocol
        protocol.makeConnection(self)
        self.other.schedule()

    def write(self, data: bytes) -> None:
        if self.isLost or self.disconnecting:
            return
        self.buffer += data
        self.most = max(self.most, len(self.buffer))
        if self._producer is not None and not self._isPaused and len(self.buffer) > HIGH:
            self._isPaused = True
            self._producer.pauseProducing()
        self.schedule()

    def writeSequence(self, parts: Any) -> None:
        self.write(b"".join(parts))

    def registerProducer(self, producer: Any, isStreaming: bool) -> None:
        assert isStreaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None
        self.schedule()

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.schedule()

    def abortConnection(self) -> None:
        self.disconnecting = True
        self.buffer.clear()
        self._clock.callLater(0, self.end, ConnectionLost())

    def setDeaf(self, isDeaf: bool) -> None:
        """Read nothing, or read again."""
        self.isDeaf = isDeaf
        self.other.schedule()

    def schedule(self) -> None:
        if not self._isScheduled and not self.isLost:
            self._isScheduled = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._isScheduled = False
        if self.isLost or self.other.protocol is None or self.other.isDeaf:
            return
        if self.buffer:
            size = self._random.randint(1, 32768)
            data = bytes(self.buffer[:size])
            del self.buffer[:size]
            self.other.protocol.dataReceived(data)
        if self.buffer:
            self.schedule()
            return
        if self._isPaused:
            self._isPaused = False
            if self._producer is not None:
                self._producer.resumeProducing()
        if self.disconnecting and self._producer is None and not self.buffer:
            self.end(ConnectionDone())

    def end(self, error: Exception) -> None:
        """The connection ends at both ends. What this end has not read is lost."""
        for each in (self, self.other):
            if not each.isLost:
                each.isLost = True
                if each.protocol is not None:
                    each.protocol.connectionLost(Failure(error))


class Socket:
    """A listening socket. While no keeper accepts, connections wait."""

    def __init__(self, clock: Clock, random: Random) -> None:
        self.clock = clock
        self.random = random
        self.isOpen = True
        self.pid = 1
        self._waiting: list[tuple[End, int]] = []
        self._acceptor: Any = None

    def endpoint(self, pid: int, opened: list[End]) -> Endpoint:
        """An endpoint for the process C{pid}, which adds its ends to C{opened}."""
        return Endpoint(self, pid, opened)

    def connected(self, end: End, pid: int) -> None:
        self._waiting.append((end, pid))
        self._accept()

    def accept(self, acceptor: Any) -> None:
        """C{acceptor(end, pid)} takes the connections from now on; L{None}: they wait."""
        self._acceptor = acceptor
        self._accept()

    def _accept(self) -> None:
        while self._acceptor is not None and self._waiting:
            end, pid = self._waiting.pop(0)
            if not end.isLost:
                self._acceptor(end, pid)


class Endpoint:
    """Connects a process to a L{Socket}."""

    def __init__(self, socket: Socket, pid: int, opened: list[End]) -> None:
        self._socket = socket
        self._pid = pid
        self._opened = opened

    def connect(self, factory: Any) -> Deferred[Any]:
        if not self._socket.isOpen:
            return fail(ConnectionRefusedError())
        clock, random = self._socket.clock, self._socket.random
        end, other = End(clock, random), End(clock, random)
        end.other, other.other = other, end
        self._opened.append(end)
        protocol = factory.buildProtocol(None)
        end.attach(protocol)
        self._socket.connected(other, self._pid)
        return succeed(protocol)


class WiredRendezvous(Rendezvous):
    """The real rendezvous, on a L{Socket}."""

    def __init__(self, keeper: Keeper, socket: Socket, uid: int | None = None) -> None:
        super().__init__(keeper, None, socket.clock, uid, lambda transport: transport.peer)  # type: ignore[arg-type]
        self.socket = socket
        self.ends: list[End] = []

    def listen(self) -> Any:
        self.socket.accept(self._accepted)
        return self

    def _accepted(self, end: Any, pid: int) -> None:
        end.peer = Peer(pid, 0, 0)
        self.ends.append(end)
        end.attach(self.factory.buildProtocol(None))

    def stopListening(self) -> None:
        if self.socket._acceptor == self._accepted:
            self.socket.accept(None)
