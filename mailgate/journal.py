# -*- test-case-name: mailgate.test.test_journal -*-
"""
What is logged, and where to: twisted.logger behind a level, so that an event nobody asked for is never built, and the
observers that write C{error_log}'s files.

Texts from the network go into events through L{printable}; the observers escape whatever got past that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import IO, Any

from attrs import frozen
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    LogPublisher,
    eventAsText,
    formatEvent,
    formatTime,
)
from twisted.python.failure import Failure

from mailgate.directives import Level, directive, lines, nearest, path

__all__ = ["ErrorLog", "Journal", "LogSettings", "errorLogObserver", "printable"]

LEVELS = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "notice": LogLevel.info,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "crit": LogLevel.critical,
    "alert": LogLevel.critical,
    "emerg": LogLevel.critical,
}
"""nginx's levels, and the nearest of Twisted's."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def printable(raw: bytes) -> str:
    """C{raw} as text for one line of a log: UTF-8 where it is that, everything that could break a line escaped."""
    # The log puts such texts into quotes: one in them must not seem to end them.
    return _CONTROL.sub(_escape, raw.decode("utf-8", "backslashreplace")).replace('"', '\\"')


@frozen
class ErrorLog:
    """One C{error_log}: a C{file}, or L{None} for standard error, and the least C{level} that it is given."""

    file: str | None = None
    level: LogLevel = LogLevel.error


def _errorLogs(value: str, folder: str) -> tuple[ErrorLog, ...]:
    logs = []
    for item in lines(value, folder):
        target, level = [*item.split(None, 1), "error"][:2]
        if level not in LEVELS:
            raise ValueError(f'"{level}" is no level, they are {", ".join(LEVELS)}{nearest(level, list(LEVELS))}')
        if target.startswith(("syslog:", "memory:")):
            raise ValueError(f'"{target}": a file or stderr can be logged to')
        logs.append(ErrorLog(None if target == "stderr" else path(target, folder), LEVELS[level]))
    return tuple(logs)


@frozen
class LogSettings:
    """nginx's C{error_log}: C{FILE|stderr [LEVEL]}, one a line."""

    errorLog: tuple[ErrorLog, ...] = directive("error_log", _errorLogs, (ErrorLog(),), Level.MAILGATE)

    @property
    def level(self) -> LogLevel:
        """The least level that any of them wants."""
        return min((log.level for log in self.errorLog), default=LogLevel.error, key=_rank)


_ORDER = list(LogLevel.iterconstants())


def _rank(level: LogLevel) -> int:
    return _ORDER.index(level)


class Journal:
    """
    A L{Logger} that builds no event below C{level}. Formats are twisted.logger's, with keyed fields; fields that hold
    a text from the network have been through L{printable}.
    """

    def __init__(self, level: LogLevel = LogLevel.error, observer: ILogObserver | None = None) -> None:
        self._logger = Logger("mailgate", observer=observer)
        self.wantsInfo = _rank(level) <= _rank(LogLevel.info)
        self._wantsWarn = _rank(level) <= _rank(LogLevel.warn)
        self._wantsError = _rank(level) <= _rank(LogLevel.error)

    def info(self, format: str, **fields: Any) -> None:
        """What happened, in the ordinary course of things."""
        if self.wantsInfo:
            self._logger.info(format, **fields)

    def warn(self, format: str, **fields: Any) -> None:
        """What an operator may want to mend, though everybody was served."""
        if self._wantsWarn:
            self._logger.warn(format, **fields)

    def error(self, format: str, **fields: Any) -> None:
        """What kept somebody from being served, and lies with us, a backend or an authentication service."""
        if self._wantsError:
            self._logger.error(format, **fields)

    def failure(self, format: str, failure: Failure, **fields: Any) -> None:
        """A defect: C{failure} is logged with its traceback."""
        self._logger.failure(format, failure=failure, **fields)


def _formatLine(event: Any) -> str:
    moment = formatTime(event.get("log_time"))
    level = event.get("log_level", LogLevel.info).name
    message = _CONTROL.sub(_escape, formatEvent(event))
    if "log_failure" in event:
        traceback = eventAsText({"log_failure": event["log_failure"]}, includeTimestamp=False, includeSystem=False)
        # Indented: an exception may quote the network, and what it quotes is not to look like an event.
        message += "".join(f"\n    {_CONTROL.sub(_escape, line)}" for line in traceback.strip("\n").split("\n"))
    return f"{moment} [{level}] {message}\n"


def errorLogObserver(logs: Sequence[ErrorLog], stderr: IO[str] | None = None) -> ILogObserver:
    """
    An observer that writes each event to those of C{logs} that want its level.

    @raise OSError: a file cannot be opened.
    """
    observers = []
    for log in logs:
        if log.file is None:
            stream = sys.stderr if stderr is None else stderr
        else:
            stream = open(log.file, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        predicate = LogLevelFilterPredicate(log.level)
        observers.append(FilteringLogObserver(FileLogObserver(stream, _formatLine), [predicate]))
    return LogPublisher(*observers)
