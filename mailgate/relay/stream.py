# -*- test-case-name: mailgate.test.relay.test_stream -*-
"""
Relays between two raw descriptors, at the speed of the kernel and with little memory for a session.

It does over L{StreamTransport}s what L{mailgate.relay.portable} does over any transport. It takes over their
descriptors, so that the dialogues, the transports and everything else that the login needed are freed.
"""

from __future__ import annotations

from twisted.internet.interfaces import IDelayedCall

from mailgate.lean.clock import CoarseClock
from mailgate.lean.poller import Poller
from mailgate.lean.quickack import NEVER, NOTHING
from mailgate.lean.transport import StreamTransport
from mailgate.log.connection import HALF_CLOSED
from mailgate.relay.base import BaseEnd, BaseRelay
from mailgate.relay.bufferedend import BufferedEnd
from mailgate.relay.leaving import LEAVING
from mailgate.relay.parkedend import park
from mailgate.relay.pipes import PipePool
from mailgate.relay.portable import Relays
from mailgate.relay.protocol import RelayedProtocol
from mailgate.relay.streamend import MUCH, RelayEnd
from mailgate.relay.terms import Terms
from mailgate.session import Session

__all__ = ["StreamRelay", "StreamRelays"]

SETTLING = 1.0
"""A series of bursts is over after this many seconds without a byte."""


class StreamRelays(Relays):
    """
    Makes L{StreamRelay}s, and has what all relays of a process share.

    @ivar pipes: the pipes for C{splice}.
    @ivar buffer: the buffer for reading.
    @ivar flying: the relays in a series of bursts, and whether the first burst is over.
    @ivar stuck: the ends with bytes waiting in a pipe, and what waited at the previous check.
    """

    clock: CoarseClock

    def __init__(self, poller: Poller, clock: CoarseClock) -> None:
        """
        @param poller: watches the descriptors.
        @param clock: measures the time of all relays.
        """
        super().__init__(clock)
        self.poller = poller
        self.pipes = PipePool()
        self.buffer = memoryview(bytearray(MUCH))
        self.flying: dict[StreamRelay, bool] = {}
        self._settling: IDelayedCall | None = None
        self.stuck: dict[RelayEnd, object] = {}
        self._emptying: IDelayedCall | None = None

    def piped(self, end: RelayEnd) -> None:
        """
        Bytes wait for C{end} in a pipe. Pipes are few: if the bytes make no progress, they are moved to memory and the
        pipe is reused. Otherwise a few receivers that read nothing would hold all pipes.
        """
        self.stuck[end] = None
        if self._emptying is None:
            self._emptying = self.clock.callLater(SETTLING, self._empty)

    def _empty(self) -> None:
        self._emptying = None
        for end, before in list(self.stuck.items()):
            waiting = end.waiting
            if not isinstance(waiting, tuple) or (waiting is before and end.unpipe()):
                del self.stuck[end]
            else:
                self.stuck[end] = waiting
        if self.stuck:
            self._emptying = self.clock.callLater(SETTLING, self._empty)

    def flown(self, relay: StreamRelay, landed: bool) -> None:
        """
        A burst made OpenSSL's buffers grow. If it is over, shrink them at once, so that thousands of sessions do not
        keep large buffers. If bursts follow one another, wait until they stop (L{SETTLING}).

        @param relay: the relay with the burst.
        @param landed: whether the burst is over.
        """
        if not self.flying.get(relay):
            if landed:
                relay.settle()
            self.flying[relay] = landed
            if self._settling is None:
                self._settling = self.clock.callLater(SETTLING, self._settle)

    def forget(self, relay: StreamRelay) -> None:
        """Remove C{relay}, which has ended."""
        if relay in self.flying:
            del self.flying[relay]
            if not self.flying and self._settling is not None:
                self._settling.cancel()
                self._settling = None
        if self.stuck:
            for end in relay.ends:
                self.stuck.pop(end, None)
            if not self.stuck and self._emptying is not None:
                self._emptying.cancel()
                self._emptying = None

    def close(self) -> None:
        super().close()
        self.pipes.close()

    def _settle(self) -> None:
        self._settling = None
        since = self.clock.seconds() - SETTLING
        for relay in list(self.flying):
            # A stuck relay gets no burst, even if the other side still sends.
            if relay.isStuck or not relay.movedAfter(since):
                relay.settle()
                del self.flying[relay]
        if self.flying:
            self._settling = self.clock.callLater(SETTLING, self._settle)

    def between(self, client: RelayedProtocol, backend: RelayedProtocol, session: Session, terms: Terms) -> BaseRelay:
        front, back = client.transport, backend.transport
        if not (isinstance(front, StreamTransport) and isinstance(back, StreamTransport)):
            return super().between(client, backend, session, terms)
        end = RelayEnd if front.tls is None and back.tls is None else BufferedEnd
        relay = StreamRelay(terms, end(front, NOTHING), end(back, NEVER), session)
        relay.tick = 0
        # Break the reference cycles, so that the transports are freed at once.
        client.transport = backend.transport = None
        return relay


class StreamRelay(BaseRelay):
    """A relay between the descriptors of two transports, which are unusable afterwards."""

    __slots__ = ("tick",)

    tick: float
    _client: RelayEnd
    _backend: RelayEnd

    @property
    def means(self) -> StreamRelays:
        means: StreamRelays = self.terms.means
        return means

    def start(self, toClient: bytes, toBackend: bytes) -> None:
        self.terms.means.clock.put(self, self._due)
        client, backend = self._client, self._backend
        backend.begin(toClient)
        client.begin(toBackend)

    def movedAfter(self, moment: float) -> bool:
        """Whether a byte has moved after the time C{moment}."""
        return self.active > moment

    @property
    def ends(self) -> tuple[RelayEnd, RelayEnd]:
        """Both connections."""
        return self._client, self._backend

    @property
    def isStuck(self) -> bool:
        return self._client.waiting is not None or self._backend.waiting is not None

    def ended(self, end: BaseEnd) -> None:
        if end is self._backend and self._client.expected == LEAVING:
            # The client has said goodbye, and the backend has sent its last reply: nothing is left to half-close for.
            if self.session.debugging is not None:
                self.session.step(HALF_CLOSED, side=self._sideOf(end))
            self.close()
        else:
            super().ended(end)

    def _park(self) -> None:
        park(self._client)

    def settle(self) -> None:
        """Release the memory that a burst used."""
        self._client.settle()
        self._backend.settle()

    def _wait(self) -> None:
        due = self._due
        # An earlier entry in the clock is enough: expired() waits again if it comes too soon.
        if not 0 < self.tick <= due:
            clock = self.means.clock
            clock.drop(self)
            clock.put(self, due)

    def _forget(self) -> None:
        means = self.terms.means
        means.clock.drop(self)
        if means.flying or means.stuck:
            means.forget(self)
