# -*- test-case-name: mailgate.test.system.test_regularfiles -*-
"""
Reads files safely. A path may lead to a FIFO, which would block the reader, or to a device without an end. These are
refused.
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
"""The most bytes of a file. Lists of revoked certificates may have tens of millions."""


OVERWRITTEN = "is the configuration file itself and would be overwritten"
"""The problem if mailgate would write to its own configuration file."""


def isSameFile(path: str, other: str) -> bool:
    """Return whether C{path} and C{other} lead to the same file. It need not exist."""
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
    Open a regular file for reading. Links are followed.

    @param path: its path.
    @raise OSError: it cannot be opened, or is not a regular file.
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
    Return the content of a regular file.

    @param path: its path.
    @raise OSError: it cannot be read, is not a regular file, or has more than L{MOST} bytes.
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
    Return the content of a regular file or a pipe, such as a shell's C{<(COMMAND)}.

    @param path: its path.
    @param most: the most bytes.
    @param patience: seconds that reading may take.
    @raise OSError: it cannot be read, is not a regular file or a pipe, is too large, or reading takes too long.
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
        # A regular file is always ready to read.
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
    """Return whether every user on this host can read the file C{path}, by its mode and those of its folders."""
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
    Find out which users besides its owner and root can change or replace a file: all users of this host, or a group
    other than the owner's primary group.

    @param path: the path of the file.
    @return: a message about "it", the file: it names these users and the command that changes the mode. L{None} if
        only the owner and root can change the file, or if the modes cannot be read.
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
    """Return whether all users, or the members of C{group}, can pass through C{folder} and its parents."""
    while True:
        found = os.stat(folder)
        if not found.st_mode & stat.S_IXOTH and not (found.st_gid == group and found.st_mode & stat.S_IXGRP):
            return False
        if folder == "/":
            return True
        folder = os.path.dirname(folder)


def _isOwn(found: os.stat_result) -> bool:
    """Return whether the group of a file is root's, or the primary group of its owner."""
    try:
        return found.st_gid in (0, pwd.getpwuid(found.st_uid).pw_gid)
    except KeyError:
        return False


def _groupName(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
