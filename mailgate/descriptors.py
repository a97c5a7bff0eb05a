# -*- test-case-name: mailgate.test.test_transport_contract -*-
"""
Sockets of which there is no object, but a descriptor: what is asked of them, and where they lead. And how many
descriptors there may be.
"""

from __future__ import annotations

import resource
import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

__all__ = ["addressOf", "ask", "mostDescriptors", "reset"]

_RESET = struct.pack("ii", 1, 0)

_UNLIMITED = 1 << 30
"""Descriptors where the system has no limit: more than any has."""


def addressOf(family: int, raw: Any) -> IAddress:
    """The address that the system gives as C{raw}."""
    if family == socket.AF_INET:
        return IPv4Address("TCP", *raw)
    if family == socket.AF_INET6:
        return IPv6Address("TCP", *raw)
    return UNIXAddress(raw or None)


def ask(fd: int, family: int, method: str, *arguments: Any) -> Any:
    """
    What a socket object's C{method} does and gives for C{fd}, which has none.

    @raise OSError: as the method.
    """
    # The C type: what socket.socket adds to it nobody needs here, and takes longer than all else.
    descriptor = socket.SocketType(family, socket.SOCK_STREAM, 0, fd)
    try:
        return getattr(descriptor, method)(*arguments)
    finally:
        descriptor.detach()


def reset(fd: int, family: int) -> None:
    """Have the peer told, when C{fd} is closed, that the connection has broken off."""
    ask(fd, family, "setsockopt", socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def mostDescriptors() -> int:
    """How many descriptors this process may have open: the soft RLIMIT_NOFILE that is in force."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft
