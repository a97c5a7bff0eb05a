# -*- test-case-name: mailgate.test.relay.test_stream -*-
"""
One connection of a relay between raw descriptors: how it is read, and how it is written.

Plain bytes are copied while they are few. When they are many, they move from socket to socket through a pipe
(splice(2)). Under TLS they pass through buffers that all sessions share.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from mailgate.lean.descriptors import ask, reset, sendingRoom
from mailgate.lean.poller import READABLE, RELAY, WRITABLE
from mailgate.lean.quickack import BEGUN, LINE_END, LONGEST, NEVER, NOTHING, SUSPECT, acknowledge
from mailgate.lean.transport import StreamTransport
from mailgate.relay.base import BaseEnd
from mailgate.relay.leaving import LEAVING, expectsAfter
from mailgate.relay.pipes import Pipe
from mailgate.session import Outcome
from mailgate.tls.engine import PeerClosed, TLSEngine

if TYPE_CHECKING:
    from mailgate.relay.stream import StreamRelay

__all__ = ["LITTLE", "MOST_WAITING", "MUCH", "RelayEnd"]

LITTLE = 16384
"""The bytes of one read, which are copied, while no read fills the buffer."""

MUCH = 262144
"""The bytes of one read of a fast stream that must be copied."""

GROWTH = 16
"""The factor between the two sizes. Smaller steps make a message of 256 KiB a sixth more expensive."""

SAFE = 65536
"""The bytes of one read for any receiver. More only if the system has room to send them: the rest stays in memory."""

MOST_WAITING = 4 * SAFE
"""The most bytes that may wait for a receiver that makes TLS add to them. Relayed bytes are about a quarter of that."""

MOST_MOVED = 2 * SAFE
"""The most bytes that are moved to memory from the pipe of a receiver that reads nothing."""

SMALL = 1024
"""A burst of fewer bytes does not make buffers grow."""

_SPLICE: int = getattr(os, "SPLICE_F_MOVE", 1) | getattr(os, "SPLICE_F_NONBLOCK", 2)

_OPEN, _ENDING, _ENDED, _CLOSING = range(4)
"""What a sink still sends: anything; waiting bytes and the end of file; nothing; waiting bytes, and then it closes."""


class RelayEnd(BaseEnd):
    """
    One connection of a L{mailgate.relay.stream.StreamRelay}. Both ends have the same class: Python takes a tenth longer
    if two classes alternate.

    @ivar fd: the descriptor, -1 once it is closed.
    @ivar waiting: what the connection has not taken yet: bytes, or a pipe and the number of bytes in it. While there is
        something, the other end is not read.
    @ivar expected: the state of L{mailgate.lean.quickack} for this connection.
    """

    __slots__ = ("_engine", "_events", "_size", "_state", "expected", "fd", "relay", "waiting")

    kind = RELAY
    peer: RelayEnd

    def __init__(self, relay: StreamRelay, transport: StreamTransport, isClient: bool = False) -> None:
        """
        Take over the descriptor of a transport.

        @param relay: the relay.
        @param transport: the transport, which is unusable afterwards.
        @param isClient: whether this is the client's connection.
        """
        self.relay = relay
        self.expected = NOTHING if isClient else NEVER
        self.fd = transport.fd
        self._engine: TLSEngine | None
        self._engine, unsent = transport.surrender()
        if self._engine is not None:
            self._engine.forget()
        self.waiting: bytes | memoryview | tuple[Pipe, int] | None = unsent or None
        self._events = READABLE
        self._size = LITTLE
        self._state = _OPEN
        self.finished = False
        self.moved = 0
        transport.poller.transfer(self.fd, self)

    @property
    def isOpen(self) -> bool:
        return self.fd >= 0

    @property
    def isLeaving(self) -> bool:
        # What passes through pipes is not looked at: the last line may have been a goodbye.
        return self.expected == LEAVING or self._size > LITTLE

    def begin(self, data: bytes) -> None:
        """Relay C{data}, which the login read from this connection, and all bytes that follow."""
        if self.fd < 0:
            return
        if self.waiting is not None:
            self._stick()
        if data:
            self._pass(data)
        if self._engine is not None:
            # The engine may hold decrypted bytes that the dialogue did not read.
            self._decrypt(self._engine)

    # What the poller calls.

    def ready(self, fd: int, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE and self._events & READABLE:
            try:
                self._read()
            except BlockingIOError:
                return
            except OSError:
                self.relay.lost(self)

    def failed(self, failure: Failure) -> None:
        """End this session, and no other: the reactor stops, or our code raised C{failure}."""
        if self.fd >= 0:
            stopped = failure.check(ConnectionLost)
            self.relay.session.conclude(Outcome.STOPPED if stopped else Outcome.INTERNAL)
            self.relay.abort()

    def _want(self, events: int) -> None:
        before = self._events
        if events != before and self.fd >= 0:
            self._events = events
            self.relay.means.poller.change(self.fd, before, events)

    def settle(self) -> None:
        """Release the memory that bursts have used."""
        if self._engine is not None:
            self._engine.settle()

    # The source.

    def _read(self) -> None:
        """Read once, so that one fast stream does not starve the others. Raises OSError if the connection is lost."""
        if self._engine is not None or self.peer._engine is not None:
            self._readThroughBuffer()
        elif self._size > LITTLE:
            self._splice()
        else:
            data = os.read(self.fd, LITTLE)
            if data:
                if len(data) == LITTLE:
                    self._size = LITTLE * GROWTH
                self._pass(data)
            else:
                self._ended()

    def _readThroughBuffer(self) -> None:
        target = self.relay.means.buffer[: self._fitting(self._size)]
        count = os.readv(self.fd, (target,))
        if not count:
            # Under TLS, the end of file without a close_notify may be an attack: the connection counts as lost.
            self.relay.lost(self) if self._engine is not None else self._ended()
            return
        if count == len(target) or self._size > LITTLE:
            self._grow(count, len(target))
        if self._engine is None:
            self._pass(target[:count])
        else:
            self._engine.feed(target[:count])
            self._decrypt(self._engine)
        if (count > SMALL or len(target) > LITTLE) and self.fd >= 0:
            self.relay.means.flown(self.relay, count < len(target))

    def _decrypt(self, engine: TLSEngine) -> None:
        try:
            data = engine.read()
            while data is not None and not self.finished:
                self._pass(data)
                data = engine.read()
        except PeerClosed:
            self._ended()
        except SSL.Error:
            self._broken()
        if self.fd >= 0:
            self._answer(engine.output())

    def _answer(self, data: bytes | memoryview) -> None:
        """Send what TLS itself answers, such as the answer to a KeyUpdate."""
        if data:
            self._put(data)
            waiting = self.waiting
            if waiting is not None and len(waiting) > MOST_WAITING:
                # The peer keeps causing answers, and does not read them.
                self.relay.lost(self)

    def _splice(self) -> None:
        pipes = self.relay.means.pipes
        pipe = pipes.take()
        if pipe is None:
            self._readThroughBuffer()
            return
        size = self._fitting(min(self._size, pipe.size))
        try:
            count = os.splice(self.fd, pipe.input, size, flags=_SPLICE)
        except OSError:
            pipes.give(pipe)
            raise
        if not count:
            pipes.give(pipe)
            self._ended()
            return
        if count == size:
            # Do not return to copying unless a receiver gets stuck: a pipe is as good for the next command, and better
            # for the next message.
            self._size = size * GROWTH
        self.moved += count
        self.relay.moved()
        peer = self.peer
        if peer.expected >= BEGUN:
            peer.expected = NOTHING
        peer._drain(pipe, count)
        if self.expected:
            self._acknowledge()

    def _fitting(self, size: int) -> int:
        """C{size}, or less if the system cannot send so many bytes to the receiver at once."""
        return size if size <= SAFE else min(size, max(SAFE, sendingRoom(self.peer.fd)))

    def _grow(self, count: int, size: int) -> None:
        if count == size:
            self._size = size * GROWTH
        elif count < LITTLE:
            self._size = LITTLE

    def _pass(self, data: bytes | memoryview) -> None:
        size = len(data)
        self.moved += size
        self.relay.moved()
        peer = self.peer
        if peer.expected >= BEGUN:
            peer.expected = NOTHING
        peer.send(data)
        expected = self.expected
        # Looking closer at every command would cost a tenth of relaying it.
        if expected and (expected > NOTHING or not 2 < size <= LONGEST or data[-1] != LINE_END or data[-3] in SUSPECT):
            self.expected = expected = expectsAfter(expected, data)
            if expected > NOTHING:
                self._acknowledge()

    def _acknowledge(self) -> None:
        if self.fd >= 0:
            acknowledge(self.fd)

    def _ended(self) -> None:
        if not self.finished:
            self.finished = True
            self.relay.ended(self)
            # Usually the connection is closed by now, and this costs no system call.
            self._want(self._events & ~READABLE)

    def _broken(self) -> None:
        """The ciphertext is invalid: send the alert, and drop the connection."""
        assert self._engine is not None
        self._put(self._engine.output())
        if self.fd >= 0:
            self.relay.lost(self)

    # The sink.

    def send(self, data: bytes | memoryview) -> None:
        """Send C{data} to this connection. The caller may reuse the buffer afterwards."""
        if self._state != _OPEN or self.fd < 0:
            return
        if self._engine is not None:
            try:
                data = self._engine.encrypt(data)
            except SSL.Error:
                self.relay.lost(self)
                return
        self._put(data)

    def _put(self, data: bytes | memoryview) -> None:
        if self.fd < 0 or not data:
            return
        if self.waiting is not None:
            assert not isinstance(self.waiting, tuple)
            self.waiting = b"".join((self.waiting, data))
            return
        try:
            sent = os.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.relay.lost(self)
            return
        if sent < len(data):
            self.waiting = bytes(data[sent:])
            self._stick()

    def _drain(self, pipe: Pipe, count: int) -> None:
        """Send the C{count} bytes in C{pipe} to this connection."""
        pipes = self.relay.means.pipes
        try:
            sent = os.splice(pipe.output, self.fd, count, flags=_SPLICE)
        except BlockingIOError:
            sent = 0
        except OSError:
            pipes.drop(pipe)
            self.waiting = None
            self.relay.lost(self)
            return
        if sent == count:
            pipes.give(pipe)
            self.waiting = None
            return
        stuck = self.waiting is not None
        self.waiting = (pipe, count - sent)
        if not stuck:
            self._stick()
            self.relay.means.piped(self)

    def unpipe(self) -> bool:
        """
        Move the waiting bytes from the pipe to memory, unless there are more than L{MOST_MOVED}. Return whether they
        were moved.
        """
        assert isinstance(self.waiting, tuple)
        pipe, count = self.waiting
        if count > MOST_MOVED:
            return False
        pieces = []
        while count:
            pieces.append(os.read(pipe.output, count))
            count -= len(pieces[-1])
        self.waiting = b"".join(pieces)
        self.relay.means.pipes.give(pipe)
        return True

    def _stick(self) -> None:
        """Wait until this connection accepts its bytes, and do not read from the other one until then."""
        self._want(self._events | WRITABLE)
        peer = self.peer
        peer._size = LITTLE
        peer._want(peer._events & ~READABLE)

    def _flush(self) -> None:
        waiting = self.waiting
        if isinstance(waiting, tuple):
            self._drain(*waiting)
        elif waiting is not None:
            try:
                sent = os.write(self.fd, waiting)
            except BlockingIOError:
                return
            except OSError:
                self.relay.lost(self)
                return
            self.waiting = memoryview(waiting)[sent:] if sent < len(waiting) else None
        if self.fd >= 0:
            self.relay.moved()
            if self.waiting is None:
                self._unstick()

    def _unstick(self) -> None:
        if self._state == _CLOSING:
            self._hangUp()
            return
        self._want(self._events & ~WRITABLE)
        if self._state == _ENDING:
            self._endWriting()
        peer = self.peer
        if not peer.finished and peer._state != _CLOSING:
            peer._want(peer._events | READABLE)

    # The end.

    def finishWriting(self) -> None:
        if self._state == _OPEN:
            self._sendCloseNotify()
            self._state = _ENDING
            if self.waiting is None:
                self._endWriting()

    def _sendCloseNotify(self) -> None:
        if self._engine is not None and self._state == _OPEN:
            self._engine.closeNotify()
            self._put(self._engine.output())

    def _endWriting(self) -> None:
        self._state = _ENDED
        if self.fd >= 0:
            # A connection that is lost already is noticed by the next read.
            with suppress(OSError):
                ask(self.fd, socket.AF_INET, "shutdown", socket.SHUT_WR)

    def close(self) -> None:
        if self.fd < 0 or self._state == _CLOSING:
            return
        self._sendCloseNotify()
        self._state = _CLOSING
        heard, self.finished = self.finished, True
        if self.waiting is not None:
            self._want(WRITABLE)
        elif heard:
            self.release()
        else:
            self._hangUp()

    def _hangUp(self) -> None:
        """Close: all bytes are sent."""
        if self.fd >= 0:
            # Read what has arrived: closing with unread bytes sends a reset, which could cost the peer our last bytes.
            with suppress(OSError):
                os.readv(self.fd, (self.relay.means.buffer,))
            self.release()

    def abort(self) -> None:
        if self.fd >= 0:
            with suppress(OSError):
                reset(self.fd, socket.AF_INET)
            self.release()

    def release(self) -> None:
        if self.fd < 0:
            return
        means = self.relay.means
        fd, self.fd = self.fd, -1
        # One event may announce several things, and the first may have closed the connection.
        self._events = 0
        self.finished = True
        if self._engine is not None:
            self._engine.closeNotify()
        means.poller.release(fd)
        if isinstance(self.waiting, tuple):
            means.pipes.drop(self.waiting[0])
        self.waiting = None
        self.relay.released()
