"""
A text that could forge lines of a log, and helpers for tests of log observers.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.logger import ILogObserver, LogPublisher
from twisted.python.failure import Failure

__all__ = ["NASTY", "Told", "caught", "recorder"]

NASTY = "joe\r\n2026-01-01T00:00:00+0000 [info] forged\0\x1b[2J\x7f\x85\u2028\u2029"


def caught(message: str) -> Failure:
    """Return a failure with a traceback."""
    try:
        raise RuntimeError(message)
    except RuntimeError:
        return Failure()


def recorder() -> tuple[list[Any], ILogObserver]:
    """Return a list, and an observer that appends events to it."""
    events: list[Any] = []
    return events, LogPublisher(cast(ILogObserver, events.append))


class Told:
    """A value that counts its conversions to text."""

    count = 0

    def __str__(self) -> str:
        self.count += 1
        return "told"
