# -*- test-case-name: mailgate.test.keeper.test_moments -*-
"""
Times, in seconds since 1970 and as texts of RFC 3339. Other processes have sent them, or a predecessor has written
them.
"""

from __future__ import annotations

from datetime import datetime, timezone
from functools import lru_cache
from math import floor
from typing import Any

__all__ = ["LATEST", "isMoment", "moment", "secondsOf"]

LATEST = 253402300800
"""Seconds from 1970 to the year 10000, which Python's dates do not reach."""


def isMoment(value: Any) -> bool:
    """
    Return whether a value of JSON is a time that can be written as a date.

    @param value: the value.
    """
    # Python compares numbers of all sizes, and nothing is true of NaN.
    return type(value) in (int, float) and 0 <= value < LATEST


def moment(seconds: float) -> str:
    """
    Write a time as RFC 3339, in UTC and in whole seconds.

    @param seconds: the time in seconds since 1970.
    @raise ValueError: it is not a time of L{isMoment}.
    """
    return _written(floor(seconds))


# Of sessions that are listed together, many began in the same second.
@lru_cache(1000)
def _written(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()[:19] + "Z"


def secondsOf(value: Any) -> float | None:
    """
    Return a time of RFC 3339 in seconds since 1970; L{None} if it is none.

    @param value: the text, or another value of JSON.
    """
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value.replace("Z", "+00:00"))
        return found.timestamp() if found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
