# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
Log observers that write each event as one line to the targets of C{error_log}. They escape control characters even in
texts that did not pass through L{mailgate.log.journal.printable}.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from operator import itemgetter
from string import Formatter
from typing import IO, Any

from twisted.logger import (
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
from mailgate.log.levels import CONNECTIONS, DEBUGGED, NOTICE, RANKS, isOfLife, levelName
from mailgate.log.logfile import LogFile
from mailgate.log.lostlines import StreamWriter
from mailgate.log.rate import MOST_KINDS
from mailgate.log.settings import ErrorLog
from mailgate.log.syslog import SyslogObserver, SyslogServer, forJournal, isJournal

__all__ = ["ErrorLogs", "ProcessLog"]


@implementer(ILogObserver)
class _Log:
    """
    Passes on the events of a level and above, and those of debugged connections.

    @param target: receives them.
    @param least: the lowest level, a value of L{mailgate.log.levels.LEVELS}.
    """

    def __init__(self, target: ILogObserver, least: Any) -> None:
        self._target = target
        self._least = least
        self._rank = RANKS[least]

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        isAdmitted = RANKS[level] >= self._rank or DEBUGGED in event
        if isAdmitted or (self._least is NOTICE and level is LogLevel.info and isOfLife(event)):
            self._target(event)


def _formatLine(event: Any) -> str:
    return _line(event, "")


def _formatWithPid(event: Any) -> str:
    # Read each time, as processes fork.
    return _line(event, f"{os.getpid()}: ")


def _textOf(event: LogEvent) -> str:
    if event.get("log_source") == CONNECTIONS:
        # These lines are the most frequent. formatEvent, which can do more, takes thirty times as long.
        try:
            compiled = _compiled(event["log_format"])
            if compiled is not None:
                template, fields = compiled
                text: str = template % fields(event)
                return text
        except Exception:
            return formatEvent(event)
    return formatEvent(event)


@lru_cache(MOST_KINDS)
def _compiled(format: str) -> tuple[str, Callable[[LogEvent], Any]] | None:
    """
    Parse a format of the log once.

    @param format: a format for twisted.logger.
    @return: a template for the operator C{%}, and what takes the fields for it from an event. L{None} if the format
        has fewer than two fields, or any other than C{{name}} or C{{name:.3f}}.
    @raise ValueError: the format is broken.
    """
    template, names = "", []
    for text, name, form, conversion in Formatter().parse(format):
        template += text.replace("%", "%%")
        if name is not None:
            if not name.isidentifier() or form not in ("", ".3f") or conversion:
                return None
            template += f"%{form or 's'}"
            names.append(name)
    # For a single name itemgetter does not return a tuple.
    return (template, itemgetter(*names)) if len(names) > 1 else None


@lru_cache(2)
def _shown(second: int | None) -> str:
    """Return the time as lines show it. Without the cache it would take a fifth of the time of a line."""
    return formatTime(second)


def _line(event: Any, pid: str) -> str:
    when = event.get("log_time")
    moment = _shown(None if when is None else int(when))
    level = levelName(event)
    message = oneLine(_textOf(event))
    if "log_failure" in event:
        traceback = eventAsText({"log_failure": event["log_failure"]}, includeTimestamp=False, includeSystem=False)
        # Indented, because an exception may quote texts from the network, which must not look like a log line.
        message += "".join(f"\n    {oneLine(line)}" for line in traceback.strip("\n").split("\n"))
    return f"{moment} [{level}] {pid}{message}\n"


class ErrorLogs:
    """
    The open targets of all C{error_log} directives. Each file and each syslog server is opened once.

    @param stderr: the stream for C{error_log = stderr}; L{None} for the current C{sys.stderr}.
    @ivar owner: the uid and gid of the user who may own the files that root opens; L{None} for root.
    @ivar onLoss: called with a message, as text, when a target loses its first line. Standard error has this line, too.
    """

    owner: tuple[int, int] | None = None
    onLoss: Callable[[str], object] | None = None

    def __init__(self, stderr: IO[str] | None = None) -> None:
        # Keep the stream: once twistd has started its log, sys.stderr writes to the log.
        self._stderr = sys.stderr if stderr is None else stderr
        # systemd's journal records the pid.
        isOfJournal = isJournal(self._stderr)
        self._formatError = forJournal(_formatLine, levelName) if isOfJournal else _formatWithPid
        self._errors = StreamWriter(self._stderr, self._formatError, lambda event: None)
        self._files: dict[str, LogFile] = {}
        self._syslogs: dict[SyslogServer, ILogObserver] = {}

    def observer(self, logs: Sequence[ErrorLog]) -> ILogObserver:
        """
        Return an observer that writes each event to the targets whose level it reaches.

        @param logs: the targets.
        @raise OSError: a file cannot be opened.
        """
        return LogPublisher(*(_Log(self._target(log), log.level) for log in logs))

    def observerFor(self, logs: Sequence[ErrorLog], file: str, section: str, places: Lines = NO_LINES) -> ILogObserver:
        """
        Like L{observer}, but an error names the place in the configuration.

        @param logs: the targets.
        @param file: the path of the ini file.
        @param section: the title of the section with C{error_log}.
        @param places: the lines of the options in the ini file.
        @raise ConfigurationError: a file cannot be opened.
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
            return self._errors
        if log.file not in self._files:
            self._files[log.file] = LogFile(log.file, _formatWithPid, self._alarm, self._user)
        return self._files[log.file]

    def _alarm(self, event: LogEvent) -> None:
        """A target has lost its first line. Report it on standard error."""
        self._errors.write(self._formatError(event))
        if self.onLoss is not None:
            self.onLoss(formatEvent(event))

    @property
    def hasFiles(self) -> bool:
        """Whether L{reopen} has any file to reopen."""
        return bool(self._files)

    @property
    def _user(self) -> int | None:
        return None if self.owner is None else self.owner[0]

    def reopen(self, owner: tuple[int, int] | None = None) -> Iterator[str]:
        """
        Reopen all files by their names. If one cannot be opened, the log goes on in the old file.

        @param owner: the uid and gid of the new owner of the files, which only root can set; L{None} for no change.
        @return: messages, as text, for each file that was not reopened, lost lines, or kept its owner.
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
        """
        Close the files that are no longer used.

        @param used: the targets that are still used.
        """
        names = {log.file for log in used}
        for name in [name for name in self._files if name not in names]:
            self._files.pop(name).close()


@implementer(ILogObserver)
class ProcessLog:
    """
    The C{error_log} of the process, which a reload may change.

    @param observer: receives the events.
    @ivar called: whether any event was logged.
    """

    def __init__(self, observer: ILogObserver) -> None:
        self._observer = observer
        self.called = False

    def follow(self, observer: ILogObserver) -> None:
        """From now on pass all events to C{observer}."""
        self._observer = observer

    def __call__(self, event: LogEvent) -> None:
        self.called = True
        self._observer(event)
