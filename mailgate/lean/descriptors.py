# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""Calls for sockets that exist only as a descriptor, without a socket object; and the limit on descriptors."""

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
"""Linux's socket option for the memory that a socket uses and may use (socket(7)). Python has no name for it."""

_MEMINFO = struct.Struct("=9I")
_WMEM_ALLOC, _SNDBUF, _WMEM_QUEUED = 2, 3, 5

_UNLIMITED = 1 << 30
"""The number of descriptors if the system has no limit: more than any system has."""


def addressOf(family: int, raw: Any) -> IAddress:
    """The address C{raw}, as the system returns it for C{family}, as Twisted has it."""
    if family == socket.AF_INET:
        return IPv4Address("TCP", *raw)
    if family == socket.AF_INET6:
        return IPv6Address("TCP", *raw)
    return UNIXAddress(raw or None)


def ask(fd: int, family: int, method: str, *arguments: Any) -> Any:
    """
    Call a method of a socket object for a descriptor.

    @param fd: the descriptor.
    @param family: its address family.
    @param method: the name of the method, such as C{getsockopt}.
    @return: what the method returns.
    @raise OSError: as the method.
    """
    # socket.SocketType is the C type: what socket.socket adds to it is not needed here, and slow.
    descriptor = socket.SocketType(family, socket.SOCK_STREAM, 0, fd)
    try:
        return getattr(descriptor, method)(*arguments)
    finally:
        descriptor.detach()


class Peephole:
    """Looks at bytes that have arrived for a transport and have not been read."""

    def __init__(self, transport: Any) -> None:
        """@param transport: a C{StreamTransport} or one of Twisted's."""
        self._transport = transport
        self._poll: Any = None
        held = getattr(transport, "socket", None)
        number: int = transport.fd if hasattr(transport, "fd") else held.fileno() if held is not None else -1
        if number >= 0 and hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(number, select.POLLIN)

    def first(self) -> bytes | None:
        """
        The first unread byte, which stays unread. Under TLS it is still encrypted.

        @return: empty at the end of the connection; L{None} if nothing has arrived, or the transport has no socket.
        """
        # Usually nothing has arrived, and poll() finds that at a quarter of the cost of recv().
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
    """Make the system send a reset when the socket C{fd} of C{family} is closed."""
    ask(fd, family, "setsockopt", socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def sendingRoom(fd: int) -> int:
    """
    About how many bytes the system accepts at once for the peer of the socket C{fd}; 0 if that is unknown.

    The send queue of a TCP connection grows with its speed, so the result is valid only for this moment.
    """
    try:
        fields = _MEMINFO.unpack(ask(fd, socket.AF_INET, "getsockopt", socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))
    except (OSError, ValueError, struct.error):
        # The descriptor is closed or no socket, or the system is not Linux.
        return 0
    # For TCP, the system counts queued bytes; for unix sockets, allocated bytes.
    room: int = fields[_SNDBUF] - max(fields[_WMEM_ALLOC], fields[_WMEM_QUEUED])
    return max(0, room)


def mostDescriptors() -> int:
    """How many descriptors this process may open: the current soft RLIMIT_NOFILE."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft
