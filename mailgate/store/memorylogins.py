# -*- test-case-name: mailgate.test.store.test_contract -*-
"""
What L{mailgate.store.memory.MemoryStore} knows about logins: failures, successes and blocks. The scripts of
L{mailgate.store.redis} say the same in Lua.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen

from mailgate.store.expiring import Expiring
from mailgate.store.interfaces import Failure, Guess, Mark, Question, Standing, Success
from mailgate.store.keys import StoreKeys
from mailgate.store.sliding import Sliding

__all__ = ["MemoryLogins"]

MOST_GOODS = 9
"""Users who have succeeded at an address, of which a store keeps so many: no allowance is larger than 10."""

_MOST_TAGS = 64
_CLEARED = 7 * 86400.0
"""For how many seconds it is remembered that something was cleared."""

_HOUR = 3600.0
_ROUNDING = 1e-6
_NEVER = -1.0
_REFUSED = -1.0


@frozen
class _Failed:
    """A failure of a pair: when it was seen last, its tag, and what it weighs."""

    moment: float
    tag: bytes
    weight: int


@frozen
class _Address:
    """The failures of an address, and when each of its users failed last."""

    counts: Sliding
    users: tuple[tuple[bytes, float], ...] = ()


@frozen
class _User:
    """The failures of a user, and their tags."""

    counts: Sliding
    tags: tuple[bytes, ...] = ()


@frozen
class _Marked:
    """A block, and when it began and ends."""

    mark: Mark
    since: float
    until: float


class MemoryLogins:
    """
    The failures, successes, rates and blocks. Nothing here waits.

    @param most: how many values there are at most.
    """

    def __init__(self, most: int) -> None:
        self._rows: Expiring[tuple[str, bytes], Any] = Expiring(most)
        self._latest = 0.0

    def _moment(self, now: float) -> float:
        """The time, later than the one before: what is written after a clearing is not cleared by it."""
        self._latest = max(now, self._latest + _ROUNDING)
        return self._latest

    def _clearedAt(self, now: float, *things: bytes) -> float:
        """When the last of some things was cleared."""
        return max([self._rows.get(("z", thing), now) or _NEVER for thing in things if thing], default=_NEVER)

    # What is asked.

    def check(self, question: Question, now: float) -> Standing:
        """See L{mailgate.store.interfaces.IStore.check}. C{question} is the login, C{now} the time in seconds."""
        user, address, network = question.user, question.address, question.network
        pair = question.pair or StoreKeys.both(user, address)
        # The failures of a pair end with a clearing of its user, its address, or its network.
        cleared = self._clearedAt(now, pair, user, address, network)
        last = self._rows.get(("k", StoreKeys.both(user, network)), now)
        goods = self._goods(address, question.goodFor, now)
        isCounted = address and question.interval > 0 and last is None
        counted = self._address(address, question.pairWindow, self._clearedAt(now, address, network), now)
        atNetwork = self._rows.get(("n", network), now) if address and network else None
        ofUser = self._rows.get(("u", user), now)
        return Standing(
            guesses=[
                Guess(each.tag, max(0.0, now - each.moment), each.weight)
                for each in self._guesses(pair, question.pairWindow, cleared, now)
            ],
            atAddress=0 if counted is None else counted.counts.weightAt(question.pairWindow, now),
            atNetwork=0 if atNetwork is None else atNetwork.weightAt(question.pairWindow, now),
            ofUser=0 if ofUser is None else ofUser.counts.weightAt(question.userWindow, now),
            failedUsers=0 if counted is None else len(counted.users),
            lastSuccess=None if last is None else max(0.0, now - last),
            goods=[(each[:2], now - moment) for each, moment in goods],
            marks=[
                evolve(row.mark, seconds=row.until - now)
                for thing, parts in ((pair, (user, address, network)), (address, (network,)), (user, ()))
                if thing and (row := self._marked(thing, parts, now)) is not None
            ],
            wait=self._take(question, len(goods), now) if isCounted else 0.0,
            turn=self._rows.left(("l", user), now),
        )

    def _guesses(self, pair: bytes, window: float, cleared: float, now: float) -> Sequence[_Failed]:
        failed: Sequence[_Failed] = self._rows.get(("p", pair), now) or ()
        return [each for each in failed if now - each.moment < window and each.moment > cleared]

    def _address(self, address: bytes, window: float, cleared: float, now: float) -> _Address | None:
        row: _Address | None = self._rows.get(("f", address), now) if address else None
        if row is None or row.counts.start <= cleared:
            return None
        return evolve(row, users=tuple(each for each in row.users if now - each[1] < window))

    def _goods(self, address: bytes, goodFor: float, now: float) -> Sequence[tuple[bytes, float]]:
        row: Sequence[tuple[bytes, float]] = (self._rows.get(("g", address), now) if address else None) or ()
        return [each for each in row if now - each[1] < goodFor]

    def _marked(self, thing: bytes, parts: Sequence[bytes], now: float) -> _Marked | None:
        row: _Marked | None = self._rows.get(("b", thing), now)
        return None if row is None or row.since <= self._clearedAt(now, *parts) else row

    def _take(self, question: Question, goods: int, now: float) -> float:
        allowance = min(max(1, question.mostAllowance), 1 + goods)
        interval = question.interval / allowance
        due: float = self._rows.get(("t", question.address), now) or now
        early = max(0.0, due - now)
        if early > question.burst * question.interval + _ROUNDING:
            return _REFUSED
        due = now + early + interval
        self._rows.put(("t", question.address), due, due, now)
        return early

    # What is reported.

    def failed(self, failure: Failure, now: float) -> bool:
        """See L{mailgate.store.interfaces.IStore.failed}. C{failure} is the login, C{now} the time in seconds."""
        user, address, network, window = failure.user, failure.address, failure.network, failure.pairWindow
        moment = self._moment(now)
        cleared = self._clearedAt(now, failure.pair, user, address, network)
        guesses = self._guesses(failure.pair, window, cleared, now)
        same = [each for each in guesses if failure.tag and each.tag == failure.tag]
        # A failure that was forgiven stays so.
        new = _Failed(moment, failure.tag, same[0].weight if same else failure.weight)
        kept = [*[each for each in guesses if each not in same], new][-failure.mostGuesses :]
        self._rows.put(("p", failure.pair), kept, now + window, now)
        if same or not failure.weight:
            return False
        if address:
            self._countAddress(failure, self._clearedAt(now, address, network), moment, now)
        if failure.countsForUser:
            self._countUser(failure, moment, now)
        return True

    def _countAddress(self, failure: Failure, cleared: float, moment: float, now: float) -> None:
        window, weight, address = failure.pairWindow, failure.addressWeight, failure.address
        row = self._address(address, window, cleared, now)
        counts = Sliding(moment, 0, weight) if row is None else row.counts.plus(weight, window, moment)
        short = failure.user[:4]
        others = () if row is None else tuple(each for each in row.users if each[0] != short)
        users = (*others, (short, moment))[-failure.mostUsers :]
        self._rows.put(("f", address), _Address(counts, users), now + 2 * window, now)
        if failure.network:
            key = ("n", failure.network)
            before: Sliding | None = self._rows.get(key, now)
            counts = Sliding(moment, 0, weight) if before is None else before.plus(weight, window, moment)
            self._rows.put(key, counts, now + 2 * window, now)

    def _countUser(self, failure: Failure, moment: float, now: float) -> None:
        window, key = failure.userWindow, ("u", failure.user)
        row: _User | None = self._rows.get(key, now)
        if row is None or not row.counts.weightAt(window, now):
            row = _User(Sliding(moment, 0, 0))
        if failure.tag and failure.tag in row.tags:
            return
        tags = (*row.tags, failure.tag)[-_MOST_TAGS:] if failure.tag else row.tags
        self._rows.put(key, _User(row.counts.plus(failure.weight, window, moment), tags), now + 2 * window, now)

    def succeeded(self, success: Success, now: float) -> None:
        """See L{mailgate.store.interfaces.IStore.succeeded}. C{success} is the login, C{now} the time in seconds."""
        rows, address = self._rows, success.address
        rows.put(("k", StoreKeys.both(success.user, success.network)), now, now + success.knownFor, now)
        goods = self._goods(address, success.goodFor, now)
        short = success.user[:2]
        if address and not any(user == short and now - moment < _HOUR for user, moment in goods):
            kept = [*[each for each in goods if each[0] != short], (short, now)][-MOST_GOODS:]
            rows.put(("g", address), kept, now + success.goodFor, now)
        key = ("p", success.pair)
        failed: Sequence[_Failed] | None = rows.get(key, now)
        if failed is not None:
            forgiven = [evolve(each, weight=0) for each in failed if each.tag]
            rows.put(key, forgiven, now + (rows.left(key, now) if forgiven else 0), now)

    def mark(self, mark: Mark, keep: float, now: float) -> None:
        """See L{mailgate.store.interfaces.IStore.mark}. C{mark} is the block, C{keep} as there, C{now} the time."""
        until, count = now + mark.seconds, mark.count
        before = self._marked(mark.thing, mark.parts, now)
        if before is not None:
            until, count = max(until, before.until), max(count, before.mark.count)
        row = _Marked(evolve(mark, count=count, parts=()), self._moment(now), until)
        self._rows.put(("b", mark.thing), row, until + keep, now)

    def clear(self, things: Sequence[bytes], now: float) -> None:
        """See L{mailgate.store.interfaces.IStore.clear}. C{things} as there, C{now} the time in seconds."""
        for thing in things:
            for kind in "pfnubl":
                self._rows.drop((kind, thing))
            self._rows.put(("z", thing), self._moment(now), now + _CLEARED, now)

    def lease(self, name: bytes, seconds: float, now: float) -> bool:
        """See L{mailgate.store.interfaces.IStore.lease}. C{name}, C{seconds} as there, C{now} is the time."""
        key = ("l", name)
        if self._rows.get(key, now) is not None:
            return False
        self._rows.put(key, True, now + seconds, now)
        return True
