# -*- test-case-name: mailgate.test.integration.test_workers -*-
"""
Processes and their connections, as Linux shows them in C{/proc}.
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
"""The exceptions for a process that has ended in the meantime."""


def children(pid: int) -> list[int]:
    """The children of C{pid}, zombies included, the oldest first."""
    found = [int(name) for name in filter(str.isdigit, os.listdir("/proc")) if parent(int(name)) == pid]
    # Process ids start again after the system's largest.
    return sorted(found, key=lambda child: (started(child), child))


def started(pid: int) -> int:
    """When C{pid} started, in ticks since the start of the system; 0 if there is no such process."""
    return int(dict(enumerate(_stat(pid))).get(19, "0"))


def parent(pid: int) -> int:
    """The parent of C{pid}; 0 if there is no such process."""
    return int(_stat(pid)[1])


def state(pid: int) -> str:
    """The state of C{pid} as Linux's letter, such as T for a stopped process; empty if there is no such process."""
    return _stat(pid)[0]


def _stat(pid: int) -> list[str]:
    with contextlib.suppress(*GONE), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as opened:
        return opened.read().rpartition(")")[2].split()
    return ["", "0"]


def runs(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    return state(pid) not in ("", "Z")


def descriptors(pid: int) -> list[str]:
    """The open files, sockets and the like of C{pid}, in the words of Linux."""
    found = []
    with contextlib.suppress(*GONE):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            # It may have been closed in the meantime.
            with contextlib.suppress(*GONE):
                found.append(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    return found


def inodes(pid: int) -> set[str]:
    """The open sockets of C{pid}."""
    return set(re.findall(r"socket:\[(\d+)\]", " ".join(descriptors(pid))))


def datagramSockets(pid: int) -> set[str]:
    """The open UDP sockets of C{pid}."""
    bound: set[str] = set()
    for name in ("udp", "udp6"):
        # A system without IPv6 has only the first one.
        with contextlib.suppress(*GONE), open(f"/proc/net/{name}", encoding="ascii") as opened:
            bound.update(line.split()[9] for line in list(opened)[1:])
    return inodes(pid) & bound


def serving() -> dict[tuple[int, int], str]:
    """The sockets of TCP connections, by their port and the port of their peer."""
    found = {}
    with open("/proc/net/tcp", encoding="ascii") as opened:
        for line in opened:
            _, own, peer, stands, *rest = line.split()
            # There may be tens of thousands of connections in TIME_WAIT.
            if stands not in ("06", "0A", "st"):
                found[int(own[-4:], 16), int(peer[-4:], 16)] = rest[5]
    return found


def pairOf(connected: socket.socket) -> tuple[int, int]:
    """The ports of the gateway and of the client, whose port may be the same for several gateways."""
    return connected.getpeername()[1], connected.getsockname()[1]


def servedBy(workers: Iterable[int], clients: Iterable[socket.socket]) -> list[int]:
    """The worker of C{workers} that serves each of C{clients}."""
    connections = serving()
    owners = {inode: pid for pid in workers for inode in inodes(pid)}
    return [owners[connections[pairOf(client)]] for client in clients]
