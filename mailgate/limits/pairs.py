# -*- test-case-name: mailgate.test.limits.test_failures -*-
"""
Rules R1 and R2: the failed logins of a pair, which is one user at one address.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from struct import Struct

from mailgate.limits.policy import LoginPolicy
from mailgate.limits.table import Table
from mailgate.limits.windows import UNIT, weightOf

__all__ = ["Failed", "Pairs"]

_USER = Struct("<I")
_FAILURE = Struct("<IHH")
"""When it was seen last, the first two bytes of its tag, and what it weighs: 0 if it was forgiven."""

Failed = tuple[int, int, int]
"""The same, unpacked."""

_LOW = 0xFFFFFFFF
_SPARE = 2
"""Failures that are kept beyond those that block the pair."""


class Pairs:
    """
    The failures of pairs. One that is repeated, with the same tag, counts once.

    A row begins with the low half of the user's key, so that the pairs of a user or of an address can be found.

    @param memory: bytes for all rows.
    @param policy: the numbers.
    """

    def __init__(self, memory: int, policy: LoginPolicy) -> None:
        self.table = Table(memory)
        self.configure(policy)

    def configure(self, policy: LoginPolicy) -> None:
        """The numbers have changed to those of C{policy}."""
        self.policy = policy

    def count(self, pair: int, now: float) -> int:
        """
        Return how much the failures of a pair weigh, in L{UNIT}s.

        @param pair: its key.
        @param now: the time in seconds.
        """
        row = self.table.rows.get(pair)
        return 0 if row is None else sum(weight for _, _, weight in self._failures(row, now))

    def since(self, pair: int, now: float) -> int | None:
        """
        Return when the first of the failures that count was seen last; L{None} without. C{pair} and C{now} as for
        L{count}.
        """
        row = self.table.rows.get(pair)
        failures = () if row is None else self._failures(row, now)
        return min((moment for moment, _, weight in failures if weight), default=None)

    def _failures(self, row: bytes, now: float) -> Iterator[tuple[int, int, int]]:
        window = self.policy.pairWindow
        return (each for each in _FAILURE.iter_unpack(row[_USER.size :]) if now - each[0] < window)

    def add(self, pair: int, user: int, tag: bytes, isDigest: bool, now: float) -> int:
        """
        Count a failure.

        @param pair: the key of the pair.
        @param user: the key of its user.
        @param tag: that of the login; empty: no other failure is the same.
        @param isDigest: whether it was by a digest method.
        @param now: the time in seconds.
        @return: what it weighs; 0 if it is a repeat.
        """
        policy = self.policy
        share = max(1, policy.digestShare)
        weight = weightOf(share) if isDigest else UNIT
        first = 0 if isDigest or not tag else int.from_bytes(tag[:2], "little")
        row = self.table.rows.get(pair)
        failures = [] if row is None else list(self._failures(row, now))
        same = [each for each in failures if tag and not isDigest and each[1] == first and each[2] in (0, UNIT)]
        kept = [each for each in failures if each not in same]
        # A failure that was forgiven stays so.
        failed = [*kept, (int(now), first, same[0][2] if same else weight)][-self.most :]
        self.table.put(pair, _USER.pack(user & _LOW) + b"".join([_FAILURE.pack(*each) for each in failed]))
        return 0 if same else weight

    def merge(self, pair: int, user: int, guesses: Collection[Failed], since: float, now: float) -> None:
        """
        Take over what all gateways together know of a pair. Failures of before C{since}, of which they may not know,
        stay; failures that they have forgiven do not count here, either.

        @param pair: the key of the pair.
        @param user: the key of its user.
        @param guesses: the failures: when each was seen last, the first two bytes of its tag, 0 for none, as in the
            rows here, and what it weighs.
        @param since: from when on the others know all failures of here.
        @param now: the time in seconds.
        """
        row = self.table.rows.get(pair)
        tagged = {each[1]: each for each in guesses if each[1]}
        others = [each for each in guesses if not each[1]]
        alone = []
        for moment, first, weight in () if row is None else self._failures(row, now):
            isAlone = moment < since
            if first in tagged:
                latest, _, theirs = tagged[first]
                tagged[first] = max(moment, latest), first, max(weight, theirs) if isAlone else theirs
            elif isAlone and first:
                tagged[first] = moment, first, weight
            elif isAlone:
                alone.append((moment, first, weight))
        # Which of those without tags are the same cannot be told.
        merged = sorted([*tagged.values(), *others, *alone[len(others) :]])[-self.most :]
        text = _USER.pack(user & _LOW) + b"".join([_FAILURE.pack(*each) for each in merged])
        if not merged:
            self.table.drop(pair)
        elif row != text:
            self.table.put(pair, text)

    @property
    def most(self) -> int:
        """How many failures of a pair are kept."""
        return max(16, self.policy.pairBlock * max(1, self.policy.digestShare)) + _SPARE

    def forgive(self, pair: int, now: float) -> None:
        """
        A login has succeeded: none of the failures counts any more. An old password in another device of the user goes
        on as a repeat; otherwise it would count again after each success, for its address, too.

        @param pair: the key of the pair.
        @param now: the time in seconds.
        """
        row = self.table.rows.get(pair)
        if row is None:
            return
        tagged = [(moment, first, 0) for moment, first, weight in self._failures(row, now) if weight in (0, UNIT)]
        if tagged:
            self.table.put(pair, row[: _USER.size] + b"".join([_FAILURE.pack(*each) for each in tagged]))
        else:
            self.table.drop(pair)

    def forget(self, pair: int) -> None:
        """An operator has cleared the pair. C{pair} is the key."""
        self.table.drop(pair)

    def forgetUser(self, user: int) -> None:
        """Forget the failures of a user everywhere. C{user} is the key."""
        low = _USER.pack(user & _LOW)
        for pair in [pair for pair, row in self.table.rows.items() if row.startswith(low)]:
            self.table.drop(pair)

    def forgetAddresses(self, addresses: frozenset[int]) -> None:
        """
        Forget the failures of all users at some addresses.

        @param addresses: the low halves of their keys.
        """
        rows = self.table.rows
        for pair in [each for each, row in rows.items() if each & _LOW ^ _USER.unpack_from(row)[0] in addresses]:
            self.table.drop(pair)
