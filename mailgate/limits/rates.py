# -*- test-case-name: mailgate.test.limits.test_rates -*-
"""
Leaky buckets, by key: nginx's C{limit_req}. A bucket is one number, the time at which the next event would be in time
if none came too early (the theoretical arrival time of GCRA, ITU-T I.371). It needs no cleaning: a time in the past is
an empty bucket.
"""

from __future__ import annotations

from math import inf

from mailgate.limits.cells import Cells
from mailgate.limits.interfaces import IBucket
from mailgate.limits.table import dropOldest

__all__ = ["Bucket", "LocalRates", "SharedRates", "earliness", "take"]

_MOST_KEYS = 13000
"""
Keys that one process remembers, in about 3 MiB. The oldest are forgotten first, many at once: of a flood from many
addresses each new one would pay for a walk over the gaps that the ones before it have left.
"""

_INEXACT = 1e-6
"""By which part of an interval an event may be earlier than allowed: sums of floats are not exact."""


def earliness(interval: float, burst: int) -> float:
    """
    Return by how many seconds an event may be too early.

    @param interval: seconds between two events at the rate.
    @param burst: how many may come too early.
    """
    return (burst + _INEXACT) * interval


def take(bucket: IBucket, interval: float, most: float, now: float) -> bool:
    """
    Count an event, unless it is too early.

    @param bucket: that of its key.
    @param interval: seconds between two events at the rate.
    @param most: by how many seconds it may be too early: L{earliness}.
    @param now: the monotonic time in seconds, the same clock in all workers.
    @return: whether it is counted.
    """
    due = bucket.due
    if due < now:
        due = now
    elif due - now > most:
        return False
    bucket.due = due + interval
    return True


class Bucket:
    """A bucket (L{mailgate.limits.interfaces.IBucket}) of one process."""

    __slots__ = ("due",)

    def __init__(self) -> None:
        self.due = -inf


class LocalRates:
    """The buckets of one process (L{mailgate.limits.interfaces.IRates})."""

    def __init__(self) -> None:
        self._buckets: dict[bytes, Bucket] = {}

    def at(self, key: bytes) -> Bucket:
        """Return the bucket of a key. C{key} is any bytes."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _MOST_KEYS:
                dropOldest(self._buckets)
            bucket = self._buckets[key] = Bucket()
        return bucket


class SharedRates:
    """
    The buckets of all workers (L{mailgate.limits.interfaces.IRates}).

    @param table: the cells: the times in seconds, as C{d}.
    @param cells: the places of keys.
    """

    def __init__(self, table: memoryview[float], cells: Cells) -> None:
        self._table = table
        self._cellsOf = cells.of

    def at(self, key: bytes) -> _SharedBucket:
        """Return the bucket of a key. C{key} is any bytes."""
        return _SharedBucket(self._table, *self._cellsOf(key))


class _SharedBucket:
    """
    Each key has two cells, and the earlier time counts. A cell is never set to an earlier time: the later one is that
    of another key. Two workers that write the same cell at the same moment may lose one of the two events.
    """

    __slots__ = ("_first", "_second", "_table")

    def __init__(self, table: memoryview[float], first: int, second: int) -> None:
        self._table = table
        self._first, self._second = first, second

    @property
    def due(self) -> float:
        """The time at which the next event would be in time."""
        one, other = self._table[self._first], self._table[self._second]
        return one if one < other else other

    @due.setter
    def due(self, due: float) -> None:
        table = self._table
        for cell in (self._first, self._second):
            if table[cell] < due:
                table[cell] = due
