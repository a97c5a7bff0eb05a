# -*- test-case-name: mailgate.test.keeper.cluster.test_registry -*-
"""
Tells the store that this gateway lives, which sessions have begun and ended, and how many its users have.

Each time the store must be told everything, the gateway takes a new run: what the store has of earlier ones counts no
more. So nothing that was lost on the way is ever needed again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import count, islice
from typing import Any, Protocol

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

_log = Logger("mailgate")


class ISource(Protocol):
    """Knows the sessions of this gateway."""

    def ids(self) -> Iterable[str]:
        """Return the ids of all sessions."""

    def users(self) -> Collection[bytes]:
        """Return the digests of all users with sessions. They change with every session."""

    def sealed(self, id: str) -> bytes | None:
        """
        Return the sealed record of a session.

        @param id: its id.
        @return: L{None} if it has ended.
        """

    def countsOf(self, user: bytes) -> Mapping[bytes, int]:
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
        # Sets that keep their order.
        self._began: dict[str, None] = {}
        self._ended: dict[str, None] = {}
        self._users: dict[bytes, None] = {}
        self._renewing: list[bytes] = []
        self._timer: IDelayedCall | None = None
        self._share = 0
        self._last = self._renewed = clock.seconds()
        self._conflict = self._last - _CALM - 1
        self._isBeating = self._isFailing = self._isRunning = False

    # What has happened.

    def began(self, id: str, user: bytes) -> None:
        """
        A session has begun.

        @param id: its id.
        @param user: the digest of its user.
        """
        if not self._isAllDue:
            self._began[id] = None
            self._users[user] = None
            self._soon()

    def ended(self, id: str, user: bytes) -> None:
        """
        A session has ended.

        @param id: its id.
        @param user: the digest of its user.
        """
        if self._isAllDue:
            return
        # One that the store does not know yet it need not hear of.
        if id in self._began:
            del self._began[id]
        else:
            self._ended[id] = None
        self._users[user] = None
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
        beat = self._next()
        asked = maybeDeferred(self._store.beat, beat)
        asked.addCallbacks(self._beaten, self._failed, (beat,), {}, (beat,), {})
        asked.addErrback(_unexpected)

    def _forget(self) -> None:
        """Forget what is due: the next beat begins to tell everything."""
        self._isAllDue = True
        for each in (self._began, self._ended, self._users):
            each.clear()

    def _renew(self) -> None:
        """Tell the counts of some users again, before the store forgets them."""
        if not self._renewing:
            self._renewing = list(self._source.users())
            self._share = len(self._renewing) // _RENEWED_IN + 1
        for user in self._renewing[-self._share :]:
            self._users[user] = None
        del self._renewing[-self._share :]

    def _next(self) -> Beat:
        """Return what to say next, and forget that it is due."""
        isAll, self._isAllDue = self._isAllDue, False
        if isAll:
            self._run = f"{self._token}.{next(self._runs)}"
            self._began, self._users = dict.fromkeys(self._source.ids()), dict.fromkeys(self._source.users())
        sealed = {id: self._source.sealed(id) for id in _taken(self._began)}
        began = {id: record for id, record in sealed.items() if record is not None}
        ended = _taken(self._ended)
        counts = {user: self._source.countsOf(user) for user in _taken(self._users)}
        return Beat(self._gateway, self._run, began, ended, isAll, counts)

    def _beaten(self, isKnown: bool, beat: Beat) -> None:
        self._isBeating = self._isFailing = False
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

    def _failed(self, failure: Failure, beat: Beat) -> None:
        self._isBeating, self._isFailing = False, True
        if not failure.check(StoreUnavailable):
            _log.failure("cannot tell the store which sessions there are", failure)
        if beat.isAll:
            self._forget()
        else:
            # What has happened meanwhile is later.
            self._began = {**dict.fromkeys(id for id in beat.began if id not in self._ended), **self._began}
            self._ended = {**dict.fromkeys(beat.ended), **self._ended}
            self._users = {**dict.fromkeys(beat.counts), **self._users}
        self._at(RETRY)


def _taken(things: dict[Any, None]) -> list[Any]:
    """Return the first of some things, and remove them."""
    taken = list(islice(things, MOST_A_BEAT))
    for each in taken:
        del things[each]
    return taken


def _leftIn(failure: Failure) -> None:
    """The store forgets the gateway after L{DEAD}."""
    if not failure.check(StoreUnavailable):
        _unexpected(failure)


def _unexpected(failure: Failure) -> None:
    _log.failure("the gateway cannot beat", failure)
