# -*- test-case-name: mailgate.test.cli.top.test_values -*-
"""
Reads values of JSON. A gateway of another release, or one that is taken over, may send other kinds of values; they
count as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from mailgate.cli.figures import isNumber
from mailgate.keeper.moments import secondsOf

__all__ = ["Row", "ago", "clockTime", "mapping", "number", "rows", "text"]

Row: TypeAlias = Mapping[str, Any]


def mapping(value: Any) -> Row:
    """
    Return an object of JSON; an empty one for another value.

    @param value: the value.
    """
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> Sequence[Row]:
    """
    Return the objects of a list of JSON; none for another value.

    @param value: the value.
    """
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def number(value: Any) -> float | None:
    """
    Return a finite number; L{None} for another value.

    @param value: the value.
    """
    return value if isNumber(value) else None


def text(value: Any) -> str:
    """
    Return a text; an empty one for another value.

    @param value: the value.
    """
    return value if isinstance(value, str) else ""


def ago(value: Any, now: float | None) -> float | None:
    """
    Return how many seconds ago a time of RFC 3339 was; L{None} if that is not known.

    @param value: the text.
    @param now: the time, in seconds since 1970.
    """
    then = secondsOf(value)
    return None if then is None or now is None else max(0.0, now - then)


def clockTime(seconds: float | None) -> str:
    """
    Return the time of day in the time zone of the terminal.

    @param seconds: the time, in seconds since 1970.
    """
    try:
        return "-" if seconds is None else datetime.fromtimestamp(seconds).strftime("%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"
