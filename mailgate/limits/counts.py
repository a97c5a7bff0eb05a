# -*- test-case-name: mailgate.test.limits.test_counts -*-
"""
Counts of what is there now, by key: connections and sessions. In one process they are exact. Workers show each other
theirs in shared memory.
"""

from __future__ import annotations

from mailgate.limits.cells import Cells

__all__ = ["Column", "Count", "Counts"]

_BITS = 16
_MOST = (1 << _BITS) - 1
"""What a cell of a column can hold."""


class Count:
    """
    The count of one key in this process, for a key that nearly each connection changes.

    @ivar count: the number.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Counts:
    """
    The counts of one process. What has none takes no memory, so that there are at most as many as connections.

    What changes a number here must also show it to the other workers (L{Column.show}).

    @param column: where other workers see the counts; L{None} if there are no others.
    @ivar column: as the argument.
    @ivar numbers: how many connections there are, by key; to be read and written. None is 0.
    """

    def __init__(self, column: Column | None = None) -> None:
        self.column = column
        self.numbers: dict[bytes, int] = {}
        self._counters: dict[bytes, Count] = {}
        self._sessions: dict[str, dict[bytes, list[str]]] = {}

    def counter(self, key: bytes) -> Count:
        """Return the count of a key. It is the same object for all who ask for it. C{key} is any bytes."""
        return self._counters.setdefault(key, Count())

    def sessionsOf(self, server: str) -> dict[bytes, list[str]]:
        """
        Return the sessions of a server: for each user the names of the clients, as C{client} of
        L{mailgate.session.Session}; to be read and written. No list is empty.

        @param server: its name.
        """
        return self._sessions.setdefault(server, {})

    def total(self, key: bytes, own: int) -> int:
        """
        Return how many there are in all workers: never too few. A key may read more only by what a stranger with the
        same cells has.

        @param key: any bytes.
        @param own: how many there are in this process.
        """
        return own if self.column is None else own + self.column.others(key)


class Column:
    """
    What a worker shows of its counts, and sees of those of others.

    A cell has a 16-bit number for each worker, its column. A column has one writer, so no update is lost and there is
    no lock. What the others have is the smaller of the two sums over their columns.

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
        # What is above _MOST, by the place of the number. Only a column with that many connections has any.
        self._above: dict[int, int] = {}

    def others(self, key: bytes) -> int:
        """Return how many the other workers have. C{key} is any bytes."""
        first, second = self._knownCells(key) or self._cellsOf(key)
        # What the second look costs is saved nearly always.
        return self._othersIn(first) and min(self._othersIn(first), self._othersIn(second))

    def _othersIn(self, cell: int) -> int:
        start = cell * self._columns
        numbers = self._table[start : start + self._columns]
        # Few cells have clients of several workers. To compare takes a third of the time.
        return 0 if numbers == self._empty else sum(numbers) - self._table[start + self._column]

    def show(self, key: bytes, change: int) -> None:
        """
        Show that this worker has one more or one less.

        @param key: any bytes.
        @param change: 1 or -1.
        """
        columns, column, table = self._columns, self._column, self._table
        first, second = self._knownCells(key) or self._cellsOf(key)
        here, there = first * columns + column, second * columns + column
        one, other = table[here] + change, table[there] + change
        if not (one | other) >> _BITS and not self._above:
            # Nearly always: both are from 0 to _MOST.
            table[here] = one
            table[there] = other
        else:
            self._set(here, one, change)
            self._set(there, other, change)

    def _set(self, place: int, number: int, change: int) -> None:
        above = self._above.get(place, 0)
        if above or number > _MOST:
            self._above[place] = above + change
            if not self._above[place]:
                del self._above[place]
        elif number >= 0:
            # It is below if the column was zeroed because this worker was thought dead.
            self._table[place] = number
