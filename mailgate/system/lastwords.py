# -*- test-case-name: mailgate.test.system.test_lastwords -*-
"""
The last line of another process's standard error, which is the reason where it has ended by an exception.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["STANDARD_ERROR", "LastWords"]

STANDARD_ERROR = 2

_LONGEST = 1000
"""Bytes that are kept."""


class LastWords:
    """What a process says on its standard error. All of it is passed on to C{descriptor}."""

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        # Not sys.stderr, which may be twistd's log.
        self._descriptor = descriptor
        self._said = b""

    def heard(self, data: bytes) -> None:
        """The process says C{data}."""
        self._said = (self._said + data)[-_LONGEST:]
        with suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    @property
    def line(self) -> str:
        """The last line that is not blank, fit for a log; empty where there is none."""
        *_, line = self._said.decode("utf-8", "backslashreplace").strip().split("\n")
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line.strip())
