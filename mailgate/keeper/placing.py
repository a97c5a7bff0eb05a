# -*- test-case-name: mailgate.test.keeper.test_placing -*-
"""
The keeper's side of sticky groups: it asks the store for the places of users, lets them last while the users have
sessions, and shortens them when the last session has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.keeper.interfaces import Collected
from mailgate.keeper.placemessages import (
    AGAIN,
    LEFT,
    LONGEST_BACKEND,
    PLACES,
    PLACES_VERSION,
    TOOK,
    Place,
    Placed,
    Seat,
)
from mailgate.keeper.placestate import readPlaces, writePlaces
from mailgate.store.interfaces import IStore, StoreUnavailable
from mailgate.store.keys import StoreKeys
from mailgate.store.memory import MemoryStore

__all__ = ["LINGER", "OFFERED_WITHIN", "PACE", "REFRESHED_AT_ONCE", "DirectPlaces", "IPlaced", "Placing", "ownPlacing"]

OFFERED_WITHIN = 10.0
"""Seconds until a process must have accepted the offer."""

LINGER = 5.0
"""
Seconds after which a user who has no session any more counts as gone. Clients that come back at once cost nothing then,
and sessions that have begun at other gateways are counted.
"""

PACE = 0.1
"""Seconds between two steps of work that is due for many users at once."""

REFRESHED_AT_ONCE = 50
"""Places that are written in one step."""

_LEAVING_AT_ONCE = 10 * REFRESHED_AT_ONCE
"""Users whose places are shortened in one step, if very many have left."""

_SPARE = 1000
"""Rows of refreshes that have become void, besides as many as there are users."""

_PARTS = 4
"""A place is refreshed so often in the time for which it lasts."""

_log = Logger("mailgate")


class IPlaced(Protocol):
    """A process that may ask for places: L{mailgate.keeper.members.LinkedMember}, or a key for this process."""

    def ask(self, word: str, arguments: dict[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask a question. See L{mailgate.keeper.interfaces.IMember.ask}.

        @param word: its name.
        @param arguments: its arguments.
        @param within: seconds until it must have answered.
        """


@define(eq=False)
class _Sitting:
    """
    A user who has sessions.

    @ivar key: of his place.
    @ivar user: his name.
    @ivar backend: where the sessions are.
    @ivar ttl: for how many seconds the place lasts.
    @ivar retain: for how many it lasts after the last session.
    @ivar due: when the place is refreshed next.
    @ivar members: the processes that have the sessions.
    """

    key: bytes
    user: bytes = field(repr=False)
    backend: str
    ttl: int
    retain: int
    due: float = 0.0
    members: set[Any] = field(factory=set)


class Placing:
    """
    Knows places.

    @param store: keeps them.
    @param keys: the digests of users.
    @param clock: the time and timers.
    @param gateway: the name of this gateway in the store.
    @param isShared: whether the store is that of several gateways. One that is not is handed over with the keeper.
    @ivar moves: the moves under way (L{mailgate.keeper.moves}), by their ids.
    @ivar isReady: returns whether the places are those of the gateway. Before, processes choose alone.
    """

    def __init__(
        self, store: IStore, keys: StoreKeys, clock: IReactorTime, gateway: str = "", isShared: bool = False
    ) -> None:
        self.moves: dict[str, Any] = {}
        self.isReady: Callable[[], bool] = lambda: True
        self._store = store
        self._keys = keys
        self._clock = clock
        self._gateway = gateway
        self._isShared = isShared
        self._numbers = count()
        self._willing: dict[Any, bool] = {}
        self._sitting: dict[bytes, _Sitting] = {}
        self._of: dict[Any, set[bytes]] = {}
        self._due: list[tuple[float, int, bytes]] = []
        self._leaving: deque[tuple[float, bytes]] = deque()
        self._timer: IDelayedCall | None = None
        self._timerAt = 0.0

    # Processes.

    def joined(self, member: IPlaced) -> None:
        """
        Offer a process to know places.

        @param member: the process.
        """
        self._willing[member] = False
        self._offer(member)

    def _offer(self, member: IPlaced) -> None:
        if not self._willing[member] and self.isReady():
            self._willing[member] = True
            member.ask(PLACES, {"version": PLACES_VERSION}, OFFERED_WITHIN)

    def refresh(self) -> None:
        """The places are those of the gateway now: processes without an offer get it."""
        for member in [*self._willing]:
            self._offer(member)

    def left(self, member: Any) -> None:
        """
        A process has ended or lost its link, and so its sessions.

        @param member: the process.
        """
        self._willing.pop(member, None)
        for key in self._of.pop(member, ()):
            self._leave(key, member)

    async def place(self, message: Place) -> Placed:
        """
        Answer where the place of a user is.

        @param message: the question of a process.
        """
        key = self._keyOf(message.pool, _bytes(message.user))
        try:
            found = await self._store.place(key, message.backend.encode("utf-8", "surrogateescape"), message.ttl)
        except StoreUnavailable:
            return Placed(message.id, "")
        except Exception:
            _log.failure("the keeper cannot find the place of a user")
            return Placed(message.id, "")
        return Placed(message.id, _text(found))

    def seat(self, member: Any, message: Seat) -> None:
        """
        A process tells how a user stays.

        @param member: the process.
        @param message: what it tells.
        """
        user = _bytes(message.user)
        key = self._keyOf(message.pool, user)
        if message.what == LEFT:
            self._of.get(member, set()).discard(key)
            self._leave(key, member)
            return
        sitting = self._sitting.get(key)
        if sitting is None:
            sitting = self._sitting[key] = _Sitting(key, user, message.backend, message.ttl, message.retain)
            self._refreshIn(sitting, 0.0 if message.what == AGAIN else message.ttl / _PARTS)
        sitting.backend, sitting.ttl, sitting.retain = message.backend, message.ttl, message.retain
        sitting.members.add(member)
        self._of.setdefault(member, set()).add(key)
        if message.what == TOOK:
            self._write(sitting, message.instead)

    def _leave(self, key: bytes, member: Any) -> None:
        sitting = self._sitting.get(key)
        if sitting is not None:
            sitting.members.discard(member)
            if not sitting.members:
                self._leaving.append((self._clock.seconds() + LINGER, key))
                self._wake(LINGER)

    # Work in time.

    def resumed(self) -> None:
        """The store answers again, and may have lost places: they are given to it anew, some in each moment."""
        for sitting in self._sitting.values():
            self._refreshIn(sitting, 0.0)

    def stop(self) -> None:
        """Do nothing more."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _refreshIn(self, sitting: _Sitting, seconds: float) -> None:
        sitting.due = self._clock.seconds() + seconds
        heappush(self._due, (sitting.due, next(self._numbers), sitting.key))
        if len(self._due) > 2 * len(self._sitting) + _SPARE:
            # Users who come for a moment each time would leave a row each time, for hours.
            self._due = [row for row in self._due if self._isCurrent(row[0], row[2])]
            heapify(self._due)
        self._wake(seconds)

    def _isCurrent(self, due: float, key: bytes) -> bool:
        sitting = self._sitting.get(key)
        return sitting is not None and sitting.due == due

    def _wake(self, seconds: float) -> None:
        seconds = max(seconds, PACE)
        at = self._clock.seconds() + seconds
        if self._timer is not None:
            if self._timerAt <= at:
                return
            self._timer.cancel()
        self._timerAt = at
        self._timer = self._clock.callLater(seconds, self._work)

    def _work(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        left = REFRESHED_AT_ONCE
        while self._due and left and self._due[0][0] <= now:
            due, _, key = heappop(self._due)
            sitting = self._sitting.get(key)
            if sitting is not None and sitting.due == due and sitting.members:
                left -= 1
                self._write(sitting)
                self._refreshIn(sitting, sitting.ttl / _PARTS)
        # Those who have left are served as fast as they leave.
        left = max(REFRESHED_AT_ONCE, min(_LEAVING_AT_ONCE, len(self._leaving) // REFRESHED_AT_ONCE))
        while self._leaving and left and self._leaving[0][0] <= now:
            _, key = self._leaving.popleft()
            sitting = self._sitting.get(key)
            if sitting is not None and not sitting.members:
                left -= 1
                del self._sitting[key]
                self._ignoring(Deferred.fromCoroutine(self._retain(sitting)))
        for moments in (self._due[:1], [*self._leaving][:1] if self._leaving else []):
            for moment in moments:
                self._wake(moment[0] - now)

    def _write(self, sitting: _Sitting, instead: str = "") -> None:
        """Let a place last, and give it to a user who has none, or who has C{instead}."""
        before = _place(instead) if instead else None
        self._ignoring(self._store.place(sitting.key, _place(sitting.backend), sitting.ttl, before))

    async def _retain(self, sitting: _Sitting) -> None:
        elsewhere = await self._store.sessionsOf(self._keys.digest(b"user", sitting.user))
        if any(number for gateway, number in elsewhere.items() if gateway != self._gateway):
            # The gateway where the last one ends does it.
            return
        if sitting.key not in self._sitting:
            await self._store.retain([sitting.key], sitting.retain)

    def _ignoring(self, called: Deferred[Any]) -> None:
        """Let a call to the store fail. The place lasts as long as it did before."""
        called.addErrback(lambda failure: failure.trap(StoreUnavailable) and None)
        called.addErrback(lambda failure: _log.failure("the keeper cannot keep the place of a user", failure))

    # Operators.

    async def placeOf(self, pool: str, user: bytes) -> str:
        """
        Return the place of a user; empty for none.

        @param pool: where.
        @param user: the user, as L{mailgate.upstream.sticky.mailboxOf} returns him.
        @raise StoreUnavailable: the store does not answer.
        """
        return _text(await self._store.placeOf(self._keyOf(pool, user)))

    async def move(self, pool: str, user: bytes, backend: str, ttl: int) -> None:
        """
        Give a user a place, whatever he has.

        @param pool: where.
        @param user: the user, as L{mailgate.upstream.sticky.mailboxOf} returns him.
        @param backend: the address and port.
        @param ttl: for how many seconds it lasts.
        @raise StoreUnavailable: the store does not answer.
        """
        key = self._keyOf(pool, user)
        await self._store.place(key, _place(backend), ttl, b"")
        sitting = self._sitting.get(key)
        if sitting is not None:
            # Its sessions must not bring the old place back if the store forgets.
            sitting.backend = backend

    # Handover.

    def state(self, longest: int) -> Iterator[str]:
        """
        Yield the lines that the state of a keeper that hands over has for places; none if the store is shared.

        @param longest: the most characters.
        """
        if not self._isShared and isinstance(self._store, MemoryStore):
            now = self._clock.seconds()
            yield from writePlaces(((k, v, u - now) for k, v, u in self._store.memory.places.items(now)), longest)

    def restore(self, chunks: Iterable[Any]) -> None:
        """
        Continue with the places of a predecessor. What is not valid is ignored.

        @param chunks: the values of its lines.
        """
        if not self._isShared and isinstance(self._store, MemoryStore):
            now = self._clock.seconds()
            for key, place, left in readPlaces(chunks):
                self._store.memory.places.put(key, place, now + left, now)

    def _keyOf(self, pool: str, user: bytes) -> bytes:
        return self._keys.digest(b"place", pool.lower().encode() + b"\0" + user)


def _bytes(user: str) -> bytes:
    return user.encode("utf-8", "surrogateescape")


def _place(backend: str) -> bytes:
    return backend.encode("utf-8", "surrogateescape")


def _text(place: bytes) -> str:
    """Return a place; empty for what can be none and was written by a stranger: processes would refuse the message."""
    text = place[: LONGEST_BACKEND + 1].decode("utf-8", "replace")
    return text if len(text) <= LONGEST_BACKEND and text.isprintable() else ""


class DirectPlaces:
    """
    Carries the questions of this process to the keeper in it: an L{IListener<mailgate.keeper.places.IListener>}.

    @param placing: the keeper's side.
    @param answer: called with each answer.
    """

    isFull = False

    def __init__(self, placing: Placing, answer: Callable[[Placed], object]) -> None:
        self._placing = placing
        self._answer = answer

    def send(self, message: Any) -> None:
        """
        Hear a message.

        @param message: a L{Place} or a L{Seat}.
        """
        if isinstance(message, Seat):
            self._placing.seat(self, message)
        elif not self._placing.isReady():
            self._answer(Placed(message.id, ""))
        else:
            Deferred.fromCoroutine(self._placing.place(message)).addCallback(self._answer)


def ownPlacing(clock: IReactorTime) -> Placing:
    """
    Return what knows the places of a gateway without a shared store.

    @param clock: the time and timers.
    """
    return Placing(MemoryStore(clock), StoreKeys(b""), clock)
