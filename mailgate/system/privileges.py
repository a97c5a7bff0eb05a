# -*- test-case-name: mailgate.test.system.test_privileges -*-
"""
The rights of the process: the user that it becomes once it no longer needs root, and its limit of open files.
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
    """
    A user of this host, and a group.

    @ivar name: the name of the user.
    @ivar uid: the number of the user.
    @ivar gid: the number of the group.
    """

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
        hint = "" if groups else f"; add the name of a group: user = {name} GROUP"
        raise ValueError(f'this host has no group "{group}"{hint}') from None


_FEWEST = 64
"""The least limit. A process needs file descriptors for Python, logs and listening sockets before the first client."""


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
        """The uid and gid of the owner of the files that root makes for C{user}; L{None} if files keep their owner."""
        return None if self.user is None or os.geteuid() != 0 else (self.user.uid, self.user.gid)

    def warnings(self, section: SectionSettings) -> Iterator[Problem]:
        """Yield a warning of C{section} if C{user} has no effect."""
        if self.user is not None and os.geteuid() != 0:
            yield section.problem("user", "is ignored: only root can become another user", self.user.name)


def becomeUser(user: User) -> None:
    """
    Change the user of this process permanently, with all groups of the user.

    @param user: the new user.
    @raise OSError: the system refuses it.
    """
    os.setgid(user.gid)
    os.initgroups(user.name, user.gid)
    # Last, as only root can change the groups.
    os.setuid(user.uid)
    gainNothing()


def gainNothing() -> None:
    """
    If this process is not root, prevent it and its child processes from gaining rights by set-user-ID programs or file
    capabilities: Linux's C{PR_SET_NO_NEW_PRIVS} (prctl(2)). It has no effect on other systems.
    """
    if os.getuid() == 0:
        return
    # An old kernel does not have this call. The process runs without this protection then.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVS, ctypes.c_ulong(1), *[ctypes.c_ulong(0)] * 3)


def limitOpenFiles(limit: int) -> None:
    """
    Set the limit of open files, both the soft and the hard one.

    @param limit: the limit.
    @raise OSError: the system refuses it, with L{PermissionError} if the limit is above the hard limit.
    """
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    except ValueError as error:
        # Python raises ValueError for EPERM.
        raise PermissionError(str(error)) from None


def raiseOpenFiles() -> None:
    """Raise the soft limit of open files to the hard limit, as each session needs two. Ignore errors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        limitOpenFiles(hard)
    except OSError:
        # The limit stays as it is.
        return
