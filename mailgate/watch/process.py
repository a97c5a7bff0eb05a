# -*- test-case-name: mailgate.test.watch.test_process -*-
"""
Measures this process: its memory, its file descriptors, and how late its timers are.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["PERIOD", "LagMeter", "openFiles", "privateMemory"]

PERIOD = 1.0
"""Seconds between two timers of L{LagMeter}."""


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
    Measures how late a timer of each second is: that long the event loop was busy.

    @param clock: the timers.
    @param report: called with each delay in seconds.
    """

    def __init__(self, clock: IReactorTime, report: Callable[[float], object]) -> None:
        self._clock = clock
        self._report = report
        self._users = 0
        self._due = 0.0
        self._timer: IDelayedCall | None = None

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

    def _wait(self) -> None:
        self._due = self._clock.seconds() + PERIOD
        self._timer = self._clock.callLater(PERIOD, self._passed)

    def _passed(self) -> None:
        self._report(max(0.0, self._clock.seconds() - self._due))
        self._wait()
