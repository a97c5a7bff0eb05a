# -*- test-case-name: mailgate.test.log.test_rate -*-
"""
C{log_rate}: how many lines of one kind a log gets in a second. A flood of one kind costs neither the disk nor the lines
of other kinds; how many were left out is logged in one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import ceil
from typing import Any

from attrs import define, frozen
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import LogLevel

from mailgate.directives import text

__all__ = ["MOST_KINDS", "LineLimit", "Rate", "logRate"]

MOST_KINDS = 1000
"""Kinds that are told apart. Formats are constants, and mailgate has fewer; what comes above that is one kind."""

_OTHERS = "others"
_SHOWN = 60


@frozen
class Rate:
    """No more than C{lines} in C{seconds}."""

    lines: int
    seconds: float


def logRate(value: str, folder: str) -> Rate | None:
    """C{off}, or a rate in the form of nginx's C{limit_req}: C{100r/s}, C{30r/m}."""
    word = text(value, folder)
    if word == "off":
        return None
    matched = re.fullmatch(r"(\d{1,9})r/([sm])", word)
    if matched is None or not int(matched[1]):
        raise ValueError("must be off, or a rate such as 100r/s or 30r/m")
    perSecond = int(matched[1]) / (1 if matched[2] == "s" else 60)
    lines = ceil(perSecond)
    return Rate(lines, lines / perSecond)


@define
class _Kind:
    """
    Lines of one C{format}: C{left} may still come before there is a look at the clock, C{since} is when that number was
    given, and C{dropped} have been left out at C{level} and not been counted in the log yet.
    """

    format: str
    left: int
    since: float
    level: Any
    dropped: int = 0


class LineLimit:
    """
    Whether a line may be logged, by the C{rate} of its kind, which is its format. C{tell(level, count, beginning)} logs
    that C{count} lines were left out whose format begins so.

    A line costs a look into a dict. There is a timer of C{clock} only while lines are left out.
    """

    def __init__(self, rate: Rate, clock: Any, tell: Callable[[LogLevel, int, str], object]) -> None:
        self._lines, self._seconds = rate.lines, rate.seconds
        self._clock = clock
        self._tell = tell
        self._kinds: dict[str, _Kind] = {}
        self._timer: IDelayedCall | None = None

    def admits(self, format: str, level: LogLevel) -> bool:
        """Whether a line of C{format} may be logged now; one that may not is counted."""
        kind = self._kinds.get(format) or self._begin(format, level)
        if kind.left:
            kind.left -= 1
            return True
        return self._looks(kind, level)

    def _begin(self, format: str, level: LogLevel) -> _Kind:
        if len(self._kinds) >= MOST_KINDS:
            format = _OTHERS
        return self._kinds.setdefault(format, _Kind(format, self._lines, self._clock.seconds(), level))

    def _looks(self, kind: _Kind, level: LogLevel) -> bool:
        if self._renew(kind):
            kind.left -= 1
            return True
        kind.dropped += 1
        kind.level = level
        if self._timer is None:
            self._timer = self._clock.callLater(self._seconds, self._expired)
        return False

    def _renew(self, kind: _Kind) -> bool:
        now = self._clock.seconds()
        # A clock that was set back must not silence the log.
        if 0 <= now - kind.since < self._seconds:
            return False
        self._count(kind)
        kind.left, kind.since = self._lines, now
        return True

    def _count(self, kind: _Kind) -> None:
        dropped, kind.dropped = kind.dropped, 0
        if dropped:
            shown = kind.format if len(kind.format) <= _SHOWN else f"{kind.format[:_SHOWN]}..."
            self._tell(kind.level, dropped, shown)

    def _expired(self) -> None:
        self._timer = None
        for kind in list(self._kinds.values()):
            if kind.dropped and not self._renew(kind):
                self._count(kind)

    def flush(self) -> None:
        """Log now how many lines were left out, and wait for nothing."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for kind in list(self._kinds.values()):
            self._count(kind)
