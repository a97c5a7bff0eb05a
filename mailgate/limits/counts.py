# -*- test-case-name: mailgate.test.limits.test_counts -*-
"""
Counts of what is there now, by key: connections and sessions. In one process they are exact; workers have theirs in
shared memory.
"""

from __future__ import annotations

from mailgate.limits.cells import Cells

__all__ = ["LocalCounts", "SharedCounts"]

_MOST = 0xFFFF
"""What a cell of a column can hold."""


class LocalCounts:
    """
    The counts of one process (L{mailgate.limits.interfaces.ICounts}). A key whose count is 0 takes no memory, so that
    there are at most as many as the connections' keys.
    """

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}

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
        self._cellsOf = cells.of
        self._columns = columns
        self._column = column
        self._own: dict[bytes, int] = {}
        # What is above _MOST, by the place of the number. Only a column with that many connections has any.
        self._above: dict[int, int] = {}

    def add(self, key: bytes, most: int | None = None) -> bool:
        own, table, columns, column = self._own.get(key, 0), self._table, self._columns, self._column
        first, second = self._cellsOf(key)
        here, there = first * columns + column, second * columns + column
        if most is not None and own + self._others(here) >= most and own + self._others(there) >= most:
            return False
        self._own[key] = own + 1
        for place in (here, there):
            number = table[place]
            if number < _MOST:
                table[place] = number + 1
            else:
                self._above[place] = self._above.get(place, 0) + 1
        return True

    def _others(self, place: int) -> int:
        """Return the sum over the other columns of the cell in which this worker's number is at C{place}."""
        start, table = place - self._column, self._table
        return sum(table[start : start + self._columns]) - table[place]

    def drop(self, key: bytes) -> None:
        own = self._own.get(key, 0)
        if not own:
            return
        if own > 1:
            self._own[key] = own - 1
        else:
            del self._own[key]
        table = self._table
        for cell in self._cellsOf(key):
            place = cell * self._columns + self._column
            if self._above and place in self._above:
                self._above[place] -= 1
                if not self._above[place]:
                    del self._above[place]
            elif table[place]:
                # It is 0 if the column was zeroed because this worker was thought dead.
                table[place] -= 1

    def of(self, key: bytes) -> int:
        others = min(self._others(cell * self._columns + self._column) for cell in self._cellsOf(key))
        return self._own.get(key, 0) + others
