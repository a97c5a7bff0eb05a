# -*- test-case-name: mailgate.test.upstream.test_group -*-
"""
The section C{[upstream NAME]}: nginx's C{upstream}, with the grammar of its C{server} lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen
from twisted.internet.abstract import isIPAddress

from mailgate.directives import (
    GatewaySettings,
    Problem,
    SectionSettings,
    deadline,
    directive,
    flag,
    hostPort,
    isHostName,
    lines,
    longSeconds,
    nearest,
    oneOf,
    seconds,
    text,
)
from mailgate.net.resolver import Resolver, parseResolver
from mailgate.rules.facts import VARIABLES
from mailgate.rules.settings import GeoSettings, MapSettings, unknownVariable, variablesIn
from mailgate.upstream.healthcheck import HealthCheck, healthCheck
from mailgate.upstream.peer import PeerLimits
from mailgate.upstream.sticky import Sticky, sticky

__all__ = ["HashKey", "ServerLine", "UpstreamSettings", "isGroupName"]

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_])?")
_METHODS = ("least_conn", "ip_hash", "hash", "random")
_BY_KEY = ("ip_hash", "hash")
"""Those that tie something else than the user to a server."""

_RANDOM = ("on", "two", "two least_conn")


@frozen
class ServerLine:
    """
    One C{server} of a group.

    @ivar host: an address without brackets, a host name, or C{unix:/path}.
    @ivar port: 0 for a unix socket, and where C{service} is given.
    @ivar limits: what bounds its use.
    @ivar backup: whether it serves only where no other server can be chosen.
    @ivar resolve: whether each address of the name is a server of its own, found again as their time to live ends.
    @ivar service: the service of SRV records that are looked for below C{host}; empty without.
    @ivar name: the name that its certificate must be good for; empty where that is C{host}.
    @ivar written: the line as it is written.
    """

    host: str
    port: int
    limits: PeerLimits = PeerLimits()
    backup: bool = False
    resolve: bool = False
    service: str = ""
    name: str = ""
    written: str = field(default="", eq=False)


@frozen
class HashKey:
    """C{hash}: the C{key}, a text with variables, and whether the hash is C{consistent}."""

    key: str
    consistent: bool = False


def isGroupName(name: str) -> bool:
    """Whether a group of backends may have the C{name}."""
    return _NAME.fullmatch(name) is not None and not isIPAddress(name)


def _count(least: int) -> Any:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < least:
            raise ValueError(f"must be a whole number, at least {least}")
        return int(value)

    return parse


def _time(value: str) -> int:
    return longSeconds(value, "")


def _hostName(value: str) -> str:
    if not isHostName(value):
        raise ValueError("must be a host name")
    return value


def _service(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,63}", value):
        raise ValueError("must be a service, such as imaps")
    return value


_LIMITS = {
    "weight": ("weight", _count(1)),
    "max_conns": ("maxConnections", _count(0)),
    "max_fails": ("maxFails", _count(0)),
    "fail_timeout": ("failTimeout", _time),
    "slow_start": ("slowStart", _time),
}
_PARAMETERS = {"service": _service, "name": _hostName}
_FLAGS = {"backup": "backup", "resolve": "resolve"}
_DOWN = ("down", "drain")
_KNOWN = (*(f"{name}=" for name in (*_LIMITS, *_PARAMETERS)), *_FLAGS, *_DOWN)


def _servers(value: str, folder: str) -> tuple[ServerLine, ...]:
    return tuple(_server(line) for line in lines(value, folder))


def _server(line: str) -> ServerLine:
    address, *parameters = line.split()
    limits: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for parameter in parameters:
        name, assigned, value = parameter.partition("=")
        try:
            if assigned and name in _LIMITS:
                attribute, parse = _LIMITS[name]
                limits[attribute] = parse(value)
            elif assigned and name in _PARAMETERS:
                others[name] = _PARAMETERS[name](value)
            elif not assigned and name in _FLAGS:
                others[_FLAGS[name]] = True
            elif not assigned and name in _DOWN:
                limits["down"] = True
            else:
                raise ValueError(f"is no known parameter{nearest(f'{name}{assigned}', _KNOWN)}")
        except ValueError as error:
            raise ValueError(f'"{parameter}" of {address}: {error}') from None
    host, port = _address(address, "service" in others)
    return ServerLine(host, port, PeerLimits(**limits), written=line, **others)


def _address(address: str, hasService: bool) -> tuple[str, int]:
    if not hasService:
        try:
            return hostPort(address)
        except ValueError as error:
            raise ValueError(f'"{address}": {error}') from None
    if not isHostName(address):
        raise ValueError(f'"{address}": must be a host name without a port, as service= finds the port')
    return address, 0


def _hash(value: str, folder: str) -> HashKey:
    written = text(value, folder)
    key, _, last = written.rpartition(" ")
    if last == "consistent" and key.strip():
        return HashKey(key.strip(), True)
    return HashKey(written)


@frozen
class UpstreamSettings:
    """
    A group of backends. One of C{leastConnections}, C{ipHash}, C{hashKey} and C{random} chooses among C{servers}; where
    none is given they serve by turns. With C{sticky} users stay where they are.
    """

    servers: tuple[ServerLine, ...] = directive("server", _servers, ())
    leastConnections: bool = directive("least_conn", flag, False)
    ipHash: bool = directive("ip_hash", flag, False)
    hashKey: HashKey | None = directive("hash", _hash, None)
    random: str | None = directive("random", oneOf(*_RANDOM), None)
    sticky: Sticky | None = directive("sticky", sticky, None)
    resolver: Resolver | None = directive("resolver", parseResolver, None)
    resolverTimeout: float = directive("resolver_timeout", deadline, 30.0)
    healthCheck: HealthCheck | None = directive("health_check", healthCheck, None)
    healthCheckTimeout: float = directive("health_check_timeout", deadline, 5.0)
    onDown: str = directive("on_down", oneOf("keep", "close"), "keep")
    maxDisconnectDelay: float = directive("max_disconnect_delay", seconds, 30.0)

    @property
    def method(self) -> str:
        """How a server is chosen, as the directive has it."""
        if self.sticky is not None:
            return f"sticky, {self.proposes}"
        return self.proposes

    @property
    def proposes(self) -> str:
        """How one is chosen for a user without a place, as the directive has it."""
        if self.hashKey is not None:
            return f"hash {self.hashKey.key}{' consistent' if self.hashKey.consistent else ''}"
        if self.random is not None:
            return "random" if self.random == "on" else f"random {self.random}"
        if self.leastConnections:
            return "least_conn"
        return "ip_hash" if self.ipHash else "round robin" if self.sticky is None else "hash of the user"

    @staticmethod
    def clashes(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the methods beside another one in C{values}, the parsed values of a section."""
        chosen = [name for name in _METHODS if values.get(name)]
        for name in chosen[1:]:
            yield name, f"cannot stand together with {chosen[0]}: a group has one way to choose"
        if values.get("sticky"):
            for name in chosen:
                if name in _BY_KEY:
                    yield "sticky", f"cannot stand together with {name}: sticky ties a server to the user"

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield why the group of C{section} cannot serve, and which parameters its method does not support."""
        if not isGroupName(section.name):
            yield section.problem("", "the name of a group has letters, digits, dots, hyphens and underscores only")
        if "server" not in section.given:
            yield section.problem("server", "is missing: give the servers of the group, one a line")
        elif self.servers and all(line.backup for line in self.servers):
            yield section.problem("server", "has only backups: a group needs a server without backup")
        for line in self.servers:
            if self.servers.count(line) > 1:
                message = "is given twice: write it once, with weight=2 for twice its share of sessions"
                yield section.problem("server", message, line.written)
                break
        if self.healthCheck is not None and self.healthCheck.port:
            for line in self.servers:
                if line.host.startswith("unix:"):
                    yield section.problem("health_check", "port= cannot be used with a unix socket")
                    break
        byChance = "ip_hash" if self.ipHash else "random" if self.random else ""
        for line in self.servers:
            if line.backup and byChance:
                yield section.problem("server", f"backup cannot be used with {byChance}", line.written)
            if line.limits.slowStart and (byChance or self.hashKey):
                yield section.problem("server", f"slow_start cannot be used with {byChance or 'hash'}", line.written)
            if line.limits.slowStart and self.sticky and not (byChance or self.leastConnections):
                yield section.problem("server", "slow_start goes with sticky only beside least_conn", line.written)

    @classmethod
    def conflicts(cls, settings: GatewaySettings) -> Iterator[Problem]:
        """Yield the groups of C{settings} whose names differ in case only, and unknown variables in C{hash}."""
        tables = {**settings.sections(GeoSettings), **settings.sections(MapSettings)}
        names: dict[str, str] = {}
        for section in settings.named:
            if cls not in section.groups:
                continue
            other = names.setdefault(section.name.lower(), section.name)
            if other != section.name:
                yield section.problem("", f"differs from [upstream {other}] in upper and lower case only")
            check = section[cls].healthCheck
            if check is not None and check.protocol not in ("", *(server.protocol for server in settings.servers)):
                yield section.problem("health_check", f"there is no [server] with the protocol {check.protocol}")
            key = section[cls].hashKey
            for variable in variablesIn("" if key is None else key.key):
                if variable not in VARIABLES and variable not in tables:
                    yield section.problem("hash", unknownVariable(variable, tables))
