# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
Log observers that write each event as one line to the targets of C{error_log}: as text (L{mailgate.log.textlines}) or
as JSON (L{mailgate.log.jsonlines}).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, LogPublisher, formatEvent
from zope.interface import implementer

from mailgate.directives import ConfigurationError, Problem
from mailgate.directives.problems import NO_LINES, Lines
from mailgate.log.jsonlines import jsonLines
from mailgate.log.levels import DEBUGGED, NOTICE, RANKS, isOfLife, levelName
from mailgate.log.logfile import LogFile
from mailgate.log.lostlines import StreamWriter
from mailgate.log.privacy import FULL, KEY_BYTES, Masking, Privacy
from mailgate.log.settings import ErrorLog, leastLevel
from mailgate.log.syslog import LONGEST_LINE, SyslogObserver, SyslogServer, forJournal, isJournal
from mailgate.log.textlines import formatLine, formatWithPid

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


@implementer(ILogObserver)
class _Counted:
    """
    Counts the events that it passes on.

    @param target: receives them.
    @param lines: the numbers by Twisted's levels.
    """

    def __init__(self, target: ILogObserver, lines: dict[Any, int]) -> None:
        self._target = target
        self._lines = lines

    def __call__(self, event: LogEvent) -> None:
        self._lines[event.get("log_level", LogLevel.info)] += 1
        self._target(event)


class ErrorLogs:
    """
    The open targets of all C{error_log} directives. Each file and each syslog server is opened once.

    @param stderr: the stream for C{error_log = stderr}; L{None} for the current C{sys.stderr}.
    @param randomness: called with a number, returns that many random bytes.
    @ivar key: the key of C{log_user = hash}. It is as old as the gateway, and is stored nowhere.
    @ivar owner: the uid and gid of the user who may own the files that root opens; L{None} for root.
    @ivar lines: how many events of each of Twisted's levels have been written to a target or more. C{notice} is
        L{LogLevel.info} here.
    @ivar onLoss: called with a message, as text, when a target loses its first line. Standard error has this line, too.
    """

    owner: tuple[int, int] | None = None
    onLoss: Callable[[str], object] | None = None

    def __init__(self, stderr: IO[str] | None = None, randomness: Callable[[int], bytes] = os.urandom) -> None:
        # Keep the stream: once twistd has started its log, sys.stderr writes to the log.
        self._stderr = sys.stderr if stderr is None else stderr
        self.key = randomness(KEY_BYTES)
        self.lines: dict[Any, int] = dict.fromkeys(LogLevel.iterconstants(), 0)
        self._errors = self._errorsAs(isJSON=False)
        self._errorsInJSON: StreamWriter | None = None
        self._hasText = False
        self._files: dict[tuple[str | None, bool], LogFile] = {}
        self._syslogs: dict[tuple[SyslogServer, bool], ILogObserver] = {}

    def _errorsAs(self, isJSON: bool) -> StreamWriter:
        # systemd's journal records the pid.
        isOfJournal = isJournal(self._stderr)
        format = jsonLines() if isJSON else formatLine if isOfJournal else formatWithPid
        return StreamWriter(self._stderr, forJournal(format, levelName) if isOfJournal else format, lambda event: None)

    def observer(self, logs: Sequence[ErrorLog], privacy: Privacy = FULL) -> ILogObserver:
        """
        Return an observer that writes each event to the targets whose level it reaches.

        @param logs: the targets.
        @param privacy: what the lines show of users and addresses.
        @raise OSError: a file cannot be opened.
        """
        least = leastLevel(logs)
        targets = [(self._target(log), log.level) for log in logs]
        # What reaches the publisher is for the targets of the lowest level in any case.
        publisher = LogPublisher(*(target if level is least else _Log(target, level) for target, level in targets))
        return self.masking(_Log(_Counted(publisher, self.lines), least), privacy)

    def masking(self, observer: ILogObserver, privacy: Privacy) -> ILogObserver:
        """
        Return an observer that passes on events to C{observer}, with no more of users and addresses than allowed.

        @param observer: receives the events.
        @param privacy: what it may see. If that is everything, C{observer} itself is returned.
        """
        return observer if privacy.isFull else Masking(privacy, self.key).observing(observer)

    def observerFor(
        self,
        logs: Sequence[ErrorLog],
        file: str,
        section: str,
        places: Lines = NO_LINES,
        privacy: Privacy = FULL,
    ) -> ILogObserver:
        """
        Like L{observer}, but an error names the place in the configuration.

        @param logs: the targets.
        @param file: the path of the ini file.
        @param section: the title of the section with C{error_log}.
        @param places: the lines of the options in the ini file.
        @param privacy: what the lines show of users and addresses.
        @raise ConfigurationError: a file cannot be opened.
        """
        try:
            return self.observer(logs, privacy)
        except OSError as error:
            reason = f"cannot be opened: {error.strerror}"
            problem = places.located(Problem(file, reason, section, "error_log", error.filename))
            raise ConfigurationError([problem]) from None

    def _target(self, log: ErrorLog) -> ILogObserver:
        if log.syslog is not None:
            server = log.syslog, log.isJSON
            if server not in self._syslogs:
                format = jsonLines(LONGEST_LINE) if log.isJSON else formatLine
                self._syslogs[server] = SyslogObserver(log.syslog, format, levelName, self._alarm)
            return self._syslogs[server]
        if log.file is None:
            return self._errorsOf(log.isJSON)
        file = log.file, log.isJSON
        if file not in self._files:
            self._files[file] = LogFile(log.file, jsonLines() if log.isJSON else formatWithPid, self._alarm, self._user)
        return self._files[file]

    def _errorsOf(self, isJSON: bool) -> StreamWriter:
        if not isJSON:
            self._hasText = True
            return self._errors
        if self._errorsInJSON is None:
            self._errorsInJSON = self._errorsAs(isJSON=True)
        return self._errorsInJSON

    def _alarm(self, event: LogEvent) -> None:
        """A target has lost its first line. Report it on standard error."""
        # A program that reads standard error expects JSON if an error_log writes only that there.
        errors = self._errors if self._hasText or self._errorsInJSON is None else self._errorsInJSON
        errors(event)
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
        kept = {(log.file, log.isJSON) for log in used}
        for file in [file for file in self._files if file not in kept]:
            self._files.pop(file).close()


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
