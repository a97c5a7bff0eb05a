# -*- test-case-name: mailgate.test.limits.test_statefile -*-
"""
C{state_file}: what must survive a restart of the gateway, in a file of the gateway's user.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from hashlib import blake2b

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailgate.limits.interfaces import IDefence, NewerState
from mailgate.limits.state import essence
from mailgate.limits.turns import Repeating
from mailgate.system.regularfiles import readRegular
from mailgate.system.rootfiles import checkToWrite, openToWrite

__all__ = ["INTERVAL", "NAME", "Remembering", "StateFile", "begin", "placeOf"]

INTERVAL = 60.0
"""Seconds between two writes at least."""

NAME = "mailgate.limits"
"""The name of the file in systemd's folder."""

_MODE = 0o600

_PIECE = 1 << 19
"""Bytes that are read at once."""

_log = Logger("mailgate")


def placeOf(given: str | None, environ: Mapping[str, str]) -> str | None:
    """
    Return the path of the file; L{None} for no file.

    @param given: the directive: a path, empty for C{off}, L{None} if it is not set.
    @param environ: the environment. systemd names the folder of C{StateDirectory=} there.
    """
    if given is not None:
        return given or None
    folder = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return os.path.join(folder, NAME) if folder else None


class StateFile:
    """
    The file. It is replaced as a whole, so that its folder must be writable, too.

    @param path: its path.
    @ivar path: as the argument.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._new = f"{path}.new"

    def read(self) -> bytes | None:
        """
        Return the content; L{None} if there is no file.

        @raise OSError: it cannot be read, or is no regular file.
        """
        try:
            return readRegular(self.path)
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """
        Check whether it can be written.

        @raise OSError: it cannot.
        """
        checkToWrite(self._new, os.O_NOFOLLOW)

    def write(self, state: bytes) -> None:
        """
        Replace the content.

        @param state: the new content.
        @raise OSError: it cannot be written. The previous content is kept.
        """
        with suppress(FileNotFoundError):
            # What a write has left that was interrupted.
            os.unlink(self._new)
        descriptor, _ = openToWrite(self._new, os.O_EXCL | os.O_NOFOLLOW, _MODE)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(state)
            opened.flush()
            # Otherwise a crash of the machine could leave an empty file in the place of the previous one.
            os.fsync(descriptor)
        os.replace(self._new, self.path)

    def setAside(self) -> str:
        """
        Rename the file, which cannot be used, so that it can be examined. Return its new path.

        @raise OSError: it cannot be renamed.
        """
        aside = f"{self.path}.unreadable"
        os.replace(self.path, aside)
        return aside


def begin(defence: IDefence, path: str | None) -> None:
    """
    Let the tables of a process begin with the file of another one, which writes it, and has logged what is wrong with
    it. So a worker that decides before it has a link to the keeper knows what was known before a restart.

    @param defence: the tables.
    @param path: the path of the file; L{None} without one.
    """
    if path is not None:
        with suppress(OSError, ValueError):
            state = StateFile(path).read()
            if state is not None:
                defence.restore(state)


class Remembering(Repeating):
    """
    Restores tables from a file, and writes them there once a minute and when it stops, if they have changed.

    A file of a later release is left alone: that release needs it when it is installed again. Nothing is written then.

    @param defence: the tables.
    @param file: the file.
    @param clock: the timer.
    @param mayWrite: returns whether the tables are those of the gateway: not while a predecessor knows more, and not
        after a successor has taken over.
    @param monotonic: returns the seconds since any moment. They never jump.
    """

    def __init__(
        self,
        defence: IDefence,
        file: StateFile,
        clock: IReactorTime,
        mayWrite: Callable[[], bool] = lambda: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(self._writing, INTERVAL, clock, monotonic)
        self._defence = defence
        self._file = file
        self._mayWrite = mayWrite
        self._isOurs = True
        self._hasFailed = False
        self._written = b""

    def restore(self) -> None:
        """Read the file. What is wrong with it is logged, and the tables stay as they are then."""
        try:
            state = self._file.read()
        except OSError as error:
            self._leaveAlone(f"cannot be read: {error.strerror or error}")
            return
        try:
            if state is not None:
                self._defence.restore(state)
                self._written = _digest(self._defence.state())
        except NewerState:
            self._leaveAlone("was written by a later release of mailgate")
            return
        except ValueError as error:
            self._setAside(str(error))
        self._check()

    def _leaveAlone(self, why: str) -> None:
        self._isOurs = False
        text = "state_file {path} {why}; it stays as it is, and known networks and blocks are kept in memory only"
        _log.warn(text, path=self._file.path, why=why)

    def _setAside(self, why: str) -> None:
        try:
            aside = self._file.setAside()
        except OSError as error:
            self._leaveAlone(f"cannot be used ({why}), and cannot be renamed: {error.strerror or error}")
            return
        text = "state_file {path} cannot be used: {why}; it is {aside} now, and the limits begin without known networks"
        _log.warn(text, path=self._file.path, why=why, aside=aside)

    def _check(self) -> None:
        if self._isOurs:
            try:
                self._file.check()
            except OSError as error:
                self._failed(error)

    def _failed(self, error: OSError) -> None:
        if not self._hasFailed:
            self._hasFailed = True
            text = "state_file {path} cannot be written: {reason}; a restart forgets known networks and blocks"
            _log.warn(text, path=self._file.path, reason=error.strerror or str(error))

    def stopService(self) -> None:
        """Write for the last time."""
        super().stopService()
        for _ in self._writing():
            pass

    def _writing(self) -> Generator[None, None, None]:
        if not self._isOurs or not self._mayWrite():
            return
        try:
            state = yield from self._defence.packing()
            digest = yield from _digesting(state)
            # Another process may have taken over meanwhile.
            if digest != self._written and self._mayWrite():
                self._file.write(state)
                self._written, self._hasFailed = digest, False
        except OSError as error:
            self._failed(error)
        except Exception:
            # The timer would stop for ever.
            _log.failure("cannot write the state_file")


def _digest(state: bytes) -> bytes:
    return blake2b(essence(state), digest_size=16).digest()


def _digesting(state: bytes) -> Generator[None, None, bytes]:
    """Return the same as L{_digest}, in pieces."""
    content = memoryview(essence(state))
    digest = blake2b(digest_size=16)
    for start in range(0, len(content), _PIECE):
        digest.update(content[start : start + _PIECE])
        yield
    return digest.digest()
