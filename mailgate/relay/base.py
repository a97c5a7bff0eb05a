# -*- test-case-name: mailgate.test.relay.test_base mailgate.test.relay -*-
"""
The rules of a proxied session, for every kind of relay: when an end of file is passed on, how long both sides may be
silent, how the session ends, and what it records.

When one side sends its end of file, the relay passes it on, and the other side may still answer. But servers take the
end of TLS for the end of the connection, and discard the answers that they have not sent. So the end of a plain-text
client is passed on to a backend over TLS only after the backend has been silent for L{HELD} seconds.

A session whose time is over (L{Session.expires}) ends when it does least harm: once neither side has sent a byte for
L{QUIET} seconds, and no message of the client waits for its answer. It ends L{LATEST} seconds after its time at the
latest. Nothing is written into the stream: each side gets what the other one has sent, and then the end of the
connection.

A backend that fails breaks the connections of all its sessions at once. If the session is at a backend of a group, its
client may have to wait (L{mailgate.session.ICounted.lost}): the relay is I{parted} then. The connection to the backend
is closed and freed. The client gets what the backend has sent. What it sends is read and dropped, so that its leaving
is noticed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from zope.interface import implementer

from mailgate.interfaces import IConnection
from mailgate.lean.quickack import NOTHING
from mailgate.log.connection import HALF_CLOSED, RELAY_ENDED, SIDE_CLOSED
from mailgate.login import Trouble
from mailgate.relay.leaving import ENDED, LEAVING
from mailgate.relay.terms import Terms
from mailgate.session import Outcome, Session

if TYPE_CHECKING:
    from mailgate.relay.portable import Relays

__all__ = ["HELD", "LAST", "LATEST", "QUIET", "BaseEnd", "BaseRelay"]

HELD = 2.0
"""The seconds of silence after which a backend over TLS has answered everything."""

QUIET = 1.0
"""The seconds of silence in which a session whose time is over ends."""

LATEST = 60.0
"""The seconds after its time at which such a session ends even if bytes move, or wait for one side to take them."""

LAST = 5.0
"""The seconds after L{LATEST} that a side has to take its last bytes."""


def _logEnd(session: Session) -> None:
    """
    Log at level debug that a relay has ended.

    @param session: the record, with its outcome.
    """
    outcome = "-" if session.outcome is None else session.outcome.value
    session.step(RELAY_ENDED, outcome=outcome, received=session.received, sent=session.sent)


class BaseEnd(ABC):
    """
    One connection of a relay. It is the source of one direction, and the sink of the other.

    It calls L{BaseRelay.moved} for each read, and L{BaseRelay.ended} and L{BaseRelay.released} once each. The last to
    close may call L{BaseRelay.over} itself.

    @ivar relay: the relay.
    @ivar peer: the end of the other connection.
    @ivar moved: the number of bytes received from this connection.
    @cvar expected: for a client, what its last bytes announce (L{mailgate.relay.leaving}).
    """

    __slots__ = ("moved", "peer", "relay")

    relay: BaseRelay
    peer: BaseEnd
    moved: int
    expected = NOTHING

    @property
    @abstractmethod
    def isOpen(self) -> bool:
        """Whether the connection is open."""

    @property
    @abstractmethod
    def isEncrypted(self) -> bool:
        """Whether the connection uses TLS."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether no more bytes can come from the connection."""

    @abstractmethod
    def finishWriting(self) -> None:
        """Send the buffered bytes, then the end of file."""

    @abstractmethod
    def close(self) -> None:
        """Send the buffered bytes, then close."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once, with a reset, so that the peer notices that data are missing."""

    @abstractmethod
    def release(self) -> None:
        """Drop a connection that is no longer needed."""

    @property
    def isLeaving(self) -> bool:
        """Whether the client has said goodbye, or may have: then the backend closes because of that."""
        return False

    def free(self) -> None:
        """Close the connection of a backend that has closed its side, and drop what it has not taken."""
        self.release()


@implementer(IConnection)
class BaseRelay(ABC):
    """
    Both directions of one proxied session.

    @ivar terms: what it has in common with other relays.
    @ivar session: the session that is relayed.
    @ivar active: when the last byte has moved.
    @ivar closing: whether both connections are being closed.
    """

    __slots__ = ("_backend", "_client", "_limit", "active", "closing", "session", "terms")

    _client: BaseEnd
    _backend: BaseEnd

    def __init__(self, terms: Terms, client: BaseEnd, backend: BaseEnd, session: Session) -> None:
        """
        Join the ends. Call L{start} to begin.

        @param terms: what it has in common with other relays.
        @param client: the client's end.
        @param backend: the backend's end.
        @param session: the session that is relayed.
        """
        self.terms = terms
        self.session = session
        client.relay = backend.relay = self
        self._client = backend.peer = client
        self._backend = client.peer = backend
        self._limit = terms.idle
        self.active = terms.seconds()
        self.closing = False

    @property
    def means(self) -> Relays:
        """What made the relay: its clock and shared buffers."""
        means: Relays = self.terms.means
        return means

    @abstractmethod
    def start(self, toClient: bytes, toBackend: bytes) -> None:
        """
        Begin to relay.

        @param toClient: bytes that the login read from the backend after its last reply.
        @param toBackend: bytes that the login read from the client after its last command.
        """

    @abstractmethod
    def _wait(self) -> None:
        """Call L{expired} once, at C{_due}. Earlier calls of this method no longer count."""

    @property
    def _due(self) -> float:
        """The time at which the relay must act if no byte moves."""
        due, expires = self.active + self._limit, self.session.expires
        delays = self.terms.means.partings.delays
        delay = delays.get(self) if delays else None
        if delay is not None:
            due = delay.moment
        if expires is None:
            return due
        if self.closing:
            return min(due, expires + LATEST + LAST)
        if delay is not None or due <= expires:
            return min(due, expires)
        since = self.means.clock.seconds() if self._isWaiting else self.active
        return min(due, max(expires, min(since + QUIET, expires + LATEST)))

    @property
    def _isWaiting(self) -> bool:
        """
        Whether silence means nothing. While bytes wait for one side, the other is not read. A client that has ended a
        message sends it again if it gets no answer, so it would be delivered twice.
        """
        return self.isStuck or self._client.expected in (ENDED, LEAVING)

    @property
    def traffic(self) -> tuple[int, int]:
        """The bytes that have come from the client and from the backend so far."""
        try:
            return self._client.moved, self._backend.moved
        except AttributeError:
            # Both connections are closed.
            return self.session.received, self.session.sent

    def idle(self) -> float:
        """Return the seconds since a byte has moved."""
        return max(0.0, self.means.clock.seconds() - self.active)

    @property
    def isParted(self) -> bool:
        """Whether the backend has closed, and the client waits until it is let go."""
        return self in self.means.partings.delays

    def moved(self) -> None:
        """Note that a byte has moved."""
        self.active = self.terms.seconds()

    def ended(self, end: BaseEnd) -> None:
        """C{end} sends no more. Pass this on to the other side, which may still send."""
        if self.session.debugging is not None:
            self.session.step(HALF_CLOSED, side=self._sideOf(end))
        if end.peer.finished:
            self.close()
        elif end is self._backend and self._part():
            end.free()
        elif end is self._client and end.peer.isEncrypted and not end.isEncrypted:
            self._hold()
        else:
            if not self.closing:
                self._hurry()
                self._wait()
            end.peer.finishWriting()

    def lost(self, end: BaseEnd) -> None:
        """C{end} has failed. Send the other side its buffered bytes, then close it."""
        if self.session.debugging is not None:
            self.session.step(SIDE_CLOSED, side=self._sideOf(end))
        peer = end.peer
        end.release()
        if peer.isOpen and not (end is self._backend and (self.isParted or self._part())):
            self.close()

    def _sideOf(self, end: BaseEnd) -> str:
        """Return how the log names C{end}."""
        return "client" if end is self._client else "backend"

    def _part(self) -> bool:
        """
        The backend has closed. Return whether the client has to wait; if so, nothing is relayed any more.

        A client that has said goodbye does not wait, and neither does one that has closed its side: their backends
        close because of that, and not because they have failed.
        """
        session, client = self.session, self._client
        if session.place is None or self.closing or client.finished or client.isLeaving:
            return False
        delay = session.place.lost(self.means.clock.seconds())
        # Whether its client waits or not, the backend no longer has the session.
        session.leave()
        if delay is None:
            return False
        self.means.partings.put(self, delay)
        self._park()
        return True

    def _park(self) -> None:
        """From now on, send the client only what waits already. Read from it, and drop what is read."""
        self._wait()

    def _hurry(self) -> None:
        """One side has ended: from now on C{linger} limits the time without progress, not C{idle}."""
        self.session.conclude(Outcome.RELAYED)
        self._limit = self.terms.linger
        self.moved()

    def _hold(self) -> None:
        """The client has ended. The backend learns it when it has answered everything."""
        if not self.closing:
            self._hurry()
        # Shorter than the limit of every other state, so that expired() can tell them apart.
        self._limit = min(HELD, self.terms.linger / 2)
        self._wait()

    def _passHeld(self) -> None:
        self._limit = self.terms.linger
        self._wait()
        # Bytes that one side has not taken may still cause an answer; then the linger limit applies.
        if not self.isStuck:
            self._backend.finishWriting()

    @property
    def isStuck(self) -> bool:
        """Whether the relay waits because one side does not accept more bytes."""
        return False

    def expired(self) -> None:
        """A deadline may have passed: C{idle} or C{linger} seconds without a byte, or the end of the session."""
        now = self.means.clock.seconds()
        if self._due > now:
            self._wait()
        elif self.closing:
            self.abort()
        elif self.session.hasExpired(now):
            self.session.conclude(Outcome.EXPIRED)
            if self.isStuck and now >= self.active + QUIET:
                # One side takes nothing. It is waited for no longer than others.
                self.abort()
            else:
                self.close()
        elif self.isParted:
            self.close()
        elif self._limit < self.terms.linger:
            self._passHeld()
        else:
            self.session.conclude(Outcome.IDLE)
            self.close()

    def close(self) -> None:
        """Close both sides, each after it has received its buffered bytes."""
        isFirst = not self.closing
        self.closing = True
        client, backend = self._client, self._backend
        client.close()
        backend.close()
        # Usually both are closed by now, and there is nothing to wait for.
        if client.isOpen or backend.isOpen:
            self.means.partings.forget(self)
            if isFirst:
                self._hurry()
            self._wait()

    def abort(self) -> None:
        """Close both sides at once."""
        client, backend = self._client, self._backend
        client.abort()
        backend.abort()

    def dismiss(self, outcome: Outcome, trouble: Trouble) -> None:
        """
        See L{IConnection}. The relay cannot send a reply. Each side receives its buffered bytes before it is closed.

        @param outcome: the outcome of the session.
        @param trouble: not used.
        """
        self.session.conclude(outcome)
        self.close()

    def limit(self, moment: float | None) -> None:
        """
        See L{IConnection}. The session ends once neither side sends a byte.

        @param moment: the time at which the session should end; L{None} is for no limit.
        """
        # A moment in the past is now: LATEST counts from it.
        self.session.expires = None if moment is None else max(moment, self.means.clock.seconds())
        if not self.closing:
            self._wait()

    def stop(self) -> None:
        """See L{IConnection}."""
        self.session.conclude(Outcome.STOPPED)
        self.abort()

    def released(self) -> None:
        """A connection has been closed. After both, the relay is L{over}."""
        if not (self._client.isOpen or self._backend.isOpen):
            self.over()

    def over(self) -> None:
        """Both connections have been closed: record the totals, and end the session."""
        client, backend, session, terms = self._client, self._backend, self.session, self.terms
        if terms.means.partings.delays:
            terms.means.partings.forget(self)
        self._forget()
        ending = session.conclude(Outcome.RELAYED)
        ending.received, ending.sent = client.moved, backend.moved
        if session.debugging is not None:
            _logEnd(session)
        terms.done(self)
        # Break the reference cycles, so that the memory is freed at once. Callers that still use an end hold a
        # reference to it, and the backend's may look at its peer after the last bytes.
        del client.peer, self._client, self._backend

    @abstractmethod
    def _forget(self) -> None:
        """Cancel all timers: the relay is over."""
