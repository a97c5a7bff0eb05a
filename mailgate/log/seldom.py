# -*- test-case-name: mailgate.test.log.test_seldom -*-
"""
Limits lines about a lasting or repeated condition to one per minute.
"""

from __future__ import annotations

from math import inf

__all__ = ["PERIOD", "Seldom"]

PERIOD = 60.0
"""Seconds between two lines about the same condition."""


class Seldom:
    """Decides when the next line about one condition is due. Any clock in seconds will do."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = -inf

    def isDue(self, now: float) -> bool:
        """
        Return whether a line is due. If it is, the next one is due L{PERIOD} later.

        @param now: the time in seconds.
        """
        # A clock that was set back must not suppress lines for longer than the period.
        if self._last <= now < self._last + PERIOD:
            return False
        self._last = now
        return True

    def postpone(self, now: float) -> None:
        """Make the next line due L{PERIOD} after C{now}, as the condition lasts."""
        self._last = now
