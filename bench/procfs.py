# -*- test-case-name: bench.test.test_processes -*-
"""
The resources of processes, from Linux: proc(5), clock_getcpuclockid(3).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

from attrs import frozen

__all__ = ["Processors", "cpu", "descendants", "memory", "openSSL", "processor"]

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of C{/proc/PID/stat} from the third on. The second, a name, can contain blanks and brackets."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
        return stream.read().rpartition(")")[2].split()


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                parents[int(name)] = int(_stat(int(name))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has exited since the folder was listed
    return parents


def descendants(pids: Iterable[int]) -> list[int]:
    """C{pids}, and all their descendants."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    found = list(pids)
    for pid in found:  # the list grows during the loop
        found.extend(children.get(pid, ()))
    return found


def _ownTime(pid: int) -> float:
    # The clock of a whole process, in nanoseconds, threads that have ended included: what clock_getcpuclockid() makes
    # of a pid. /proc/PID/stat counts in hundredths of a second, schedstat forgets ended threads.
    return time.clock_gettime(~pid << 3 | 2)


def cpu(pids: Iterable[int]) -> float:
    """
    Seconds of CPU, in user and kernel mode, of C{pids}, their descendants, and those of their children that have exited
    (in hundredths of a second).
    """
    total = 0.0
    for pid in descendants(pids):
        try:
            total += _ownTime(pid)
            fields = _stat(pid)
        except (OSError, ValueError):
            continue  # it has exited since it was found; its parent counts it from now on
        total += (int(fields[13]) + int(fields[14])) * _TICK
    return total


def memory(pids: Iterable[int], field: str = "Rss") -> int:
    """
    Bytes of memory of C{pids} and their descendants.

    @param field: of C{/proc/PID/smaps_rollup}: C{Rss}, or C{Pss} if many processes share memory.
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
        return 0  # it has exited since it was found
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


@frozen
class Processors:
    """
    Seconds of all processors together, since the machine's start.

    @ivar busy: in which they worked.
    @ivar stolen: in which the hypervisor let another machine work.
    """

    busy: float
    stolen: float

    @classmethod
    def now(cls) -> Processors:
        """The current figures."""
        with open("/proc/stat", encoding="ascii") as stream:
            user, nice, system, _, _, hard, soft, stolen, *_ = map(int, stream.readline().split()[1:])
        return cls((user + nice + system + hard + soft) * _TICK, stolen * _TICK)


def processor(path: str = "/proc/cpuinfo") -> tuple[str, bool]:
    """
    The name of the machine's processor, and whether it is one of a virtual machine.

    Hypervisors hide the exact name, but not the numbers of the family and the model.
    """
    found: dict[str, str] = {}
    with open(path, encoding="utf-8", errors="replace") as stream:
        for line in stream:
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    names = ("model name", "Model", "cpu model")
    model = next((found[name] for name in names if name in found), "unknown processor")
    if "cpu family" in found and "model" in found:
        model += f" (family {found['cpu family']}, model {found['model']})"
    return model, "hypervisor" in found.get("flags", "").split()
