# -*- test-case-name: mailgate.test.net.test_bind -*-
"""
The sockets that nginx's C{listen} asks for.
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
    The socket that listens at C{address}, non-blocking.

    @raise OSError: it cannot be had.
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
    The number of Multipath TCP (RFC 8684).

    @raise OSError: this system has none.
    """
    protocol: int | None = getattr(socket, "IPPROTO_MPTCP", None)
    if protocol is None:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    return protocol


def setOptions(listening: socket.socket, options: SocketOptions) -> None:
    """Give C{listening}, whose queue may be in use, those of C{options} that can change while it is."""
    _set(listening, options)
    listening.listen(options.backlog)


def _set(bound: socket.socket, options: SocketOptions) -> None:
    """Accepted connections inherit all of these."""
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
    # Everybody may connect. Not by chmod(2), which follows the link that others may put there in the meantime.
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
    Look whether this machine has C{host}, an address, without listening there.

    @raise OSError: it has not.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # Any port that is free: nobody can come, as the socket does not listen.
        probe.bind((host, 0))


def bindPath(unbound: socket.socket, path: str) -> None:
    """
    Bind C{unbound} at C{path}, in the place of a socket that a process which was killed has left behind.

    @raise OSError: it cannot be bound; C{EADDRINUSE}: somebody listens there, or it is no socket.
    """
    try:
        unbound.bind(path)
    except OSError as error:
        if error.errno != errno.EADDRINUSE or not _isStale(path):
            raise
        os.unlink(path)
        unbound.bind(path)


def _isStale(path: str) -> bool:
    """Whether C{path} is a unix socket at which nobody listens any more, and nothing else."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(path) == errno.ECONNREFUSED
