# -*- test-case-name: mailgate.test.net.test_resolver -*-
"""
The grammar of nginx's C{resolver}: the name servers that look up the host names of clients.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import ClassVar

from attrs import frozen

from mailgate.directives import deadline, directive, exactFlag, hostPort, longSeconds, nearest, text
from mailgate.directives.needs import Need, protocol

__all__ = ["NameServer", "Resolver", "ResolverSettings", "parseResolver"]

NameServer = tuple[str, int]
"""An address, without brackets and in its canonical spelling, and a port."""

PORT = 53
"""The default port of name servers."""

_PARAMETERS = ("valid", "ipv4", "ipv6")


@frozen
class Resolver:
    """
    The value of C{resolver}.

    @ivar servers: the name servers.
    @ivar valid: seconds for which answers are cached; 0 for the TTL of the answer.
    @ivar ipv4: whether to query IPv4 addresses when a name is verified.
    @ivar ipv6: whether to query IPv6 addresses when a name is verified.
    """

    servers: tuple[NameServer, ...]
    valid: int = 0
    ipv4: bool = True
    ipv6: bool = True


def parseResolver(value: str, folder: str) -> Resolver | None:
    """
    Parse a C{resolver} directive.

    @param value: the value.
    @param folder: not used.
    @return: L{None} for C{off}.
    @raise ValueError: the value is invalid.
    """
    words = text(value, folder).split()
    if words == ["off"]:
        return None
    servers: list[NameServer] = []
    parameters: dict[str, int | bool] = {}
    for word in words:
        name, assigned, setting = word.partition("=")
        if word == "off":
            raise ValueError('"off" cannot be combined with other words')
        if assigned:
            parameters[name] = _parameter(name, setting, folder)
        else:
            servers.extend(_servers(word))
    if not servers:
        raise ValueError("no name servers defined: give an address, such as 127.0.0.1 or [::1]:53")
    resolver = Resolver(tuple(dict.fromkeys(servers)), **parameters)  # type: ignore[arg-type]
    if not (resolver.ipv4 or resolver.ipv6):
        raise ValueError('"ipv4" and "ipv6" cannot both be "off"')
    return resolver


def _parameter(name: str, setting: str, folder: str) -> int | bool:
    if name == "status_zone":
        raise ValueError('"status_zone=" is not supported; only the commercial nginx has it')
    if name not in _PARAMETERS:
        raise ValueError(f'invalid parameter "{name}="{nearest(name, _PARAMETERS)}')
    try:
        return longSeconds(setting, folder) if name == "valid" else exactFlag(setting, folder)
    except ValueError as error:
        raise ValueError(f'"{name}={setting}": {error}') from None


def _servers(word: str) -> Iterator[NameServer]:
    """Yield all addresses of one name server."""
    hasPort = ":" in word and not word.endswith("]")
    try:
        host, port = hostPort(word if hasPort else f"{word}:{PORT}")
    except ValueError as error:
        raise ValueError(f'"{word}": {_plainer(str(error))}') from None
    if not port:
        raise ValueError(f'"{word}": a name server cannot be a unix socket')
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        raise ValueError(f'host not found in resolver "{word}"') from None
    for *_, address in found:
        yield str(ip_address(address[0])), port


def _plainer(message: str) -> str:
    """Adapt a message of C{hostPort}: here the port is optional, and unix sockets are not allowed."""
    return re.sub(r"^must be .*", "must be an address, such as 127.0.0.1, [::1] or 127.0.0.1:53", message)


_SMTP = protocol("smtp")
_RESOLVER = Need("resolver", lambda server: server[ResolverSettings].resolver is not None)


@frozen
class ResolverSettings:
    """nginx's C{resolver} and C{resolver_timeout}. The timeout applies to each of the two lookups of a client."""

    needs: ClassVar[tuple[Need, ...]] = (_SMTP,)

    resolver: Resolver | None = directive("resolver", parseResolver, None)
    timeout: float = directive("resolver_timeout", deadline, 30.0, needs=(_SMTP, _RESOLVER))
