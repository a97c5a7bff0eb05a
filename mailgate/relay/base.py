# -*- test-case-name: mailgate.test.relay.test_base mailgate.test.relay -*-
"""
The rules of a relayed session, however its bytes are moved: when the end of one side is passed on to the other, how
long both may be silent, how the session ends, and what its ledger says of that.

One side's end of file is passed on while the other may still answer. Servers take the end of TLS for the end of the
connection, and drop the answers that they owe. So the end of a client in the clear is passed on to a backend over TLS
only when the backend has been silent for L{HELD} seconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from mailgate.interfaces import IConnection
from mailgate.login import Trouble
from mailgate.session import Outcome, Session

if TYPE_CHECKING:
    from mailgate.relay.portable import Relays

__all__ = ["HELD", "BaseEnd", "BaseRelay"]

HELD = 2.0
"""Seconds of silence after which a backend over TLS has answered all that it has been asked."""


class BaseEnd(ABC):
    """
    One connection of a relay: the source of one direction, and the sink of the other.

    It tells its relay of each byte (L{BaseRelay.moved}), and once each that it has L{BaseRelay.ended} and that it is
    L{BaseRelay.released}.

    @ivar peer: the end of the other connection.
    @ivar moved: the number of bytes that have come from this one.
    @ivar finished: whether no more can come from it.
    """

    __slots__ = ("finished", "moved", "peer")

    peer: BaseEnd
    moved: int
    finished: bool

    @property
    @abstractmethod
    def isOpen(self) -> bool:
        """Whether the connection has not been closed."""

    @abstractmethod
    def finishWriting(self) -> None:
        """Send what is on its way, and then the end of file."""

    @abstractmethod
    def close(self) -> None:
        """Send what is on its way, and close."""

    @abstractmethod
    def abort(self) -> None:
        """Close, and have the peer notice that something is missing."""

    @abstractmethod
    def release(self) -> None:
        """Give up a connection that is of no use any more."""


@implementer(IConnection)
class BaseRelay(ABC):
    """
    Both directions of one session.

    @ivar closing: whether both connections are being closed.
    """

    __slots__ = (
        *("_active", "_backend", "_client", "_done", "_holds", "_limit", "_linger"),
        *("closing", "means", "session"),
    )

    means: Relays
    _client: BaseEnd
    _backend: BaseEnd

    def __init__(
        self,
        means: Relays,
        ends: tuple[BaseEnd, BaseEnd],
        holds: bool,
        session: Session,
        idle: float,
        linger: float,
        done: Callable[[Any], object],
    ) -> None:
        """
        Join the C{ends}, the client's and the backend's; the relay has to be started.

        @param holds: whether the client's end is held back: the backend alone speaks TLS.
        @param idle: the seconds without a byte in either direction (nginx's proxy_timeout, but for that it counts the
            backend's bytes too) after which both sides are closed.
        @param linger: the same once one side has ended.
        @param done: called with this once both connections are gone.
        """
        self.means = means
        self.session = session
        self._client, self._backend = client, backend = ends
        client.peer, backend.peer = backend, client
        self._holds = holds
        self._limit = idle
        self._linger = min(idle, linger)
        self._done = done
        self._active = means.clock.seconds()
        self.closing = False

    @abstractmethod
    def start(self, toClient: bytes, toBackend: bytes) -> None:
        """Begin; the bytes given are what the two dialogues had read ahead."""

    @abstractmethod
    def _wait(self) -> None:
        """Have L{expired} called, once, at C{_due}, not by earlier calls."""

    @property
    def _due(self) -> float:
        """When something has to be done, if no byte moves."""
        due, expires = self._active + self._limit, self.session.expires
        return due if expires is None or self.closing else min(due, expires)

    def moved(self) -> None:
        """A byte has."""
        self._active = self.means.clock.seconds()

    def ended(self, end: BaseEnd) -> None:
        """C{end} sends no more: say so to the other, which may still have something to say."""
        if end.peer.finished:
            self.close()
        elif end is self._client and self._holds:
            self._hold()
        else:
            self._hurry()
            end.peer.finishWriting()

    def lost(self, end: BaseEnd) -> None:
        """C{end} has failed: the other is given what is on its way to it, and ends too."""
        peer = end.peer
        end.release()
        if peer.isOpen:
            self.close()

    def _hurry(self, closing: bool = False) -> None:
        """One side has ended: what is left gets C{linger} seconds without progress, not C{idle}."""
        if not self.closing:
            self.session.conclude(Outcome.RELAYED)
            self.closing = closing
            self._limit = self._linger
            self.moved()
            self._wait()

    def _hold(self) -> None:
        """The client has ended; the backend hears of it when it has nothing more to say."""
        self._hurry()
        # Less than what any other state has.
        self._limit = min(HELD, self._linger / 2)
        self._wait()

    def _passHeld(self) -> None:
        self._limit = self._linger
        self._wait()
        # What one side has not taken may yet bring an answer: then it is a matter of linger.
        if not self.isStuck:
            self._backend.finishWriting()

    @property
    def isStuck(self) -> bool:
        """Whether one side is known not to take what it is given."""
        return False

    def expired(self) -> None:
        """C{idle} seconds, or C{linger}, may have passed without a byte; or the session's time may be over."""
        now = self.means.clock.seconds()
        if self._due > now:
            self._wait()
        elif self.closing:
            self.abort()
        elif self.session.hasExpired(now):
            self.session.conclude(Outcome.EXPIRED)
            self.close()
        elif self._limit < self._linger:
            self._passHeld()
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
        if not self.closing:
            self._wait()

    def stop(self) -> None:
        """See L{IConnection}."""
        self.session.conclude(Outcome.STOPPED)
        self.abort()

    def released(self) -> None:
        """A connection has been closed. After both nothing is left but the ledger."""
        client, backend = self._client, self._backend
        if not (client.isOpen or backend.isOpen):
            self._forget()
            self.session.received, self.session.sent = client.moved, backend.moved
            self.session.conclude(Outcome.RELAYED)
            self._done(self)
            # Nothing is left to the collector of cycles. Those who are at work on an end have their own hold on it.
            del client.peer, backend.peer, self._client, self._backend

    @abstractmethod
    def _forget(self) -> None:
        """The relay is over: wait for nothing any more."""
