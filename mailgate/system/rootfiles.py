# -*- test-case-name: mailgate.test.system.test_rootfiles -*-
"""
Opens files for writing as root. In a folder where other users can write, they could replace a file by a link to any
file of root's at any time (as in CVE-2016-1247). There, root does not follow links. It opens only regular files with
one hard link that belong to root, to the user of C{user}, or to the owner of the folder.

In folders where only root can write, links, devices and FIFOs work as usual.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NoReturn

__all__ = ["checkToWrite", "isRootsAlone", "openToWrite"]

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
"""The most links that are followed in one path, as in Linux (path_resolution(7))."""


def isRootsAlone(folder: os.stat_result) -> bool:
    """
    Return whether only root can add and remove names in a folder. In C{/tmp} other users can, even with the sticky bit.

    @param folder: the result of L{os.stat} for the folder.
    """
    return folder.st_uid == 0 and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _keepsRootsNames(folder: os.stat_result) -> bool:
    """Return whether only root can replace root's files in C{folder}; true for a C{/tmp} with the sticky bit."""
    return isRootsAlone(folder) or (folder.st_uid == 0 and bool(folder.st_mode & stat.S_ISVTX))


def openToWrite(path: str, flags: int, mode: int = 0o666, user: int | None = None) -> tuple[int, bool]:
    """
    Open a file for writing. If there is none, create it.

    @param path: its path.
    @param flags: flags of L{os.open}. With C{O_NOFOLLOW} the file must not be a link in any folder.
    @param mode: the mode of a new file.
    @param user: the uid of the user whose files root may write to in folders of others; L{None} for none.
    @return: a file descriptor; and whether users other than root can write to the folder. The latter is always false if
        this process is not root.
    @raise OSError: the file cannot be opened, or root must not open it. The text says what to do.
    """
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    if os.geteuid() != 0:
        return os.open(path, flags, mode), False
    walk = _Walk(path, user)
    try:
        return walk.open(flags, mode), not walk.isRoots
    except OSError as error:
        # The whole path, and not only the last name, by which it was opened.
        error.filename = path
        raise
    finally:
        os.close(walk.folder)


def checkToWrite(path: str, flags: int, user: int | None = None) -> None:
    """
    Check whether L{openToWrite} would open a file, without opening or creating it.

    @param path: its path.
    @param flags: see L{openToWrite}.
    @param user: see L{openToWrite}.
    @raise OSError: it would not open it; L{IsADirectoryError} if it is a folder.
    """
    if os.geteuid() == 0:
        walk = _Walk(path, user)
        try:
            walk.look(flags)
        finally:
            os.close(walk.folder)
    elif flags & os.O_NOFOLLOW and os.path.islink(path):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    try:
        found = os.stat(path)
    except FileNotFoundError:
        _checkToMake(os.path.realpath(path))
        return
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not os.access(path, os.W_OK):
        raise OSError(*_denied(path), path)


def _checkToMake(path: str) -> None:
    folder = os.path.dirname(path)
    os.stat(os.path.join(folder, ""))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(*_denied(folder), path)


def _denied(path: str) -> tuple[int, str]:
    """Return errno and text for a path without the right to write: a read-only file system, or its mode."""
    number = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
    return number, os.strerror(number)


class _Walk:
    """
    Resolves C{path} folder by folder. Each folder is opened from the one before, so that no user can replace it between
    the check and the use.

    @ivar folder: the descriptor of the current folder.
    @ivar isRoots: whether only root can write to the current folder, or replace it.
    """

    def __init__(self, path: str, user: int | None) -> None:
        self._path = path
        self._user = user
        self._links = 0
        # getcwd() fails if the working folder was removed. An absolute path does not need it.
        self._names = (path if path.startswith("/") else os.path.join(os.getcwd(), path)).split("/")
        self.folder = self._top()

    def _top(self) -> int:
        self._shown = ""
        folder = os.open("/", _FOLDER)
        self._isKept = True
        self._look(folder)
        return folder

    def _look(self, folder: int) -> None:
        status = os.fstat(folder)
        self.isRoots = self._isKept and isRootsAlone(status)
        self._isKept = self._isKept and _keepsRootsNames(status)

    def open(self, flags: int, mode: int) -> int:
        """Open the file at the end of the path."""
        name, found, isMagic = self._find(flags)
        if isMagic:
            return os.open(name, flags, mode, dir_fd=self.folder)
        if self.isRoots:
            # Opening a FIFO waits for a reader here.
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self.folder)
        return self._openOthers(name, found, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)

    def look(self, flags: int) -> None:
        """
        Resolve the path, and open nothing.

        @raise OSError: L{open} would refuse it.
        """
        _, found, isMagic = self._find(flags)
        if found is not None and not isMagic and not self.isRoots:
            self._check(found)

    def _find(self, flags: int) -> tuple[str, os.stat_result | None, bool]:
        """
        Return the last name of the path, which is in C{folder}; the status of the file, or L{None} if there is none;
        and whether the file is a link in C{/proc} to an open file.
        """
        while True:
            name = self._names.pop(0)
            if name in ("", ".") and self._names:
                continue
            try:
                found = os.stat(name, dir_fd=self.folder, follow_symlinks=False)
            except FileNotFoundError:
                found = None
            if found is not None and stat.S_ISLNK(found.st_mode):
                if not self._names and flags & os.O_NOFOLLOW:
                    self._fail(errno.ELOOP, os.strerror(errno.ELOOP))
                if not self._names and self._isMagic():
                    return name, found, True
                self._follow(name)
            elif self._names:
                self._enter(name)
            else:
                return name, found, False

    def _enter(self, name: str) -> None:
        try:
            entered = os.open(name, _FOLDER, dir_fd=self.folder)
        except OSError as error:
            self._fail(error.errno or 0, os.strerror(error.errno or 0))
        os.close(self.folder)
        self.folder = entered
        self._shown += f"/{name}"
        self._look(entered)

    def _isMagic(self) -> bool:
        """Return whether links in this folder lead to open files and not to paths, as with C{/dev/stdout}."""
        try:
            return self.isRoots and os.fstat(self.folder).st_dev == os.stat("/proc").st_dev
        except OSError:
            return False

    def _follow(self, name: str) -> None:
        if not self.isRoots:
            self._refuse(f"{self._shown}/{name} is a symbolic link" if self._names else "it is a symbolic link")
        self._links += 1
        if self._links > _MOST_LINKS:
            self._fail(errno.ELOOP, os.strerror(errno.ELOOP))
        target = os.readlink(name, dir_fd=self.folder)
        self._names[:0] = target.split("/")
        if target.startswith("/"):
            before, self.folder = self.folder, self._top()
            os.close(before)

    def _openOthers(self, name: str, found: os.stat_result | None, flags: int, mode: int) -> int:
        """Open C{name} in a folder where other users can write. C{found} is the status of the file, if any."""
        if found is None:
            flags |= os.O_EXCL
        else:
            # Check before opening, as opening a device may have effects. Without O_CREAT, as Linux may refuse that for
            # files of other users in sticky folders.
            self._check(found)
            flags &= ~os.O_CREAT
        try:
            opened = os.open(name, flags, mode, dir_fd=self.folder)
        except OSError as error:
            self._fail(error.errno or 0, os.strerror(error.errno or 0))
        try:
            self._check(os.fstat(opened))
        except OSError:
            os.close(opened)
            raise
        return opened

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            self._refuse("it is not a regular file")
        if found.st_nlink != 1:
            self._refuse("it has more than one hard link")
        if found.st_uid not in (0, self._user, os.fstat(self.folder).st_uid):
            self._refuse(f"it belongs to another user, with uid {found.st_uid}")

    def _refuse(self, what: str) -> NoReturn:
        reason = (
            f"{what}, and other users can write to the folder {self._shown or '/'};"
            " remove it, or use a folder that only root can write to"
        )
        self._fail(errno.EPERM, reason)

    def _fail(self, number: int, reason: str) -> NoReturn:
        raise OSError(number, reason, self._path)
