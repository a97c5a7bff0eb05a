# -*- test-case-name: mailgate.test.test_tap -*-
"""
What a process gives up once it has what it needs: root's rights, and a collector of cycles that looks often.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

from mailgate.auth.passwdfile.authenticator import FileSettings
from mailgate.config import GatewaySettings
from mailgate.directives import ConfigurationError, Problem
from mailgate.process.watching import watchedFiles
from mailgate.system.privileges import ProcessSettings, becomeUser

__all__ = ["shedPrivileges", "tuneCollector", "unreadableLater"]


def tuneCollector() -> None:
    """
    Have Python's collector of cycles leave alone what has been imported, and look seldom: no session leaves a cycle.

    By default it takes 5 % of a login, and now and then holds everybody up for 30 ms; so, neither could be seen.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20000, 20, 100)


def shedPrivileges(settings: GatewaySettings) -> Iterator[Problem]:
    """
    As root, become the C{user} of C{settings}. Gives a warning of each file that is read again later and that this
    user cannot read.

    @raise ConfigurationError: the system does not let us.
    """
    user = settings[ProcessSettings].user
    if user is None or os.geteuid() != 0:
        return
    try:
        becomeUser(user)
    except OSError as error:
        reason = f"cannot be taken on: {error.strerror}"
        raise ConfigurationError([Problem(settings.file, reason, "mailgate", "user", user.name)]) from None
    for server in settings.servers:
        path = server[FileSettings].path
        if path is not None and not os.access(path, os.R_OK):
            yield server.problem("auth_file", f"will not be read when it changes: {user.name} may not read it", path)


def unreadableLater(settings: GatewaySettings) -> list[str]:
    """The files that a reload would read and this process may not."""
    files = dict.fromkeys((settings.file, *watchedFiles(settings.servers, settings.named)))
    return [name for name in files if not os.access(name, os.R_OK)]
