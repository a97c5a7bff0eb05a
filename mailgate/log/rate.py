# -*- test-case-name: mailgate.test.log.test_rate -*-
"""
C{log_rate}: the most lines of one kind in a second. A flood of one kind does not fill the disk and does not hide other
lines. One line says how many were suppressed.
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
"""The most kinds that are counted separately. mailgate has fewer formats. All further ones count as one kind."""

_OTHERS = "others"
_SHOWN = 60


@frozen
class Rate:
    """
    A limit of lines.

    @ivar lines: the most lines in C{seconds}.
    @ivar seconds: the length of the period.
    """

    lines: int
    seconds: float


def logRate(value: str, folder: str) -> Rate | None:
    """
    Parse the value of C{log_rate}: C{off}, or a rate in the form of nginx's C{limit_req_zone}: C{100r/s}, C{30r/m}.

    @param value: the value in the ini file.
    @param folder: the folder of the ini file.
    @return: the limit; L{None} for C{off}.
    @raise ValueError: the value is neither.
    """
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
    The lines of one format.

    @ivar left: how many lines are still admitted in this period.
    @ivar since: when the period began.
    @ivar level: the level of the last line that was suppressed.
    @ivar dropped: how many suppressed lines the log does not mention yet.
    """

    format: str
    left: int
    since: float
    level: Any
    dropped: int = 0


class LineLimit:
    """
    Decides which lines are logged. Lines with the same format are one kind.

    It costs a look-up in a dict for each line. A timer runs only while lines are suppressed.

    @param rate: the most lines of one kind.
    @param clock: an C{IReactorTime}.
    @param tell: called with the level, the number of suppressed lines and the beginning of their format, to log them.
    """

    def __init__(self, rate: Rate, clock: Any, tell: Callable[[LogLevel, int, str], object]) -> None:
        self._lines, self._seconds = rate.lines, rate.seconds
        self._clock = clock
        self._tell = tell
        self._kinds: dict[str, _Kind] = {}
        self._timer: IDelayedCall | None = None

    def admits(self, format: str, level: LogLevel) -> bool:
        """
        Return whether a line may be logged now. If not, it is counted as suppressed.

        @param format: the format of the line.
        @param level: the level of the line.
        """
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
        # Not below 0: after the clock was set back, lines would be suppressed for too long.
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
        """Log now how many lines were suppressed, and stop the timer."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        for kind in list(self._kinds.values()):
            self._count(kind)
