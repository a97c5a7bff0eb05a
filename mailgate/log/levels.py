# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
The levels of the log, which are nginx's. Twisted has no level C{notice}.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, LogLevel

__all__ = ["CONNECTIONS", "DEBUGGED", "LEVELS", "NOTICE", "RANKS", "isOfLife", "levelName"]


class _Notice:
    name = "notice"


NOTICE = _Notice()
"""
The level between info and warn, for events of the process, such as starts and reloads. These events have Twisted's
level info; L{isOfLife} distinguishes them from events of connections.
"""

LEVELS: dict[str, Any] = {
    "debug": LogLevel.debug,
    "info": LogLevel.info,
    "notice": NOTICE,
    "warn": LogLevel.warn,
    "error": LogLevel.error,
    "crit": LogLevel.critical,
    "alert": LogLevel.critical,
    "emerg": LogLevel.critical,
}
"""nginx's levels, and the level of Twisted or L{NOTICE} for each."""

RANKS = {level: rank for rank, level in enumerate(dict.fromkeys(LEVELS.values()))}
"""The rank of each level; a higher rank is more severe."""

CONNECTIONS = "connections"
"""The C{log_source} of events of connections at levels info and debug."""

DEBUGGED = "log_debugged"
"""The field of events about debugged connections (C{debug_connection}). Logs take them whatever their level."""

_LIFE = ("twisted.scripts.", "twisted.application.", "twisted.internet.base")
_LIFE_LEGACY = ("Main loop terminated.", "Server Shut Down.", "Received SIG")


def isOfLife(event: LogEvent) -> bool:
    """
    Return whether an event of level info is about the process, and not about a connection. These are mailgate's own
    events with another source than L{CONNECTIONS}, and Twisted's events at the start and the stop.

    @param event: an event of Twisted's level info.
    """
    namespace = str(event.get("log_namespace"))
    # A Logger that is a class attribute takes the name of the class as its namespace.
    if namespace == "mailgate" or namespace.startswith("mailgate."):
        return event.get("log_source") != CONNECTIONS
    if namespace.startswith(_LIFE):
        return True
    return namespace == "log_legacy" and event.get("log_text", "").startswith(_LIFE_LEGACY)


def levelName(event: LogEvent) -> str:
    """Return the name of the level of C{event}: C{notice}, or Twisted's name."""
    level = event.get("log_level", LogLevel.info)
    return NOTICE.name if level is LogLevel.info and isOfLife(event) else str(level.name)
