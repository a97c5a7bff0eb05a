# -*- test-case-name: mailgate.test.log.test_journal -*-
"""
A log file that can be reopened by its name, and whose owner can be changed.
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
    A file, opened for appending, to which log events are written.

    @param path: its path.
    @param formatEvent: see L{mailgate.log.lostlines.LineWriter}.
    @param alarm: see L{mailgate.log.lostlines.LineWriter}.
    @param user: the uid of the user whose files root may write to in a folder that is not root's alone; L{None} for
        none. See L{mailgate.system.rootfiles}.
    @raise OSError: the file cannot be opened, or root must not open it.
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
        Open the file. A new file gets the mode of the file that is open now, so that the same users can read it: in the
        background twistd has set a umask of 077 since.
        """
        before = os.fstat(self.descriptor).st_mode
        mask = os.umask(0)
        try:
            return self._open(user, flags, before & 0o666 if stat.S_ISREG(before) else 0o666 & ~mask)
        finally:
            os.umask(mask)

    def reopen(self, user: int | None = None) -> OSError | None:
        """
        Open the file that has the path now, and close the old file. If there is none, create it with the mode of the
        old file. If the path still leads to the open file, do nothing.

        @param user: see the constructor.
        @return: L{None}, or the error that closing the old file caused: its last lines may be lost (NFS).
        @raise OSError: the file cannot be opened. The old file stays open.
        """
        with suppress(FileNotFoundError):
            # A process that has become another user since could perhaps not reopen it.
            if os.path.samestat(os.stat(self.path), os.fstat(self.descriptor)):
                return None
        # Opening a FIFO without a reader fails at once, instead of blocking the process.
        reopened = self._openLikeBefore(user, os.O_NONBLOCK)
        os.set_blocking(reopened, True)
        self.descriptor, before = reopened, self.descriptor
        self._isTorn = False
        if self._losses.count:
            # Log the count of lost lines now, and not only before the next line.
            self.write("")
        try:
            os.close(before)
        except OSError as error:
            return error
        return None

    def give(self, uid: int, gid: int) -> None:
        """
        Change the owner and group of the file, as root. Devices, such as C{/dev/null}, and pipes do not change.

        @param uid: the new owner.
        @param gid: the new group.
        @raise OSError: the system refuses it; the path is a link; or the file belongs to a third user, in a folder
            where users other than root could have replaced it.
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
        """Close the file."""
        descriptor, self.descriptor = self.descriptor, -1
        with suppress(OSError):
            os.close(descriptor)
