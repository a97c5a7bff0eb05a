# -*- test-case-name: mailgate.test.keeper.test_memory -*-
"""
Memory that outlives the keeper: the master makes it and passes it on to each zygote, and to the new process of an
upgrade. So the next keeper finds what the last one has written, also if the zygote dies with it.

It has a part for the state of the keeper, and behind it one for the tables of limits.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Generator
from typing import Any, Protocol

from twisted.application.internet import TimerService
from twisted.application.service import MultiService
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.limitstate import MOST_TABLES
from mailgate.keeper.state import MOST_STATE
from mailgate.limits.interfaces import IDefence
from mailgate.limits.turns import Repeating
from mailgate.system.namelessfile import namelessFile

__all__ = [
    "INTERVAL",
    "LIMITS_INTERVAL",
    "MOST_LIMITS",
    "IMemory",
    "LimitSaving",
    "Memory",
    "Saving",
    "limitsPart",
    "newFile",
]

INTERVAL = 1.0
"""Seconds between two writes."""

LIMITS_INTERVAL = 5.0
"""Seconds between two writes of the tables of limits. A keeper that is killed forgets the failures since then."""

MOST_LIMITS = MOST_TABLES
"""Bytes of the tables of limits. Only what is written takes memory."""

_IDLE = 200
"""Large tables are written so seldom that the keeper does something else for this part of the time."""

_HEADER = struct.Struct("QIII")
"""The number of the write, the length, the checksum of the content, and that of these three."""

_log = Logger("mailgate")


def newFile(largest: int = MOST_STATE) -> int:
    """
    Return the descriptor of a new file without a name, for a L{Memory}. The caller closes it.

    @param largest: bytes of the longest content.
    @raise OSError: the system makes no file.
    """
    return namelessFile("mailgate-keeper", _size(largest))


def limitsPart(descriptor: int) -> Memory:
    """
    Return the part of a file for the tables of limits. A file that has none, such as one of an earlier release, grows.

    @param descriptor: a file of L{newFile} for the state of a keeper.
    @raise OSError: it cannot be mapped, or cannot grow.
    """
    start = -(-_size(MOST_STATE) // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
    end = start + _size(MOST_LIMITS)
    if os.fstat(descriptor).st_size < end:
        os.ftruncate(descriptor, end)
    return Memory(MOST_LIMITS, descriptor, start)


def _size(largest: int) -> int:
    return 2 * (_HEADER.size + largest)


class IMemory(Protocol):
    """Where a state is kept."""

    def save(self, state: bytes) -> bool:
        """
        Replace the content. See L{Memory.save}.

        @param state: the new content.
        """

    def load(self) -> bytes | None:
        """Return the content. See L{Memory.load}."""


class Memory:
    """
    Two places in shared memory, written by turns. A process may be killed at any moment of a write: what the write
    before has left is in the other place, and stays valid. The system gives pages to it only as they are written.

    @param largest: bytes of the longest content.
    @param descriptor: a file of L{newFile}, which stays the caller's; -1: only processes that are forked later share
        the memory.
    @param start: where it begins in the file: a multiple of C{mmap.ALLOCATIONGRANULARITY}.
    @raise ValueError: the file is too short, such as one of another release.
    @raise OSError: it cannot be mapped.
    """

    def __init__(self, largest: int = MOST_STATE, descriptor: int = -1, start: int = 0) -> None:
        self._size = largest
        self._map = mmap.mmap(descriptor, _size(largest), offset=start)

    def _headers(self) -> list[tuple[int, int, int, int]]:
        """
        Return the number, the place, the length and the checksum of each place that was written, the latest first.
        """
        found = []
        for place in (0, 1):
            number, length, checksum, ofHeader = _HEADER.unpack_from(self._map, place * (_HEADER.size + self._size))
            if number and length <= self._size and ofHeader == _checksumOf(number, length, checksum):
                found.append((number, place, length, checksum))
        return sorted(found, reverse=True)

    def save(self, state: bytes) -> bool:
        """
        Replace the content.

        @param state: the new content.
        @return: whether there was room for it.
        """
        if len(state) > self._size:
            return False
        number, latest, _, _ = next(iter(self._headers()), (0, 1, 0, 0))
        number, start = number + 1, (1 - latest) * (_HEADER.size + self._size)
        # First the place becomes invalid, and with its header valid again.
        self._map[start : start + _HEADER.size] = bytes(_HEADER.size)
        self._map[start + _HEADER.size : start + _HEADER.size + len(state)] = state
        checksum = zlib.crc32(state)
        header = _HEADER.pack(number, len(state), checksum, _checksumOf(number, len(state), checksum))
        self._map[start : start + _HEADER.size] = header
        return True

    def load(self) -> bytes | None:
        """Return the content that was saved last; L{None} if there is none."""
        for _, place, length, checksum in self._headers():
            start = place * (_HEADER.size + self._size) + _HEADER.size
            content = self._map[start : start + length]
            if zlib.crc32(content) == checksum:
                return content
        return None

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()


def _checksumOf(*numbers: int) -> int:
    return zlib.crc32(struct.pack("QII", *numbers))


class Saving(MultiService):
    """
    Writes the state of a keeper once a second and after each scrape, until it has handed over. Lets the keeper read
    what its predecessor has written.

    @param keeper: the keeper.
    @param memory: the memory.
    @param clock: the timer.
    """

    def __init__(self, keeper: Keeper, memory: IMemory, clock: IReactorTime) -> None:
        super().__init__()
        self._keeper = keeper
        self._memory = memory
        self._hasFailed = False
        timer: Any = TimerService(INTERVAL, self._save)
        timer.clock = clock
        timer.setServiceParent(self)
        keeper.save, keeper.load = self._save, memory.load

    def _save(self) -> None:
        if not self.running or not self._keeper.knowsMost:
            return
        try:
            isSaved = self._memory.save(self._keeper.state())
        except Exception:
            # The timer would stop for ever.
            _log.failure("cannot save the state of the keeper")
            return
        if not isSaved and not self._hasFailed:
            self._hasFailed = True
            _log.error("cannot save the state of the keeper: it is too long; if it is killed, counters fall")


class LimitSaving(Repeating):
    """
    Writes the tables of limits to memory that outlives the keeper, until it has handed over, and seldom if they are
    large.

    @param keeper: the keeper. Its limits are those of the tables.
    @param defence: the tables.
    @param memory: the memory.
    @param clock: the timer.
    @param monotonic: returns the seconds since any moment. They never jump.
    """

    def __init__(
        self,
        keeper: Keeper,
        defence: IDefence,
        memory: IMemory,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(self._saving, LIMITS_INTERVAL, clock, monotonic, _IDLE)
        self._keeper = keeper
        self._defence = defence
        self._memory = memory
        self._hasFailed = False
        keeper.loadLimits = memory.load

    def _saving(self) -> Generator[None, None, None]:
        if not self._keeper.knowsMost:
            return
        try:
            state = yield from self._defence.packing(withCounters=True)
            # It may have handed over meanwhile.
            isSaved = not self._keeper.knowsMost or self._memory.save(state)
        except Exception:
            # The timer would stop for ever.
            _log.failure("cannot save the limits' tables")
            return
        if not isSaved and not self._hasFailed:
            self._hasFailed = True
            _log.error("cannot save the limits' tables: they are too long; if the keeper is killed, they are lost")
