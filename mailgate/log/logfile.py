# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
A log in a file, which can be opened again by its name, and given to the user who goes on with it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress

from twisted.logger import LogEvent

from mailgate.log.lostlines import DescriptorWriter
from mailgate.system.rootfiles import openToWrite

__all__ = ["LogFile"]


class LogFile(DescriptorWriter):
    """
    The file C{path}, opened for appending, as the stream of observers. C{user} is the uid whose files root may write
    to where others than root may write to the folder. The rest is as in L{mailgate.log.lostlines.LineWriter}.

    @raise OSError: it cannot be opened, or root must not open it.
    """

    def __init__(
        self,
        path: str,
        formatEvent: Callable[[LogEvent], str],
        alarm: Callable[[LogEvent], object],
        user: int | None = None,
    ) -> None:
        super().__init__(path, formatEvent, alarm)
        self.path = path
        self.descriptor = self._open(user)

    def _open(self, user: int | None, flags: int = 0, mode: int = 0o666) -> int:
        descriptor, self._isExposed = openToWrite(self.path, os.O_APPEND | flags, mode, user)
        return descriptor

    def _openLikeBefore(self, user: int | None, flags: int) -> int:
        """
        Open it; if it is made, then with the mode of the file that is open now: its readers can read the new one as
        well, though twistd has set a umask of 077 in the background since.
        """
        before = os.fstat(self.descriptor).st_mode
        mask = os.umask(0)
        try:
            return self._open(user, flags, before & 0o666 if stat.S_ISREG(before) else 0o666 & ~mask)
        finally:
            os.umask(mask)

    def reopen(self, user: int | None = None) -> OSError | None:
        """
        Let go of the file, and open the one that has its name now, if that is another. If none has, it is made with the
        mode of the file before.

        @return: why what was written to the old file may be lost, where the system says so as late as that (NFS).
        @raise OSError: it cannot be opened. The old one stays.
        """
        with suppress(FileNotFoundError):
            # Whoever has become another user since could not open it again.
            if os.path.samestat(os.stat(self.path), os.fstat(self.descriptor)):
                return None
        # A FIFO without a reader fails: to wait for one would keep everybody waiting.
        reopened = self._openLikeBefore(user, os.O_NONBLOCK)
        os.set_blocking(reopened, True)
        self.descriptor, before = reopened, self.descriptor
        self._isTorn = False
        if self._losses.count:
            # Now, whenever the next line comes.
            self.write("")
        try:
            os.close(before)
        except OSError as error:
            return error
        return None

    def give(self, uid: int, gid: int) -> None:
        """
        Make it that user's and group's, as root. What is no file, such as C{/dev/null}, stays whose it is.

        @raise OSError: it cannot be, or its name is a link, or it is a third user's in a folder of others: whoever may
            write to the folder may lead it anywhere.
        """
        opened = os.fstat(self.descriptor)
        if not stat.S_ISREG(opened.st_mode) or (opened.st_uid, opened.st_gid) == (uid, gid):
            return
        if not os.path.samestat(os.lstat(self.path), opened) or opened.st_nlink != 1:
            raise OSError(errno.ELOOP, "it is a symbolic or hard link")
        if self._isExposed and opened.st_uid not in (0, uid):
            raise OSError(errno.EPERM, "it belongs to another user")
        os.fchown(self.descriptor, uid, gid)

    def close(self) -> None:
        """Let go of it for good."""
        descriptor, self.descriptor = self.descriptor, -1
        with suppress(OSError):
            os.close(descriptor)
