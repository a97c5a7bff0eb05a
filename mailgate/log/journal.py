# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
What is logged: twisted.logger behind a level, so that an event that is not asked for is never built. Where it goes
L{mailgate.log.errorlog} says.

Texts from the network go into events through L{printable}; the observers escape whatever got past that.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure

from mailgate.log.levels import CONNECTIONS, NOTICE, RANKS
from mailgate.log.rate import LineLimit, Rate

__all__ = ["Journal", "oneLine", "printable"]

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


def oneLine(text: str) -> str:
    """C{text} with everything escaped that could break a line. What came through L{printable} stays as it is."""
    return text if text.isprintable() else text.translate(_ESCAPES)


class Journal:
    """
    A L{Logger} that builds no event below C{level}, one of L{mailgate.log.levels.LEVELS}, nor above C{rate} of one
    format, by C{clock}, if one is given.
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
        text = "log_rate suppressed {count} more lines like this: {beginning}"
        self._connections.emit(level, text, count=count, beginning=beginning)

    def flush(self) -> None:
        """Log now what was to be logged later: how many lines have been left out."""
        if self._limit is not None:
            self._limit.flush()
