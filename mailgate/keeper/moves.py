# -*- test-case-name: mailgate.test.keeper.test_moves -*-
"""
Moves a user of a sticky group to another backend: at once, so that his next login goes there; or when he is quiet.

The latter holds his logins at all gateways, ends his sessions, and waits until no backend has any of them. Then it
gives him the place, and lets him in again. Whatever fails, the hold ends. It also ends by itself if the keeper dies.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailgate.keeper.blocks import NoLimits, block, checkBlock, storeOf, unblock
from mailgate.keeper.filters import Filter
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.kick import kick
from mailgate.keeper.whereabouts import NoPlaces, Pool, bytesOf, masksOf, placesOf, relaysOf, stickyPools
from mailgate.limits.attempt import Rule
from mailgate.limits.keys import canonical
from mailgate.log.journal import oneLine
from mailgate.store.interfaces import StoreUnavailable
from mailgate.upstream.sticky import agrees

__all__ = ["FIRST_ANSWER", "LONGEST", "POLL", "WAIT", "Order", "Refusal", "follow", "move"]

WAIT = 60.0
"""Seconds that a user may take to become quiet, by default."""

LONGEST = 3600.0
"""The most seconds that he may take."""

FIRST_ANSWER = 1.0
"""Seconds after which a request for a move is answered, although it goes on."""

POLL = 0.5
"""Seconds between two looks at the user's sessions, at most: most sessions end at once."""

_FIRST_POLL = 0.05

_SPARE = 10.0
"""Seconds that the hold lasts longer than the wait, if nothing ends it."""

_KEPT = 120.0
"""Seconds for which the outcome of a move is known."""

_MOST = 100
"""Moves at the same time."""

_OPERATORS = (Rule.BLOCK, Rule.HOLD)

_log = Logger("mailgate")


class Refusal(Exception):
    """
    A user is not moved.

    @param reason: why, in a sentence.
    @ivar done: what was done before, in sentences.
    """

    def __init__(self, reason: str, done: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.done = list(done)


@frozen
class Order:
    """
    What an operator orders.

    @ivar user: the user name.
    @ivar backend: the address and port of the backend.
    @ivar group: the name of the group; L{None} for the one that has the backend.
    @ivar by: who orders it, for the log.
    """

    user: str
    backend: str
    group: str | None = None
    by: str = ""


@define(eq=False)
class _Target:
    """
    Where a user goes.

    @ivar user: his name.
    @ivar pool: the groups.
    @ivar backend: the backend.
    @ivar before: the place that he had; L{None} without one.
    """

    user: str
    pool: Pool
    backend: str
    before: str | None

    def has(self, address: str) -> bool:
        """Whether a session is there, perhaps at the port of another protocol. C{address} is that of its backend."""
        siblings = next(each for each in self.pool.groups.values() if self.backend in each)
        return address == self.backend or (address not in siblings and agrees(address, self.backend))

    def row(self) -> dict[str, Any]:
        """What answers have of it."""
        groups = list(self.pool.groups)
        return {"user": self.user, "groups": groups, "backend": self.backend, "before": self.before}


@define(eq=False)
class _Job:
    """
    A move that waits until a user is quiet.

    @ivar target: where he goes.
    @ivar id: its name.
    @ivar ended: how many sessions were ended.
    @ivar sessions: how many are left.
    @ivar done: what was done, in sentences.
    @ivar failure: why it has failed; L{None} if it has not.
    @ivar isOver: whether it has ended.
    @ivar waiting: fire when it has ended.
    """

    target: _Target
    id: str
    ended: int = 0
    sessions: int = 0
    done: list[str] = field(factory=list)
    failure: str | None = None
    isOver: bool = False
    waiting: list[Deferred[None]] = field(factory=list)

    def answer(self) -> dict[str, Any]:
        """
        Return how far it is.

        @raise Refusal: it has failed.
        """
        if self.failure is not None:
            raise Refusal(self.failure, self.done)
        state = "moved" if self.isOver else "waiting"
        return {
            **{"id": self.id, "state": state, **self.target.row()},
            **{"sessions": self.sessions, "ended": self.ended, "done": self.done},
        }


def move(keeper: Keeper, order: Order, whenQuiet: bool = False, wait: float = WAIT) -> Deferred[dict[str, Any]]:
    """
    Give a user another place.

    @param keeper: the keeper.
    @param order: who goes where.
    @param whenQuiet: whether his sessions end first.
    @param wait: how many seconds that may take.
    @return: fires with an object with C{id} (of a move that goes on: see L{follow}), C{state} (C{moved} or
        C{waiting}), C{user}, C{groups}, C{backend}, C{before} (the place that he had; L{None} without one),
        C{sessions} (how many are at other backends, or are left), C{ended} (how many were ended) and C{done} (what was
        done, in sentences).
        It fails with L{Refusal} if the user is not moved, and with C{ValueError} if an argument is not valid.
    """
    return Deferred.fromCoroutine(_move(keeper, order, whenQuiet, wait))


async def _move(keeper: Keeper, order: Order, whenQuiet: bool, wait: float) -> dict[str, Any]:
    if not 0 < wait <= LONGEST:
        raise ValueError(f"for must be more than 0 and at most {LONGEST:.0f} seconds")
    user, target = order.user, await _targetOf(keeper, order)
    if not whenQuiet:
        await _place(keeper, target)
        rows, _ = await relaysOf(keeper, user)
        elsewhere = sum(1 for row in rows if not target.has(row["backend"]))
        return {"id": None, "state": "moved", **target.row(), "sessions": elsewhere, "ended": 0, "done": []}
    checkBlock(user, wait + _SPARE, "", True)
    job = _begin(keeper, target)
    Deferred.fromCoroutine(_run(keeper, job, wait, order.by))
    return await _look(keeper, job)


def follow(keeper: Keeper, user: str, id: str) -> Deferred[dict[str, Any]]:
    """
    Return how far a move is, as soon as it has ended or after L{FIRST_ANSWER}.

    @param keeper: the keeper.
    @param user: the user name.
    @param id: the C{id} of the answer to L{move}.
    @return: fires as that of L{move}.
    @raise KeyError: there is no such move.
    """
    job = _jobs(keeper)[id]
    if bytesOf(job.target.user) != bytesOf(user):
        raise KeyError(id)
    return Deferred.fromCoroutine(_look(keeper, job))


def _jobs(keeper: Keeper) -> dict[str, _Job]:
    return {} if keeper.placing is None else keeper.placing.moves


def _isAt(address: str, backend: str) -> bool:
    return address.lower() == backend.lower() or agrees(address, backend)


# Where to.


async def _targetOf(keeper: Keeper, order: Order) -> _Target:
    user, backend, group = order.user, order.backend, order.group
    pools = await stickyPools(keeper)
    if not pools:
        raise Refusal("no group of backends is sticky, so that no user has a place: docs/groups.rst describes sticky")
    chosen = [pool for pool in pools if group is None or group.lower() in map(str.lower, pool.groups)]
    if not chosen:
        raise Refusal(
            f"{oneLine(group or '')[:64]} is no sticky group; those are {'; '.join(each.title for each in pools)}"
        )
    for pool in chosen:
        for address in (address for addresses in pool.groups.values() for address in addresses):
            if address.lower() == backend.lower():
                return await _checked(keeper, user, pool, address)
    known = "; ".join(f"{name} has {', '.join(has)}" for pool in chosen for name, has in pool.groups.items())
    raise Refusal(f"{oneLine(backend)[:320]} is in no sticky group: {known}")


async def _checked(keeper: Keeper, user: str, pool: Pool, backend: str) -> _Target:
    """Make sure that the group has the user, not the authentication service."""
    if not bytesOf(user):
        raise ValueError("the user must have a name")
    try:
        (place,) = await placesOf(keeper, user, [pool])
    except NoPlaces as error:
        raise Refusal(str(error)) from None
    if place["backend"] is None:
        rows, _ = await relaysOf(keeper, user)
        seen = [row["backend"] for row in (*rows, *keeper.recent(user)) if row.get("backend")][:1]
        mine = [address for addresses in pool.groups.values() for address in addresses]
        if seen and not any(_isAt(seen[0], address) for address in mine):
            raise Refusal(
                f"{oneLine(user)} is at {oneLine(seen[0])}, which is in none of the groups {pool.title}: the"
                " authentication service, or another rule, names his backend, and must move him"
            )
    return _Target(user, pool, backend, place["backend"])


async def _place(keeper: Keeper, target: _Target) -> None:
    assert keeper.placing is not None, "there was a place"
    try:
        await keeper.placing.move(target.pool.name, bytesOf(target.user), target.backend, target.pool.ttl)
    except StoreUnavailable as error:
        raise Refusal(f"the store does not answer: {error}") from None


# When he is quiet.


def _begin(keeper: Keeper, target: _Target) -> _Job:
    jobs = _jobs(keeper)
    mailbox = bytesOf(target.user)
    under = [job for job in jobs.values() if not job.isOver]
    if any(bytesOf(job.target.user) == mailbox for job in under):
        raise Refusal(f"{oneLine(target.user)} is being moved already")
    if len(under) >= _MOST:
        raise Refusal(f"{_MOST} users are being moved already")
    job = _Job(target, os.urandom(8).hex())
    jobs[job.id] = job
    return job


async def _look(keeper: Keeper, job: _Job) -> dict[str, Any]:
    if not job.isOver:
        ended: Deferred[None] = Deferred()
        job.waiting.append(ended)
        timer = keeper.clock.callLater(FIRST_ANSWER, _wake, job, ended)
        try:
            await ended
        finally:
            # The client who has asked may have left.
            if timer.active():
                timer.cancel()
            if ended in job.waiting:
                job.waiting.remove(ended)
    return job.answer()


def _wake(job: _Job, ended: Deferred[None]) -> None:
    job.waiting.remove(ended)
    ended.callback(None)


async def _run(keeper: Keeper, job: _Job, wait: float, by: str) -> None:
    try:
        await _moveQuietly(keeper, job, wait, by)
    except (Refusal, NoLimits, ValueError) as error:
        job.failure = str(error)
    except Exception:
        _log.failure("cannot move a user")
        job.failure = "it failed; the log of the gateway has the reason"
    job.isOver = True
    waiting, job.waiting = job.waiting, []
    for each in waiting:
        each.callback(None)
    keeper.clock.callLater(_KEPT, _jobs(keeper).pop, job.id, None)


async def _moveQuietly(keeper: Keeper, job: _Job, wait: float, by: str) -> None:
    target = job.target
    until = keeper.now() + wait
    reason = f"moves to {target.backend}"
    id = await _hold(keeper, job, wait + _SPARE, reason)
    try:
        await _end(keeper, job, reason, by)
        await _quiet(keeper, job, until)
        await _place(keeper, target)
        job.done.append(f"he was moved to {target.backend}")
    finally:
        if id is not None:
            await _release(keeper, job, id)


async def _hold(keeper: Keeper, job: _Job, seconds: float, reason: str) -> str | None:
    """Hold the user's logins; return the id of the hold, L{None} if an operator keeps him away already."""
    user = job.target.user
    name = canonical(user.encode("utf-8", "surrogateescape"))
    for each in storeOf(keeper).blocks():
        if each.rule in _OPERATORS and canonical(each.thing.encode("utf-8", "surrogateescape")) == name:
            # Another hold would take its place, and end it.
            if each.until < keeper.now() + seconds:
                why = "which ends too early: end it, or make it longer"
                raise Refusal(f"{oneLine(user)} is kept away by {each.id}, {why}")
            job.done.append(f"his logins were kept away already by {each.id}, which stays")
            return None
    held: Mapping[str, Any] = await maybeDeferred(block, keeper, user, seconds, reason, True)
    job.done.append("his logins were held")
    return str(held["id"])


async def _release(keeper: Keeper, job: _Job, id: str) -> None:
    try:
        await maybeDeferred(unblock, keeper, id)
    except Exception:
        _log.failure("cannot end a hold")
        job.done.append(f"the hold {id} could not be ended; mailgate release ends it")
    else:
        job.done.append("the hold has ended")


async def _end(keeper: Keeper, job: _Job, reason: str, by: str) -> None:
    unanswered: dict[str, None] = {}
    for mask in masksOf(job.target.user):
        answer = await kick(keeper, Filter.fromJSON({"user": mask}), reason, by)
        job.ended += answer["ended"]
        unanswered.update(dict.fromkeys(answer["unanswered"]))
    job.done.append(f"{job.ended} of his sessions were ended")
    if unanswered:
        raise Refusal(f"not all his sessions could be ended: {'; '.join(unanswered)}")


async def _quiet(keeper: Keeper, job: _Job, until: float) -> None:
    pause = _FIRST_POLL
    while True:
        rows, missing = await relaysOf(keeper, job.target.user)
        job.sessions = len(rows)
        if not rows and not missing:
            return
        if keeper.now() + pause > until:
            left = f"{len(rows)} of his sessions are still at {', '.join(sorted({each['backend'] for each in rows}))}"
            raise Refusal("; ".join([*([left] if rows else []), *missing]))
        await deferLater(keeper.clock, pause)
        pause = min(POLL, 2 * pause)
