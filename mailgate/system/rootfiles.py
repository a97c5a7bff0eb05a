# -*- test-case-name: mailgate.test.system.test_rootfiles -*-
"""
Files that root writes to, wherever they lie. In a folder where others may write, a name can be made a link to any file
of root's at any time (as in CVE-2016-1247): there root follows no links, and opens nothing but a regular file with one
name that is root's, the C{user}'s, or the folder owner's own.

In folders that are root's alone everything is as usual: links, devices, FIFOs.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NoReturn

__all__ = ["checkToWrite", "isRootsAlone", "openToWrite"]

_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40
"""Links that are followed in one path, as Linux does (path_resolution(7))."""


def isRootsAlone(folder: os.stat_result) -> bool:
    """Whether nobody but root can put a name into C{folder}, or take one out. In C{/tmp}, sticky or not, others can."""
    return folder.st_uid == 0 and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _keepsRootsNames(folder: os.stat_result) -> bool:
    """Whether nobody but root can exchange what is root's in C{folder}, such as a sticky C{/tmp}."""
    return isRootsAlone(folder) or (folder.st_uid == 0 and bool(folder.st_mode & stat.S_ISVTX))


def openToWrite(path: str, flags: int, mode: int = 0o666, user: int | None = None) -> tuple[int, bool]:
    """
    Open C{path} by C{flags} for writing; it is made, with C{mode}, if it is not there. C{user} is the uid whose files
    root may write to in folders of others. With C{O_NOFOLLOW} the file itself is not to be a link anywhere.

    @return: a descriptor, and whether it lies where others may write, which is of no interest to another than root.
    @raise OSError: it cannot be opened, or root must not; the text says what to do.
    """
    flags |= os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
    if os.geteuid() != 0:
        return os.open(path, flags, mode), False
    walk = _Walk(path, user)
    try:
        return walk.open(flags, mode), not walk.isRoots
    except OSError as error:
        # Not the last of its names alone, by which it has been opened.
        error.filename = path
        raise
    finally:
        os.close(walk.folder)


def checkToWrite(path: str, flags: int, user: int | None = None) -> None:
    """
    Look whether L{openToWrite} would open C{path}, which is neither opened nor made.

    @raise OSError: it would not.
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
    """Why nothing can be written there, whose mode or system forbids it."""
    number = errno.EROFS if os.statvfs(path).f_flag & os.ST_RDONLY else errno.EACCES
    return number, os.strerror(number)


class _Walk:
    """
    The way to C{path}, one folder after the other, each opened from the one before, so that nothing that is looked at
    can be exchanged before it is used.

    @ivar isRoots: whether the folder is root's alone, and nobody else can put another into its place.
    """

    def __init__(self, path: str, user: int | None) -> None:
        self._path = path
        self._user = user
        self._links = 0
        # The folder we are in may be gone, which is no matter for a whole path.
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
        """Open the file at the end of it."""
        name, found, isMagic = self._find(flags)
        if isMagic:
            return os.open(name, flags, mode, dir_fd=self.folder)
        if self.isRoots:
            # A FIFO waits for its reader here.
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self.folder)
        return self._openOthers(name, found, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)

    def look(self, flags: int) -> None:
        """
        Go the way, and open nothing.

        @raise OSError: L{open} would refuse it.
        """
        _, found, isMagic = self._find(flags)
        if found is not None and not isMagic and not self.isRoots:
            self._check(found)

    def _find(self, flags: int) -> tuple[str, os.stat_result | None, bool]:
        """The last name on the way, in C{folder}; what has it, if anything; and whether that is a link of C{/proc}."""
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
        """Whether links are what the system says of descriptors, such as C{/dev/stdout} leads to: no paths."""
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
        """Open C{name} in a folder where others may write, which was C{found} to be that."""
        if found is None:
            flags |= os.O_EXCL
        else:
            # To open a device does something, and Linux has no O_CREAT for others' files in sticky folders.
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
        place = f"and other users can write to the folder {self._shown or '/'}"
        self._fail(errno.EPERM, f"{what}, {place}; remove it, or use a folder that only root can write to")

    def _fail(self, number: int, reason: str) -> NoReturn:
        raise OSError(number, reason, self._path)
