# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
Takes over what all gateways together know about a login into the tables of this one. Of each number the larger one
holds, never the sum: the store has what was counted here, too. So the tables here are a shadow of the store, with which
a gateway goes on alone if the store is away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf

from mailgate.limits.attempt import Attempt, Rule
from mailgate.limits.keys import Place
from mailgate.limits.learning import Learning
from mailgate.limits.ledger import Ledger
from mailgate.limits.names import Names
from mailgate.limits.rules import Rules
from mailgate.store.interfaces import Mark, Standing

__all__ = ["Merging"]

_MOST_CHANGES = 4096
"""Pairs of which it is remembered when their rows have changed last."""

_LEARNT = 3600.0
"""Seconds since a success after which the store has learnt enough for R6 and R7 to hold."""

_REFUSED_FOR = 0.001
"""Seconds for which an address stays beyond its burst here, if the store says that it is. The next login asks again."""

_SLACK = 2.0
"""Seconds by which two gateways may know the end of a block differently."""

_RULES = {each.value: each for each in (Rule.PAIR_BLOCK, Rule.ADDRESS_BLOCK, Rule.USER_REFUSE)}


class Merging:
    """
    Takes over what the store knows.

    An answer of the store is of an earlier moment. What has changed here since then is newer: the number of changes at
    the time of the question tells.

    @param ledger: the tables.
    @param rules: the rules.
    @param learning: what tells that R6 begins to act, and that the allowance of an address has changed.
    @param names: opens the words of blocks.
    @ivar forget: called with digests that the store is to clear.
    @ivar changes: how many rows of pairs have changed here, for the moment of a question.
    """

    def __init__(self, ledger: Ledger, rules: Rules, learning: Learning, names: Names) -> None:
        self._ledger = ledger
        self._rules = rules
        self._learning = learning
        self._names = names
        self.changes = 0
        self._changed: dict[int, int] = {}
        self._floor = 0
        self._cleared = 0
        self._ended: dict[int, float] = {}
        self.forget: Callable[[list[bytes]], object] = lambda things: None
        self._since = -inf

    def changed(self, pair: int) -> None:
        """The row of a pair has changed here. C{pair} is its key."""
        self.changes += 1
        if len(self._changed) >= _MOST_CHANGES:
            self._changed.clear()
            self._floor = self.changes
        self._changed[pair] = self.changes

    def cleared(self) -> None:
        """An operator has cleared something: answers to questions of before are void."""
        self.changes += 1
        self._cleared = self.changes

    def ended(self, id: str, until: float) -> None:
        """
        An operator has ended a block by its id. If it is of a rule, the store may have it still: after a restart, or
        for a strange name, it cannot be told of what it was.

        @param id: its id.
        @param until: when it would have ended, in seconds.
        """
        if id.startswith("r") and "." not in id:
            if len(self._ended) >= _MOST_CHANGES:
                del self._ended[next(iter(self._ended))]
            self._ended[int(id[1:], 16)] = until

    def begun(self, key: int) -> None:
        """A rule has blocked something anew. C{key} is that of the block."""
        self._ended.pop(key, None)

    def _isEnded(self, standing: Standing, keys: Mapping[str, int], now: float) -> bool:
        """Whether an answer is of before such an end. Then the store is to forget that, too."""
        ended = [
            mark.thing
            for mark in standing.marks
            if now + mark.seconds <= self._ended.get(keys.get(mark.rule, 0), -inf) + _SLACK
        ]
        if ended:
            self.forget(ended)
        return bool(ended)

    def distrust(self, now: float) -> None:
        """The store may not know what was counted here until C{now}, in seconds."""
        self._since = float(int(now) + 1)

    def merge(self, attempt: Attempt, found: tuple[int, Place], standing: Standing, changes: int, now: float) -> None:
        """
        Take over what the store has answered.

        @param attempt: the login.
        @param found: the key of its user, and those of its place.
        @param standing: what the store knows.
        @param changes: the value of C{changes} when it was asked.
        @param now: the time in seconds.
        """
        if changes < self._cleared:
            return
        ledger, (user, place) = self._ledger, found
        pair = user ^ place.address
        if (
            self._ended
            and standing.marks
            and self._isEnded(standing, {"R2": pair, "R4": place.address, "R7": user}, now)
        ):
            return
        if (standing.guesses or pair in ledger.pairs.table.rows) and changes >= self._changed.get(pair, self._floor):
            self._mergePair(pair, user, standing, now)
        if standing.lastSuccess is not None and ledger.settled.get(pair, 0.0) <= now:
            self._mergeKnown(user ^ place.network, standing.lastSuccess, now)
        if standing.goods and len(standing.goods) >= ledger.goods.allowance(place.address, now):
            self._mergeGoods(place.address, standing, now)
        if standing.atAddress or standing.atNetwork or standing.failedUsers:
            weights = standing.atAddress, standing.atNetwork
            ledger.sources.raiseTo(place, weights, standing.failedUsers, now)
        if standing.ofUser:
            self._mergeUser(user, attempt, standing.ofUser, now)
        for mark in standing.marks:
            self._mergeMark(mark, pair, user, place, now)
        if standing.wait and attempt.rate is not None:
            rate = attempt.rate
            beyond = rate.burst * rate.interval + _REFUSED_FOR
            ledger.rates.delay(place.address, standing.wait if standing.wait > 0 else beyond, now)

    def _mergePair(self, pair: int, user: int, standing: Standing, now: float) -> None:
        guesses = [(int(now - each.age), int.from_bytes(each.tag, "little"), each.weight) for each in standing.guesses]
        self._ledger.pairs.merge(pair, user, guesses, self._since, now)

    def _mergeKnown(self, key: int, age: float, now: float) -> None:
        if age < self._ledger.policy.knownFor and not self._ledger.known.has(key, now):
            self._ledger.known.add(key, now - age)
        if now < self._rules.quietUntil and age >= _LEARNT:
            self._rules.quietUntil = -inf

    def _mergeGoods(self, address: int, standing: Standing, now: float) -> None:
        users = [(int.from_bytes(user, "little"), now - age) for user, age in standing.goods]
        before = self._ledger.goods.allowance(address, now)
        row = self._ledger.goods.join(address, users, now)
        if self._ledger.goods.allowance(address, now) != before:
            self._learning.whenGood(address, row)

    def _mergeUser(self, user: int, attempt: Attempt, weight: int, now: float) -> None:
        before = self._ledger.users.count(user, now)
        if self._ledger.users.raiseTo(user, weight, now):
            self._learning.counted(attempt, user, before, now)

    def _mergeMark(self, mark: Mark, pair: int, user: int, place: Place, now: float) -> None:
        rule = _RULES.get(mark.rule)
        if rule is None:
            # A later release may have further ones.
            return
        policy = self._ledger.policy
        key, other, most = {
            Rule.PAIR_BLOCK: (pair, user, policy.pairMost),
            Rule.ADDRESS_BLOCK: (place.address, place.network, policy.addressMost),
            Rule.USER_REFUSE: (user, user, policy.userTime),
        }[rule]
        thing = self._ledger.blocks.words(key)
        if not thing and mark.name:
            thing = self._names.open(mark)
        # A stranger may have written it: here it ends with the longest block of the rule.
        self._ledger.blocks.raiseTo(key, other, rule, min(mark.seconds, most), mark.count, thing, now)
