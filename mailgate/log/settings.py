# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
The directives of the log: nginx's C{error_log}, for the process and for servers, C{log_rate}, C{log_user} and
C{log_address}.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen
from twisted.logger import LogLevel

from mailgate.directives import (
    Problem,
    SectionSettings,
    ServerSettings,
    directive,
    lines,
    nearest,
    oneOf,
    path,
)
from mailgate.log.levels import LEVELS, RANKS
from mailgate.log.privacy import ADDRESSES, USERS, Privacy
from mailgate.log.rate import Rate, logRate
from mailgate.log.syslog import SyslogServer, syslogServer
from mailgate.system.regularfiles import OVERWRITTEN, isSameFile

__all__ = ["ErrorLog", "LogSettings", "ServerLogSettings", "leastLevel", "needsStandardError"]


@frozen
class ErrorLog:
    """
    One target of C{error_log}. It is standard error if C{file} and C{syslog} are both L{None}.

    @ivar file: the path of a file, or L{None}.
    @ivar level: the lowest level that it receives, a value of L{LEVELS}.
    @ivar syslog: a syslog server, or L{None}.
    @ivar isJSON: whether each line is a JSON object.
    """

    file: str | None = None
    level: Any = LogLevel.error
    syslog: SyslogServer | None = None
    isJSON: bool = False

    @property
    def isStandardError(self) -> bool:
        """Whether this target is standard error."""
        return self.file is None and self.syslog is None


_JSON = "json"


def _errorLogs(value: str, folder: str) -> tuple[ErrorLog, ...]:
    logs = []
    for item in lines(value, folder):
        target, *words = item.split()
        isJSON = words[-1:] == [_JSON]
        if isJSON:
            words.pop()
        word = " ".join(words) or "error"
        if word not in LEVELS:
            raise ValueError(f'"{word}" is not a level; use one of {", ".join(LEVELS)}{nearest(word, list(LEVELS))}')
        level = LEVELS[word]
        if target.startswith("memory:"):
            raise ValueError(f'"{target}": memory: is not supported; use a file, stderr or syslog:server=ADDRESS')
        if target.startswith("syslog:"):
            logs.append(ErrorLog(None, level, syslogServer(target.removeprefix("syslog:")), isJSON))
        else:
            logs.append(ErrorLog(None if target == "stderr" else path(target, folder), level, None, isJSON))
    return tuple(logs)


def leastLevel(logs: Sequence[ErrorLog]) -> Any:
    """Return the lowest level of C{logs}, a value of L{LEVELS}; C{error} if there are none."""
    return min((log.level for log in logs), default=LogLevel.error, key=RANKS.__getitem__)


def needsStandardError(logs: Sequence[ErrorLog]) -> bool:
    """Return whether some lines for C{logs} go to standard error and to no other target."""
    others = [log for log in logs if not log.isStandardError]
    return len(others) < len(logs) and (not others or RANKS[leastLevel(logs)] < RANKS[leastLevel(others)])


_NO_SOCKET = "does not exist yet; lines sent to it are lost"
_NO_NAMES = ("off", "no", "none", "false", "on", "stdout", "syslog")
_NO_BANS = "leaves out the addresses of clients: fail2ban and CrowdSec need full addresses and cannot ban clients"
_FILE = "is used as a file name; error_log takes a file, stderr or syslog:server=ADDRESS, then a space and a level"


def _oddPlaces(logs: Sequence[ErrorLog]) -> Iterator[tuple[str, str]]:
    """
    Yield the targets that are probably mistakes, each with the reason: unix sockets that do not exist, and file names
    such as C{off} or C{stdout}.
    """
    for log in logs:
        if log.syslog is not None and log.syslog.isUNIX and not os.path.exists(log.syslog.address):
            yield f"unix:{log.syslog.address}", _NO_SOCKET
        elif log.file is not None and (os.path.basename(log.file).lower() in _NO_NAMES or "," in log.file):
            yield log.file, _FILE


def _overwriting(logs: Sequence[ErrorLog], section: SectionSettings | ServerSettings) -> Iterator[Problem]:
    """Yield a problem if one of the files is the configuration file."""
    if any(log.file and isSameFile(log.file, section.file) for log in logs):
        yield section.problem("error_log", OVERWRITTEN, os.path.realpath(section.file))


@frozen
class LogSettings:
    """
    nginx's C{error_log} for the process: C{FILE|stderr|syslog:… [LEVEL] [json]}, one target per line; C{log_rate}; and
    what all lines show of users and of clients' addresses.
    """

    errorLog: tuple[ErrorLog, ...] = directive("error_log", _errorLogs, (ErrorLog(),))
    rate: Rate | None = directive("log_rate", logRate, Rate(100, 1.0))
    user: str = directive("log_user", oneOf(*USERS), "full")
    address: str = directive("log_address", oneOf(*ADDRESSES), "full")

    @property
    def level(self) -> Any:
        """The lowest level of all targets, a value of L{LEVELS}."""
        return leastLevel(self.errorLog)

    @property
    def privacy(self) -> Privacy:
        """What the lines show of users and of clients' addresses."""
        return Privacy(self.user, self.address)

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield a problem of C{section} if a log file is the configuration file."""
        yield from _overwriting(self.errorLog, section)

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield a warning of C{section} for each target that is probably a mistake, and for what fail2ban lacks."""
        if self.address != "full":
            yield section.problem("log_address", _NO_BANS, self.address)
        for place, reason in _oddPlaces(self.errorLog):
            yield section.problem("error_log", reason, place)


@frozen
class ServerLogSettings:
    """A server's own C{error_log}. It replaces that of the process for the server's sessions, unless it is empty."""

    errorLog: tuple[ErrorLog, ...] = directive("error_log", _errorLogs, ())

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield a problem of C{server} if a log file is the configuration file."""
        yield from _overwriting(self.errorLog, server)

    def warnings(self, server: ServerSettings) -> Iterator[Problem]:
        """Yield a warning of C{server} for each target that is probably a mistake."""
        for place, reason in _oddPlaces(self.errorLog):
            yield server.problem("error_log", reason, place)
