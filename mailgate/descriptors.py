# -*- test-case-name: mailgate.test.test_transport_contract -*-
"""
Sockets of which there is no object, but a descriptor: what is asked of them, and where they lead.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

__all__ = ["addressOf", "ask", "reset", "unread"]

_RESET = struct.pack("ii", 1, 0)
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT


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


def unread(transport: Any) -> bytes | None:
    """
    The first byte that has come for C{transport}, ours or one of Twisted's, and has not been read: empty at the end of
    the connection, L{None} where nothing has come, or there is no socket to look at. Under TLS it is the peer's byte,
    not yet decrypted.
    """
    try:
        if hasattr(transport, "fd"):
            first: bytes = ask(transport.fd, transport.family, "recv", 1, _LOOK) if transport.connected else b""
            return first
        held = getattr(transport, "socket", None)
        return None if held is None else held.recv(1, _LOOK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def reset(fd: int, family: int) -> None:
    """Have the peer told, when C{fd} is closed, that the connection has broken off."""
    ask(fd, family, "setsockopt", socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
