# -*- test-case-name: mailgate.test.store.test_expiring -*-
"""
Values that end, within a bound.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Generic, TypeVar

__all__ = ["Expiring"]

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

_SHARE = 16
"""When there are too many, this part of them goes at once, the oldest first."""


class Expiring(Generic[_Key, _Value]):
    """
    Values by key, each until a moment.

    @param most: how many there are at most. Those go first that were not written for the longest time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: dict[_Key, tuple[float, _Value]] = {}

    def __len__(self) -> int:
        """How many values are kept, with those that have ended since the last look."""
        return len(self._rows)

    def get(self, key: _Key, now: float) -> _Value | None:
        """
        Return a value; L{None} if there is none, or it has ended.

        @param key: its key.
        @param now: the time in seconds.
        """
        row = self._rows.get(key)
        if row is None:
            return None
        if row[0] <= now:
            del self._rows[key]
            return None
        return row[1]

    def left(self, key: _Key, now: float) -> float:
        """Return after how many seconds a value ends; 0 without. C{key} and C{now} as for L{get}."""
        row = self._rows.get(key)
        return 0.0 if row is None else max(0.0, row[0] - now)

    def put(self, key: _Key, value: _Value, until: float, now: float) -> None:
        """
        Write a value.

        @param key: its key.
        @param value: the value.
        @param until: when it ends.
        @param now: the time in seconds.
        """
        rows = self._rows
        rows.pop(key, None)
        if until <= now:
            return
        if len(rows) >= self._most:
            self._shrink(now)
        rows[key] = until, value

    def drop(self, key: _Key) -> None:
        """Remove the value of C{key}, if there is one."""
        self._rows.pop(key, None)

    def items(self, now: float) -> Iterator[tuple[_Key, _Value, float]]:
        """Yield the keys, the values and when they end. Nothing may be written meanwhile. C{now} as for L{get}."""
        return ((key, value, until) for key, (until, value) in self._rows.items() if until > now)

    def _shrink(self, now: float) -> None:
        rows = self._rows
        for key in [key for key, (until, _) in rows.items() if until <= now]:
            del rows[key]
        if len(rows) >= self._most:
            for key in [*islice(rows, len(rows) // _SHARE + 1)]:
                del rows[key]
