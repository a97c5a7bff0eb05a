# -*- test-case-name: mailgate.test.auth.passwdfile.test_accountfile -*-
"""
The file of C{auth_file}: when it is read, and what is kept of it. L{mailgate.auth.passwdfile.accounts} says what a line
means.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mailgate.auth.passwdfile.accounts import Account, parseAccount
from mailgate.auth.passwdfile.passwords import Password, commonest
from mailgate.log.connection import ACCOUNT_UNUSABLE, aboutRequest
from mailgate.log.journal import Journal, printable
from mailgate.login import LoginRequest

__all__ = ["LARGEST", "AccountFile", "numberedLines", "readAccounts"]

LARGEST = 64 * 1024 * 1024  # bytes of a file that are read: a larger one is a mistake in the path
LOOK_AGAIN = 1.0  # seconds between two looks at whether the file has changed
SAMPLE = 200  # lines that are asked for the commonest scheme


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    # Of the times one can be set, and comes with a copy.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def readAccounts(path: str) -> tuple[bytes, tuple[int, int, int, int] | None]:
    """
    The content of the file C{path}, and its L{_stamp}, or L{None} where it was written to meanwhile.

    @raise OSError: it cannot be read, or is too large.
    """
    # A FIFO would otherwise block the reactor until somebody writes to it.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise OSError(errno.EFBIG, f"it is larger than {LARGEST} bytes")
        stamp = _stamp(status)
        return content, stamp if stamp == _stamp(os.fstat(file.fileno())) else None


def numberedLines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that should be accounts, and their numbers."""
    for number, line in enumerate(content.split(b"\n"), 1):
        if line and not line.isspace() and not line.lstrip().startswith(b"#"):
            yield number, line[:-1] if line.endswith(b"\r") else line


class AccountFile:
    """
    The accounts in the file C{path}. A file that cannot be read leaves those that were read last, which is logged once.

    C{decoy} is a password of the commonest scheme, to spend the time on that a wrong password takes. C{ports} are those
    of L{ServerSettings<mailgate.directives.ServerSettings>}.
    """

    decoy: Password | None = None

    def __init__(self, path: str, clock: Any, journal: Journal, ports: tuple[int, int]) -> None:
        self._path = path
        self._clock = clock
        self._journal = journal
        self._ports = ports
        self._lines: dict[bytes, bytes] | None = None
        self._stamp: tuple[int, int, int, int] | None = None
        self._failing = False
        self._reported: dict[bytes, bytes] = {}
        self._look()

    def refresh(self) -> bool:
        """Read the file again if it has changed and L{LOOK_AGAIN} is over; whether it could be read, now or ever."""
        if self._clock.seconds() - self._looked >= LOOK_AGAIN:
            self._look()
        return self._lines is not None

    def find(self, user: bytes, protocol: str) -> Account | None:
        """
        The account of C{user} as last read.

        @raise BadLine: its line is none.
        """
        line = (self._lines or {}).get(user.lower())
        return None if line is None else parseAccount(line, protocol, self._ports)

    def report(self, request: LoginRequest, user: bytes, reason: str) -> None:
        """Log as an error why C{user}, of C{request}, cannot log in, once for the line that the user has now."""
        key = user.lower()
        line = (self._lines or {}).get(key, b"")
        if self._reported.get(key) != line:
            self._reported[key] = line
            fields = {**aboutRequest(request), "path": self._path, "reason": reason, "user": printable(user)}
            self._journal.error(ACCOUNT_UNUSABLE, **fields)

    def _look(self) -> None:
        self._looked = self._clock.seconds()
        try:
            if self._stamp is None or _stamp(os.stat(self._path)) != self._stamp:
                content, self._stamp = readAccounts(self._path)
                self._take(content)
        except OSError as error:
            if not self._failing:
                self._journal.error("cannot read auth_file {path}: {why}", path=self._path, why=error.strerror)
            self._failing = True
        else:
            self._failing = False

    def _take(self, content: bytes) -> None:
        # A line is parsed when its user logs in: to parse all of a large file would hold everybody else up.
        lines: dict[bytes, bytes] = {}
        for _, line in numberedLines(content):
            lines.setdefault(line.partition(b":")[0].lower(), line)
        self._lines = lines
        self._reported = {user: line for user, line in self._reported.items() if lines.get(user) == line}
        self.decoy = commonest(line.split(b":", 2)[1] for line in islice(lines.values(), SAMPLE) if b":" in line)
