# -*- test-case-name: mailgate.test.limits.test_sharedtables -*-
"""
The memory in which workers count connections and rates together.

The master makes it, and passes it on to each zygote as it does listening sockets. So the workers of before and after a
reload share it. Each worker has a column of the counts for itself. Pages take memory only once they are written: a
server with few clients needs few.
"""

from __future__ import annotations

import mmap
import os
import secrets
import struct

from mailgate.limits.cells import CELLS, SALT_BYTES, Cells
from mailgate.limits.counts import Column, Counts
from mailgate.limits.rates import SharedRates
from mailgate.system.namelessfile import namelessFile

__all__ = ["COLUMNS", "SharedTables", "columnsFor"]

COLUMNS = 8
"""How many columns there are at least."""

_HEADER = struct.Struct(f"I{SALT_BYTES}s")
"""The number of columns, and the key of the hash."""

_START = 65536
"""Where the counts begin: a whole number of pages, also where those are large."""

_CHUNK = 65536
_PAGE = 4096
_NOTHING = bytes(_CHUNK)

_FOREIGN = "the memory for limits has another form than that of this release"


def columnsFor(workers: int) -> int:
    """
    Return how many columns to make: enough for three generations side by side, and for at least L{COLUMNS} workers.

    @param workers: how many workers a generation has.
    """
    return max(COLUMNS, 3 * workers)


class SharedTables:
    """
    The tables.

    @param descriptor: the file. It stays the caller's, and must stay open.
    @ivar columns: how many columns the counts have.
    @ivar descriptor: as the argument.
    @raise ValueError: the file is no such memory.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        size = os.fstat(descriptor).st_size
        if size < _START:
            raise ValueError(_FOREIGN)
        self._memory = mmap.mmap(descriptor, size)
        self.columns, salt = _HEADER.unpack_from(self._memory)
        if size != _sizeFor(self.columns):
            raise ValueError(_FOREIGN)
        self._cells = Cells(salt)
        self._counts = memoryview(self._memory)[_START : _START + _countsSize(self.columns)].cast("H")
        self._rates = memoryview(self._memory)[_START + _countsSize(self.columns) :].cast("d")

    @classmethod
    def made(cls, workers: int) -> SharedTables:
        """
        Make the memory. Its C{descriptor} is the caller's.

        @param workers: how many workers a generation has.
        @raise OSError: the system makes no memory.
        """
        columns = columnsFor(workers)
        descriptor = namelessFile("mailgate-limits", _sizeFor(columns))
        try:
            os.pwrite(descriptor, _HEADER.pack(columns, secrets.token_bytes(SALT_BYTES)), 0)
            return cls(descriptor)
        except OSError:
            os.close(descriptor)
            raise

    def counts(self, column: int | None) -> Counts:
        """
        Return the counts for one worker.

        @param column: its column; L{None} if none was free. It counts for itself alone then.
        """
        if column is None or column >= self.columns:
            return Counts()
        return Counts(Column(self._counts, self._cells, self.columns, column))

    def rates(self) -> SharedRates:
        """Return the rates, which all workers write."""
        return SharedRates(self._rates, self._cells)

    def clear(self, column: int) -> None:
        """
        Set all numbers of a column to 0, when its worker has exited. Pages that nobody has written stay without memory.

        @param column: the column.
        """
        length = _countsSize(self.columns)
        for start in range(0, length, _CHUNK):
            # Reading a mapped page would give it memory; reading the file does not.
            chunk = os.pread(self.descriptor, min(_CHUNK, length - start), _START + start)
            if chunk != _NOTHING[: len(chunk)]:
                for within in range(0, len(chunk), _PAGE):
                    page = chunk[within : within + _PAGE]
                    if page != _NOTHING[: len(page)]:
                        self._clear(column, (start + within) // 2, len(page) // 2)

    def _clear(self, column: int, first: int, count: int) -> None:
        """Set the numbers of a column to 0 among C{count} numbers from C{first} on."""
        table, columns = self._counts, self.columns
        for place in range(first + (column - first) % columns, first + count, columns):
            if table[place]:
                table[place] = 0

    def close(self) -> None:
        """Give the memory back. What L{counts} and L{rates} have returned no longer works."""
        self._counts.release()
        self._rates.release()
        self._memory.close()


def _countsSize(columns: int) -> int:
    return 2 * CELLS * columns * 2


def _sizeFor(columns: int) -> int:
    return _START + _countsSize(columns) + 2 * CELLS * 8
