# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
The interface through which mailgate logs: twisted.logger with a level, so that events below the level cost nothing.
L{mailgate.log.errorlog} writes the events to files, syslog and standard error.

Pass texts from the network through L{printable} before you log them. The observers escape what was not.
"""

from __future__ import annotations

from functools import lru_cache
from time import time
from typing import Any

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.log.levels import CONNECTIONS, DEBUGGED, NOTICE, RANKS
from mailgate.log.rate import LineLimit, Rate

__all__ = ["Journal", "oneLine", "printable", "traced"]

_LONGEST = 256
"""The most characters of a text from the network in a line. A character has at most four bytes in UTF-8."""

_CONTROLS = (
    # Characters that end a line or control a terminal, and those that reverse the direction of the text behind them
    # (marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm, UAX 9).
    *(*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029),
    *(0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),
)
_ESCAPES = {code: chr(code).encode("unicode_escape").decode("ascii") for code in _CONTROLS}
_ESCAPES_OF_TEXTS = {
    **_ESCAPES,
    # Bytes that are not UTF-8 (PEP 383).
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)},
    # The log puts texts in quotes.
    ord('"'): '\\"',
    ord("\\"): "\\\\",
}


def printable(raw: bytes) -> str:
    """
    Convert bytes from the network for a log line. Control characters, quotes, backslashes and bytes that are not UTF-8
    are escaped.

    @param raw: bytes from the network.
    @return: the text. Beyond 256 characters it is cut and ends with C{...}.
    """
    # Cut before escaping, which is slow.
    text = raw[: 4 * _LONGEST].decode("utf-8", "surrogateescape")
    rest = ""
    if len(text) > _LONGEST or len(raw) > 4 * _LONGEST:
        text, rest = text[:_LONGEST], "..."
    if '"' in text or "\\" in text or not text.isprintable():
        text = text.translate(_ESCAPES_OF_TEXTS)
    return text + rest


def oneLine(text: str) -> str:
    """Return C{text} with control characters escaped. The results of L{printable} do not change."""
    return text if text.isprintable() else text.translate(_ESCAPES)


def _emit(logger: Logger, level: LogLevel, format: str, fields: dict[str, Any]) -> None:
    """
    Emit the event that C{logger.emit(level, format, **fields)} emits. That method searches all levels for C{level} and
    copies C{fields} twice, and so takes ten times as long.

    @param logger: the source of the event.
    @param level: the level of the event.
    @param format: the format of the line.
    @param fields: its fields, which become the event.
    """
    if "trace" in fields:
        format = traced(format)
    fields["log_logger"] = logger
    fields["log_level"] = level
    fields["log_namespace"] = logger.namespace
    fields["log_source"] = logger.source
    fields["log_format"] = format
    fields["log_time"] = time()
    logger.observer(fields)


@lru_cache(256)
def traced(format: str) -> str:
    """
    Add the trace id of C{auth_http_traceparent} to the format of a line about a connection.

    @param format: the format.
    @return: the format with the trace id behind the id of the session.
    """
    return format.replace("session {session}", "session {session}, trace {trace}", 1)


@implementer(ILogObserver)
class _Marking:
    """Marks the events of debugged connections, and passes them on."""

    def __init__(self, target: ILogObserver) -> None:
        self._target = target

    def __call__(self, event: LogEvent) -> None:
        event[DEBUGGED] = True
        self._target(event)


class Journal:
    """
    A L{Logger} with a level and a rate limit. It does not build events that are not logged.

    Formats are constants with named fields, as twisted.logger takes them. The rate limit counts per format. Pass fields
    with texts from the network through L{printable} first.

    @param level: the lowest level that is logged, a value of L{mailgate.log.levels.LEVELS}.
    @param observer: receives the events; L{None} for Twisted's global log.
    @param rate: the most lines of one format; L{None} for no limit.
    @param clock: an C{IReactorTime} for C{rate}. It may be L{None} without a rate.
    @ivar wantsDebug: whether events of level debug are logged.
    @ivar wantsInfo: whether events of level info are logged.
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
        self._rank = rank = RANKS[level]
        self.wantsDebug = rank <= RANKS[LogLevel.debug]
        self.wantsInfo = rank <= RANKS[LogLevel.info]
        self._wantsNotice = rank <= RANKS[NOTICE]
        self._wantsWarn = rank <= RANKS[LogLevel.warn]
        self._wantsError = rank <= RANKS[LogLevel.error]
        self._limit = None if rate is None else LineLimit(rate, clock, self._leftOut)
        self._observer, self._rate, self._clock = observer, rate, clock
        self._debugging: Journal | None = None

    @property
    def debugging(self) -> Journal:
        """
        The journal for the lines of debugged connections (C{debug_connection}, C{debug_user}). They reach all targets
        of this journal, whatever the level of either, as in nginx.
        """
        if self._debugging is None:
            observer = _Marking(self._observer or globalLogPublisher)
            self._debugging = Journal(LogLevel.debug, observer, self._rate, self._clock)
        return self._debugging

    def debug(self, format: str, **fields: Any) -> None:
        """
        Log a step of a connection. Never log passwords, at any level.

        @param format: the format of the line; C{fields} are its fields.
        """
        if self.wantsDebug and (self._limit is None or self._limit.admits(format, LogLevel.debug)):
            _emit(self._connections, LogLevel.debug, format, fields)

    def info(self, format: str, **fields: Any) -> None:
        """
        Log an ordinary event of a connection, such as a login.

        @param format: the format of the line; C{fields} are its fields.
        """
        if self.wantsInfo and (self._limit is None or self._limit.admits(format, LogLevel.info)):
            _emit(self._connections, LogLevel.info, format, fields)

    def record(self, format: str, **fields: Any) -> None:
        """
        Log at level info without the rate limit. For events that only clients with a valid login can cause.

        @param format: the format of the line; C{fields} are its fields.
        """
        if self.wantsInfo:
            _emit(self._connections, LogLevel.info, format, fields)

    def notice(self, format: str, **fields: Any) -> None:
        """
        Log an event of the process, such as a reload, without the rate limit.

        @param format: the format of the line; C{fields} are its fields.
        """
        if self._wantsNotice:
            _emit(self._logger, LogLevel.info, format, fields)

    def warn(self, format: str, **fields: Any) -> None:
        """
        Log a problem that the operator should fix, although all clients were served.

        @param format: the format of the line; C{fields} are its fields.
        """
        if self._wantsWarn and (self._limit is None or self._limit.admits(format, LogLevel.warn)):
            _emit(self._logger, LogLevel.warn, format, fields)

    def wants(self, level: Any) -> bool:
        """Return whether events of C{level}, a value of L{mailgate.log.levels.LEVELS}, are logged."""
        return self._rank <= RANKS[level]

    def limited(self, level: Any, format: str, **fields: Any) -> None:
        """
        Log that a limit has acted, which strangers can cause. The operator chooses the level (C{limit_log_level}).

        @param level: the level, a value of L{mailgate.log.levels.LEVELS}.
        @param format: the format of the line; C{fields} are its fields.
        """
        shown = LogLevel.info if level is NOTICE else level
        if self.wants(level) and (self._limit is None or self._limit.admits(format, shown)):
            _emit(self._connections if level is LogLevel.info else self._logger, shown, format, fields)

    def error(self, format: str, **fields: Any) -> None:
        """
        Log why a client was not served, if the cause is the gateway, a backend or an authentication service.

        @param format: the format of the line; C{fields} are its fields.
        """
        if self._wantsError and (self._limit is None or self._limit.admits(format, LogLevel.error)):
            _emit(self._logger, LogLevel.error, format, fields)

    def failure(self, format: str, failure: Failure | None = None, **fields: Any) -> None:
        """
        Log a defect of the gateway at level critical, with its traceback. The level of the journal does not matter.

        @param format: the format of the line; C{fields} are its fields.
        @param failure: the failure; L{None} for the exception that is being handled.
        """
        if self._limit is None or self._limit.admits(format, LogLevel.critical):
            self._logger.failure(format, failure=failure or Failure(), **fields)

    def _leftOut(self, level: LogLevel, count: int, beginning: str) -> None:
        text = "log_rate suppressed {count} more lines like this: {beginning}"
        self._connections.emit(level, text, count=count, beginning=beginning)

    def flush(self) -> None:
        """Log now how many lines C{log_rate} has suppressed so far."""
        if self._limit is not None:
            self._limit.flush()
        if self._debugging is not None:
            self._debugging.flush()
