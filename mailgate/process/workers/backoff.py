# -*- test-case-name: mailgate.test.process.workers.test_backoff -*-
"""
How long to wait before a process that has ended is started again.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

__all__ = ["BackOff"]

LONGEST_DELAY = 30.0
A_WHILE = 60.0
"""Seconds of life after which a death is not thought to have to do with the one before."""


class BackOff:
    """How long to wait before what has ended is begun again: 0, 1, 2, 4 … L{LONGEST_DELAY} seconds."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._next = 0.0
        self._begun = clock.seconds()

    def begun(self) -> None:
        """It was begun now."""
        self._begun = self._clock.seconds()

    def delay(self) -> float:
        """It has ended now: the seconds to wait, more each time unless it has lived for L{A_WHILE}."""
        if self._clock.seconds() - self._begun >= A_WHILE:
            self._next = 0.0
        delay, self._next = self._next, min(LONGEST_DELAY, self._next * 2 or 1.0)
        return delay
