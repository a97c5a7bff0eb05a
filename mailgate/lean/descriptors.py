# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""
Sockets of which there is no object, but a descriptor: what is asked of them, and where they lead. And how many
descriptors there may be.
"""

from __future__ import annotations

import resource
import select
import socket
import struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

__all__ = ["Peephole", "addressOf", "ask", "mostDescriptors", "reset", "sendingRoom"]

_RESET = struct.pack("ii", 1, 0)
_LOOK = socket.MSG_PEEK | socket.MSG_DONTWAIT

_SO_MEMINFO = 55
"""Linux's socket option (socket(7)), which Python has no name for: the memory that a socket uses and may use."""

_MEMINFO = struct.Struct("=9I")
_WMEM_ALLOC, _SNDBUF, _WMEM_QUEUED = 2, 3, 5

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


class Peephole:
    """What has come for C{transport}, which is ours or one of Twisted's, and has not been read."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._poll: Any = None
        held = getattr(transport, "socket", None)
        number: int = transport.fd if hasattr(transport, "fd") else held.fileno() if held is not None else -1
        if number >= 0 and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(number, select.POLLIN)

    def first(self) -> bytes | None:
        """
        The first byte, which stays where it is: empty at the end of the connection, L{None} where nothing has come, or
        there is no socket to look at. Under TLS it is the peer's, not yet decrypted.
        """
        # As a rule there is nothing, and poll() says so for a quarter of what a look at the socket costs.
        if self._poll is not None and not self._poll.poll(0):
            return None
        return _peek(self._transport)


def _peek(transport: Any) -> bytes | None:
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


def sendingRoom(fd: int) -> int:
    """
    About how many bytes the system takes at once for the peer of the socket C{fd}; 0 where it does not tell.

    The queue of a TCP connection grows with its speed, so that the answer is good for this moment alone.
    """
    try:
        told = _MEMINFO.unpack(ask(fd, socket.AF_INET, "getsockopt", socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, ValueError, struct.error):
        # It is closed, or no socket, or the system is not that of which this is known.
        return 0
    # TCP counts what is queued, sockets of the unix family what is allocated.
    room: int = told[_SNDBUF] - max(told[_WMEM_ALLOC], told[_WMEM_QUEUED])
    return max(0, room)


def mostDescriptors() -> int:
    """How many descriptors this process may have open: the soft RLIMIT_NOFILE that is in force."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft
