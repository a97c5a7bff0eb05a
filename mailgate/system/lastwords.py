# -*- test-case-name: mailgate.test.system.test_lastwords -*-
"""
Keeps the last line on standard error of another process. If the process ended by an exception, this line is the reason.
"""

from __future__ import annotations

import os
from contextlib import suppress

__all__ = ["STANDARD_ERROR", "LastWords"]

STANDARD_ERROR = 2

_LONGEST = 1000
"""The most bytes that are kept."""


class LastWords:
    """
    Receives the standard error of a process, and passes it on.

    @param descriptor: the file descriptor to which everything is written.
    """

    def __init__(self, descriptor: int = STANDARD_ERROR) -> None:
        # Not sys.stderr, which may write to twistd's log.
        self._descriptor = descriptor
        self._said = b""

    def heard(self, data: bytes) -> None:
        """Handle C{data}, which the process wrote."""
        self._said = (self._said + data)[-_LONGEST:]
        with suppress(OSError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    @property
    def line(self) -> str:
        """The last line that is not blank, with control characters escaped. Empty if there is none."""
        *_, line = self._said.decode("utf-8", "backslashreplace").strip().split("\n")
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line.strip())
