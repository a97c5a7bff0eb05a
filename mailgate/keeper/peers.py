# -*- test-case-name: mailgate.test.keeper.test_peers -*-
"""
The process at the other end of a unix socket, as the system reports it.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from attrs import frozen

__all__ = ["Peer", "isAllowed", "peerOf"]

_CREDENTIALS = struct.Struct("3i")
"""C{struct ucred} of unix(7): pid, uid, gid."""


@frozen
class Peer:
    """
    A process.

    @ivar pid: its process id; 0 if it has none here.
    @ivar uid: its user.
    @ivar gid: its group.
    """

    pid: int
    uid: int
    gid: int


def peerOf(transport: Any) -> Peer | None:
    """
    Return the process that has connected; L{None} if the system does not report it.

    @param transport: the connection.
    """
    option = getattr(socket, "SO_PEERCRED", None)
    channel = getattr(transport, "socket", None)
    if option is None or channel is None:
        return None
    try:
        credentials = channel.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    except OSError:
        return None
    return Peer(*_CREDENTIALS.unpack(credentials))


def isAllowed(peer: Peer | None, uid: int | None) -> bool:
    """
    Return whether a process may be a member: root, this user, or the user of the workers. Without a report of the
    system, the permissions of the socket's file decide alone.

    @param peer: the process; L{None} if the system does not report it.
    @param uid: the user of the workers; L{None} if it is that of this process.
    """
    return peer is None or peer.uid in (0, os.geteuid(), uid)
