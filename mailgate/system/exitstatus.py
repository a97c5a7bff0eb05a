# -*- test-case-name: mailgate.test.integration.test_reload -*-
"""
The statuses that processes end with.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress

__all__ = [
    "BAD_CONFIGURATION",
    "CANNOT_LISTEN",
    "CANNOT_SERVE",
    "CRASHED",
    "CUT",
    "ENDED_SILENTLY",
    "NOT_INSTALLED",
    "NOT_PERMITTED",
    "NOT_RUNNING",
    "REFUSED",
    "endWith",
    "howItEnded",
]

BAD_CONFIGURATION = 78
"""The exit status for it: C{EX_CONFIG} of sysexits.h."""

CANNOT_LISTEN = 71
"""The exit status where the system refuses an address, or the user: C{EX_OSERR}."""

CANNOT_SERVE = 71
"""A worker, or the first generation of them, does not come up: C{EX_OSERR} of sysexits.h."""

CUT = 75
"""Proxied sessions were cut: C{EX_TEMPFAIL} of sysexits.h."""

CRASHED = 1
"""An unexpected exception: Python's own."""

ENDED_SILENTLY = 71
"""The process in the background ended without a word: C{EX_OSERR} of sysexits.h."""

REFUSED = 1
"""A command of an operator was refused, or not answered in time."""

NOT_RUNNING = 69
"""No gateway runs that a command could ask: C{EX_UNAVAILABLE} of sysexits.h."""

NOT_INSTALLED = 69
"""An extra is missing: C{EX_UNAVAILABLE} of sysexits.h."""

NOT_PERMITTED = 77
"""A command is not for this user: C{EX_NOPERM} of sysexits.h."""


def endWith(status: int) -> None:
    """
    Have the process end with C{status}, once everything else is done.

    twistd and twist know of no status but 0 and a signal, and swallow a L{SystemExit}: nothing but the interpreter's
    last moments is left to say it in.
    """
    atexit.register(_end, status)


def _end(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def howItEnded(status: int) -> str:
    """C{status}, as of C{subprocess.Popen.returncode}, in words."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
