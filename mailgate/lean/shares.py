# -*- test-case-name: mailgate.test.lean.test_shares -*-
"""
How several workers share the newcomers of one socket.

The system wakes all that wait for a socket, and the same one is first again and again; left alone, it would end up with
nearly everybody. So each worker writes down how many connections it has, where the others see it, and who has more than
the others leaves newcomers to them for a moment.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from twisted.application.internet import TimerService
from twisted.internet.interfaces import IReactorTime

__all__ = ["PAUSE", "Share", "Shares"]

PAUSE = 0.002
"""Seconds that newcomers are left to others. If nobody had the time for them, they are let in after that."""

REFRESH = 0.5
"""Seconds after which a worker says how many it has though nobody has come."""

_SLACK = 2
_ABSENT = 0xFFFFFFFF
_SIZE = 4


class Shares:
    """Room for what C{count} workers have; made before they are forked."""

    def __init__(self, count: int) -> None:
        self._table = memoryview(mmap.mmap(-1, count * _SIZE)).cast("I")
        for slot in range(count):
            self.clear(slot)

    def clear(self, slot: int) -> None:
        """There is no worker C{slot}."""
        self._table[slot] = _ABSENT

    def of(self, slot: int) -> Share:
        """That of worker C{slot}."""
        return Share(self._table, slot)


class Share:
    """What one worker has. C{count()} gives its connections."""

    count: Callable[[], int]

    def __init__(self, table: memoryview, slot: int) -> None:
        self._table = table
        self._slot = slot
        self.count = lambda: 0

    @property
    def isFirst(self) -> bool:
        """Whether this is the worker that tells, of all of them, what concerns all."""
        return self._slot == 0

    def refresh(self) -> None:
        """Tell the others."""
        self._table[self._slot] = self.count()

    def refreshing(self, clock: IReactorTime) -> TimerService:
        """A service that does so from time to time."""
        timer = TimerService(REFRESH, self.refresh)
        timer.clock = clock
        return timer

    def isLarge(self) -> bool:
        """Whether newcomers should rather go to others."""
        own = self.count()
        self._table[self._slot] = own
        least = min(self._table)
        return own > least + _SLACK + least // 8
