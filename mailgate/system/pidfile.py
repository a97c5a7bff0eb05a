# -*- test-case-name: mailgate.test.system.test_pidfile -*-
"""
nginx's C{pid}: the file with the pid of the main process. It is written once the ports are bound.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

from attrs import frozen

from mailgate.directives import ConfigurationError, Problem, SectionSettings, directive, path
from mailgate.system.regularfiles import OVERWRITTEN, isSameFile, openRegular
from mailgate.system.rootfiles import openToWrite

__all__ = ["PIDFile", "PIDSettings", "predecessor"]

_ASIDE = ".oldbin"
"""nginx's suffix for the pid file of the process that an upgrade has replaced."""


def predecessor(path: str) -> int | None:
    """
    Return the pid of the process that an upgrade has replaced, while it runs and serves its last sessions.

    @param path: the path of the pid file.
    """
    try:
        with openRegular(f"{path}{_ASIDE}") as opened:
            pid = int(opened.read(32))
        if pid <= 0:
            return None
        os.kill(pid, 0)
    except (OSError, ValueError, OverflowError):
        return None
    return pid


@frozen
class PIDSettings:
    """nginx's C{pid}. Without this directive there is no pid file."""

    path: str | None = directive("pid", path, None, reloadable=False)

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield a problem of C{section} if the pid file is the configuration file."""
        if self.path is not None and isSameFile(self.path, section.file):
            yield section.problem("pid", OVERWRITTEN, self.path)


class PIDFile:
    """
    A pid file.

    @param path: its path.
    @param file: the path of the ini file, for messages.
    @ivar path: its current path, which L{stepAside} changes.
    """

    def __init__(self, path: str, file: str) -> None:
        self.path = path
        self._place = path
        self._file = file

    def check(self) -> None:
        """
        Check that the file can be written, without changing its content. If there is none, an empty file is created.

        @raise ConfigurationError: it cannot be written.
        """
        self._write("")

    def write(self) -> None:
        """
        Write the pid of this process.

        @raise ConfigurationError: the file cannot be written.
        """
        self._write(f"{os.getpid()}\n")

    def _write(self, text: str) -> None:
        """Replace the content by C{text}, unless C{text} is empty."""
        try:
            # In a folder where other users can write, a link could make root overwrite any file, and a FIFO could block
            # it.
            descriptor, _ = openToWrite(self.path, os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
            with os.fdopen(descriptor, "w", encoding="ascii") as opened:
                if text:
                    # Not with O_TRUNC: the file was not checked yet when it was opened.
                    with suppress(OSError):
                        opened.truncate()
                    opened.write(text)
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise ConfigurationError([Problem(self._file, reason, "mailgate", "pid", self.path)]) from None

    def discard(self) -> None:
        """Remove the file if it is empty, as it is after a failed L{write}."""
        with suppress(OSError):
            found = os.lstat(self.path)
            if stat.S_ISREG(found.st_mode) and found.st_size == 0:
                os.unlink(self.path)

    def stepAside(self) -> None:
        """
        Rename the file to C{PATH.oldbin} for an upgrade, as nginx does.

        @raise OSError: it cannot be renamed.
        @raise ConfigurationError: the file was removed, and C{PATH.oldbin} cannot be written.
        """
        aside = f"{self._place}{_ASIDE}"
        try:
            os.rename(self._place, aside)
        except FileNotFoundError:
            PIDFile(aside, self._file).write()
        self.path = aside

    def stepBack(self) -> None:
        """Undo L{stepAside}."""
        with suppress(OSError):
            os.rename(self.path, self._place)
            self.path = self._place

    def remove(self) -> None:
        """Remove the file if it has the pid of this process. After an upgrade it has that of the new one."""
        # If the folder belongs to root and this process is no longer root, the file stays.
        with suppress(OSError, ValueError):
            with openRegular(self.path) as opened:
                named = int(opened.read(32))
            if named == os.getpid():
                os.unlink(self.path)
