# -*- test-case-name: mailgate.test.directives.test_addresses -*-
"""
Addresses of listeners, backends and services.
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
    The socket options of nginx's C{listen}. L{None} keeps the default of the system.

    @ivar backlog: the length of the queue of connections that are not accepted yet.
    @ivar receiveBuffer: C{rcvbuf}, in bytes.
    @ivar sendBuffer: C{sndbuf}, in bytes.
    @ivar ipv6only: whether an IPv6 wildcard address leaves IPv4 connections to other listeners.
    @ivar keepalive: whether TCP keepalive is on (C{so_keepalive}).
    @ivar idle: seconds without data before the first keepalive probe.
    @ivar interval: seconds between keepalive probes.
    @ivar probes: the number of unanswered probes that end the connection.
    @ivar multipath: whether to use Multipath TCP.
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
    One address of C{listen}.

    @ivar host: an IP address without brackets (C{0.0.0.0}, C{::}); C{unix:/path}; or C{systemd:NAME}, the sockets that
        systemd passes under this name.
    @ivar port: the TCP port; 0 where there is none.
    @ivar ssl: whether clients speak TLS from the first byte.
    @ivar text: the address as written in the configuration.
    @ivar proxyProtocol: whether a PROXY header precedes everything, TLS included.
    @ivar socket: the socket options.
    """

    host: str
    port: int
    ssl: bool = False
    text: str = ""
    proxyProtocol: bool = False
    socket: SocketOptions = SocketOptions()

    @property
    def isPassed(self) -> bool:
        """Whether systemd passes the sockets."""
        return self.host.startswith("systemd:")

    @property
    def wildcard(self) -> tuple[str, int] | None:
        """Host and port of the wildcard address that includes this address; L{None} for unix sockets and systemd's."""
        if self.host.startswith(("unix:", "systemd:")):
            return None
        return ("::" if ":" in self.host else "0.0.0.0"), self.port

    @property
    def isOneAddress(self) -> bool:
        """Whether each connection of this listener is to exactly this address and port."""
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
    Whether C{text} is a host name: letters, digits, hyphens and dots (RFC 1123), and underscores, which names of
    containers contain. The last label must contain a letter or a hyphen, because the system reads C{10.1} as an
    address.
    """
    return _HOST_NAME.fullmatch(text) is not None


LONGEST_SOCKET_PATH = 107
"""The limit for the path of a unix socket, in bytes: C{sun_path} of Linux without its NUL."""


def hostPort(value: str) -> tuple[str, int]:
    """
    Parse an address of a backend or a service.

    @param value: C{host:port}, C{[address]:port} or C{unix:/path}.
    @return: the host without brackets, and the port, which is 0 for a unix socket.
    @raise ValueError: C{value} is none of these.
    """
    if value.startswith("unix:/"):
        if len(os.fsencode(value)) - len("unix:") > LONGEST_SOCKET_PATH:
            raise ValueError(f"the path of a unix socket can have at most {LONGEST_SOCKET_PATH} bytes")
        return value, 0
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\s/\[\]]+)):([0-9]{1,5})", value)
    if match is None:
        raise ValueError("must be host:port, [address]:port or unix:/path")
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"invalid port {port}; use 1 to 65535")
    host = match[1] or match[2]
    if not (isIPv6Address(host) if match[1] else isIPAddress(host) or isHostName(host)):
        raise ValueError(f'{host} is neither an IP address nor a host name (letters, digits, "-", "_" and ".")')
    return host, port
