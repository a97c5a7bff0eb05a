# -*- test-case-name: mailgate.test.keeper.test_moments -*-
"""
Times in seconds since 1970 that other processes have sent, or that a predecessor has written.
"""

from __future__ import annotations

from typing import Any

__all__ = ["LATEST", "isMoment"]

LATEST = 253402300800
"""Seconds from 1970 to the year 10000, which Python's dates do not reach."""


def isMoment(value: Any) -> bool:
    """
    Return whether a value of JSON is a time that can be written as a date.

    @param value: the value.
    """
    # Python compares numbers of all sizes, and nothing is true of NaN.
    return type(value) in (int, float) and 0 <= value < LATEST
