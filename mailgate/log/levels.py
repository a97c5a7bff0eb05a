# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
The levels of the log, which are nginx's. Twisted has no C{notice}: the life of the process, apart from connections.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import LogEvent, LogLevel

__all__ = ["CONNECTIONS", "LEVELS", "NOTICE", "RANKS", "isOfLife", "levelName"]


class _Notice:
    name = "notice"


NOTICE = _Notice()
"""
The level between info and warn, which Twisted lacks: the life of the process. Its events have Twisted's level info, and
L{isOfLife} tells them from those of connections.
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
"""
nginx's levels, and the nearest of Twisted's; our defects are all critical.
"""

RANKS = {level: rank for rank, level in enumerate(dict.fromkeys(LEVELS.values()))}
"""The levels in their order, by which they are compared."""

CONNECTIONS = "connections"
"""The C{log_source} of what is logged of connections at info and debug."""

_LIFE = ("twisted.scripts.", "twisted.application.", "twisted.internet.base")
_LIFE_LEGACY = ("Main loop terminated.", "Server Shut Down.", "Received SIG")


def isOfLife(event: LogEvent) -> bool:
    """
    Whether an C{event} at info tells of the life of the process, and of no connection: it is mailgate's own, but for
    connections, or Twisted's of the start and the end.
    """
    namespace = str(event.get("log_namespace"))
    # A logger that is a class's attribute has the class's name for its namespace, whatever it was given.
    if namespace == "mailgate" or namespace.startswith("mailgate."):
        return event.get("log_source") != CONNECTIONS
    if namespace.startswith(_LIFE):
        return True
    return namespace == "log_legacy" and event.get("log_text", "").startswith(_LIFE_LEGACY)


def levelName(event: LogEvent) -> str:
    """The word for the level of C{event}: Twisted's, or C{notice}."""
    level = event.get("log_level", LogLevel.info)
    return NOTICE.name if level is LogLevel.info and isOfLife(event) else str(level.name)
