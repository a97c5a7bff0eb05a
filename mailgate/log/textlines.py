# -*- test-case-name: mailgate.test.log.test_observers -*-
"""
Log events as lines of text. Control characters are escaped even in texts that did not pass through
L{mailgate.log.journal.printable}.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from string import Formatter
from typing import Any

from twisted.logger import LogEvent, eventAsText, formatEvent, formatTime

from mailgate.log.journal import oneLine
from mailgate.log.levels import CONNECTIONS, levelName
from mailgate.log.rate import MOST_KINDS

__all__ = ["TRACEBACK", "formatLine", "formatWithPid", "messageOf", "tracebackOf"]

TRACEBACK = "log_traceback"
"""The field of an event that has a traceback as text in place of its failure."""


def formatLine(event: LogEvent) -> str:
    """Return the lines of C{event}, without the pid."""
    return _line(event, "")


def formatWithPid(event: LogEvent) -> str:
    """Return the lines of C{event}, with the pid of this process."""
    # Read each time, as processes fork.
    return _line(event, f"{os.getpid()}: ")


def messageOf(event: LogEvent) -> str:
    """Return the message of C{event}, without its traceback. Nothing in it is escaped."""
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


def tracebackOf(event: LogEvent) -> str | None:
    """Return the traceback of C{event}, of several lines without the last line end; L{None} if it has none."""
    if "log_failure" in event:
        text = eventAsText({"log_failure": event["log_failure"]}, includeTimestamp=False, includeSystem=False)
        return text.strip("\n")
    return event.get(TRACEBACK)


@lru_cache(2)
def _shown(second: int | None) -> str:
    """Return the time as lines show it. Without the cache it would take a fifth of the time of a line."""
    return formatTime(second)


def _line(event: LogEvent, pid: str) -> str:
    when = event.get("log_time")
    moment = _shown(None if when is None else int(when))
    level = levelName(event)
    message = oneLine(messageOf(event))
    traceback = tracebackOf(event)
    if traceback is not None:
        # Indented, because an exception may quote texts from the network, which must not look like a log line.
        message += "".join(f"\n    {oneLine(line)}" for line in traceback.split("\n"))
    return f"{moment} [{level}] {pid}{message}\n"
