# -*- test-case-name: mailgate.test.system.test_pidfile -*-
"""
nginx's C{pid}: the file by which the process is found. It is written once the ports are bound.
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

__all__ = ["PIDFile", "PIDSettings"]


@frozen
class PIDSettings:
    """nginx's C{pid}; without it there is no such file."""

    path: str | None = directive("pid", path, None, reloadable=False)

    def problems(self, section: SectionSettings) -> Iterator[Problem]:
        """Whether it is the configuration itself."""
        if self.path is not None and isSameFile(self.path, section.file):
            yield section.problem("pid", OVERWRITTEN, self.path)


class PIDFile:
    """The file C{path}, named in the ini C{file}."""

    def __init__(self, path: str, file: str) -> None:
        self.path = path
        self._place = path
        self._file = file

    def check(self) -> None:
        """
        Look whether it can be written, and leave what is in it.

        @raise ConfigurationError: it cannot.
        """
        self._write("")

    def write(self) -> None:
        """
        Name this process in it.

        @raise ConfigurationError: it cannot be written.
        """
        self._write(f"{os.getpid()}\n")

    def _write(self, text: str) -> None:
        """Write C{text}, if there is any, in the place of what is there."""
        try:
            # In a folder where others may write a link would lead root to any file, and a FIFO hold it up for ever.
            descriptor, _ = openToWrite(self.path, os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
            with os.fdopen(descriptor, "w", encoding="ascii") as opened:
                if text:
                    # Not as it is opened: it had not been looked at yet.
                    with suppress(OSError):
                        opened.truncate()
                    opened.write(text)
        except OSError as error:
            reason = f"cannot be written: {error.strerror}"
            raise ConfigurationError([Problem(self._file, reason, "mailgate", "pid", self.path)]) from None

    def discard(self) -> None:
        """Remove it if nothing is in it, as after a L{write} that has failed."""
        with suppress(OSError):
            found = os.lstat(self.path)
            if stat.S_ISREG(found.st_mode) and found.st_size == 0:
                os.unlink(self.path)

    def stepAside(self) -> None:
        """
        Rename it to C{PATH.oldbin}, as nginx does where another process is to take over.

        @raise OSError: it cannot be renamed.
        @raise ConfigurationError: somebody has removed it, and C{PATH.oldbin} cannot be written.
        """
        aside = f"{self._place}.oldbin"
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
        """Remove it, if it still names this process: another may have taken over."""
        # Its folder may be root's, who we are no longer: then it stays, as one that names nobody.
        with suppress(OSError, ValueError):
            with openRegular(self.path) as opened:
                named = int(opened.read(32))
            if named == os.getpid():
                os.unlink(self.path)
