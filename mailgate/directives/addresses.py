# -*- test-case-name: mailgate.test.directives.test_addresses -*-
"""
Addresses: where a server listens, and what names a backend or a service.
"""

from __future__ import annotations

import os
import re

from attrs import frozen
from twisted.internet.abstract import isIPAddress, isIPv6Address

__all__ = ["LONGEST_SOCKET_PATH", "ListenAddress", "SocketOptions", "hostPort", "isHostName"]


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
