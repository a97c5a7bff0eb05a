# -*- test-case-name: mailgate.test.log.test_lostlines -*-
"""
Lines of the log that cannot be written, as the disk is full or a receiver is gone: they are counted, and the log says
how many there were as soon as it can be written again. Nothing of that raises: an observer that did would be logged
itself.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import IO

from twisted.logger import LogEvent, LogLevel

__all__ = ["DescriptorWriter", "LineWriter", "LostLines", "StreamWriter"]


class LostLines:
    """
    The number of lines that C{place} has not taken, since it last took one. C{alarm(event)} is called when the first
    is lost.
    """

    def __init__(self, place: str, alarm: Callable[[LogEvent], object], now: Callable[[], float] = time.time) -> None:
        self.count = 0
        self._place = place
        self._alarm = alarm
        self._now = now
        self._reason = ""

    def add(self, lines: int, error: OSError) -> None:
        """So many C{lines} are lost, because of C{error}."""
        isFirst = not self.count
        self.count += lines
        self._reason = error.strerror or str(error)
        if isFirst and lines:
            self._alarm(self._event(f"cannot write to {self._place}; lines are lost: {self._reason}"))

    def event(self) -> LogEvent:
        """What the log says before its next line."""
        lines = "1 line was lost" if self.count == 1 else f"{self.count} lines were lost"
        return self._event(f"{lines} because {self._place} could not be written: {self._reason}")

    def clear(self) -> None:
        """That has been written."""
        self.count = 0

    def _event(self, text: str) -> LogEvent:
        level = LogLevel.error
        return {"log_time": self._now(), "log_level": level, "log_format": "{text}", "text": text}


class LineWriter(ABC):
    """
    The stream of an observer that writes whole lines to C{place}. C{formatEvent(event)} gives the line that tells of
    lost ones; C{alarm(event)} is called when the first is lost.
    """

    def __init__(self, place: str, formatEvent: Callable[[LogEvent], str], alarm: Callable[[LogEvent], object]) -> None:
        self._losses = LostLines(place, alarm)
        self._formatEvent = formatEvent

    def write(self, text: str) -> None:
        """Append C{text}, which ends with a line; before it, if lines were lost, how many."""
        try:
            if self._losses.count:
                self._append(self._formatEvent(self._losses.event()))
                self._losses.clear()
            self._append(text)
        except OSError as error:
            self._losses.add(text.count("\n"), error)

    def flush(self) -> None:  # noqa: B027
        """Nothing is held back."""

    @abstractmethod
    def _append(self, text: str) -> None:
        """
        Append C{text} now.

        @raise OSError: not all of it was written.
        """


class DescriptorWriter(LineWriter):
    """
    Writes to the C{descriptor}, without a buffer that would repeat what could not be written. A line of which a part
    was written is lost, and the next one does not continue it.

    @ivar descriptor: -1 once it is closed.
    """

    descriptor = -1
    _isTorn = False

    def _append(self, text: str) -> None:
        data = (f"\n{text}" if self._isTorn and text else text).encode("utf-8", "backslashreplace")
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self.descriptor, left) :]
        finally:
            if len(left) < len(data):
                self._isTorn = bool(left)


class StreamWriter(DescriptorWriter):
    """Writes to C{stream}, such as standard error: by its descriptor, where it has one."""

    def __init__(
        self, stream: IO[str], formatEvent: Callable[[LogEvent], str], alarm: Callable[[LogEvent], object]
    ) -> None:
        super().__init__("standard error", formatEvent, alarm)
        self._stream = stream
        try:
            self.descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):
            # It is of memory.
            self.descriptor = -1

    def _append(self, text: str) -> None:
        if self.descriptor >= 0:
            super()._append(text)
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (AttributeError, ValueError) as error:
            # It is closed, or was when the process began.
            raise OSError(str(error)) from None
