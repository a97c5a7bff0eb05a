# -*- test-case-name: mailgate.test.lean.test_shares -*-
"""
Distributes new connections among the workers that accept from one socket.

The system wakes all workers that wait for a socket, and usually the same one is first. That worker would get nearly all
connections. So each worker publishes its number of connections in shared memory, and a worker that has more than the
others leaves new connections to them for a moment.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime

__all__ = ["PAUSE", "Share", "Shares"]

PAUSE = 0.002
"""
The seconds for which a worker leaves new connections to the others. If they were too busy, it accepts them after that.
"""

REFRESH = 0.5
"""The seconds between updates of a worker's number of connections while no client connects."""

_SLACK = 2
_ABSENT = 0xFFFFFFFF
_SIZE = 4


class Shares:
    """Shared memory for the number of connections of each worker."""

    def __init__(self, count: int) -> None:
        """
        Allocate it. Call this before the workers are forked.

        @param count: the number of workers.
        """
        self._table = memoryview(mmap.mmap(-1, count * _SIZE)).cast("I")
        for slot in range(count):
            self.clear(slot)

    def clear(self, slot: int) -> None:
        """Mark worker C{slot} as absent."""
        self._table[slot] = _ABSENT

    def of(self, slot: int) -> Share:
        """The entry of worker C{slot}."""
        return Share(self._table, slot)


class Share:
    """
    The entry of one worker.

    @ivar count: returns the worker's number of connections.
    """

    count: Callable[[], int]

    def __init__(self, table: memoryview, slot: int) -> None:
        """
        @param table: the shared memory.
        @param slot: the index of the worker.
        """
        self._table = table
        self._slot = slot
        self.count = lambda: 0

    @property
    def isFirst(self) -> bool:
        """Whether this worker logs what concerns all workers, so that only one does."""
        return self._slot == 0

    def refresh(self) -> None:
        """Publish the number of connections."""
        self._table[self._slot] = self.count()

    def refreshing(self, clock: IReactorTime) -> TimerService:
        """A service that calls L{refresh} periodically, by C{clock}."""
        timer = TimerService(REFRESH, self.refresh)
        timer.clock = clock
        return timer

    def isLarge(self) -> bool:
        """Whether this worker has clearly more connections than another."""
        own = self.count()
        self._table[self._slot] = own
        least = min(self._table)
        return own > least + _SLACK + least // 8
