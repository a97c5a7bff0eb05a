# -*- test-case-name: mailgate.test.test_regularfiles -*-
"""
Files to read. In the place of one there may be a FIFO, whose reader would wait for a writer for ever, or a device that
never ends: neither is read.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import time
from typing import BinaryIO

__all__ = ["isOpenToAll", "isWritableByAll", "openRegular", "readRegular", "readRegularOrPipe"]

MOST = 64 * 1024 * 1024
"""Bytes that are read of one file; lists of revoked certificates come to tens of millions."""


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)


def _check(descriptor: int, path: str, isRight: bool, kinds: str) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not isRight:
        raise OSError(errno.EINVAL, f"it is no {kinds}", path)


def openRegular(path: str) -> BinaryIO:
    """
    The regular file C{path}, opened for reading; links are followed.

    @raise OSError: it cannot be opened, or is no regular file.
    """
    descriptor = _open(path)
    try:
        _check(descriptor, path, stat.S_ISREG(os.fstat(descriptor).st_mode), "regular file")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def readRegular(path: str) -> bytes:
    """
    What is in the regular file C{path}.

    @raise OSError: it cannot be read, is no regular file, or holds more than L{MOST} bytes.
    """
    with openRegular(path) as opened:
        content = opened.read(MOST + 1)
    if len(content) > MOST:
        raise _tooLong(path, MOST)
    return content


def _tooLong(path: str, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it is longer than {most // (1024 * 1024)} MB", path)


def readRegularOrPipe(path: str, most: int, patience: float) -> bytes:
    """
    What is in the regular file C{path}, or comes by the pipe of that name, such as a shell's C{<(COMMAND)}, at most
    C{most} bytes, which may take C{patience} seconds.

    @raise OSError: it cannot be read, is neither of both, is longer or takes longer.
    """
    descriptor = _open(path)
    try:
        mode = os.fstat(descriptor).st_mode
        _check(descriptor, path, stat.S_ISREG(mode) or stat.S_ISFIFO(mode), "regular file, and no pipe")
        return _readAll(descriptor, path, most, patience)
    finally:
        os.close(descriptor)


def _readAll(descriptor: int, path: str, most: int, patience: float) -> bytes:
    end = time.monotonic() + patience
    pieces: list[bytes] = []
    length = 0
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while True:
        # A regular file is always ready.
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            reason = f"it is a pipe that has not come to its end within {patience:g} s"
            raise TimeoutError(errno.ETIMEDOUT, reason, path)
        piece = os.read(descriptor, 1024 * 1024)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        length += len(piece)
        if length > most:
            raise _tooLong(path, most)


def isWritableByAll(path: str) -> bool:
    """Whether every user of this host may write to the regular file C{path}, by its own mode."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IWOTH)


def isOpenToAll(path: str) -> bool:
    """Whether every user of this host may read the file C{path}: by its own mode, and by those of the folders to it."""
    try:
        real = os.path.realpath(path)
        found = os.stat(real)
        isReadable = stat.S_ISREG(found.st_mode) and bool(found.st_mode & stat.S_IROTH)
        while isReadable and real != "/":
            real = os.path.dirname(real)
            isReadable = bool(os.stat(real).st_mode & stat.S_IXOTH)
    except OSError:
        return False
    return isReadable
