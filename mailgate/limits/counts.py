# -*- test-case-name: mailgate.test.limits.test_counts -*-
"""
Counts of what is there now, by key: connections and sessions. In one process they are exact; workers have theirs in
shared memory.
"""

from __future__ import annotations

from math import inf

from mailgate.limits.cells import Cells
from mailgate.limits.interfaces import ICounter

__all__ = ["LocalCounts", "SharedCounts"]

_MOST = 0xFFFF
"""What a cell of a column can hold."""

_STALE = 0.01
"""Seconds after which a counter looks again at what the other workers have."""


class LocalCounts:
    """
    The counts of one process (L{mailgate.limits.interfaces.ICounts}). A key whose count is 0 takes no memory, so that
    there are at most as many as the connections' keys.
    """

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}
        self._counters: dict[bytes, _LocalCounter] = {}

    def add(self, key: bytes, most: int | None = None) -> bool:
        count = self._counts.get(key, 0)
        if most is not None and count >= most:
            return False
        self._counts[key] = count + 1
        return True

    def drop(self, key: bytes) -> None:
        count = self._counts.get(key, 0)
        if count > 1:
            self._counts[key] = count - 1
        elif count:
            del self._counts[key]

    def of(self, key: bytes) -> int:
        return self._counts.get(key, 0)

    def counter(self, key: bytes) -> ICounter:
        if key not in self._counters:
            self._counters[key] = _LocalCounter()
        return self._counters[key]


class _LocalCounter:
    """The count of one key in one process (L{mailgate.limits.interfaces.ICounter})."""

    __slots__ = ("_count",)

    def __init__(self) -> None:
        self._count = 0

    def up(self) -> None:
        self._count += 1

    def down(self) -> None:
        self._count -= 1

    def total(self, now: float) -> int:
        return self._count


class SharedCounts:
    """
    The counts of all workers (L{mailgate.limits.interfaces.ICounts}).

    A cell has a 16-bit number for each worker, its column. A column has one writer, so no update is lost and there is
    no lock. A count is what this worker knows exactly, and the smaller sum over the columns of the others.

    @param table: the cells: for each the numbers of all columns, as C{H}.
    @param cells: the places of keys.
    @param columns: how many columns there are.
    @param column: that of this worker. All its numbers are 0.
    """

    def __init__(self, table: memoryview, cells: Cells, columns: int, column: int) -> None:
        self._table = table
        self._cellsOf, self._knownCells = cells.of, cells.known
        self._columns = columns
        self._column = column
        self._empty = memoryview(bytes(2 * columns)).cast("H")
        self._own: dict[bytes, int] = {}
        # What is above _MOST, by the place of the number. Only a column with that many connections has any.
        self._above: dict[int, int] = {}
        self._counters: dict[bytes, _SharedCounter] = {}

    def add(self, key: bytes, most: int | None = None) -> bool:
        own, columns, column, table = self._own.get(key, 0), self._columns, self._column, self._table
        first, second = self._knownCells(key) or self._cellsOf(key)
        start = first * columns
        here, there = start + column, second * columns + column
        # What a look at the others costs is saved nearly always: the first cell is empty.
        if most is not None and (
            own >= most
            or (
                table[start : start + columns] != self._empty
                and own + self._others(here) >= most
                and own + self._others(there) >= most
            )
        ):
            return False
        self._own[key] = own + 1
        one, other = table[here], table[there]
        if one < _MOST and other < _MOST:
            table[here] = one + 1
            table[there] = other + 1
        else:
            self._change(here, there, 1)
        return True

    def drop(self, key: bytes) -> None:
        own = self._own.get(key, 0)
        if not own:
            return
        if own > 1:
            self._own[key] = own - 1
        else:
            del self._own[key]
        first, second = self._knownCells(key) or self._cellsOf(key)
        columns, column, table = self._columns, self._column, self._table
        here, there = first * columns + column, second * columns + column
        one, other = table[here], table[there]
        if one and other and not self._above:
            table[here] = one - 1
            table[there] = other - 1
        else:
            self._change(here, there, -1)

    def of(self, key: bytes) -> int:
        others = min(self._others(cell * self._columns + self._column) for cell in self._cellsOf(key))
        return self._own.get(key, 0) + others

    def counter(self, key: bytes) -> ICounter:
        if key not in self._counters:
            here, there = (cell * self._columns + self._column for cell in self._cellsOf(key))
            self._counters[key] = _SharedCounter(self, here, there)
        return self._counters[key]

    def _others(self, place: int) -> int:
        """Return the sum over the other columns of the cell in which this worker's number is at C{place}."""
        start, table = place - self._column, self._table
        numbers = table[start : start + self._columns]
        # Few cells have clients of several workers. To compare takes a third of the time.
        return 0 if numbers == self._empty else sum(numbers) - table[place]

    def _change(self, here: int, there: int, change: int) -> None:
        """Add 1 or -1 to two numbers of this worker's column. L{add} and others do it themselves where it is simple."""
        for place in (here, there):
            number, above = self._table[place] + change, self._above.get(place, 0)
            if above or number > _MOST:
                self._above[place] = above + change
                if not self._above[place]:
                    del self._above[place]
            elif number >= 0:
                # It is below if the column was zeroed because this worker was thought dead.
                self._table[place] = number


class _SharedCounter:
    """The count of one key over all workers (L{mailgate.limits.interfaces.ICounter})."""

    __slots__ = ("_counts", "_here", "_others", "_own", "_seen", "_table", "_there")

    def __init__(self, counts: SharedCounts, here: int, there: int) -> None:
        self._counts = counts
        self._table = counts._table
        self._here, self._there = here, there
        self._own = self._others = 0
        self._seen = -inf

    def up(self) -> None:
        self._own += 1
        table, here, there = self._table, self._here, self._there
        one, other = table[here], table[there]
        if one < _MOST and other < _MOST:
            table[here] = one + 1
            table[there] = other + 1
        else:
            self._counts._change(here, there, 1)

    def down(self) -> None:
        self._own -= 1
        table, here, there = self._table, self._here, self._there
        one, other = table[here], table[there]
        if one and other and not self._counts._above:
            table[here] = one - 1
            table[there] = other - 1
        else:
            self._counts._change(here, there, -1)

    def total(self, now: float) -> int:
        if now - self._seen >= _STALE:
            self._seen = now
            self._others = min(self._counts._others(self._here), self._counts._others(self._there))
        return self._own + self._others
