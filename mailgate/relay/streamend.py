# -*- test-case-name: mailgate.test.relay.test_stream -*-
"""
One connection of a relay between raw descriptors: how it is read, and how it is written.

Plain bytes are copied while they are few. When they are many, they move from socket to socket through a pipe
(splice(2)). L{mailgate.relay.bufferedend} is for relays with TLS on either side.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from mailgate.lean.descriptors import ask, reset, sendingRoom
from mailgate.lean.poller import READABLE, WRITABLE
from mailgate.lean.quickack import BEGUN, LINE_END, LONGEST, NOTHING, SUSPECT, acknowledge
from mailgate.lean.transport import StreamTransport
from mailgate.relay.base import BaseEnd
from mailgate.relay.leaving import LEAVING, expectsAfter
from mailgate.relay.pipes import Pipe
from mailgate.session import Outcome

if TYPE_CHECKING:
    from mailgate.relay.stream import StreamRelay

__all__ = ["LITTLE", "MUCH", "OPEN", "SAFE", "RelayEnd"]

LITTLE = 16384
"""The bytes of one read, which are copied, while no read fills the buffer."""

MUCH = 262144
"""The bytes of one read of a fast stream that must be copied."""

SAFE = 65536
"""The bytes of one read for any receiver. More only if the system has room to send them: the rest stays in memory."""

PIECE = 1024
"""What the system needs for each piece that it sends, besides its bytes."""

MOST_MOVED = 2 * SAFE
"""The most bytes that are moved to memory from the pipe of a receiver that reads nothing."""

_SPLICE: int = getattr(os, "SPLICE_F_MOVE", 1) | getattr(os, "SPLICE_F_NONBLOCK", 2)

OPEN, _ENDING, _ENDED, _CLOSING = range(4)
"""
What a sink still sends: anything; waiting bytes and the end of file; nothing; waiting bytes, and then it closes, or is
closed already.
"""


_PAUSED, _FINISHED, _FINISHING = 0, -1, -2
"""
Instead of the size of the next read: there is none now, or none any more. C{_FINISHING} is C{_FINISHED} as long as the
poller still waits for bytes to read: usually the connection is closed before it would hear of it.
"""


class RelayEnd(BaseEnd):
    """
    One connection of a L{mailgate.relay.stream.StreamRelay} without TLS. Both ends have the same class: Python takes a
    tenth longer if two classes alternate.

    The poller waits for what C{_size} and C{waiting} say: for bytes to read unless the size is C{_PAUSED} or
    C{_FINISHED}, and for room to write while something waits.

    @ivar fd: the descriptor, -1 once it is closed.
    @ivar waiting: what the connection has not taken yet: bytes, or a pipe and the number of bytes in it. While there is
        something, the other end is not read.
    @ivar expected: the state of L{mailgate.lean.quickack} for this connection.
    @ivar _size: the most bytes of the next read. More than L{SAFE}: the system surely takes so many for the receiver.
    """

    __slots__ = ("_size", "_state", "expected", "fd", "waiting")

    relay: StreamRelay
    peer: RelayEnd

    def __init__(self, transport: StreamTransport, expected: int) -> None:
        """
        Take over the descriptor of a transport.

        @param transport: the transport, which is unusable afterwards.
        @param expected: the state of L{mailgate.lean.quickack} at the beginning.
        """
        self.expected = expected
        self.fd = fd = transport.fd
        self.waiting: bytes | memoryview | tuple[Pipe, int] | None = transport.surrender()
        self._size = LITTLE
        self._state = OPEN
        self.moved = 0
        transport.poller.owners[fd] = self

    @property
    def isOpen(self) -> bool:
        return self.fd >= 0

    @property
    def isEncrypted(self) -> bool:
        return False

    @property
    def finished(self) -> bool:
        return self._size < _PAUSED

    @property
    def isLeaving(self) -> bool:
        # What passes through pipes is not looked at: the last line may have been a goodbye.
        return self.expected == LEAVING or self._size > LITTLE

    def begin(self, data: bytes) -> None:
        """Relay C{data}, which the login read from this connection, and all bytes that follow."""
        if self.waiting is not None:
            self.peer.pause()
        if data and self.fd >= 0:
            self._pass(data, len(data))

    # What the poller calls.

    def ready(self, fd: int, events: int) -> None:
        if events != READABLE or self._size != LITTLE:
            self._react(events)
            return
        try:
            data = os.read(fd, LITTLE)
        except BlockingIOError:
            return
        except OSError:
            self.relay.lost(self)
            return
        if not data:
            self._cut()
            return
        size = len(data)
        if size == LITTLE:
            self._size = SAFE
        self._received(data, size)

    def _react(self, events: int) -> None:
        """Handle C{events} that are not only bytes of a slow stream."""
        if events & WRITABLE:
            self._flush()
        if events == WRITABLE or self._size <= _PAUSED:
            return
        if self._size == LITTLE:
            self.ready(self.fd, READABLE)
            return
        # Read once, so that one fast stream does not starve the others.
        try:
            self._readMuch()
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

    def pause(self) -> None:
        """Do not read from the connection until L{resume}."""
        if self._size > _PAUSED:
            self._watchReading(_PAUSED)

    def resume(self) -> None:
        """Read from the connection again, if it is paused."""
        if self._size == _PAUSED:
            self._watchReading(LITTLE)

    @property
    def _reads(self) -> int:
        """L{READABLE} if the poller waits for bytes to read; 0 if not."""
        return 0 if self._size == _PAUSED or self._size == _FINISHED else READABLE

    def _watchReading(self, size: int) -> None:
        """From now on, read so many bytes at most."""
        before, self._size = self._reads, size
        if self._reads != before and self.fd >= 0:
            writes = 0 if self.waiting is None else WRITABLE
            self.relay.means.poller.change(self.fd, before | writes, self._reads | writes)

    def _watchWriting(self, before: int, now: int) -> None:
        """Wait for room to write, or no longer."""
        if self.fd >= 0:
            self.relay.means.poller.change(self.fd, before | self._reads, now | self._reads)

    def settle(self) -> None:
        """Release the memory that bursts have used."""

    # The source.

    def _readMuch(self) -> None:
        """Read once from a fast stream. Raises OSError if nothing has arrived, or the connection is lost."""
        pipes = self.relay.means.pipes
        pipe = pipes.take()
        if pipe is None:
            self._copy()
            return
        # Do not return to copying unless a receiver gets stuck: a pipe is as good for the next command, and better for
        # the next message.
        size = min(self._size, pipe.size)
        try:
            count = os.splice(self.fd, pipe.input, size, flags=_SPLICE)
        except OSError:
            pipes.give(pipe)
            raise
        if not count:
            pipes.give(pipe)
            self._ended()
            return
        self.moved += count
        self.relay.moved()
        self._spend(count, size)
        peer = self.peer
        if peer.expected >= BEGUN:
            peer.expected = NOTHING
        peer._drain(pipe, count)
        if self.expected:
            self._acknowledge()

    def _copy(self) -> None:
        """Relay a fast stream for which there is no pipe."""
        target = self.relay.means.buffer[: self._size]
        count = os.readv(self.fd, (target,))
        if count:
            self._slowDown(count, len(target))
            self._pass(target[:count], count)
        else:
            self._ended()

    def _slowDown(self, count: int, size: int) -> None:
        """Decide how the next bytes are read that are copied: they are read as a slow stream if they were few."""
        if count < LITTLE:
            self._size = LITTLE
        else:
            self._spend(count, size)

    def _spend(self, count: int, size: int) -> None:
        """
        Decide how many bytes the next read takes: no more than the receiver's system takes for sure. Asking it takes as
        long as relaying a small message. So it is asked only when the next read would bring less than the last one, and
        that was large.

        @param count: how many bytes the last read has brought, which are not sent yet.
        @param size: how many it could have been.
        """
        left = self._size - count - PIECE
        if left < count and (count > SAFE or count == size):
            # The system counts about 5 percent more than the bytes, at the usual size of packets.
            left = sendingRoom(self.peer.fd) * 15 // 16 - count
        self._size = left if left > SAFE else SAFE

    def _pass(self, data: bytes | memoryview, size: int) -> None:
        self.moved += size
        relay = self.relay
        relay.active = relay.terms.seconds()
        self.peer.send(data)
        if not self.expected:
            if self.peer.expected >= BEGUN:
                self.peer.expected = NOTHING
        # Looking closer at every command would cost a tenth of relaying it.
        elif self.expected > NOTHING or size < 3 or size > LONGEST or data[-1] != LINE_END or data[-3] in SUSPECT:
            self.expected = expectsAfter(self.expected, data)
            if self.expected > NOTHING:
                self._acknowledge()

    _received = _pass
    """Take what was read from the connection: C{size} bytes."""

    def _acknowledge(self) -> None:
        if self.fd >= 0:
            acknowledge(self.fd)

    def _ended(self) -> None:
        size = self._size
        if size >= _PAUSED:
            self._size = _FINISHING if size else _FINISHED
            self.relay.ended(self)
            if self._size == _FINISHING:
                self._watchReading(_FINISHED)

    _cut = _ended
    """The end of file has arrived."""

    # The sink.

    def send(self, data: bytes | memoryview) -> None:
        """Send C{data}, unless nothing may follow what was sent. The caller may reuse the buffer afterwards."""
        # Only L{OPEN} is false.
        if self._state:
            return
        if self.waiting is not None:
            assert not isinstance(self.waiting, tuple)
            self.waiting = b"".join((self.waiting, data))
            return
        try:
            sent = os.write(self.fd, data)
            if sent == len(data):
                return
        except BlockingIOError:
            sent = 0
        except OSError:
            self.relay.lost(self)
            return
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
        self._watchWriting(0, WRITABLE)
        self.peer.pause()

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
        self._watchWriting(WRITABLE, 0)
        if self._state == _ENDING:
            self._endWriting()
        self.peer.resume()

    # The end.

    def finishWriting(self) -> None:
        if self._state == OPEN:
            self._state = _ENDING
            if self.waiting is None:
                self._endWriting()

    def _endWriting(self) -> None:
        self._state = _ENDED
        if self.fd >= 0:
            # A connection that is lost already is noticed by the next read.
            with suppress(OSError):
                ask(self.fd, socket.AF_INET, "shutdown", socket.SHUT_WR)

    def close(self) -> None:
        if self.waiting is not None:
            self._state = _CLOSING
            self._watchReading(_FINISHED)
        elif self._size < _PAUSED:
            self.release()
        else:
            self._hangUp()

    def _hangUp(self) -> None:
        """Close: all bytes are sent."""
        # Read what has arrived: closing with unread bytes sends a reset, which could cost the peer our last bytes.
        try:
            os.readv(self.fd, (self.relay.terms.means.buffer,))
        except OSError:
            # Nothing has arrived, or the connection is lost.
            pass
        finally:
            self.release()

    def abort(self) -> None:
        if self.fd >= 0:
            with suppress(OSError):
                reset(self.fd, socket.AF_INET)
            self.release()

    def release(self) -> None:
        fd = self.fd
        if fd < 0:
            return
        relay = self.relay
        self.fd = -1
        # One event may announce several things, and the first may have closed the connection.
        self._size = _FINISHED
        self._state = _CLOSING
        relay.terms.means.poller.release(fd)
        if self.waiting is not None:
            if isinstance(self.waiting, tuple):
                relay.means.pipes.drop(self.waiting[0])
            self.waiting = None
        if self.peer.fd < 0:
            relay.over()
