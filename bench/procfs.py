# -*- test-case-name: bench.test.test_processes -*-
"""
What processes take, as Linux tells it: proc(5), clock_getcpuclockid(3).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

__all__ = ["cpu", "descendants", "memory", "openSSL", "processorModel"]

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of C{/proc/PID/stat} from the third on: the second, a name, can hold blanks and brackets."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        return stream.read().rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                parents[int(name)] = int(_stat(int(name))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended since the folder was listed
    return parents


def descendants(pids: Iterable[int]) -> list[int]:
    """C{pids}, and all that they have started."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found = list(pids)
    for pid in found:  # it grows while we walk
        found.extend(children.get(pid, ()))
    return found


def _ownTime(pid: int) -> float:
    # The clock of a whole process, in nanoseconds, threads that have ended included: what clock_getcpuclockid() makes
    # of a pid. /proc/PID/stat counts in hundredths of a second, schedstat forgets ended threads.
    return time.clock_gettime(~pid << 3 | 2)


def cpu(pids: Iterable[int]) -> float:
    """
    Seconds that C{pids}, their descendants, and those of their children that have ended (to the hundredth of a
    second) have run, in user and kernel mode.
    """
    total = 0.0
    for pid in descendants(pids):
        try:
            total += _ownTime(pid)
            fields = _stat(pid)
        except (OSError, ValueError):
            continue  # it has ended since it was found; its parent counts it from now on
        total += (int(fields[13]) + int(fields[14])) * _TICK
    return total


def memory(pids: Iterable[int], field: str = "Rss") -> int:
    """
    Bytes that C{pids} and their descendants keep in memory.

    @param field: of C{/proc/PID/smaps_rollup}: C{Rss}, or C{Pss} where many processes share what they hold.
    """
    return sum(_rollup(pid, field) for pid in descendants(pids))


def _rollup(pid: int, field: str) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as stream:
            for line in stream:
                name, _, value = line.partition(":")
                if name == field:
                    return int(value.split()[0]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0  # it has ended since it was found
    return 0


def openSSL(pids: Iterable[int]) -> str:
    """The version of OpenSSL in the libraries that C{pids} and their descendants have loaded."""
    for pid in descendants(pids):
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as stream:
            paths = {line.split()[-1] for line in stream if "libcrypto" in line}
        for path in paths:
            with open(path, "rb") as library:
                match = re.search(rb"OpenSSL \d[\w.]*", library.read())
            if match:
                return match[0].decode("ascii")
    return "OpenSSL unknown"


def processorModel() -> str:
    """The name of the machine's processor."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "cpu model"):
                return value.strip()
    return "unknown processor"
