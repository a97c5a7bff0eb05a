# -*- test-case-name: mailgate.test.relay.test_stream -*-
"""
Bytes both ways between two raw descriptors, at the kernel's speed and with next to nothing kept for a session.

What L{mailgate.relay.portable} does over any transport, this does over L{StreamTransport}s, whose descriptors it takes:
the dialogues, their transports and all that the login needed are gone then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from mailgate.interfaces import IConnection
from mailgate.lean.clock import CoarseClock
from mailgate.lean.pipes import PipePool
from mailgate.lean.poller import Poller
from mailgate.lean.transport import StreamTransport
from mailgate.login import Trouble
from mailgate.relay.portable import HELD, RelayedProtocol, Relays
from mailgate.relay.streamend import MUCH, RelayEnd
from mailgate.session import Outcome, Session

__all__ = ["StreamRelay", "StreamRelays"]

SETTLING = 1.0
"""Seconds without a byte after which a row of flights is over."""


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
        self._piped: dict[RelayEnd, object] = {}
        """Receivers with bytes waiting in a pipe, and what waited for them at the last look."""
        self._emptying: IDelayedCall | None = None

    def piped(self, end: RelayEnd) -> None:
        """
        Bytes wait for C{end} in a pipe. There are few of these: one that waits without progress is given to others, or
        some receivers that read nothing would have all of them.
        """
        self._piped[end] = None
        if self._emptying is None:
            self._emptying = self.clock.callLater(SETTLING, self._empty)

    def _empty(self) -> None:
        self._emptying = None
        for end, before in list(self._piped.items()):
            waiting = end.waiting
            if not isinstance(waiting, tuple) or (waiting is before and end.unpipe()):
                del self._piped[end]
            else:
                self._piped[end] = waiting
        if self._piped:
            self._emptying = self.clock.callLater(SETTLING, self._empty)

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
        if self._piped:
            for end in relay.ends:
                self._piped.pop(end, None)
            if not self._piped and self._emptying is not None:
                self._emptying.cancel()
                self._emptying = None

    def close(self) -> None:
        self.pipes.close()

    def _settle(self) -> None:
        self._settling = None
        since = self.clock.seconds() - SETTLING
        for relay in list(self._flying):
            # To one that reads nothing no flight comes, though the other side may have something to say.
            if relay.isStuck or not relay.movedAfter(since):
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


@implementer(IConnection)
class StreamRelay:
    """Both directions of one session; the arguments are those of L{Relay}, but for the connections themselves."""

    __slots__ = (
        *("_active", "_backend", "_client", "_closing", "_done", "_holds", "_limit", "_linger"),
        *("means", "session", "tick"),
    )

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
        self._holds = backend.tls is not None and client.tls is None
        self._client = RelayEnd(self, client, isClient=True)
        self._backend = RelayEnd(self, backend)
        self._client.peer, self._backend.peer = self._backend, self._client
        self._active = means.clock.seconds()
        self.tick = 0

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        """Begin; the bytes given are what the two dialogues had read ahead."""
        self.means.clock.put(self, self._due)
        client, backend = self._client, self._backend
        backend.begin(toClient)
        client.begin(toBackend)

    def moved(self) -> None:
        """A byte has."""
        self._active = self.means.clock.seconds()

    def movedAfter(self, moment: float) -> bool:
        """Whether a byte has."""
        return self._active > moment

    @property
    def ends(self) -> tuple[RelayEnd, RelayEnd]:
        """Both connections."""
        return self._client, self._backend

    @property
    def isStuck(self) -> bool:
        """Whether one side does not take what it is given."""
        return self._client.waiting is not None or self._backend.waiting is not None

    def settle(self) -> None:
        """Give back what is not needed between flights."""
        self._client.settle()
        self._backend.settle()

    def ended(self, end: RelayEnd) -> None:
        """C{end} sends no more: say so to the other, which may still have something to say."""
        if end.peer.finished:
            self.close()
        elif end is self._client and self._holds:
            self._hold()
        else:
            self._hurry()
            end.peer.finishWriting()

    def _hold(self) -> None:
        """The client has ended, of which the backend is told when it has nothing more to say."""
        self._hurry()
        # Less than what any other state has.
        self._limit = min(HELD, self._linger / 2)
        self._wait()

    def _release(self) -> None:
        # What one side has not taken may yet bring an answer: then it is a matter of linger.
        self._limit = self._linger
        if not self.isStuck:
            self._backend.finishWriting()
        self._wait()

    def lost(self, end: RelayEnd) -> None:
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
            self._wait()

    def _wait(self) -> None:
        self.means.clock.drop(self)
        self.means.clock.put(self, self._due)

    @property
    def _due(self) -> float:
        """When something has to be done, if no byte moves."""
        due, expires = self._active + self._limit, self.session.expires
        return due if expires is None or self._closing else min(due, expires)

    def expired(self) -> None:
        """C{idle} seconds, or C{linger}, may have passed without a byte; or the session's time may be over."""
        due, now = self._due, self.means.clock.seconds()
        if due > now:
            self.means.clock.put(self, due)
        elif self._closing:
            self.abort()
        elif self.session.hasExpired(now):
            self.session.conclude(Outcome.EXPIRED)
            self.close()
        elif self._limit < self._linger:
            self._release()
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

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        """See L{IConnection}: nothing can be said here. Each is given what is already on its way before it ends."""
        self.session.conclude(outcome)
        self.close()

    def limit(self, moment: float | None) -> None:
        """See L{IConnection}."""
        self.session.expires = moment
        if not self._closing:
            self._wait()

    def stop(self) -> None:
        """See L{IConnection}."""
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
