# -*- test-case-name: mailgate.test.net.test_bind -*-
"""
Makes the listening sockets of nginx's C{listen}.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from mailgate.directives import ListenAddress, SocketOptions
from mailgate.net.listen import KEEPALIVE

__all__ = ["bind", "bindPath", "checkAddress", "setOptions"]


def bind(address: ListenAddress) -> socket.socket:
    """
    Make a socket that listens at C{address}. It is non-blocking.

    @raise OSError: the system refuses it, or systemd should have passed the socket and has not.
    """
    if address.isPassed:
        raise OSError("systemd passed no socket with this name")
    bound = _bindUNIX(address) if address.host.startswith("unix:") else _bindTCP(address)
    bound.setblocking(False)
    return bound


def _bindTCP(address: ListenAddress) -> socket.socket:
    options = address.socket
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM, _multipath() if options.multipath else 0)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, options.ipv6only)
        _set(bound, options)
        bound.bind((address.host, address.port))
        bound.listen(options.backlog)
    except BaseException:
        bound.close()
        raise
    return bound


def _multipath() -> int:
    """
    Return the protocol number of Multipath TCP (RFC 8684).

    @raise OSError: this system does not support it.
    """
    protocol: int | None = getattr(socket, "IPPROTO_MPTCP", None)
    if protocol is None:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    return protocol


def setOptions(listening: socket.socket, options: SocketOptions) -> None:
    """
    Set the options that can change while a socket is open.

    @param listening: a listening socket, whose queue may hold connections.
    @param options: the options. C{ipv6only} and C{multipath} are not set.
    """
    _set(listening, options)
    listening.listen(options.backlog)


def _set(bound: socket.socket, options: SocketOptions) -> None:
    """Set the options that accepted connections inherit."""
    for name, buffer in (("SO_RCVBUF", options.receiveBuffer), ("SO_SNDBUF", options.sendBuffer)):
        if buffer is not None:
            bound.setsockopt(socket.SOL_SOCKET, getattr(socket, name), buffer)
    if options.keepalive is not None and bound.family != socket.AF_UNIX:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, options.keepalive)
        for name, value in zip(KEEPALIVE, (options.idle, options.interval, options.probes), strict=True):
            if value is not None:
                bound.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _bindUNIX(address: ListenAddress) -> socket.socket:
    path = address.host.removeprefix("unix:")
    bound = socket.socket(socket.AF_UNIX)
    # All users may connect. chmod(2) would follow a link that another user put there in the meantime; a umask is safe.
    mask = os.umask(0o111)
    try:
        _set(bound, address.socket)
        bindPath(bound, path)
        bound.listen(address.socket.backlog)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(mask)
    return bound


def checkAddress(host: str) -> None:
    """
    Check that an address belongs to this host, without listening there.

    @param host: an IPv4 or IPv6 address.
    @raise OSError: the address does not belong to this host.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # Any free port. The socket does not listen, so no client can connect.
        probe.bind((host, 0))


def bindPath(unbound: socket.socket, path: str) -> None:
    """
    Bind a unix socket. It replaces the socket file of a process that was killed.

    @param unbound: a unix socket that is not bound.
    @param path: the path of the socket file.
    @raise OSError: the socket cannot be bound. C{EADDRINUSE}: a process listens there, or the file is not a socket.
    """
    try:
        unbound.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _isStale(path):
            raise
        os.unlink(path)
        unbound.bind(path)


def _isStale(path: str) -> bool:
    """Return whether C{path} is a unix socket at which no process listens any more."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) == errno.ECONNREFUSED
