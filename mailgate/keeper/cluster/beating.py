# -*- test-case-name: mailgate.test.keeper.cluster.test_registry -*-
"""
Tells the store that this gateway lives, which sessions have begun and ended, and how many its users have.

Each time the store must be told everything, the gateway takes a new run: what the store has of earlier ones counts no
more. So nothing that was lost on the way is ever needed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import count, islice
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.store.interfaces import DEAD, Beat, IStore, StoreUnavailable

__all__ = ["APART", "HEARTBEAT", "MOST_A_BEAT", "MOST_WAITING", "RETRY", "Beating", "ISource"]

HEARTBEAT = 15.0
"""Seconds between two beats of a gateway without news."""

APART = 0.1
"""Seconds between two beats at least."""

RETRY = 1.0
"""Seconds until the next beat after one that has failed. While the store is left alone, a try costs nothing."""

MOST_A_BEAT = 500
"""Sessions, ends and users in one beat: sealing so many records takes two milliseconds."""

MOST_WAITING = 20_000
"""Ends and users that wait while the store is away. Beyond that it is told everything."""

_RENEWED_IN = 100
"""
So many heartbeats until each user's counts are told again: 25 minutes. The store forgets them after an hour, and one
that comes at the beginning of a round may wait for two.
"""

_CALM = 60.0
"""Seconds without another gateway of the same name until one is logged again."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_log = Logger("mailgate")


class ISource(Protocol):
    """Knows the sessions of this gateway."""

    def sessions(self) -> Iterable[tuple[str, bytes]]:
        """Return the ids of all sessions, and what is kept of each."""

    def users(self) -> Collection[bytes]:
        """Return the digests of all users with sessions. They change with every session."""

    def sealed(self, id: str, kept: bytes) -> bytes:
        """
        Return the sealed record of a session.

        @param id: its id.
        @param kept: what is kept of it.
        """

    def countsOf(self, user: bytes) -> bytes:
        """
        Return how many sessions a user has, as for L{Beat}.

        @param user: the digest.
        """


class Beating:
    """
    Beats for one gateway.

    @param store: the store.
    @param gateway: the name of the gateway.
    @param source: knows its sessions.
    @param clock: the time and timers.
    @param token: names this object among all that have ever beaten for a gateway of this name.
    """

    def __init__(self, store: IStore, gateway: str, source: ISource, clock: IReactorTime, token: str) -> None:
        self._store = store
        self._gateway = gateway
        self._source = source
        self._clock = clock
        self._token = token
        self._runs = count(1)
        self._run = ""
        self._isAllDue = True
        self._began: dict[str, bytes] = {}
        self._doubtful: set[str] = set()
        # A set that keeps its order.
        self._ended: dict[str, None] = {}
        # How many changes there are of which the store does not know.
        self._users: dict[bytes, int] = {}
        self._renewing: list[bytes] = []
        # Whether the store had counts of sessions whose records it had not.
        self._isBehind = False
        self._timer: IDelayedCall | None = None
        self._share = 0
        self._last = self._renewed = clock.seconds()
        self._conflict = self._last - _CALM - 1
        self._isBeating = self._isFailing = self._isRunning = self._isSoon = False

    # What has happened.

    def began(self, id: str, user: bytes, kept: bytes) -> None:
        """
        A session has begun.

        @param id: its id.
        @param user: the digest of its user.
        @param kept: what is kept of it, for L{ISource.sealed}.
        """
        if self._isAllDue:
            return
        self._began[id] = kept
        self._users[user] = self._users.get(user, 0) + 1
        if not self._isSoon:
            self._soon()

    def ended(self, id: str, user: bytes) -> None:
        """
        A session has ended.

        @param id: its id.
        @param user: the digest of its user.
        """
        if self._isAllDue:
            return
        users = self._users
        if self._began.pop(id, None) is None or id in self._doubtful:
            self._ended[id] = None
            users[user] = users.get(user, 0) + 1
        elif self._isBehind:
            # The store may know its count.
            users[user] = users.get(user, 0) + 1
        elif users.get(user, 0) > 1:
            users[user] -= 1
        else:
            # The store need not hear of one that it does not know yet.
            users.pop(user, None)
        if not self._isSoon:
            self._soon()

    # Life.

    def start(self, within: float) -> None:
        """
        Begin to beat.

        @param within: seconds until the first beat.
        """
        self._isRunning = True
        self._at(within)

    def stop(self) -> None:
        """Beat no more, and leave in the store what is there."""
        self._isRunning = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def leave(self) -> Deferred[None]:
        """Beat no more, and let the store forget this gateway. Fires when it has, or when it cannot be reached."""
        wasRunning = self._isRunning
        self.stop()
        if not wasRunning or not self._run:
            return succeed(None)
        left = maybeDeferred(self._store.leave, self._gateway, self._run)
        return left.addErrback(_leftIn)

    # Beats.

    def _soon(self) -> None:
        """News have come. After a beat that has failed, they wait for the next one."""
        if not (self._isBeating or self._isFailing):
            self._isSoon = True
            self._at(max(0.0, self._last + APART - self._clock.seconds()))

    def _at(self, seconds: float) -> None:
        """Beat in so many seconds, or earlier if that is planned already."""
        if not self._isRunning:
            return
        if self._timer is not None:
            if self._timer.getTime() <= self._clock.seconds() + seconds:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._beat)

    def _beat(self) -> None:
        self._timer = None
        self._isSoon = False
        users = len(self._source.users())
        if len(self._ended) > MOST_WAITING or len(self._users) > users + MOST_WAITING:
            self._forget()
        if not self._store.isUp:
            self._isFailing = True
            self._at(RETRY)
            return
        now = self._clock.seconds()
        if now - self._renewed >= HEARTBEAT:
            self._renewed = now
            self._renew()
        self._last = now
        self._isBeating = True
        beat, began = self._next()
        asked = maybeDeferred(self._store.beat, beat)
        asked.addCallbacks(self._beaten, self._failed, errbackArgs=(beat, began))
        asked.addErrback(_unexpected)

    def _forget(self) -> None:
        """Forget what is due: the next beat begins to tell everything."""
        self._isAllDue = True
        for each in (self._began, self._ended, self._users, self._doubtful):
            each.clear()

    def _renew(self) -> None:
        """Tell the counts of some users again, before the store forgets them."""
        if not self._renewing:
            self._renewing = list(self._source.users())
            self._share = len(self._renewing) // _RENEWED_IN + 1
        for user in self._renewing[-self._share :]:
            self._users[user] = self._users.get(user, 0) + 1
        del self._renewing[-self._share :]

    def _next(self) -> tuple[Beat, dict[str, bytes]]:
        """Return what to say next, and what is kept of its sessions that have begun. Forget that it is due."""
        isAll, self._isAllDue = self._isAllDue, False
        if isAll:
            self._run = f"{self._token}.{next(self._runs)}"
            self._began, self._users = dict(self._source.sessions()), dict.fromkeys(self._source.users(), 1)
        sealed, countsOf = self._source.sealed, self._source.countsOf
        began = _taken(self._began)
        records = {id: sealed(id, kept) for id, kept in began.items()}
        counts = {user: countsOf(user) for user in _taken(self._users)}
        self._isBehind = bool(self._began)
        return Beat(self._gateway, self._run, records, [*_taken(self._ended)], isAll, counts), began

    def _beaten(self, isKnown: bool) -> None:
        self._isBeating = self._isFailing = False
        self._doubtful.clear()
        if not isKnown:
            self._forget()
            self._store.gateways().addCallbacks(self._looked, lambda _: self._at(RETRY)).addErrback(_unexpected)
            return
        self._goOn()

    def _goOn(self) -> None:
        pause = APART if self._began or self._ended or self._users else HEARTBEAT
        self._at(max(0.0, self._last + pause - self._clock.seconds()))

    def _looked(self, gateways: Mapping[str, tuple[str, float]]) -> None:
        """The store did not know this run. Either it has lost its memory, or another gateway has the same name."""
        run, age = gateways.get(self._gateway, ("", DEAD))
        if age >= DEAD or run.startswith(f"{self._token}."):
            self._at(APART)
            return
        now = self._clock.seconds()
        if now - self._conflict > _CALM:
            _log.error(
                "another gateway with gateway_name {name} uses the same store; the counts and lists of both are wrong "
                "until each gateway has a name of its own",
                name=self._gateway,
            )
        self._conflict = now
        # Each of the two makes the other tell everything.
        self._at(HEARTBEAT)

    def _failed(self, failure: Failure, beat: Beat, began: dict[str, bytes]) -> None:
        self._isBeating, self._isFailing = False, True
        if not failure.check(StoreUnavailable):
            _log.failure("cannot tell the store which sessions there are", failure)
        if beat.isAll:
            self._forget()
        else:
            # What has happened meanwhile is later. The store may have heard of it, and only its answer was late.
            self._doubtful.update(began)
            self._began = {**{id: kept for id, kept in began.items() if id not in self._ended}, **self._began}
            self._ended = {**dict.fromkeys(beat.ended), **self._ended}
            for user in beat.counts:
                self._users[user] = self._users.get(user, 0) + 1
        self._at(RETRY)


def _taken(things: dict[_Key, _Value]) -> dict[_Key, _Value]:
    """Return the first of some things, and remove them."""
    if len(things) <= MOST_A_BEAT:
        taken = things.copy()
        things.clear()
        return taken
    taken = dict(islice(things.items(), MOST_A_BEAT))
    for each in taken:
        del things[each]
    return taken


def _leftIn(failure: Failure) -> None:
    """The store forgets the gateway after L{DEAD}."""
    if not failure.check(StoreUnavailable):
        _unexpected(failure)


def _unexpected(failure: Failure) -> None:
    _log.failure("the gateway cannot beat", failure)
