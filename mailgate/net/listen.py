# -*- test-case-name: mailgate.test.net.test_listen -*-
"""
The grammar of nginx's C{listen}. L{mailgate.net.bind} makes the sockets.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address

from mailgate.directives import (
    ListenAddress,
    SocketOptions,
    directive,
    exactFlag,
    flag,
    hostPort,
    lines,
    longSeconds,
    nearest,
    number,
    size,
    text,
)

__all__ = ["KEEPALIVE", "ListenSettings"]

_LONGEST_KEEPALIVE = 32767
"""Linux's C{MAX_TCP_KEEPIDLE} and C{MAX_TCP_KEEPINTVL}, in seconds."""

_MOST_PROBES = 127

KEEPALIVE = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
"""The socket options for the parts of C{so_keepalive}."""

_MOST = 2**31 - 1
"""The largest C{int} in C."""


def _backlog(value: str) -> dict[str, Any]:
    backlog = number(value, "")
    if not backlog:
        raise ValueError("must not be 0")
    if backlog > _MOST:
        raise ValueError(f"must be at most {_MOST}")
    return {"backlog": backlog}


def _buffer(value: str) -> int:
    octets = size(value, "")
    if octets > _MOST:
        raise ValueError("must be at most 2047m")
    return octets


def _keepalive(value: str) -> dict[str, Any]:
    """
    Parse C{on}, C{off}, or C{[idle]:[intvl]:[cnt]}. Each part may be left out or be 0, but not all of them. Colons at
    the end may be left out.
    """
    if value in ("on", "off"):
        return {"keepalive": value == "on"}
    parts = value.split(":")
    if len(parts) > len(KEEPALIVE) or not any(parts):
        raise ValueError("must be on, off or [idle]:[intvl]:[cnt], such as 30m::10")
    idle, interval, count = parts + [""] * (len(KEEPALIVE) - len(parts))
    times = [longSeconds(time, "") if time else 0 for time in (idle, interval)]
    probes = number(count, "") if count else 0
    if not (any(times) or probes):
        raise ValueError("must have at least one value other than 0")
    if max(times) > _LONGEST_KEEPALIVE:
        raise ValueError(f"the times must be at most {_LONGEST_KEEPALIVE} seconds")
    if probes > _MOST_PROBES:
        raise ValueError(f"the count must be at most {_MOST_PROBES}")
    return {"keepalive": True, "idle": times[0] or None, "interval": times[1] or None, "probes": probes or None}


_FLAGS = {
    "ssl": {"ssl": True},
    "proxy_protocol": {"proxyProtocol": True},
    # Only nginx needs it: mailgate always binds each address.
    "bind": {},
    "multipath": {"multipath": True},
}
_VALUES: dict[str, Callable[[str], dict[str, Any]]] = {
    "backlog": _backlog,
    "rcvbuf": lambda value: {"receiveBuffer": _buffer(value)},
    "sndbuf": lambda value: {"sendBuffer": _buffer(value)},
    "ipv6only": lambda value: {"ipv6only": exactFlag(value, "")},
    "so_keepalive": _keepalive,
}
_OF_UNIT = {
    "rcvbuf": "ReceiveBuffer=",
    "sndbuf": "SendBuffer=",
    "ipv6only": "BindIPv6Only=",
    "so_keepalive": "KeepAlive=",
    "multipath": "SocketProtocol=mptcp",
}
"""The parameters that do not apply to sockets from systemd, and the settings of systemd.socket(5) for them."""

_PARAMETERS = [*_FLAGS, *(f"{name}=" for name in _VALUES)]


def _listen(value: str, folder: str) -> tuple[ListenAddress, ...]:
    found: list[ListenAddress] = []
    for item in lines(value, folder):
        address, *parameters = item.split()
        try:
            options = _options(parameters)
            if address.startswith("systemd:"):
                _leaveToUnit(parameters)
            places = [place for single in _singlePorts(address) for place in _places(single)]
            ofConnections = {name: options.pop(name) for name in ("ssl", "proxyProtocol") if name in options}
        except ValueError as error:
            # hostPort does not know that C{listen} takes a port alone.
            reason = str(error).replace("must be host:port,", "must be port, host:port,")
            raise ValueError(f'"{item}": {reason}') from None
        sockets = SocketOptions(**options)
        found.extend(ListenAddress(host, port, text=address, socket=sockets, **ofConnections) for host, port in places)
    return tuple(found)


def _options(parameters: list[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals and name in _FLAGS:
            options |= _FLAGS[name]
        elif equals and name in _VALUES:
            try:
                options |= _VALUES[name](value)
            except ValueError as error:
                raise ValueError(f"{parameter}: {error}") from None
        else:
            known = f"{', '.join(_PARAMETERS)}{nearest(name + equals, _PARAMETERS)}"
            raise ValueError(f'invalid parameter "{parameter}"; use one of {known}')
    return options


def _leaveToUnit(parameters: list[str]) -> None:
    for parameter in parameters:
        name = parameter.partition("=")[0]
        if name in _OF_UNIT:
            raise ValueError(f"{parameter}: must be set in the socket unit, as {_OF_UNIT[name]}")


def _singlePorts(address: str) -> Iterator[str]:
    """Yield C{address}, or an address for each port of a range such as C{127.0.0.1:1000-1003}."""
    ports = re.fullmatch(r"((?:.*:)?)([0-9]{1,5})-([0-9]{1,5})", address)
    if ports is None or address.startswith(("unix:", "systemd:")):
        yield address
        return
    host, first, last = ports[1], int(ports[2]), int(ports[3])
    if not first <= last:
        raise ValueError("the range of ports is empty")
    for port in range(first, last + 1):
        yield f"{host}{port}"


def _places(address: str) -> list[tuple[str, int]]:
    """Parse nginx's forms of addresses, and C{systemd:NAME}. A host name stands for all its addresses."""
    if address.startswith("systemd:"):
        if not re.fullmatch(r"systemd:[!-9;-~]{1,255}", address):
            raise ValueError("must be systemd:NAME, where NAME is the FileDescriptorName= of a socket unit")
        return [(address, 0)]
    if address.isdigit():
        address = f"*:{address}"
    if address.startswith("*:"):
        return [("0.0.0.0", hostPort(f"0.0.0.0{address[1:]}")[1])]
    host, port = hostPort(address)
    if isIPv6Address(host):
        # In the spelling of the system, which is also that of the local addresses of connections.
        return [(socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, host)), port)]
    if host.startswith("unix:") or isIPAddress(host):
        return [(host, port)]
    try:
        resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise ValueError("host not found") from None
    return list(dict.fromkeys((str(address[0]), port) for *_, address in resolved))


@frozen
class ListenSettings:
    """
    nginx's C{listen} and C{protocol}; and C{ssl}, which nginx had until 1.25: TLS from the first byte at all addresses
    of a server.
    """

    addresses: tuple[ListenAddress, ...] = directive("listen", _listen, (), only="server")
    protocol: str | None = directive("protocol", text, None, only="server")
    ssl: bool = directive("ssl", flag, False)

    @staticmethod
    def clashes(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """
        Yield each option that contradicts another one, and the problem.

        @param values: the values of the options of one section, by name.
        """
        if values.get("ssl") and values.get("starttls", "off") != "off":
            yield "starttls", "conflicts with ssl = on, which starts TLS at the first byte"
