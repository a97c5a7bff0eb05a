# -*- test-case-name: mailgate.test.process.workers.test_backoff -*-
"""
The delay before a process that has exited is started again.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

__all__ = ["BackOff"]

LONGEST_DELAY = 30.0
A_WHILE = 60.0
"""A process that ran for so many seconds is restarted immediately, whatever happened to earlier ones."""


class BackOff:
    """
    The delay before a restart: 0, 1, 2, 4 … L{LONGEST_DELAY} seconds.

    @param clock: the reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next = 0.0
        self._begun = clock.seconds()

    def begun(self) -> None:
        """The process starts now."""
        self._begun = self._clock.seconds()

    def delay(self) -> float:
        """
        The process has exited now: return the delay, in seconds. It grows each time, unless the process ran for
        L{A_WHILE}.
        """
        if self._clock.seconds() - self._begun >= A_WHILE:
            self._next = 0.0
        delay, self._next = self._next, min(LONGEST_DELAY, self._next * 2 or 1.0)
        return delay
