# -*- test-case-name: mailgate.test.limits.test_operators -*-
"""
The blocks of rules R2, R4 and R7. They end by time alone, and each is longer than the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, log2
from struct import Struct

from mailgate.limits.attempt import Block, Rule
from mailgate.limits.table import Table

__all__ = ["DAY", "Blocks"]

DAY = 86400.0
"""A quiet day halves how often a thing counts as blocked."""

_ROW = Struct("<IIIBB")
"""
When it ends, when it began, the low half of another key, how often the thing was blocked, the rule. What it is in words
stands behind.
"""

_LOW = 0xFFFFFFFF
_MOST_LEVEL = 32
_SLACK = 2
"""Seconds by which two gateways may know the end of a block differently, as each rounds it."""

_RULES = (Rule.PAIR_BLOCK, Rule.ADDRESS_BLOCK, Rule.USER_REFUSE)
_REASONS = {
    Rule.PAIR_BLOCK: "failed logins of this user at this address",
    Rule.ADDRESS_BLOCK: "failed logins at this address",
    Rule.USER_REFUSE: "failed logins of this user from unknown networks",
}
_LONGEST = 120


class Blocks:
    """
    What rules have blocked, by key.

    @param memory: bytes for all rows.
    """

    def __init__(self, memory: int) -> None:
        self.table = Table(memory)

    def until(self, key: int, now: float) -> float:
        """
        Return when a block ends; 0 if none holds.

        @param key: that of the pair, the address or the user.
        @param now: the time in seconds.
        """
        row = self.table.rows.get(key)
        if row is None:
            return 0.0
        until = float(_ROW.unpack_from(row)[0])
        return until if until > now else 0.0

    def add(self, key: int, other: int, rule: Rule, times: tuple[float, float], thing: str, now: float) -> float:
        """
        Block, unless it is blocked.

        @param key: that of the pair, the address or the user.
        @param other: by which key it can be found, too: that of the user of a pair, or of the network of an address.
        @param rule: which rule blocks: R2, R4 or R7.
        @param times: for how many seconds the first time, and at most.
        @param thing: what is blocked, in words.
        @param now: the time in seconds.
        @return: for how many seconds it is blocked from now on; 0 if it was blocked before.
        """
        row = self.table.rows.get(key)
        first, most = times
        level = 0
        if row is not None:
            until, _, _, level, _ = _ROW.unpack_from(row)
            if until > now:
                return 0.0
            level >>= int((now - until) // DAY)
        highest = 1 + max(0, ceil(log2(max(1.0, most / max(1.0, first)))))
        level = min(level + 1, highest, _MOST_LEVEL)
        seconds: float = max(1.0, min(most, first * (1 << level - 1)))
        head = _ROW.pack(ceil(now + seconds), int(now), other & _LOW, level, _RULES.index(rule))
        self.table.put(key, head + thing.encode("utf-8", "replace")[:_LONGEST])
        return seconds

    def raiseTo(self, key: int, other: int, rule: Rule, seconds: float, count: int, thing: str, now: float) -> bool:
        """
        Another gateway has blocked something.

        @param key: as for L{add}.
        @param other: as for L{add}.
        @param rule: as for L{add}.
        @param seconds: until it ends; below 0 if it has ended.
        @param count: how often it was blocked.
        @param thing: as for L{add}; empty if it is not known.
        @param now: the time in seconds.
        @return: whether this was not known here.
        """
        until, since, level = max(1, ceil(now + seconds)), int(now), max(1, min(count, _MOST_LEVEL))
        row = self.table.rows.get(key)
        words = thing.encode("utf-8", "replace")[:_LONGEST]
        if row is not None:
            before, began, _, known, _ = _ROW.unpack_from(row)
            if until <= before + _SLACK and level <= known and (len(row) > _ROW.size or not words):
                return False
            words = words or row[_ROW.size :]
            until, level = max(until, before), max(level, known)
            since = began if before > now else since
        head = _ROW.pack(until, min(since, until), other & _LOW, level, _RULES.index(rule))
        self.table.put(key, head + words)
        return True

    def words(self, key: int) -> str:
        """Return what a block is of, in words; empty if that is not known. C{key} is that of L{add}."""
        return self.table.rows.get(key, b"")[_ROW.size :].decode("utf-8", "replace")

    def levelOf(self, key: int) -> int:
        """Return how often a thing that is in the table was blocked. C{key} is that of L{add}."""
        return int(_ROW.unpack_from(self.table.rows[key])[3])

    def drop(self, key: int) -> None:
        """End the block of C{key}, and forget how often there was one."""
        self.table.drop(key)

    def items(self, now: float) -> Iterator[tuple[int, Block]]:
        """
        Yield the blocks that hold, with their keys.

        @param now: the time in seconds. The times of the blocks are in the same.
        """
        for key, row in self.table.rows.items():
            until, since, _, level, rule = _ROW.unpack_from(row)
            if until > now:
                thing = row[_ROW.size :].decode("utf-8", "replace") or f"{key:015x}"
                yield key, Block(f"r{key:x}", thing, _RULES[rule], since, until, _REASONS[_RULES[rule]], level)

    def other(self, key: int) -> int:
        """Return the low half of the other key of a block that is there. C{key} is that of L{add}."""
        return int(_ROW.unpack_from(self.table.rows[key])[2])

    def kept(self, row: bytes, now: float) -> bytes:
        """
        Return what a later process needs of a row: no words, and nothing if it neither holds nor makes the next block
        longer.

        @param row: the row.
        @param now: the time in seconds.
        """
        until, _, _, level, _ = _ROW.unpack_from(row)
        return row[: _ROW.size] if until > now or level >> int((now - until) // DAY) else b""

    def adopt(self, key: int, row: bytes) -> None:
        """
        Take over a row of an earlier process.

        @param key: that of L{add}.
        @param row: that of L{kept}; of a handover, with words.
        @raise ValueError: it is too short, or its rule is unknown.
        """
        if len(row) < _ROW.size or _ROW.unpack_from(row)[4] >= len(_RULES):
            raise ValueError("a block is damaged")
        self.table.put(key, row)
