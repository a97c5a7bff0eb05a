# -*- test-case-name: mailgate.test.log.test_lostlines -*-
"""
Counts log lines that cannot be written, for example because the disk is full or the syslog server is gone. When the log
can be written again, it first says how many lines were lost. Nothing here raises: Twisted would log the error.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO

from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

__all__ = ["DescriptorWriter", "LineWriter", "LostLines", "StreamWriter"]


class LostLines:
    """
    Counts the lines that a target has lost since it was last written.

    @param place: the name of the target in messages.
    @param alarm: called with a log event when the first line is lost.
    @param now: returns the time in seconds since the epoch.
    @ivar count: the number of lost lines.
    """

    def __init__(self, place: str, alarm: Callable[[LogEvent], object], now: Callable[[], float] = time.time) -> None:
        self.count = 0
        self._place = place
        self._alarm = alarm
        self._now = now
        self._reason = ""

    def add(self, lines: int, error: OSError) -> None:
        """
        Count lost lines.

        @param lines: how many more lines are lost.
        @param error: why.
        """
        isFirst = not self.count
        self.count += lines
        self._reason = error.strerror or str(error)
        if isFirst and lines:
            self._alarm(self._event(f"cannot write to {self._place}; lines are lost: {self._reason}"))

    def event(self) -> LogEvent:
        """Return the log event that says how many lines were lost."""
        lines = "1 line was lost" if self.count == 1 else f"{self.count} lines were lost"
        return self._event(f"{lines} because {self._place} could not be written: {self._reason}")

    def clear(self) -> None:
        """Set the number of lost lines to 0. Call it when the event was written."""
        self.count = 0

    def _event(self, text: str) -> LogEvent:
        level = LogLevel.error
        return {"log_time": self._now(), "log_level": level, "log_format": "{text}", "text": text}


@implementer(ILogObserver)
class LineWriter(ABC):
    """
    Writes each log event as whole lines to a target, at once, and counts the lines that are lost.

    @param place: the name of the target in messages.
    @param formatEvent: called with a log event, returns its lines as text.
    @param alarm: called with a log event when the first line is lost.
    """

    def __init__(self, place: str, formatEvent: Callable[[LogEvent], str], alarm: Callable[[LogEvent], object]) -> None:
        self._losses = LostLines(place, alarm)
        self._formatEvent = formatEvent

    def __call__(self, event: LogEvent) -> None:
        self.write(self._formatEvent(event))

    def write(self, text: str) -> None:
        """Append C{text}, which ends with a line end. If lines were lost, first write how many."""
        try:
            if self._losses.count:
                self._append(self._formatEvent(self._losses.event()))
                self._losses.clear()
            self._append(text)
        except OSError as error:
            self._losses.add(text.count("\n"), error)

    @abstractmethod
    def _append(self, text: str) -> None:
        """
        Append C{text} now.

        @raise OSError: not all of it was written.
        """


class DescriptorWriter(LineWriter):
    """
    Writes to a file descriptor without a buffer, as a buffer would try to write lost lines again. A line that was only
    partly written counts as lost, and the next line begins on a line of its own.

    @ivar descriptor: the file descriptor; -1 if it is closed.
    """

    descriptor = -1
    _isTorn = False

    def _append(self, text: str) -> None:
        data = (f"\n{text}" if self._isTorn and text else text).encode("utf-8", "backslashreplace")
        size, written = len(data), 0
        try:
            while written < size:
                written += os.write(self.descriptor, data[written:])
        finally:
            if written:
                self._isTorn = written < size


class StreamWriter(DescriptorWriter):
    """
    Writes to standard error, by its file descriptor if it has one.

    @param stream: the stream.
    @param formatEvent: see L{LineWriter}.
    @param alarm: see L{LineWriter}.
    """

    def __init__(
        self, stream: IO[str], formatEvent: Callable[[LogEvent], str], alarm: Callable[[LogEvent], object]
    ) -> None:
        super().__init__("standard error", formatEvent, alarm)
        self._stream = stream
        try:
            self.descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):
            # A stream in memory.
            self.descriptor = -1

    def _append(self, text: str) -> None:
        if self.descriptor >= 0:
            super()._append(text)
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (AttributeError, ValueError) as error:
            # The stream is closed, or the process was started without one.
            raise OSError(str(error)) from None
