# -*- test-case-name: mailgate.test.system.test_processors -*-
"""
nginx's C{worker_processes}: the number of workers.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from attrs import frozen

from mailgate.directives import directive

__all__ = ["WorkerSettings", "processors"]

MOST = 1024
"""The most workers. A larger number is probably a typing error."""


def _workers(value: str, folder: str) -> int:
    if value == "auto":
        return processors()
    if not re.fullmatch(r"[0-9]{1,5}", value) or not 1 <= int(value) <= MOST:
        raise ValueError(f'must be "auto" or a number from 1 to {MOST}')
    return int(value)


@frozen
class WorkerSettings:
    """nginx's C{worker_processes}. With 1, a single process does everything."""

    count: int = directive("worker_processes", _workers, 1, reloadable=False)


def processors(root: str = "/") -> int:
    """
    Return the number of processors that this process can use: those of its affinity mask, limited by the CPU quotas of
    its cgroups, rounded up.

    @param root: the folder with C{proc} and C{sys}.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = (os.cpu_count() or 1) if affinity is None else len(affinity(0))
    # Rounded up, as in the scripts of nginx's container image.
    quotas = [-(-quota // period) for quota, period in _quotas(root) if quota > 0 and period > 0]
    return max(1, min([allowed, *quotas]))


def _quotas(root: str) -> Iterator[tuple[int, int]]:
    """Yield quota and period, in microseconds, of each cgroup of this process that has a limit."""
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
    """Yield the folders of C{cgroup} and its parents, up to the folder where they are C{mounted}."""
    parts = [part for part in cgroup.split("/") if part and part != ".."]
    for length in range(len(parts), -1, -1):
        yield os.path.join(mounted, *parts[:length])


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as opened:
            return opened.read()
    except OSError:
        # This system has no such file.
        return ""
