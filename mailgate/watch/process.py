# -*- test-case-name: mailgate.test.watch.test_process -*-
"""
Measures this process: its memory, its file descriptors, and how late its timers are.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["LATELY", "PERIOD", "LagMeter", "openFiles", "privateMemory"]

PERIOD = 1.0
"""Seconds between two timers of L{LagMeter}."""

LATELY = 6
"""The timers that L{LagMeter} remembers."""


def privateMemory(file: str = "/proc/self/smaps_rollup") -> int | None:
    """
    Return the memory in bytes that this process shares with no other; L{None} if the system does not say.

    @param file: the file of Linux that says so.
    """
    try:
        with open(file, encoding="ascii", errors="replace") as lines:
            return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    except (OSError, ValueError, IndexError):
        return None


def openFiles(folder: str = "/proc/self/fd") -> int | None:
    """
    Return the number of file descriptors of this process; L{None} if the system does not say.

    @param folder: the folder of Linux that has an entry for each.
    """
    try:
        # Linux 6.2 and later: the size is the number of entries. A list of thousands takes milliseconds.
        return os.stat(folder).st_size or len(os.listdir(folder))
    except OSError:
        return None


class LagMeter:
    """
    Measures how late a timer of each second is: that long the event loop was busy. Measures the processor time, too.

    @param clock: the timers.
    @param report: called with each delay in seconds.
    @param used: returns the processor time of this process in seconds.
    """

    def __init__(
        self,
        clock: IReactorTime,
        report: Callable[[float], object],
        used: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._report = report
        self._used = used
        self._users = 0
        self._due = 0.0
        self._timer: IDelayedCall | None = None
        self._lately: deque[tuple[float, float, float]] = deque(maxlen=LATELY)

    def start(self) -> None:
        """A gateway has started. The first one starts the timer."""
        self._users += 1
        if self._users == 1:
            self._wait()

    def stop(self) -> None:
        """A gateway has stopped. The last one stops the timer."""
        self._users -= 1
        if self._users == 0 and self._timer is not None and self._timer.active():
            self._timer.cancel()

    @property
    def worst(self) -> float | None:
        """The longest delay of the last L{LATELY} timers, in seconds; L{None} before the first one."""
        return max((lag for _, _, lag in self._lately), default=None)

    @property
    def share(self) -> float | None:
        """The processor time in that time, as a share of one processor; L{None} before the second timer."""
        if len(self._lately) < 2:
            return None
        (began, before, _), (ended, after, _) = self._lately[0], self._lately[-1]
        return (after - before) / (ended - began) if ended > began else None

    def _wait(self) -> None:
        self._due = self._clock.seconds() + PERIOD
        self._timer = self._clock.callLater(PERIOD, self._passed)

    def _passed(self) -> None:
        now = self._clock.seconds()
        lag = max(0.0, now - self._due)
        self._lately.append((now, self._used(), lag))
        self._report(lag)
        self._wait()
