# -*- test-case-name: mailgate.test.system.test_regularfiles -*-
"""
Files to read. In the place of one there may be a FIFO, whose reader would wait for a writer for ever, or a device that
never ends: neither is read.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import select
import stat
import time
from typing import BinaryIO

__all__ = ["OVERWRITTEN", "isOpenToAll", "isSameFile", "openRegular", "readRegular", "readRegularOrPipe", "writers"]

MOST = 64 * 1024 * 1024
"""Bytes that are read of one file; lists of revoked certificates come to tens of millions."""


OVERWRITTEN = "is the configuration file itself and would be overwritten"
"""What is wrong with a file to write that L{isSameFile} as the configuration."""


def isSameFile(path: str, other: str) -> bool:
    """Whether both are paths of one file, which there may not be yet."""
    return os.path.realpath(path) == os.path.realpath(other)


def _open(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)


def _check(descriptor: int, path: str, isRight: bool, reason: str) -> None:
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not isRight:
        raise OSError(errno.EINVAL, reason, path)


def openRegular(path: str) -> BinaryIO:
    """
    The regular file C{path}, opened for reading; links are followed.

    @raise OSError: it cannot be opened, or is no regular file.
    """
    descriptor = _open(path)
    try:
        _check(descriptor, path, stat.S_ISREG(os.fstat(descriptor).st_mode), "it is not a regular file")
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
    return OSError(errno.EFBIG, f"it is larger than {most // (1024 * 1024)} MB", path)


def readRegularOrPipe(path: str, most: int, patience: float) -> bytes:
    """
    What is in the regular file C{path}, or comes by the pipe of that name, such as a shell's C{<(COMMAND)}, at most
    C{most} bytes, which may take C{patience} seconds.

    @raise OSError: it cannot be read, is neither of both, is longer or takes longer.
    """
    descriptor = _open(path)
    try:
        mode = os.fstat(descriptor).st_mode
        _check(descriptor, path, stat.S_ISREG(mode) or stat.S_ISFIFO(mode), "it is not a regular file or a pipe")
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
            reason = f"it is a pipe whose writer did not close it within {patience:g} s"
            raise TimeoutError(errno.ETIMEDOUT, reason, path)
        piece = os.read(descriptor, 1024 * 1024)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        length += len(piece)
        if length > most:
            raise _tooLong(path, most)


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


def writers(path: str) -> str | None:
    """
    Who may change the file C{path}, or put another in its place in its folder, besides its owner and root, and how to
    end that, as what follows the file's name in a message: every user of this host, or a group that is not the owner's
    own. L{None} where nobody else may, or where that cannot be found out.
    """
    try:
        real = os.path.realpath(path)
        found, folder = os.stat(real), os.path.dirname(real)
        above = os.stat(folder)
        isReachable = _lets(folder, None)
        if isReachable:
            if found.st_mode & stat.S_IWOTH:
                return f"every user on this host can write to it; run: chmod o-w {real}"
            if above.st_mode & stat.S_IWOTH and not above.st_mode & stat.S_ISVTX:
                return f"every user on this host can replace it; run: chmod o-w {folder}"
        if found.st_mode & stat.S_IWGRP and not _isOwn(found) and _lets(folder, found.st_gid):
            return f"the group {_groupName(found.st_gid)} can write to it; run: chmod g-w {real}"
    except OSError:
        pass
    return None


def _lets(folder: str, group: int | None) -> bool:
    """Whether C{folder} and those to it let everybody through, or else C{group}."""
    while True:
        found = os.stat(folder)
        if not found.st_mode & stat.S_IXOTH and not (found.st_gid == group and found.st_mode & stat.S_IXGRP):
            return False
        if folder == "/":
            return True
        folder = os.path.dirname(folder)


def _isOwn(found: os.stat_result) -> bool:
    """Whether the group of a file is root's, or the one that its owner has by itself."""
    try:
        return found.st_gid in (0, pwd.getpwuid(found.st_uid).pw_gid)
    except KeyError:
        return False


def _groupName(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
