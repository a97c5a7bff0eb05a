# -*- test-case-name: mailgate.test.auth.passwdfile.test_accountfile -*-
"""
Reads the account file (C{auth_file}), and notices changes. L{mailgate.auth.passwdfile.accounts} parses its lines.
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

LARGEST = 64 * 1024 * 1024  # bytes; a larger file is probably the wrong one
LOOK_AGAIN = 1.0  # seconds between two checks for changes of the file
SAMPLE = 200  # lines that are examined for the most frequent scheme

_NO_ACCOUNTS = "logins get a temporary failure until the file is readable"
_EARLIER_ACCOUNTS = "the accounts that were read earlier stay valid"


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    # mtime can be set, and a copy may keep it; ctime cannot be set.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


def readAccounts(path: str) -> tuple[bytes, tuple[int, int, int, int] | None]:
    """
    Read an account file.

    @param path: the path of the file.
    @return: its content, and its L{_stamp}, which is L{None} if the file changed while it was read.
    @raise OSError: the file cannot be read, is not a regular file, or is too large.
    """
    # Without O_NONBLOCK a FIFO would block the reactor until another process writes to it.
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
    """
    Return the lines that should be accounts: all but comments and empty lines.

    @param content: the content of an account file.
    @return: pairs of the line number, counted from 1, and the line without its end.
    """
    for number, line in enumerate(content.split(b"\n"), 1):
        if line and not line.isspace() and not line.lstrip().startswith(b"#"):
            yield number, line[:-1] if line.endswith(b"\r") else line


class AccountFile:
    """
    The accounts in a file. If the file cannot be read, the accounts that were read before stay valid, and the failure
    is logged once.

    @param path: the path of the file.
    @param clock: the reactor, or a clock.
    @param journal: the log.
    @param ports: the default ports of the server's protocol, without and with TLS; see
        L{ServerSettings<mailgate.directives.ServerSettings>}.
    @param isImplicit: whether the server has C{proxy_ssl = on}.
    @ivar decoy: a password of the most frequent scheme. A login for an unknown user is checked against it, so that it
        takes as long as one with a wrong password.
    """

    decoy: Password | None = None

    def __init__(
        self, path: str, clock: Any, journal: Journal, ports: tuple[int, int], isImplicit: bool = False
    ) -> None:
        self._path = path
        self._clock = clock
        self._journal = journal
        self._ports = ports
        self._isImplicit = isImplicit
        self._lines: dict[bytes, bytes] | None = None
        self._stamp: tuple[int, int, int, int] | None = None
        self._failing = False
        self._reported: dict[bytes, bytes] = {}
        self._look()

    def refresh(self) -> bool:
        """
        Read the file again if it has changed. It looks for changes at most once in L{LOOK_AGAIN} seconds.

        @return: whether the file could be read, now or earlier.
        """
        if self._clock.seconds() - self._looked >= LOOK_AGAIN:
            self._look()
        return self._lines is not None

    def find(self, user: bytes, protocol: str) -> Account | None:
        """
        Look an account up.

        @param user: the user name; the case of ASCII letters does not matter.
        @param protocol: the protocol of the server.
        @return: the account, or L{None} if the file has none for this user.
        @raise BadLine: the user's line is invalid.
        """
        line = (self._lines or {}).get(user.lower())
        return None if line is None else parseAccount(line, protocol, self._ports, self._isImplicit)

    @property
    def hasChanged(self) -> bool:
        """Whether the file is not the one that was read. The next login reads it again."""
        try:
            return _stamp(os.stat(self._path)) != self._stamp
        except OSError:
            return True

    def report(self, request: LoginRequest, user: bytes, reason: str) -> None:
        """
        Log as an error why a user cannot log in. It is logged once until the user's line changes.

        @param request: the login.
        @param user: the user name.
        @param reason: the reason, as a phrase for the log.
        """
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
                consequence = _NO_ACCOUNTS if self._lines is None else _EARLIER_ACCOUNTS
                self._journal.error(
                    "cannot read auth_file {path}: {why}; {consequence}",
                    path=self._path,
                    why=error.strerror,
                    consequence=consequence,
                )
            self._failing = True
        else:
            self._failing = False

    def _take(self, content: bytes) -> None:
        # A line is parsed when its user logs in: parsing a large file would block the reactor.
        lines: dict[bytes, bytes] = {}
        for _, line in numberedLines(content):
            lines.setdefault(line.partition(b":")[0].lower(), line)
        self._lines = lines
        self._reported = {user: line for user, line in self._reported.items() if lines.get(user) == line}
        self.decoy = commonest(line.split(b":", 2)[1] for line in islice(lines.values(), SAMPLE) if b":" in line)
