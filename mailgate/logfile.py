# -*- test-case-name: mailgate.test.test_journal -*-
"""
A log in a file, which can be opened again by its name, and given to the user who goes on with it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import IO

from mailgate.rootfiles import openToWrite

__all__ = ["LogFile"]


class LogFile:
    """
    The file C{path}, opened for appending, as the stream of observers. C{user} is the uid whose files root may write
    to where others than root may write to the folder.

    @raise OSError: it cannot be opened, or root must not open it.
    """

    def __init__(self, path: str, user: int | None = None) -> None:
        self.path = path
        self._stream = self._open(user)

    def _open(self, user: int | None, flags: int = 0) -> IO[str]:
        descriptor, self._isExposed = openToWrite(self.path, os.O_APPEND | flags, user=user)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def reopen(self, user: int | None = None) -> None:
        """
        Let go of the file, and open the one that has its name now, if that is another.

        @raise OSError: it cannot be opened. The old one stays.
        """
        with suppress(FileNotFoundError):
            # Whoever has become another user since could not open it again.
            if os.path.samestat(os.stat(self.path), os.fstat(self._stream.fileno())):
                return
        # A FIFO without a reader fails: to wait for one would keep everybody waiting.
        reopened = self._open(user, os.O_NONBLOCK)
        os.set_blocking(reopened.fileno(), True)
        self._stream, before = reopened, self._stream
        before.close()

    def give(self, uid: int, gid: int) -> None:
        """
        Make it that user's and group's, as root. What is no file, such as C{/dev/null}, stays whose it is.

        @raise OSError: it cannot be, or its name is a link, or it is a third user's in a folder of others: whoever may
            write to the folder may lead it anywhere.
        """
        opened = os.fstat(self._stream.fileno())
        if not stat.S_ISREG(opened.st_mode) or (opened.st_uid, opened.st_gid) == (uid, gid):
            return
        if not os.path.samestat(os.lstat(self.path), opened) or opened.st_nlink != 1:
            raise OSError(errno.ELOOP, "it is a link")
        if self._isExposed and opened.st_uid not in (0, uid):
            raise OSError(errno.EPERM, "it is another user's")
        os.fchown(self._stream.fileno(), uid, gid)

    def write(self, text: str) -> None:
        """Append C{text}."""
        self._stream.write(text)

    def flush(self) -> None:
        """Hand on what has been written."""
        self._stream.flush()

    def close(self) -> None:
        """Let go of it for good."""
        self._stream.close()
