# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
The observers that write to C{error_log}'s targets, a line for each event. What could break a line is escaped here even
where it has not been through L{mailgate.log.journal.printable}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import IO, Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    LogLevel,
    LogPublisher,
    eventAsText,
    formatEvent,
    formatTime,
)
from zope.interface import implementer

from mailgate.directives import ConfigurationError, Problem
from mailgate.directives.problems import NO_LINES, Lines
from mailgate.log.journal import oneLine
from mailgate.log.levels import CONNECTIONS, NOTICE, RANKS, isOfLife, levelName
from mailgate.log.logfile import LogFile
from mailgate.log.lostlines import StreamWriter
from mailgate.log.settings import ErrorLog
from mailgate.log.syslog import SyslogObserver, SyslogServer, forJournal, isJournal

__all__ = ["ErrorLogs", "ProcessLog"]


@implementer(ILogObserver)
class _Log:
    """Hands to C{target} what is of the C{least} level, one of L{mailgate.log.levels.LEVELS}, or above."""

    def __init__(self, target: ILogObserver, least: Any) -> None:
        self._target = target
        self._least = least
        self._rank = RANKS[least]

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if RANKS[level] >= self._rank or (self._least is NOTICE and level is LogLevel.info and isOfLife(event)):
            self._target(event)


def _formatLine(event: Any) -> str:
    return _line(event, "")


def _formatWithPid(event: Any) -> str:
    # Asked for each time: processes fork.
    return _line(event, f"{os.getpid()}: ")


def _textOf(event: LogEvent) -> str:
    if event.get("log_source") == CONNECTIONS:
        # Each login and each connection is a line, and formatEvent, which can do more, takes twenty times as long.
        with suppress(Exception):
            text: str = event["log_format"].format_map(event)
            return text
    return formatEvent(event)


@lru_cache(2)
def _shown(second: int | None) -> str:
    """The time as lines show it. To find it is a fifth of what a line takes, and as a rule the line before had it."""
    return formatTime(second)


def _line(event: Any, pid: str) -> str:
    when = event.get("log_time")
    moment = _shown(None if when is None else int(when))
    level = levelName(event)
    message = oneLine(_textOf(event))
    if "log_failure" in event:
        traceback = eventAsText({"log_failure": event["log_failure"]}, includeTimestamp=False, includeSystem=False)
        # Indented: an exception may quote the network, and what it quotes is not to look like an event.
        message += "".join(f"\n    {oneLine(line)}" for line in traceback.strip("\n").split("\n"))
    return f"{moment} [{level}] {pid}{message}\n"


class ErrorLogs:
    """
    What C{error_log}s write to, each file and each syslog server opened once, and kept open.

    @ivar owner: the user and group whose the files are to be that root opens, if not root's: L{None}.
    @ivar onLoss: called with a sentence when one of them loses a line, besides what standard error has.
    """

    owner: tuple[int, int] | None = None
    onLoss: Callable[[str], object] | None = None

    def __init__(self, stderr: IO[str] | None = None) -> None:
        # That of now: once twistd logs, sys.stderr is the log itself.
        self._stderr = sys.stderr if stderr is None else stderr
        # The journal knows the process itself.
        isOfJournal = isJournal(self._stderr)
        self._formatError = forJournal(_formatLine, levelName) if isOfJournal else _formatWithPid
        self._errors: Any = StreamWriter(self._stderr, self._formatError, lambda event: None)
        self._files: dict[str, LogFile] = {}
        self._syslogs: dict[SyslogServer, ILogObserver] = {}

    def observer(self, logs: Sequence[ErrorLog]) -> ILogObserver:
        """
        An observer that writes each event to those of C{logs} that want its level.

        @raise OSError: a file cannot be opened.
        """
        return LogPublisher(*(_Log(self._target(log), log.level) for log in logs))

    def observerFor(self, logs: Sequence[ErrorLog], file: str, section: str, places: Lines = NO_LINES) -> ILogObserver:
        """
        The same for the C{logs} that C{section} of the ini C{file} names, which stand at these C{places}.

        @raise ConfigurationError: one cannot be opened.
        """
        try:
            return self.observer(logs)
        except OSError as error:
            reason = f"cannot be opened: {error.strerror}"
            problem = places.located(Problem(file, reason, section, "error_log", error.filename))
            raise ConfigurationError([problem]) from None

    def _target(self, log: ErrorLog) -> ILogObserver:
        if log.syslog is not None:
            if log.syslog not in self._syslogs:
                self._syslogs[log.syslog] = SyslogObserver(log.syslog, _formatLine, levelName, self._alarm)
            return self._syslogs[log.syslog]
        if log.file is None:
            return FileLogObserver(self._errors, self._formatError)
        if log.file not in self._files:
            self._files[log.file] = LogFile(log.file, _formatWithPid, self._alarm, self._user)
        stream: Any = self._files[log.file]
        return FileLogObserver(stream, _formatWithPid)

    def _alarm(self, event: LogEvent) -> None:
        """A log has lost its first line: say so where a process tells of its faults anyhow."""
        self._errors.write(self._formatError(event))
        if self.onLoss is not None:
            self.onLoss(formatEvent(event))

    @property
    def hasFiles(self) -> bool:
        """Whether there is anything to open again."""
        return bool(self._files)

    @property
    def _user(self) -> int | None:
        return None if self.owner is None else self.owner[0]

    def reopen(self, owner: tuple[int, int] | None = None) -> Iterator[str]:
        """
        Open all files again, by their names; as root, make them those of C{owner}, who is the L{owner} from now on.
        Gives a line for each with which that cannot be done, which stays what it was, and for each that has lost lines
        by it.
        """
        self.owner = owner or self.owner
        for file in self._files.values():
            try:
                lost = file.reopen(self._user)
            except OSError as error:
                yield f"cannot reopen {file.path}; logging continues in the old file: {error.strerror}"
            else:
                if lost is not None:
                    yield f"reopened {file.path}, but the last lines of the old file may be lost: {lost.strerror}"
        if owner is not None:
            yield from self._give(*owner)

    def _give(self, uid: int, gid: int) -> Iterator[str]:
        for file in self._files.values():
            try:
                file.give(uid, gid)
            except OSError as error:
                yield f"cannot make the workers' user the owner of {file.path}: {error.strerror}"

    def retain(self, used: Iterable[ErrorLog]) -> None:
        """Close the files of which C{used} name none."""
        names = {log.file for log in used}
        for name in [name for name in self._files if name not in names]:
            self._files.pop(name).close()


@implementer(ILogObserver)
class ProcessLog:
    """The process's C{error_log}, which a reload may change. C{called} tells whether anybody has come with an event."""

    def __init__(self, observer: ILogObserver) -> None:
        self._observer = observer
        self.called = False

    def follow(self, observer: ILogObserver) -> None:
        """From now on hand everything to C{observer}."""
        self._observer = observer

    def __call__(self, event: LogEvent) -> None:
        self.called = True
        self._observer(event)
