# -*- test-case-name: mailgate.test.integration.test_workers -*-
"""
What Linux tells in C{/proc} of processes and their connections.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterable

__all__ = [
    "children",
    "datagramSockets",
    "descriptors",
    "inodes",
    "pairOf",
    "parent",
    "runs",
    "servedBy",
    "serving",
    "state",
]

GONE = (FileNotFoundError, ProcessLookupError)
"""What a look at a process that has ended meanwhile raises."""


def children(pid: int) -> list[int]:
    """The processes that C{pid} has started, and that have not been waited for, the oldest first."""
    found = [int(name) for name in filter(str.isdigit, os.listdir("/proc")) if parent(int(name)) == pid]
    # Numbers begin anew at the system's largest.
    return sorted(found, key=lambda child: (started(child), child))


def started(pid: int) -> int:
    """When C{pid} was started, in ticks since the system was; or 0."""
    return int(dict(enumerate(_stat(pid))).get(19, "0"))


def parent(pid: int) -> int:
    """The process whose child C{pid} is by now; or 0."""
    return int(_stat(pid)[1])


def state(pid: int) -> str:
    """The letter that Linux has for the state of C{pid}: T, say, for one that SIGSTOP has stopped; or nothing."""
    return _stat(pid)[0]


def _stat(pid: int) -> list[str]:
    with contextlib.suppress(*GONE), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as opened:
        return opened.read().rpartition(")")[2].split()
    return ["", "0"]


def runs(pid: int) -> bool:
    """Whether there is such a process, and it is more than what its parent has not waited for."""
    return state(pid) not in ("", "Z")


def descriptors(pid: int) -> list[str]:
    """What the files, sockets and the like that C{pid} has open are, in the words of Linux."""
    found = []
    with contextlib.suppress(*GONE):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            # It may have been closed since.
            with contextlib.suppress(*GONE):
                found.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found


def inodes(pid: int) -> set[str]:
    """The sockets that C{pid} has open."""
    return set(re.findall(r"socket:\[(\d+)\]", " ".join(descriptors(pid))))


def datagramSockets(pid: int) -> set[str]:
    """The sockets for UDP that C{pid} has open."""
    bound: set[str] = set()
    for name in ("udp", "udp6"):
        # A system without IPv6 has the former alone.
        with contextlib.suppress(*GONE), open(f"/proc/net/{name}", encoding="ascii") as opened:
            bound.update(line.split()[9] for line in list(opened)[1:])
    return inodes(pid) & bound


def serving() -> dict[tuple[int, int], str]:
    """The sockets of connections over TCP, by their port and the port of their peer."""
    found = {}
    with open("/proc/net/tcp", encoding="ascii") as opened:
        for line in opened:
            _, own, peer, stands, *rest = line.split()
            # Those that are over and remembered for a minute (TIME_WAIT) may be tens of thousands.
            if stands not in ("06", "0A", "st"):
                found[int(own[-4:], 16), int(peer[-4:], 16)] = rest[5]
    return found


def pairOf(connected: socket.socket) -> tuple[int, int]:
    """The gateway's port, and the client's, which may have one for several of the former."""
    return connected.getpeername()[1], connected.getsockname()[1]


def servedBy(workers: Iterable[int], clients: Iterable[socket.socket]) -> list[int]:
    """Which of C{workers} serves each of C{clients}."""
    connections = serving()
    owners = {inode: pid for pid in workers for inode in inodes(pid)}
    return [owners[connections[pairOf(client)]] for client in clients]
