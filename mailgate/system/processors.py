# -*- test-case-name: mailgate.test.system.test_processors -*-
"""
How many processes serve: C{worker_processes}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from attrs import frozen

from mailgate.directives import directive

__all__ = ["WorkerSettings", "processors"]

MOST = 1024
"""More is a slip of the pen."""


def _workers(value: str, folder: str) -> int:
    if value == "auto":
        return processors()
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= MOST:
        raise ValueError(f'must be "auto" or a number from 1 to {MOST}')
    return int(value)


@frozen
class WorkerSettings:
    """nginx's C{worker_processes}. With one, no other process is needed."""

    count: int = directive("worker_processes", _workers, 1, reloadable=False)


def processors(root: str = "/") -> int:
    """
    How many processors this process may keep busy: those that it may run on, but no more than its cgroups allow, a
    part of one counting as one. C{root} is where C{/proc} and C{/sys} are.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = (os.cpu_count() or 1) if affinity is None else len(affinity(0))
    # Rounded up, as in the scripts of nginx's container.
    quotas = [-(-quota // period) for quota, period in _quotas(root) if quota > 0 and period > 0]
    return max(1, min([allowed, *quotas]))


def _quotas(root: str) -> Iterator[tuple[int, int]]:
    """Microseconds of processor time, and of what time, that each of our cgroups allows, where it has a limit."""
    for line in _read(os.path.join(root, "proc/self/cgroup")).splitlines():
        _, controllers, cgroup = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            for folder in _upwards(os.path.join(root, "sys/fs/cgroup"), cgroup):
                yield from _pair(_read(os.path.join(folder, "cpu.max")))
        elif "cpu" in controllers.split(","):
            for folder in _upwards(os.path.join(root, "sys/fs/cgroup/cpu"), cgroup):
                quota, period = (_read(os.path.join(folder, f"cpu.cfs_{what}_us")) for what in ("quota", "period"))
                yield from _pair(f"{quota} {period}")


def _pair(text: str) -> Iterator[tuple[int, int]]:
    match = re.fullmatch(r"\s*(\d{1,18})\s+(\d{1,18})\s*", text)
    if match is not None:
        yield int(match[1]), int(match[2])


def _upwards(mounted: str, cgroup: str) -> Iterator[str]:
    """The folders of C{cgroup} and all above it, up to where they are C{mounted}: each may have a limit."""
    parts = [part for part in cgroup.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield os.path.join(mounted, *parts[:length])


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as opened:
            return opened.read()
    except OSError:
        # The system has no such thing.
        return ""
