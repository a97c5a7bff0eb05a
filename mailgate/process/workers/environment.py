# -*- test-case-name: mailgate.test.process.workers.test_generation -*-
"""
The environment variables of zygotes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["environmentOf"]

_KEPT_BACK = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}
"""Variables that systemd has set for the master only."""


def environmentOf(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment of a zygote. Paths in C{PYTHONPATH} become absolute, because the process may change its
    working directory later.

    @param environ: the environment of this process.
    """
    kept = {name: value for name, value in environ.items() if name not in _KEPT_BACK}
    if kept.get("PYTHONPATH"):
        kept["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, kept["PYTHONPATH"].split(os.pathsep)))
    return kept
