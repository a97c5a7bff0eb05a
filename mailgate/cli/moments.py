# -*- test-case-name: mailgate.test.cli.test_moments -*-
"""
Times of the admin server on a terminal.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mailgate.cli.columns import shown
from mailgate.keeper.moments import secondsOf
from mailgate.process.tables import duration

__all__ = ["left", "local"]


def local(value: Any, now: float) -> str:
    """
    Return a time in the time zone of the terminal: today the time alone.

    @param value: a time of RFC 3339.
    @param now: the time in seconds since 1970.
    """
    seconds = secondsOf(value)
    try:
        moment = None if seconds is None else datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        moment = None
    if moment is None:
        return shown(value)
    today = datetime.fromtimestamp(now).astimezone().date()
    return moment.strftime("%H:%M:%S" if moment.date() == today else "%Y-%m-%d %H:%M:%S")


def left(value: Any, now: float) -> str:
    """
    Return the time until a moment, such as C{1h59m}; C{-} if it is not known.

    @param value: a time of RFC 3339.
    @param now: the time in seconds since 1970.
    """
    seconds = secondsOf(value)
    return "-" if seconds is None else duration(max(0.0, seconds - now))
