# -*- test-case-name: mailgate.test.process.workers.test_tables -*-
"""
The master's side of the memory in which workers count connections together: it gives each worker a column.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence

from twisted.logger import Logger

from mailgate.limits.sharedtables import SharedTables

__all__ = ["TABLES", "Tables"]

TABLES = "limits"
"""The name of the memory among the descriptors of a zygote. No address of C{listen} can be called so."""


class Tables:
    """
    The memory, and which of its columns are free. Each worker has one from before its fork until after its exit. All
    generations share the memory, so that a reload keeps the counts.

    @ivar descriptors: the descriptor of the memory by its name, to hand it to zygotes. Empty before L{open}, and if the
        system has made none: then each worker counts for itself.
    """

    _log = Logger("mailgate")

    def __init__(self) -> None:
        self.descriptors: dict[str, int] = {}
        self._memory: SharedTables | None = None
        self._free: list[int] = []
        self._given: dict[Hashable, dict[int, int]] = {}

    def open(self, workers: int) -> None:
        """
        Make the memory.

        @param workers: how many workers a generation has.
        """
        try:
            self._memory = SharedTables.made(workers)
        except OSError as error:
            self._log.warn(
                "each worker counts connections for limits alone, because there is no shared memory: {reason}",
                reason=os.strerror(error.errno or 0),
            )
            return
        self.descriptors = {TABLES: self._memory.descriptor}
        self._free = list(range(self._memory.columns))

    def lease(self, workers: int) -> tuple[int, ...]:
        """
        Return columns for the workers of a new generation. There are too few if many workers of earlier generations
        still have sessions. The last workers then count for themselves.

        @param workers: how many workers it has.
        """
        columns, self._free = tuple(self._free[:workers]), self._free[workers:]
        if self._memory is not None and len(columns) < workers:
            self._log.warn(
                "{count} new workers count connections for limits alone, because many workers of earlier"
                " configurations still have sessions",
                count=workers - len(columns),
            )
        return columns

    def give(self, generation: Hashable, columns: Sequence[int]) -> None:
        """
        Note whose columns these are.

        @param generation: the generation.
        @param columns: those of its workers, by their numbers.
        """
        self._given[generation] = dict(enumerate(columns))

    def take(self, generation: Hashable, number: int) -> int | None:
        """
        Take back the column of a worker, which is not free yet.

        @param generation: its generation.
        @param number: its number.
        @return: L{None} if it has none.
        """
        return self._given.get(generation, {}).pop(number, None)

    def free(self, generation: Hashable, number: int) -> None:
        """
        A worker has exited that will not be replaced. Its zygote has cleared its column.

        @param generation: its generation.
        @param number: its number.
        """
        column = self.take(generation, number)
        if column is not None:
            self._free.append(column)

    def freeAll(self, generation: Hashable) -> None:
        """The C{generation} has ended, with all workers whose columns were not taken."""
        self._free += self._given.pop(generation, {}).values()

    def clear(self, column: int | None, isFree: bool = True) -> None:
        """
        Clear a column that was taken from a worker whose zygote had died.

        @param column: the column; L{None} for none.
        @param isFree: whether the worker has exited. Otherwise no other gets the column.
        """
        if column is None or self._memory is None:
            return
        self._memory.clear(column)
        if isFree:
            self._free.append(column)

    def close(self) -> None:
        """Close the memory in this process. Workers keep theirs."""
        memory, self._memory = self._memory, None
        self.descriptors = {}
        self._free = []
        if memory is not None:
            memory.close()
            os.close(memory.descriptor)
