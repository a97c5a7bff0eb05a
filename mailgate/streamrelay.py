# -*- test-case-name: mailgate.test.test_streamrelay -*-
"""
Bytes both ways between two raw descriptors, at the kernel's speed and with next to nothing kept for a session.

What L{mailgate.relay} does over any transport, this does over L{StreamTransport}s, whose descriptors it takes: the
dialogues, their transports and all that the login needed are gone then. Plain bytes are copied while there are few, and
go from socket to socket through a pipe once they are many; under TLS they go through buffers that all sessions share.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from mailgate.pipes import Pipe, PipePool
from mailgate.poller import READABLE, WRITABLE, Poller
from mailgate.relay import RelayedProtocol, Relays
from mailgate.session import Outcome, Session
from mailgate.timers import CoarseClock
from mailgate.tlsengine import PeerClosed, TLSEngine
from mailgate.transport import StreamTransport, borrowed, reset

__all__ = ["StreamRelay", "StreamRelays"]

LITTLE = 16384
"""Bytes read at once, and copied, as long as no read is full."""

MUCH = 262144
"""Bytes read at once where they have to be copied, while they come, and are taken, as fast as that."""

GROWTH = 4
"""From one size to the next: a receiver who gets stuck has left no more than three times what he took before."""

MOST_WAITING = 4 * MUCH
"""Bytes that may wait for a receiver who makes TLS itself add to them; what is relayed to him is a quarter of it."""

SMALL = 1024
"""A flight of fewer bytes makes nothing grow that would have to be given back."""

SETTLING = 1.0
"""Seconds without a byte after which a row of flights is over."""

_SPLICE: int = getattr(os, "SPLICE_F_MOVE", 1) | getattr(os, "SPLICE_F_NONBLOCK", 2)


class StreamRelays(Relays):
    """What all relays of a process share, and what makes them."""

    clock: CoarseClock

    def __init__(self, poller: Poller, clock: CoarseClock) -> None:
        super().__init__(clock)
        self.poller = poller
        self.pipes = PipePool()
        self.buffer = memoryview(bytearray(MUCH))
        self._flying: dict[StreamRelay, bool] = {}
        """Those with a row of flights that is not over, and whether the first of it is."""
        self._settling: IDelayedCall | None = None

    def flown(self, relay: StreamRelay, landed: bool) -> None:
        """
        A flight of C{relay} has made TLS's buffers grow, and is over if it has C{landed}. They are given back at once
        then, lest thousands grow side by side; but where one flight follows the other, not before all are over.
        """
        if not self._flying.get(relay):
            if landed:
                relay.settle()
            self._flying[relay] = landed
            if self._settling is None:
                self._settling = self.clock.callLater(SETTLING, self._settle)

    def forget(self, relay: StreamRelay) -> None:
        """C{relay} has ended."""
        if relay in self._flying:
            del self._flying[relay]
            if not self._flying and self._settling is not None:
                self._settling.cancel()
                self._settling = None

    def _settle(self) -> None:
        self._settling = None
        since = self.clock.seconds() - SETTLING
        for relay in list(self._flying):
            if not relay.movedAfter(since):
                relay.settle()
                del self._flying[relay]
        if self._flying:
            self._settling = self.clock.callLater(SETTLING, self._settle)

    def between(
        self,
        client: RelayedProtocol,
        backend: RelayedProtocol,
        session: Session,
        idle: float,
        linger: float,
        done: Callable[[Any], object],
    ) -> Any:
        front, back = client.transport, backend.transport
        if not (isinstance(front, StreamTransport) and isinstance(back, StreamTransport)):
            return super().between(client, backend, session, idle, linger, done)
        relay = StreamRelay(self, front, back, session, idle, linger, done)
        client.transport = backend.transport = None
        return relay


class StreamRelay:
    """Both directions of one session; the arguments are those of L{Relay}, but for the connections themselves."""

    __slots__ = ("_active", "_backend", "_client", "_closing", "_done", "_limit", "_linger", "means", "session", "tick")

    def __init__(
        self,
        means: StreamRelays,
        client: StreamTransport,
        backend: StreamTransport,
        session: Session,
        idle: float,
        linger: float,
        done: Callable[[Any], object],
    ) -> None:
        self.means = means
        self.session = session
        self._limit = idle
        self._linger = min(idle, linger)
        self._done = done
        self._closing = False
        self._client = _End(self, client)
        self._backend = _End(self, backend)
        self._client.peer, self._backend.peer = self._backend, self._client
        self._active = means.clock.seconds()
        self.tick = 0

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        """Begin; the bytes given are what the two dialogues had read ahead."""
        self.means.clock.put(self, self._active + self._limit)
        client, backend = self._client, self._backend
        backend.begin(toClient)
        client.begin(toBackend)

    def moved(self) -> None:
        """A byte has."""
        self._active = self.means.clock.seconds()

    def movedAfter(self, moment: float) -> bool:
        """Whether a byte has."""
        return self._active > moment

    def settle(self) -> None:
        """Give back what is not needed between flights."""
        self._client.settle()
        self._backend.settle()

    def ended(self, end: _End) -> None:
        """C{end} sends no more: say so to the other, which may still have something to say."""
        if end.peer.finished:
            self.close()
        else:
            self._hurry()
            end.peer.finishWriting()

    def lost(self, end: _End) -> None:
        """C{end} has failed: the other is given what is on its way to it, and ends too."""
        peer = end.peer
        end.release()
        if peer.fd >= 0:
            self.close()

    def _hurry(self, closing: bool = False) -> None:
        """One side has ended: what is left gets C{linger} seconds without progress, not C{idle}."""
        if not self._closing:
            self.session.conclude(Outcome.RELAYED)
            self._closing = closing
            self._limit = self._linger
            self.moved()
            self.means.clock.drop(self)
            self.means.clock.put(self, self._active + self._limit)

    def expired(self) -> None:
        """C{idle} seconds, or C{linger}, may have passed without a byte."""
        if self._active + self._limit > self.means.clock.seconds():
            self.means.clock.put(self, self._active + self._limit)
        elif self._closing:
            self.abort()
        else:
            self.session.conclude(Outcome.IDLE)
            self.close()

    def close(self) -> None:
        """End both, each once it has been given what is already on its way."""
        self._hurry(closing=True)
        client, backend = self._client, self._backend
        client.close()
        backend.close()

    def abort(self) -> None:
        """End both at once."""
        client, backend = self._client, self._backend
        client.abort()
        backend.abort()

    def stop(self) -> None:
        """The gateway goes down."""
        self.session.conclude(Outcome.STOPPED)
        self.abort()

    def released(self) -> None:
        """A connection has been closed. After both nothing is left but the ledger."""
        client, backend = self._client, self._backend
        if client.fd < 0 and backend.fd < 0:
            self.means.clock.drop(self)
            self.means.forget(self)
            self.session.received, self.session.sent = client.moved, backend.moved
            self.session.conclude(Outcome.RELAYED)
            self._done(self)
            # Nothing is left to the collector of cycles. Those who are at work on an end have their own hold on it.
            del client.peer, backend.peer, self._client, self._backend


class _End:
    """
    One connection of a relay: the source of one direction, and the sink of the other. C{fd} is -1 once it is closed.

    C{waiting} is what it has to be sent and does not take: bytes, or a pipe and how many are in that. As long as there
    is something, the other is not read from.
    """

    __slots__ = ("_engine", "_events", "_size", "_state", "fd", "finished", "moved", "peer", "relay", "waiting")

    peer: _End

    def __init__(self, relay: StreamRelay, transport: StreamTransport) -> None:
        self.relay = relay
        self.fd = transport.fd
        self._engine: TLSEngine | None
        self._engine, unsent = transport.surrender()
        if self._engine is not None:
            self._engine.forget()
            # No cycle: nobody needs them any more.
            transport.tls = None
        self.waiting: bytes | memoryview | tuple[Pipe, int] | None = unsent or None
        self._events = READABLE
        self._size = LITTLE
        self._state = _OPEN
        self.finished = False
        self.moved = 0
        transport.poller.transfer(self.fd, self)

    def begin(self, data: bytes) -> None:
        """Pass on what has been read ahead, and all that follows."""
        if self.fd < 0:
            return
        if self.waiting is not None:
            self._stick()
        if data:
            self._pass(data)
        if self._engine is not None:
            # The dialogue may have been given less than had been decrypted.
            self._decrypt(self._engine)

    # What the poller calls.

    def ready(self, fd: int, events: int) -> None:
        """The connection can be read or written, or has an error."""
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
        """A defect of ours, unless it is the reactor that stops: it ends this session, and no other."""
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
        """Give back what large flights have made TLS grow by."""
        if self._engine is not None:
            self._engine.settle()

    # The source.

    def _read(self) -> None:
        """
        Read once, so that one fast stream starves nobody.

        @raise OSError: the connection is lost.
        """
        if self._engine is not None or self.peer._engine is not None:
            self._readThroughBuffer()
        elif self._size > LITTLE:
            self._splice()
        else:
            data = os.read(self.fd, LITTLE)
            if data:
                self._grow(len(data), LITTLE)
                self._pass(data)
            else:
                self._ended()

    def _readThroughBuffer(self) -> None:
        target = self.relay.means.buffer[: self._size]
        count = os.readv(self.fd, (target,))
        if not count and self._engine is not None:
            # Without a goodbye this is a connection that broke off.
            self.relay.lost(self)
            return
        if not count:
            self._ended()
            return
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
        """Send what TLS itself has to say to what it was told: the answer to a change of keys, say."""
        if data:
            self._put(data)
            waiting = self.waiting
            if waiting is not None and len(waiting) > MOST_WAITING:
                # He goes on asking, and does not listen.
                self.relay.lost(self)

    def _splice(self) -> None:
        pipes = self.relay.means.pipes
        pipe = pipes.take()
        if pipe is None:
            self._readThroughBuffer()
            return
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
        self._grow(count, size)
        self.moved += count
        self.relay.moved()
        self.peer._drain(pipe, count)

    def _grow(self, count: int, size: int) -> None:
        if count == size:
            self._size = size * GROWTH
        elif count < LITTLE:
            self._size = LITTLE

    def _pass(self, data: bytes | memoryview) -> None:
        self.moved += len(data)
        self.relay.moved()
        self.peer.send(data)

    def _ended(self) -> None:
        if not self.finished:
            self.finished = True
            if not self.peer.finished:
                self._want(self._events & ~READABLE)
            self.relay.ended(self)

    def _broken(self) -> None:
        """What comes is no TLS: say so, in TLS's own words."""
        assert self._engine is not None
        self._put(self._engine.output())
        if self.fd >= 0:
            self.relay.lost(self)

    # The sink.

    def send(self, data: bytes | memoryview) -> None:
        """Give the connection C{data}, which may be changed afterwards."""
        if self._state != _OPEN or self.fd < 0:
            return
        if self._engine is not None:
            try:
                self._engine.write(data)
            except SSL.Error:
                self.relay.lost(self)
                return
            data = self._engine.output()
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
        """Give the connection the C{count} bytes in C{pipe}."""
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

    def _stick(self) -> None:
        """The connection does not take what it is given: wait until it does, and do not read what it would be given."""
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
        """Send what is on its way, and then the end of file."""
        if self._state == _OPEN:
            self._sayGoodbye()
            self._state = _ENDING
            if self.waiting is None:
                self._endWriting()

    def _sayGoodbye(self) -> None:
        if self._engine is not None and self._state == _OPEN:
            self._engine.closeNotify()
            self._put(self._engine.output())

    def _endWriting(self) -> None:
        self._state = _ENDED
        if self.fd >= 0:
            descriptor = borrowed(self.fd, socket.AF_INET)
            # Whoever is not connected any more is told of it when he is read from.
            with suppress(OSError):
                descriptor.shutdown(socket.SHUT_WR)
            descriptor.detach()

    def close(self) -> None:
        """Send what is on its way, and close."""
        if self.fd < 0 or self._state == _CLOSING:
            return
        self._sayGoodbye()
        self._state = _CLOSING
        heard, self.finished = self.finished, True
        if self.waiting is not None:
            self._want(WRITABLE)
        elif heard:
            self.release()
        else:
            self._hangUp()

    def _hangUp(self) -> None:
        """Close, all having been sent."""
        if self.fd >= 0:
            # What has come and nobody has read would turn the end into a reset, and could cost the peer our last words.
            with suppress(OSError):
                os.readv(self.fd, (self.relay.means.buffer,))
            self.release()

    def abort(self) -> None:
        """Close, and tell the peer that something is missing."""
        if self.fd >= 0:
            with suppress(OSError):
                reset(self.fd, socket.AF_INET)
            self.release()

    def release(self) -> None:
        """Close at once."""
        if self.fd < 0:
            return
        means = self.relay.means
        fd, self.fd = self.fd, -1
        # An event may bring several things, of which the first has ended it.
        self._events = 0
        self.finished = True
        means.poller.release(fd)
        if isinstance(self.waiting, tuple):
            means.pipes.drop(self.waiting[0])
        self.waiting = None
        self.relay.released()


_OPEN, _ENDING, _ENDED, _CLOSING = range(4)
"""What a sink may still be given: anything; what waits and the end of file; nothing; what waits, and then it closes."""
