# -*- test-case-name: mailgate.test.log.test_seldom -*-
"""
Lines about what lasts, or comes again and again: it is enough to say it once a minute.
"""

from __future__ import annotations

from math import inf

__all__ = ["PERIOD", "Seldom"]

PERIOD = 60.0
"""Seconds between two lines about the same."""


class Seldom:
    """When a line about one thing is due, in seconds of whatever clock."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = -inf

    def isDue(self, now: float) -> bool:
        """Whether the line is due at C{now}, where it is said then; the next is due L{PERIOD} later."""
        # A clock that was set back must not silence the log.
        if self._last <= now < self._last + PERIOD:
            return False
        self._last = now
        return True

    def postpone(self, now: float) -> None:
        """It still goes on at C{now}: the next line is due L{PERIOD} after that."""
        self._last = now
