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

from mailgate.lean.clock import CoarseClock
from mailgate.lean.poller import Poller
from mailgate.lean.transport import StreamTransport
from mailgate.relay.base import BaseRelay
from mailgate.relay.pipes import PipePool
from mailgate.relay.portable import Relays
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.streamend import MUCH, RelayEnd
from mailgate.session import Session

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
    ) -> BaseRelay:
        front, back = client.transport, backend.transport
        if not (isinstance(front, StreamTransport) and isinstance(back, StreamTransport)):
            return super().between(client, backend, session, idle, linger, done)
        relay = StreamRelay(self, front, back, session, idle, linger, done)
        client.transport = backend.transport = None
        return relay


class StreamRelay(BaseRelay):
    """Both directions of one session, between the descriptors of two transports, which are of no use any more then."""

    __slots__ = ("tick",)

    means: StreamRelays
    _client: RelayEnd
    _backend: RelayEnd

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
        holds = backend.tls is not None and client.tls is None
        ends = RelayEnd(self, client, isClient=True), RelayEnd(self, backend)
        super().__init__(means, ends, holds, session, idle, linger, done)
        self.tick = 0

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        self._wait()
        client, backend = self._client, self._backend
        backend.begin(toClient)
        client.begin(toBackend)

    def movedAfter(self, moment: float) -> bool:
        """Whether a byte has."""
        return self._active > moment

    @property
    def ends(self) -> tuple[RelayEnd, RelayEnd]:
        """Both connections."""
        return self._client, self._backend

    @property
    def isStuck(self) -> bool:
        return self._client.waiting is not None or self._backend.waiting is not None

    def settle(self) -> None:
        """Give back what is not needed between flights."""
        self._client.settle()
        self._backend.settle()

    def _wait(self) -> None:
        due = self._due
        # Its place may be for later already: what expires too soon waits on.
        if not 0 < self.tick <= due:
            clock = self.means.clock
            clock.drop(self)
            clock.put(self, due)

    def _forget(self) -> None:
        self.means.clock.drop(self)
        self.means.forget(self)
