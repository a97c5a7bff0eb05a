# -*- test-case-name: mailgate.test.limits.test_rates -*-
"""
Leaky buckets, by key: nginx's C{limit_req}. A bucket is one number, the time at which the next event would be in time
if none came too early (the theoretical arrival time of GCRA, ITU-T I.371). It needs no cleaning: a time in the past is
an empty bucket.
"""

from __future__ import annotations

from mailgate.limits.cells import Cells

__all__ = ["LocalRates", "SharedRates"]

_MOST_KEYS = 16384
"""Keys that one process remembers, in about 3 MiB. The oldest is forgotten first."""

_INEXACT = 1e-6
"""By which part of an interval an event may be earlier than allowed: sums of floats are not exact."""


class LocalRates:
    """The buckets of one process (L{mailgate.limits.interfaces.IRates})."""

    def __init__(self) -> None:
        self._due: dict[bytes, float] = {}

    def take(self, key: bytes, interval: float, burst: int, now: float) -> bool:
        due = self._due.get(key)
        if due is None:
            if len(self._due) >= _MOST_KEYS:
                del self._due[next(iter(self._due))]
            due = now
        elif due < now:
            due = now
        if due - now > (burst + _INEXACT) * interval:
            return False
        self._due[key] = due + interval
        return True

    def early(self, key: bytes, now: float) -> float:
        return self._due.get(key, now) - now


class SharedRates:
    """
    The buckets of all workers (L{mailgate.limits.interfaces.IRates}).

    Each key has two cells, and the earlier time counts. A cell is never set to an earlier time. Two workers that write
    the same cell at the same moment may lose one of the two events.

    @param table: the cells: the times in seconds, as C{d}.
    @param cells: the places of keys.
    """

    def __init__(self, table: memoryview[float], cells: Cells) -> None:
        self._table = table
        self._cellsOf, self._knownCells = cells.of, cells.known

    def take(self, key: bytes, interval: float, burst: int, now: float) -> bool:
        table = self._table
        first, second = self._knownCells(key) or self._cellsOf(key)
        one, other = table[first], table[second]
        due = one if one < other else other
        if due < now:
            due = now
        if due - now > (burst + _INEXACT) * interval:
            return False
        due += interval
        # No earlier time: the later one is that of another key.
        if one < due:
            table[first] = due
        if other < due:
            table[second] = due
        return True

    def early(self, key: bytes, now: float) -> float:
        first, second = self._knownCells(key) or self._cellsOf(key)
        one, other = self._table[first], self._table[second]
        return (one if one < other else other) - now
