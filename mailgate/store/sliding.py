# -*- test-case-name: mailgate.test.store.test_contract -*-
"""
Counts failures in a sliding window, as C{mailgate.limits.windows} does for one gateway: the failures of this window,
and the part of those of the window before that has not slid out yet.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Sliding"]


class Sliding(NamedTuple):
    """
    The counts of one thing.

    @ivar start: when this window began, in seconds.
    @ivar before: what the failures of the window before weigh.
    @ivar current: what those of this window weigh.
    """

    start: float
    before: int
    current: int

    def weightAt(self, window: float, now: float) -> int:
        """
        Return how much the failures weigh.

        @param window: the length of the window in seconds.
        @param now: the time in seconds.
        """
        passed = max(0.0, now - self.start)
        if passed < window:
            return self.current + int(self.before * (1 - passed / window))
        return int(self.current * (2 - passed / window)) if passed < 2 * window else 0

    def plus(self, weight: int, window: float, now: float) -> Sliding:
        """
        Return the counts with one failure more.

        @param weight: what it weighs.
        @param window: as for L{weightAt}.
        @param now: as for L{weightAt}.
        """
        windows = int((now - self.start) // window)
        if windows == 1:
            return Sliding(self.start + window, self.current, weight)
        if windows > 1:
            return Sliding(now, 0, weight)
        return self._replace(current=self.current + weight)
