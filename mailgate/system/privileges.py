# -*- test-case-name: mailgate.test.system.test_privileges -*-
"""
What the process may: the user that it becomes once it needs root no more, and how many files it may have open.
"""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
from collections.abc import Iterator
from contextlib import suppress

from attrs import frozen

from mailgate.directives import Problem, SectionSettings, directive, number, text

__all__ = ["ProcessSettings", "User", "becomeUser", "gainNothing", "limitOpenFiles", "raiseOpenFiles"]

_NO_NEW_PRIVS = 38  # PR_SET_NO_NEW_PRIVS of linux/prctl.h


@frozen
class User:
    """A user of this host, and the group that goes with it."""

    name: str
    uid: int
    gid: int


def _user(value: str, folder: str) -> User:
    name, *groups = text(value, folder).split()
    if len(groups) > 1:
        raise ValueError("must be a user, optionally followed by a group")
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ValueError(f'this host has no user "{name}"') from None
    group = groups[0] if groups else name
    try:
        return User(name, uid, grp.getgrnam(group).gr_gid)
    except KeyError:
        hint = "" if groups else "; name a group after the user"
        raise ValueError(f'this host has no group "{group}"{hint}') from None


_FEWEST = 64
"""Descriptors that a process needs before it has a client: Python's own files, logs, sockets."""


def _limit(value: str, folder: str) -> int:
    limit = number(value, folder)
    if limit < _FEWEST:
        raise ValueError(f"must be at least {_FEWEST}, which leaves room for a few clients")
    return limit


@frozen
class ProcessSettings:
    """nginx's C{user} and C{worker_rlimit_nofile}."""

    user: User | None = directive("user", _user, None, reloadable=False)
    openFiles: int | None = directive("worker_rlimit_nofile", _limit, None, reloadable=False)

    @property
    def owner(self) -> tuple[int, int] | None:
        """Whose the files are to be that this process, if it is root, makes for C{user}: a user and a group."""
        return None if self.user is None or os.geteuid() != 0 else (self.user.uid, self.user.gid)

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        """What of C{section} cannot be done by this process, and keeps no process from starting."""
        if self.user is not None and os.geteuid() != 0:
            yield section.problem("user", "is ignored: only root can become another user", self.user.name)


def becomeUser(user: User) -> None:
    """
    Become C{user} for good, with the groups that it is in.

    @raise OSError: the system does not let us.
    """
    os.setgid(user.gid)
    os.initgroups(user.name, user.gid)
    # The last: who is no longer root cannot change the groups.
    os.setuid(user.uid)
    gainNothing()


def gainNothing() -> None:
    """
    Where this process is not root's, have it, and all that it starts, never gain rights again by a set-user-ID program
    or by capabilities of a file: Linux's C{PR_SET_NO_NEW_PRIVS} (prctl(2)). Other systems have nothing of the kind.
    """
    if os.getuid() == 0:
        return
    # An old kernel knows no such call, and then nothing is lost that was there before.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3)


def limitOpenFiles(limit: int) -> None:
    """
    Have no more and no fewer than C{limit} files open at a time.

    @raise OSError: the system does not allow as many.
    """
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    except ValueError as error:
        # So Python tells of EPERM.
        raise PermissionError(str(error)) from None


def raiseOpenFiles() -> None:
    """Raise the soft limit of open files to the hard one: every session takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        limitOpenFiles(hard)
    except OSError:
        # Where the system does not allow it, the limit stays what it was.
        return
