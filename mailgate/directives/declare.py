# -*- test-case-name: mailgate.test.directives.test_directives -*-
"""
The grammar of the values in gateway.ini, which is nginx's, and the vocabulary in which settings classes declare what
they read: C{timeout: float = directive("timeout", seconds, 60.0)}.

Settings classes stand beside the code that obeys them; L{mailgate.config} reads the ini file's sections into them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from attrs import evolve, field, fields, frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address

from mailgate.directives.needs import Need
from mailgate.directives.problems import ConfigurationError, Lines, Problem, nearest

__all__ = [
    "LONGEST_SOCKET_PATH",
    "ConfigurationError",
    "Directive",
    "Level",
    "ListenAddress",
    "Parser",
    "Problem",
    "ServerSettings",
    "SocketOptions",
    "bufferSize",
    "capabilities",
    "deadline",
    "directive",
    "directives",
    "exactFlag",
    "flag",
    "hostPort",
    "isHostName",
    "lines",
    "longSeconds",
    "nearest",
    "number",
    "oneOf",
    "path",
    "paths",
    "repeatedWords",
    "seconds",
    "size",
    "text",
    "word",
    "words",
]

T = TypeVar("T")
_DIRECTIVE = "mailgate directive"

Parser = Callable[[str, str], Any]
"""Makes a value of an option's text; its second argument is the folder that relative paths start from."""


class Level(Enum):
    """The kinds of section that a directive may stand in."""

    MAILGATE = "mailgate"
    MAIL = "mail"
    SERVER = "server"
    SANDBOX = "sandbox"


@frozen
class Directive:
    """
    One option of gateway.ini; C{group} is the settings class that declares it, C{field} its attribute there. The value
    of a C{secret} one is shown to nobody. Without any of its C{needs} it has no effect.
    """

    name: str
    parse: Parser
    levels: frozenset[Level]
    secret: bool = False
    group: type | None = None
    field: str = ""
    needs: tuple[Need, ...] | None = None


@frozen
class SocketOptions:
    """
    What nginx's C{listen} says of the socket itself; L{None} leaves it as the system has it. C{idle} and C{interval}
    are in seconds, of the C{keepalive} whose C{probes} end a connection, buffers in bytes.
    """

    backlog: int = 511
    receiveBuffer: int | None = None
    sendBuffer: int | None = None
    ipv6only: bool = True
    keepalive: bool | None = None
    idle: int | None = None
    interval: int | None = None
    probes: int | None = None
    multipath: bool = False


@frozen
class ListenAddress:
    """
    Where a server listens. C{host} is an address without brackets (C{0.0.0.0}, C{::}), C{unix:/path}, or
    C{systemd:NAME}, the sockets that systemd passes by that name; C{text} is what the operator wrote; with C{ssl} TLS
    is spoken from the first byte, with C{proxyProtocol} a PROXY header comes before that.
    """

    host: str
    port: int
    ssl: bool = False
    text: str = ""
    proxyProtocol: bool = False
    socket: SocketOptions = SocketOptions()

    @property
    def isPassed(self) -> bool:
        """Whether it is a name of sockets that systemd passes."""
        return self.host.startswith("systemd:")

    @property
    def wildcard(self) -> tuple[str, int] | None:
        """Host and port of the wildcard that takes this address in; L{None} where there are none."""
        if self.host.startswith(("unix:", "systemd:")):
            return None
        return ("::" if ":" in self.host else "0.0.0.0"), self.port

    @property
    def isOneAddress(self) -> bool:
        """Whether all who connect here have connected to this very address and port."""
        wildcard = self.wildcard
        return wildcard is not None and self.host != wildcard[0] and self.port != 0

    def __str__(self) -> str:
        if self.host.startswith(("unix:", "systemd:")):
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class ServerSettings:
    """
    One C{[server NAME]}, defaults of C{[mail]} filled in: C{settings[TLSSettings]} gives the directives of one
    settings class. C{given} holds the names of the options that were written, here or in C{[mail]}; C{inherited} those
    that C{[mail]} alone has. C{ports} are those of backends of its protocol, in the clear and with TLS from the first
    byte on, 0 where it has none of its own.
    """

    name: str
    protocol: str
    listen: tuple[ListenAddress, ...]
    groups: Mapping[type, Any] = field(factory=dict, repr=False)
    given: frozenset[str] = frozenset()
    file: str = "gateway.ini"
    inherited: frozenset[str] = frozenset()
    lines: Lines = field(factory=Lines, repr=False, eq=False)
    ports: tuple[int, int] = (0, 0)

    def __getitem__(self, group: type[T]) -> T:
        """The settings of class C{group}; its defaults, where nothing was read into it."""
        found: T = self.groups.get(group) or group()
        return found

    @property
    def speaksTLS(self) -> bool:
        """Whether one of its listening addresses speaks TLS from the first byte."""
        return any(address.ssl for address in self.listen)

    def problem(self, option: str, message: str, value: str | None = None) -> Problem:
        """What is wrong with this server's C{option}, which stands in the section that it is read from."""
        return self.lines.located(Problem(self.file, message, self.sectionOf(option), option, value))

    def sectionOf(self, option: str) -> str:
        """The section that C{option} is read from, or would be written in."""
        return "mail" if option in self.inherited else f"server {self.name}"


def directive(
    name: str, parse: Parser, default: Any, *levels: Level, secret: bool = False, needs: Sequence[Need] | None = None
) -> Any:
    """
    An attribute of a settings class that is read from option C{name}: in C{[mail]} and C{[server]} unless said. Its
    C{needs} are those of the class unless said.
    """
    where = frozenset(levels or (Level.MAIL, Level.SERVER))
    declared = Directive(name, parse, where, secret, needs=None if needs is None else tuple(needs))
    return field(default=default, metadata={_DIRECTIVE: declared}, repr=not secret)


def directives(group: type) -> Iterator[Directive]:
    """The directives that the settings class C{group} declares, with its C{needs} where they have none."""
    for attribute in fields(group):
        declared = attribute.metadata.get(_DIRECTIVE)
        if declared is not None:
            needs = getattr(group, "needs", ()) if declared.needs is None else declared.needs
            yield evolve(declared, group=group, field=attribute.name, needs=needs)


# The parsers. Each raises ValueError with a message that says what would have been right.


def text(value: str, folder: str) -> str:
    """One string, blanks included."""
    if not value.strip():
        raise ValueError("a value is missing")
    if "\n" in value.strip():
        raise ValueError("takes one line")
    if re.search("[\x00-\x1f\x7f\ud800-\udfff]", value.strip()):
        raise ValueError("holds a control character")
    return value.strip()


def flag(value: str, folder: str) -> bool:
    """nginx's flag, C{on} or C{off}."""
    if value.lower() not in ("on", "off"):
        raise ValueError('must be "on" or "off"')
    return value.lower() == "on"


def exactFlag(value: str, folder: str) -> bool:
    """The flag of a parameter within a value, which nginx compares to the letter."""
    if value not in ("on", "off"):
        raise ValueError('must be "on" or "off", in small letters')
    return value == "on"


def number(value: str, folder: str) -> int:
    """A decimal that is not negative."""
    if not re.fullmatch(r"[0-9]{1,12}", value):
        raise ValueError("must be a whole number, such as 5")
    return int(value)


def size(value: str, folder: str) -> int:
    """nginx's size in bytes: C{4096}, C{4k}, C{10m}."""
    match = re.fullmatch(r"([0-9]{1,12})([kKmM]?)", value)
    if match is None:
        raise ValueError("must be a size, such as 4096, 4k or 10m")
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2].lower()]


_UNITS = {
    "y": 365 * 86400.0,
    "M": 30 * 86400.0,
    "w": 7 * 86400.0,
    "d": 86400.0,
    "h": 3600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 0.001,
}


def _timePattern(*units: str) -> re.Pattern[str]:
    """Amounts of C{units}, in that order; a bare one at the end is of seconds."""
    ends = {"m": "m(?!s)", "s": r"(?:s|\Z)"}
    return re.compile(" *".join(rf"(?:(?P<{unit}>\d{{1,9}}){ends.get(unit, unit)})?" for unit in units), re.ASCII)


_TIME = _timePattern("w", "d", "h", "m", "s", "ms")
_LONG_TIME = _timePattern("y", "M", "w", "d", "h", "m", "s")


def _sum(match: re.Match[str]) -> float:
    return sum(int(amount) * _UNITS[unit] for unit, amount in match.groupdict().items() if amount)


def seconds(value: str, folder: str) -> float:
    """nginx's time: C{30s}, C{1h30m}, C{500ms}, a bare number at the end being seconds. Gives seconds."""
    match = _TIME.fullmatch(value)
    if match is None or not value:
        raise ValueError("must be a time, such as 30s, 1h30m or 500ms")
    return _sum(match)


def longSeconds(value: str, folder: str) -> int:
    """nginx's time of those directives that count whole seconds: years and months (of 30 days) too, no C{ms}."""
    match = _LONG_TIME.fullmatch(value)
    if match is None or not value:
        raise ValueError("must be a time in whole seconds, such as 30s, 1h30m or 2M")
    return int(_sum(match))


def deadline(value: str, folder: str) -> float:
    """A time that is longer than nothing."""
    given = seconds(value, folder)
    if not given:
        raise ValueError("must be longer than 0")
    return given


def bufferSize(value: str, folder: str) -> int:
    """A size in which the lines of a mail protocol find room: no less than POP3's of nginx."""
    given = size(value, folder)
    if not 128 <= given <= 1024 * 1024:
        raise ValueError("must be from 128 to 1m")
    return given


def word(value: str, folder: str) -> str:
    """One word of printable ASCII, such as a host name."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("must be one word of printable ASCII")
    return value


def path(value: str, folder: str) -> str:
    """A file; a relative path starts at the ini file's folder, C{~} is the home folder."""
    return os.path.join(folder, os.path.expanduser(text(value, folder)))


def lines(value: str, folder: str) -> tuple[str, ...]:
    """One item a line, blanks belonging to the item."""
    items = tuple(line.strip() for line in value.split("\n") if line.strip())
    if not items:
        raise ValueError("a value is missing")
    return items


def capabilities(*bare: str) -> Parser:
    """
    Capabilities, one a line, parameters belonging to them. Those C{bare} take none: whoever writes something behind
    one has put several on a line.
    """

    def parse(value: str, folder: str) -> tuple[str, ...]:
        items = lines(value, folder)
        for item in items:
            word, *parameters = item.split()
            if parameters and word.upper() in bare:
                raise ValueError(f'"{item}": write one capability a line')
            if not (item.isascii() and item.isprintable()):
                raise ValueError(f'"{item}" is not printable ASCII')
            if '"' in item:
                raise ValueError(f"{item}: write one capability a line, without quotes")
        return items

    return parse


def paths(value: str, folder: str) -> tuple[str, ...]:
    """Files, one a line."""
    return tuple(path(item, folder) for item in lines(value, folder))


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\.?\Z)(?:{_LABEL}\.)*(?=[A-Za-z0-9_-]*[A-Za-z-]){_LABEL}\.?")


def isHostName(text: str) -> bool:
    """
    Whether C{text} is a host name that can be looked up: letters, digits, hyphens and dots (RFC 1123), and underscores,
    as in names of containers. The last label has a letter or a hyphen: the system takes C{10.1} for an address.
    """
    return _HOST_NAME.fullmatch(text) is not None


LONGEST_SOCKET_PATH = 107
"""Bytes of a unix socket's path: C{sun_path} of Linux without its NUL."""


def hostPort(value: str) -> tuple[str, int]:
    """
    C{host:port}, C{[address]:port} or C{unix:/path} as host, without brackets, and port (0 for a unix socket).

    @raise ValueError: it is none of these.
    """
    if value.startswith("unix:/"):
        if len(os.fsencode(value)) - len("unix:") > LONGEST_SOCKET_PATH:
            raise ValueError(f"the path of a unix socket has at most {LONGEST_SOCKET_PATH} bytes")
        return value, 0
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\s/\[\]]+)):([0-9]{1,5})", value)
    if match is None:
        raise ValueError("must be host:port, [address]:port or unix:/path")
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"invalid port {port}; ports are 1 to 65535")
    host = match[1] or match[2]
    if not (isIPv6Address(host) if match[1] else isIPAddress(host) or isHostName(host)):
        raise ValueError(f"{host} is neither an address nor a host name of letters, digits, -, _ and .")
    return host, port


def oneOf(*allowed: str) -> Parser:
    """One of the words C{allowed}, in any case."""

    def parse(value: str, folder: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}{nearest(value.lower(), allowed)}")
        return value.lower()

    return parse


class _Words:
    def __init__(self, allowed: Sequence[str]) -> None:
        self._byLowerCase = {word.lower(): word for word in allowed}

    def __call__(self, value: str, folder: str) -> tuple[str, ...]:
        known = ", ".join(self._byLowerCase.values())
        given = value.split()
        if not given:
            raise ValueError(f"a value is missing: some of {known}")
        for word in given:
            if word.lower() not in self._byLowerCase:
                hint = nearest(word, list(self._byLowerCase.values()))
                raise ValueError(f'"{word}" is unknown, the words are {known}{hint}')
        chosen = {word.lower() for word in given}
        return tuple(word for lower, word in self._byLowerCase.items() if lower in chosen)


def words(*allowed: str) -> Parser:
    """Words split at blanks, in any case, of those C{allowed}; without repetition, in the order of C{allowed}."""
    return _Words(allowed)


def repeatedWords(parse: Parser, value: str) -> Iterator[str]:
    """The words that C{value} repeats, where C{parse} is of L{words}: they make no difference."""
    if isinstance(parse, _Words):
        seen: set[str] = set()
        for word in value.split():
            if word.lower() in seen:
                yield word
            seen.add(word.lower())
