# -*- test-case-name: mailgate.test.test_tap -*-
"""
What a process does after its start: it gives up root's rights, and tunes Python's garbage collector.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

from mailgate.auth.passwdfile.authenticator import FileSettings
from mailgate.config import GatewaySettings
from mailgate.directives import ConfigurationError, Problem
from mailgate.process.watching import watchedFiles
from mailgate.store.settings import StoreSettings
from mailgate.system.privileges import ProcessSettings, becomeUser
from mailgate.watch.settings import AdminSettings

__all__ = ["shedPrivileges", "tuneCollector", "unreadableLater"]


def tuneCollector() -> None:
    """
    Make Python's collector of reference cycles skip the imported modules and run rarely. Sessions create no cycles.

    With its defaults the collector takes 5 % of the time of a login and sometimes stops the process for 30 ms. With
    these settings neither was measurable.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20000, 20, 100)


def shedPrivileges(settings: GatewaySettings) -> Iterator[Problem]:
    """
    If this process is root, become the C{user} of the configuration. Yields a warning for each account file, and for
    the file of tokens, that this user cannot read, because the gateway reads it again when it changes.

    @param settings: the configuration.
    @raise ConfigurationError: the system refuses the change of user.
    """
    user = settings[ProcessSettings].user
    if user is None or os.geteuid() != 0:
        return
    try:
        becomeUser(user)
    except OSError as error:
        reason = f"cannot switch to this user: {error.strerror}"
        raise ConfigurationError([Problem(settings.file, reason, "mailgate", "user", user.name)]) from None
    admin = settings[AdminSettings]
    tokens = admin.tokenFile
    if admin.admin is not None and admin.admin.ip is not None and tokens is not None and not os.access(tokens, os.R_OK):
        reason = f"the user {user.name} cannot read it: the admin server will accept no token"
        yield Problem(settings.file, reason, "mailgate", "admin_token_file", tokens)
    for server in settings.servers:
        path = server[FileSettings].path
        if path is not None and not os.access(path, os.R_OK):
            yield server.problem(
                "auth_file", f"the user {user.name} cannot read it: the gateway will not notice changes", path
            )


def unreadableLater(settings: GatewaySettings) -> list[str]:
    """
    Return the files that a reload reads and that this process may not read.

    @param settings: the configuration.
    @return: their paths.
    """
    others = (*settings[AdminSettings].files, *settings[StoreSettings].files)
    files = dict.fromkeys((settings.file, *watchedFiles(settings.servers, settings.named, others)))
    return [name for name in files if not os.access(name, os.R_OK)]
