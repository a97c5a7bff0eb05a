# -*- test-case-name: mailgate.test.log.test_syslog -*-
"""
nginx's C{syslog:} logs: sends events as datagrams in the format of BSD syslog (RFC 3164, section 4.1) to a UDP port or
a unix socket.

A datagram that cannot be sent at once is dropped, and counted if the system reports an error. So a slow or stopped
syslog server does not slow down the gateway. Datagrams need no connection: a restarted syslog server receives the next
line.

The module also writes the severities on standard error, for systemd's journal.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from functools import lru_cache
from time import localtime, time
from typing import Any

from attrs import frozen
from twisted.logger import ILogObserver, LogEvent
from zope.interface import implementer

from mailgate.directives import hostPort, nearest
from mailgate.log.lostlines import LostLines

__all__ = ["FACILITIES", "LONGEST_LINE", "SyslogObserver", "SyslogServer", "forJournal", "isJournal", "syslogServer"]

FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news"),
    *("uucp", "clock", "authpriv", "ftp", "ntp", "audit", "alert", "cron"),
    *(f"local{number}" for number in range(8)),
)
"""nginx's names of facilities, in the order of their numbers. Python's logging.handlers has other names from 9 on."""

_SEVERITIES = ("emerg", "alert", "crit", "error", "warn", "notice", "info", "debug")
_SEVERITY = {word: _SEVERITIES.index(word) for word in _SEVERITIES} | {"critical": _SEVERITIES.index("crit")}
"""The number of each severity, by the names of nginx's and of Twisted's levels."""

_PORT = 514
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

LONGEST_LINE = 2048
"""The most bytes of a message. Longer ones are cut, as in nginx (C{NGX_MAX_ERROR_STR})."""


@frozen
class SyslogServer:
    """
    A syslog server, and how messages to it look.

    @ivar family: the address family.
    @ivar address: the address for C{socket.sendto}: a path for C{AF_UNIX}, otherwise a tuple with host and port.
    @ivar facility: the number of the facility.
    @ivar tag: the name of the program in messages.
    @ivar host: the host name in messages; L{None} with C{nohostname}.
    """

    family: socket.AddressFamily
    address: Any
    facility: int
    tag: str
    host: str | None

    @property
    def isUNIX(self) -> bool:
        """Whether the address is a unix socket."""
        return self.family == socket.AF_UNIX

    @property
    def place(self) -> str:
        """How messages name this server."""
        if self.isUNIX:
            return f"syslog:server=unix:{self.address}"
        host, port = self.address[:2]
        return f"syslog:server=[{host}]:{port}" if ":" in host else f"syslog:server={host}:{port}"


def syslogServer(parameters: str) -> SyslogServer:
    """
    Parse the part of an C{error_log} after C{syslog:}. Host names are resolved at once.

    @param parameters: C{server=ADDRESS[:PORT]}, and optionally C{facility=}, C{severity=}, C{tag=} and C{nohostname},
        separated by commas.
    @raise ValueError: the form is wrong, or the host name does not resolve.
    """
    given = {"facility": "local7", "tag": "mailgate"}
    seen: set[str] = set()
    for parameter in parameters.split(","):
        name, sign, value = parameter.partition("=")
        if name not in _PARAMETERS or bool(sign) == (name == "nohostname"):
            raise ValueError(f'unknown syslog parameter "{parameter}"{nearest(name, list(_PARAMETERS))}')
        if name in seen:
            raise ValueError(f'duplicate syslog "{name}"')
        seen.add(name)
        _PARAMETERS[name](value)
        given[name] = value
    if "server" not in given:
        raise ValueError("no syslog server specified: give one, such as server=10.0.0.1:514 or server=unix:/dev/log")
    family, address = _resolve(given["server"])
    host = None if "nohostname" in given else socket.gethostname().lower()
    return SyslogServer(family, address, FACILITIES.index(given["facility"]), given["tag"], host)


def _checkWord(what: str, words: tuple[str, ...]) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value not in words:
            known = ", ".join(words)
            raise ValueError(f'unknown syslog {what} "{value}"; use one of {known}{nearest(value, words)}')

    return check


def _checkTag(value: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,32}", value):
        raise ValueError(f'syslog tag "{value}" must be 1 to 32 letters, digits and underscores')


def _checkNothing(value: str) -> None:
    return None


_PARAMETERS: dict[str, Callable[[str], None]] = {
    "server": _checkNothing,
    "facility": _checkWord("facility", FACILITIES),
    # It has no effect, as in nginx: each event has its own severity.
    "severity": _checkWord("severity", _SEVERITIES),
    "tag": _checkTag,
    "nohostname": _checkNothing,
}


def _resolve(server: str) -> tuple[socket.AddressFamily, Any]:
    hasPort = server.startswith("unix:") or re.search(r"(?:^[^:]*|\]):[^:]*\Z", server)
    try:
        host, port = hostPort(server if hasPort else f"{server}:{_PORT}")
    except ValueError as error:
        raise ValueError(f'syslog server "{server}": {error}') from None
    if host.startswith("unix:"):
        return socket.AF_UNIX, host.removeprefix("unix:")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        raise ValueError(f'host not found in syslog server "{server}"') from None
    family, _, _, _, address = found[0]
    return family, address


@implementer(ILogObserver)
class SyslogObserver:
    """
    Sends log events to a syslog server, one datagram per line. The pid follows the tag.

    @param server: the syslog server.
    @param formatEvent: called with a log event, returns its text.
    @param levelName: called with a log event, returns the name of its level.
    @param alarm: called with a log event when the first line is lost.
    @raise OSError: the process has too many open files.
    """

    def __init__(
        self,
        server: SyslogServer,
        formatEvent: Callable[[LogEvent], str],
        levelName: Callable[[LogEvent], str],
        alarm: Callable[[LogEvent], object] = lambda event: None,
    ) -> None:
        self._server = server
        self._formatEvent = formatEvent
        self._levelName = levelName
        self._losses = LostLines(server.place, alarm)
        self._socket = socket.socket(server.family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, event: LogEvent) -> None:
        lines = self._lines(event)
        try:
            if self._losses.count:
                for line in self._lines(self._losses.event()):
                    self._socket.sendto(line, self._server.address)
                self._losses.clear()
            while lines:
                self._socket.sendto(lines[0], self._server.address)
                del lines[0]
        except OSError as error:
            # The syslog server is not there, or too slow.
            self._losses.add(len(lines), error)

    def _lines(self, event: LogEvent) -> list[bytes]:
        """Return the datagrams of C{event}."""
        header = self._header(event).encode("ascii", "backslashreplace")
        found = []
        for line in self._formatEvent(event).rstrip("\n").split("\n"):
            message = line.encode("utf-8", "backslashreplace")
            if len(message) > LONGEST_LINE:
                message = message[:LONGEST_LINE].decode("utf-8", "ignore").encode()
            found.append(header + message)
        return found

    def _header(self, event: LogEvent) -> str:
        priority = self._server.facility * 8 + _SEVERITY[self._levelName(event)]
        when = event.get("log_time")
        moment = _shown(int(time() if when is None else when))
        host = "" if self._server.host is None else f"{self._server.host} "
        return f"<{priority}>{moment} {host}{self._server.tag}[{os.getpid()}]: "


@lru_cache(2)
def _shown(second: int) -> str:
    """Return the time as RFC 3164 has it. Without the cache it would take a fifth of the time of a line."""
    moment = localtime(second)
    clock = f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"
    return f"{_MONTHS[moment.tm_mon - 1]} {moment.tm_mday:2} {clock}"


def isJournal(stream: Any) -> bool:
    """Return whether C{stream} is connected to systemd's journal (C{JOURNAL_STREAM} in systemd.exec(5))."""
    try:
        opened = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{opened.st_dev}:{opened.st_ino}"


def forJournal(
    formatEvent: Callable[[LogEvent], str], levelName: Callable[[LogEvent], str]
) -> Callable[[LogEvent], str]:
    """
    Return a function that formats an event for systemd's journal: each line has its severity in front (sd-daemon(3)).

    @param formatEvent: called with a log event, returns its text.
    @param levelName: called with a log event, returns the name of its level.
    """

    def formatted(event: LogEvent) -> str:
        severity = _SEVERITY[levelName(event)]
        return "".join(f"<{severity}>{line}\n" for line in formatEvent(event).rstrip("\n").split("\n"))

    return formatted
