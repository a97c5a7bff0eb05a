# -*- test-case-name: mailgate.test.limits.test_failures -*-
"""
Counts failures in a sliding window, in a few bytes: the failures of this window, and the part of those of the window
before that has not slid out yet.
"""

from __future__ import annotations

from struct import Struct

__all__ = ["UNIT", "Window", "weightOf"]

UNIT = 60
"""What a failure with a password weighs. One with a digest method weighs a whole part of it."""

_LAYOUT = Struct("<III")
_MOST = (1 << 32) - 1


def weightOf(share: int) -> int:
    """
    Return what a failure weighs of which C{share} count as one: at least 1.

    @param share: C{digestShare} of the policy.
    """
    return max(1, UNIT // max(1, share))


class Window:
    """
    Reads and writes the counts of one kind. The bytes may be followed by others.

    @ivar seconds: the length of the window.
    """

    size = _LAYOUT.size

    def __init__(self, seconds: float) -> None:
        self.seconds = max(1, int(seconds))

    def _parts(self, row: bytes) -> tuple[int, int, int]:
        """The beginning of this window, the failures of the window before, and those of this one."""
        return _LAYOUT.unpack_from(row)

    def count(self, row: bytes, now: float) -> int:
        """
        Return how much the failures of the window weigh.

        @param row: the counts.
        @param now: the time in seconds.
        """
        start, before, current = self._parts(row)
        passed = now - start
        if passed < self.seconds:
            return current + int(before * (1 - max(0.0, passed) / self.seconds))
        if passed < 2 * self.seconds:
            return int(current * (2 - passed / self.seconds))
        return 0

    def since(self, row: bytes, now: float) -> int:
        """
        Return the beginning of the window that the counts are of. C{row} and C{now} are as for L{count}.
        """
        start, before, _ = self._parts(row)
        return start - self.seconds if before and now - start < self.seconds else start

    def atLeast(self, row: bytes | None, weight: int, now: float) -> bytes | None:
        """
        Return counts that weigh what others know; L{None} if C{row} weighs as much.

        @param row: the counts; L{None} for none.
        @param weight: what the failures weigh that others have counted, of which C{row} may have a part.
        @param now: the time in seconds.
        """
        missing = weight if row is None else weight - self.count(row, now)
        return self.add(row, missing, now) if missing > 0 else None

    def add(self, row: bytes | None, weight: int, now: float) -> bytes:
        """
        Return the counts with one failure more.

        @param row: the counts; L{None} for none.
        @param weight: what the failure weighs.
        @param now: the time in seconds.
        """
        if row is None:
            return _LAYOUT.pack(int(now), 0, weight)
        start, before, current = self._parts(row)
        windows = int(now - start) // self.seconds
        if windows == 1:
            start, before, current = start + self.seconds, current, 0
        elif windows > 1:
            start, before, current = int(now), 0, 0
        return _LAYOUT.pack(start, before, min(_MOST, current + weight))
