# -*- test-case-name: mailgate.test.integration.test_reload -*-
"""
The exit statuses of mailgate's processes. Most are those of sysexits.h.
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
    "NOTHING_MATCHED",
    "NOT_INSTALLED",
    "NOT_PERMITTED",
    "NOT_RUNNING",
    "REFUSED",
    "endWith",
    "howItEnded",
]

BAD_CONFIGURATION = 78
"""The configuration has an error: C{EX_CONFIG}."""

CANNOT_LISTEN = 71
"""The system refuses to bind an address or to change the user: C{EX_OSERR}."""

CANNOT_SERVE = 71
"""A worker, or the first generation of workers, cannot start: C{EX_OSERR}."""

CUT = 75
"""A stop or another command succeeded, but ended proxied sessions: C{EX_TEMPFAIL}."""

CRASHED = 1
"""An unexpected exception, as in Python."""

ENDED_SILENTLY = 71
"""The background process exited without a message: C{EX_OSERR}."""

REFUSED = 1
"""The gateway refused a command of the operator, or did not answer in time."""

NOTHING_MATCHED = 2
"""Nothing in the gateway matches the arguments of a command. argparse uses it for an invalid command line."""

NOT_RUNNING = 69
"""No gateway is running that could execute the command: C{EX_UNAVAILABLE}."""

NOT_INSTALLED = 69
"""An optional dependency is not installed: C{EX_UNAVAILABLE}."""

NOT_PERMITTED = 77
"""This user may not run the command: C{EX_NOPERM}."""


def endWith(status: int) -> None:
    """
    Make the process exit with a status, after everything else is done.

    twistd and twist exit with 0 or by a signal, and catch L{SystemExit}. So an C{atexit} function sets the status.

    @param status: the exit status.
    """
    atexit.register(_end, status)


def _end(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(status)


def howItEnded(status: int) -> str:
    """
    Describe how a process ended, as a phrase with the process as its subject.

    @param status: as in C{subprocess.Popen.returncode}: the exit status, or the negative number of a signal.
    """
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"
