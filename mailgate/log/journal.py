# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
What is logged, and where to: twisted.logger behind a level, so that an event nobody asked for is never built, and the
observers that write to C{error_log}'s targets.

Texts from the network go into events through L{printable}; the observers escape whatever got past that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import IO, Any

from attrs import frozen
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    eventAsText,
    formatEvent,
    formatTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.directives import (
    ConfigurationError,
    Problem,
    SectionSettings,
    ServerSettings,
    directive,
    lines,
    nearest,
    path,
)
from mailgate.directives.problems import NO_LINES, Lines
from mailgate.log.levels import CONNECTIONS, LEVELS, NOTICE, RANKS, isOfLife, levelName
from mailgate.log.logfile import LogFile
from mailgate.log.lostlines import StreamWriter
from mailgate.log.rate import LineLimit, Rate, logRate
from mailgate.log.syslog import SyslogObserver, SyslogServer, forJournal, isJournal, syslogServer
from mailgate.system.regularfiles import OVERWRITTEN, isSameFile

__all__ = [
    "NOTICE",
    "ErrorLog",
    "ErrorLogs",
    "Journal",
    "LogSettings",
    "ProcessLog",
    "ServerLogSettings",
    "isOfLife",
    "leastLevel",
    "levelName",
    "needsStandardError",
    "printable",
]

_LONGEST = 256
"""Characters of a text from the network that a line shows; as UTF-8 no character has more than four bytes."""

_CONTROLS = (
    # What ends a line or speaks to a terminal, and what has the rest of a line shown from right to left (the marks,
    # embeddings, overrides and isolates of Unicode's bidirectional algorithm, UAX 9).
    *(*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029),
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
)
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in _CONTROLS}
_ESCAPES_OF_TEXTS = {
    **_ESCAPES,
    # Bytes that are no UTF-8 (PEP 383).
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},
    # The log puts texts into quotes, which nothing in them may seem to end.
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def printable(raw: bytes) -> str:
    """
    C{raw} as text for one line of a log: UTF-8 where it is that, everything that could break a line escaped, as are
    backslashes. What is longer than 256 characters is cut, and ends in C{...}.
    """
    # Cut first: an escape is dear, and nobody reads a name of kilobytes.
    text = raw[: 4 * _LONGEST].decode("utf-8", "surrogateescape")
    rest = ""
    if len(text) > _LONGEST or len(raw) > 4 * _LONGEST:
        text, rest = text[:_LONGEST], "..."
    if '"' in text or "\\" in text or not text.isprintable():
        text = text.translate(_ESCAPES_OF_TEXTS)
    return text + rest


def _oneLine(text: str) -> str:
    """C{text} with everything escaped that could break a line. What came through L{printable} stays as it is."""
    return text if text.isprintable() else text.translate(_ESCAPES)


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
            raise ValueError(f'"{word}" is no level, they are {", ".join(LEVELS)}{nearest(word, list(LEVELS))}')
        level = LEVELS[word]
        if target.startswith("memory:"):
            raise ValueError(
                f'"{target}": memory: is for debug builds of nginx; a file, stderr or syslog:server=… can be logged to'
            )
        if target.startswith("syslog:"):
            logs.append(ErrorLog(None, level, syslogServer(target.removeprefix("syslog:"))))
        else:
            logs.append(ErrorLog(None if target == "stderr" else path(target, folder), level))
    return tuple(logs)


def leastLevel(logs: Sequence[ErrorLog]) -> Any:
    """The least level that any of C{logs} wants: one of L{LEVELS}."""
    return min((log.level for log in logs), default=LogLevel.error, key=RANKS.__getitem__)


@implementer(ILogObserver)
class _Log:
    """Hands to C{target} what is of the C{least} level, one of L{LEVELS}, or above."""

    def __init__(self, target: ILogObserver, least: Any) -> None:
        self._target = target
        self._least = least
        self._rank = RANKS[least]

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level", LogLevel.info)
        if RANKS[level] >= self._rank or (self._least is NOTICE and level is LogLevel.info and isOfLife(event)):
            self._target(event)


def needsStandardError(logs: Sequence[ErrorLog]) -> bool:
    """Whether a line that one of C{logs} wants reaches none of them but standard error."""
    others = [log for log in logs if not log.isStandardError]
    return len(others) < len(logs) and (not others or RANKS[leastLevel(logs)] < RANKS[leastLevel(others)])


_NOBODY = "nobody is there yet; what is sent there is lost"
_NO_NAMES = ("off", "no", "none", "false", "on", "stdout", "syslog")
_FILE = "is taken for a file: error_log is a file, stderr or syslog:server=ADDRESS, and a level behind a blank"


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


class Journal:
    """
    A L{Logger} that builds no event below C{level}, one of L{LEVELS}, nor above C{rate} of one format, by C{clock}, if
    one is given.
    Formats are constants of twisted.logger's form, with keyed fields; fields that hold a text from the network have
    been through L{printable}.
    """

    def __init__(
        self,
        level: Any = LogLevel.error,
        observer: ILogObserver | None = None,
        rate: Rate | None = None,
        clock: Any = None,
    ) -> None:
        self._logger = Logger("mailgate", observer=observer)
        self._connections = Logger("mailgate", source=CONNECTIONS, observer=observer)
        rank = RANKS[level]
        self.wantsDebug = rank <= RANKS[LogLevel.debug]
        self.wantsInfo = rank <= RANKS[LogLevel.info]
        self._wantsNotice = rank <= RANKS[NOTICE]
        self._wantsWarn = rank <= RANKS[LogLevel.warn]
        self._wantsError = rank <= RANKS[LogLevel.error]
        self._limit = None if rate is None else LineLimit(rate, clock, self._leftOut)

    def debug(self, format: str, **fields: Any) -> None:
        """A step of a connection. Credentials are in no line of any level."""
        if self.wantsDebug and (self._limit is None or self._limit.admits(format, LogLevel.debug)):
            self._connections.debug(format, **fields)

    def info(self, format: str, **fields: Any) -> None:
        """What happened to a connection, in the ordinary course of things."""
        if self.wantsInfo and (self._limit is None or self._limit.admits(format, LogLevel.info)):
            self._connections.info(format, **fields)

    def record(self, format: str, **fields: Any) -> None:
        """As C{info}, however many there are: what only a user who has logged in can cause."""
        if self.wantsInfo:
            self._connections.info(format, **fields)

    def notice(self, format: str, **fields: Any) -> None:
        """A step in the life of the process, which is logged however many there are."""
        if self._wantsNotice:
            self._logger.info(format, **fields)

    def warn(self, format: str, **fields: Any) -> None:
        """What an operator may want to mend, though everybody was served."""
        if self._wantsWarn and (self._limit is None or self._limit.admits(format, LogLevel.warn)):
            self._logger.warn(format, **fields)

    def error(self, format: str, **fields: Any) -> None:
        """What kept somebody from being served, and lies with us, a backend or an authentication service."""
        if self._wantsError and (self._limit is None or self._limit.admits(format, LogLevel.error)):
            self._logger.error(format, **fields)

    def failure(self, format: str, failure: Failure | None = None, **fields: Any) -> None:
        """A defect: C{failure}, or the exception that is being handled, is logged with its traceback."""
        if self._limit is None or self._limit.admits(format, LogLevel.critical):
            self._logger.failure(format, failure=failure or Failure(), **fields)

    def _leftOut(self, level: LogLevel, count: int, beginning: str) -> None:
        text = "{count} more lines like this were left out, by log_rate: {beginning}"
        self._connections.emit(level, text, count=count, beginning=beginning)

    def flush(self) -> None:
        """Log now what was to be logged later: how many lines have been left out."""
        if self._limit is not None:
            self._limit.flush()


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
    message = _oneLine(_textOf(event))
    if "log_failure" in event:
        traceback = eventAsText({"log_failure": event["log_failure"]}, includeTimestamp=False, includeSystem=False)
        # Indented: an exception may quote the network, and what it quotes is not to look like an event.
        message += "".join(f"\n    {_oneLine(line)}" for line in traceback.strip("\n").split("\n"))
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
                yield f"{file.path} cannot be opened again, the old file stays: {error.strerror}"
            else:
                if lost is not None:
                    yield f"{file.path} is open again, but the last lines of the old file are lost: {lost.strerror}"
        if owner is not None:
            yield from self._give(*owner)

    def _give(self, uid: int, gid: int) -> Iterator[str]:
        for file in self._files.values():
            try:
                file.give(uid, gid)
            except OSError as error:
                yield f"{file.path} cannot be given to the workers' user: {error.strerror}"

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
