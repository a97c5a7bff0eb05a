# -*- test-case-name: mailgate.test.keeper.test_exposition -*-
"""
The metrics C{process_*} of this process, with the names of Prometheus's client libraries.

prometheus_client has them too, but lists all file descriptors to count them. In a process with 9,000 sessions that
takes longer than the rest of a scrape.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from resource import getpagesize
from time import process_time

from mailgate.lean.descriptors import mostDescriptors
from mailgate.watch.process import openFiles

__all__ = ["HELP", "ownProcess"]

HELP = {
    "process_cpu_seconds": "User and system CPU time of this process.",
    "process_virtual_memory_bytes": "Virtual memory of this process.",
    "process_resident_memory_bytes": "Resident memory of this process.",
    "process_start_time_seconds": "When this process was started.",
    "process_open_fds": "File descriptors that this process uses.",
    "process_max_fds": "File descriptors that this process may use.",
}
"""The metrics. C{process_cpu_seconds} is a counter, the others are gauges."""

_VIRTUAL, _RESIDENT, _STARTED = 20, 21, 19
"""The places in C{/proc/PID/stat}, from the state of the process on (proc(5))."""


def _startOf(machine: str) -> float:
    """Return when the system was started, in seconds since 1970."""
    with open(machine, encoding="ascii") as lines:
        return next(float(line.split()[1]) for line in lines if line.startswith("btime "))


def ownProcess(folder: str = "/proc") -> Iterator[tuple[str, float]]:
    """
    Yield the name and the value of each metric of L{HELP}. What the system does not say is left out.

    @param folder: where Linux tells about processes.
    """
    yield "process_cpu_seconds", process_time()
    try:
        with open(f"{folder}/self/stat", encoding="ascii", errors="replace") as stream:
            # The name of the program may contain blanks and brackets.
            parts = stream.read().rpartition(")")[2].split()
        started = _startOf(f"{folder}/stat") + float(parts[_STARTED]) / os.sysconf("SC_CLK_TCK")
        yield "process_virtual_memory_bytes", float(parts[_VIRTUAL])
        yield "process_resident_memory_bytes", float(parts[_RESIDENT]) * getpagesize()
        yield "process_start_time_seconds", started
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    for name, value in (("process_open_fds", openFiles(f"{folder}/self/fd")), ("process_max_fds", mostDescriptors())):
        if value is not None:
            yield name, value
