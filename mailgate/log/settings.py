# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
The directives of the log: nginx's C{error_log}, of the process and of a server, and C{log_rate}.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen
from twisted.logger import LogLevel

from mailgate.directives import Problem, SectionSettings, ServerSettings, directive, lines, nearest, path
from mailgate.log.levels import LEVELS, RANKS
from mailgate.log.rate import Rate, logRate
from mailgate.log.syslog import SyslogServer, syslogServer
from mailgate.system.regularfiles import OVERWRITTEN, isSameFile

__all__ = ["ErrorLog", "LogSettings", "ServerLogSettings", "leastLevel", "needsStandardError"]


@frozen
class ErrorLog:
    """
    One C{error_log}: a C{file}, a C{syslog} server, or standard error where both are L{None}, and the least C{level}
    that it is given.
    """

    file: str | None = None
    level: Any = LogLevel.error
    syslog: SyslogServer | None = None

    @property
    def isStandardError(self) -> bool:
        """Whether it goes where a process tells of its faults anyhow."""
        return self.file is None and self.syslog is None


def _errorLogs(value: str, folder: str) -> tuple[ErrorLog, ...]:
    logs = []
    for item in lines(value, folder):
        target, word = [*item.split(None, 1), "error"][:2]
        if word not in LEVELS:
            raise ValueError(f'"{word}" is not a level; the levels are {", ".join(LEVELS)}{nearest(word, list(LEVELS))}')
        level = LEVELS[word]
        if target.startswith("memory:"):
            raise ValueError(
                f'"{target}": memory: is not supported; use a file, stderr or syslog:server=ADDRESS'
            )
        if target.startswith("syslog:"):
            logs.append(ErrorLog(None, level, syslogServer(target.removeprefix("syslog:"))))
        else:
            logs.append(ErrorLog(None if target == "stderr" else path(target, folder), level))
    return tuple(logs)


def leastLevel(logs: Sequence[ErrorLog]) -> Any:
    """The least level that any of C{logs} wants: one of L{LEVELS}."""
    return min((log.level for log in logs), default=LogLevel.error, key=RANKS.__getitem__)


def needsStandardError(logs: Sequence[ErrorLog]) -> bool:
    """Whether a line that one of C{logs} wants reaches none of them but standard error."""
    others = [log for log in logs if not log.isStandardError]
    return len(others) < len(logs) and (not others or RANKS[leastLevel(logs)] < RANKS[leastLevel(others)])


_NOBODY = "does not exist yet; lines sent to it are lost"
_NO_NAMES = ("off", "no", "none", "false", "on", "stdout", "syslog")
_FILE = "is used as a file name; error_log takes a file, stderr or syslog:server=ADDRESS, then a space and a level"


def _oddPlaces(logs: Sequence[ErrorLog]) -> Iterator[tuple[str, str]]:
    """
    Those of C{logs} in which nobody will look, each with the reason: unix sockets that do not exist, as a line that is
    lost leaves no trace, and files with names that are hardly meant as such.
    """
    for log in logs:
        if log.syslog is not None and log.syslog.isUNIX and not os.path.exists(log.syslog.address):
            yield f"unix:{log.syslog.address}", _NOBODY
        elif log.file is not None and (os.path.basename(log.file).lower() in _NO_NAMES or "," in log.file):
            yield log.file, _FILE


def _overwriting(logs: Sequence[ErrorLog], section: SectionSettings | ServerSettings) -> Iterator[Problem]:
    """The log among C{logs}, of C{section}, that is the configuration."""
    if any(log.file and isSameFile(log.file, section.file) for log in logs):
        yield section.problem("error_log", OVERWRITTEN, os.path.realpath(section.file))


@frozen
class LogSettings:
    """nginx's C{error_log} of the process: C{FILE|stderr|syslog:… [LEVEL]}, one a line; and C{log_rate}."""

    errorLog: tuple[ErrorLog, ...] = directive("error_log", _errorLogs, (ErrorLog(),))
    rate: Rate | None = directive("log_rate", logRate, Rate(100, 1.0))

    @property
    def level(self) -> Any:
        """The least level that any of them wants."""
        return leastLevel(self.errorLog)

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """Those of them that are the configuration itself."""
        yield from _overwriting(self.errorLog, section)

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        """What they name that is not there."""
        for place, reason in _oddPlaces(self.errorLog):
            yield section.problem("error_log", reason, place)


@frozen
class ServerLogSettings:
    """A server's own C{error_log}, for its sessions in the place of the process's; the process's, where it is empty."""

    errorLog: tuple[ErrorLog, ...] = directive("error_log", _errorLogs, ())

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """Those of them that are the configuration itself."""
        yield from _overwriting(self.errorLog, server)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """What they name that is not there."""
        for place, reason in _oddPlaces(self.errorLog):
            yield server.problem("error_log", reason, place)
