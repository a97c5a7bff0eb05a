# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
nginx itself, with its mail module, as Debian has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mailgate.test.integration.daemon import Daemon
from mailgate.test.integration.programs import programPath

__all__ = ["NginxProcess"]

_MAIN = """
load_module {module};
daemon off;
master_process off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/nginx.log info;
events {{ worker_connections 256; }}
"""


class NginxProcess:
    """
    nginx with the block C{mail} of a configuration, in C{folder}, listening on C{ports} of 127.0.0.1. It writes nothing
    outside that folder, and is one process.
    """

    def __init__(self, folder: str, mail: str, ports: Sequence[int]) -> None:
        program, module = programPath("nginx"), programPath("nginx-mail")
        assert program is not None and module is not None
        # Started by root it would give itself to an account that cannot read the folder.
        user = "user root;" if os.geteuid() == 0 else ""
        self._log = os.path.join(folder, "nginx.log")
        self.configuration = os.path.join(folder, "nginx.conf")
        with open(self.configuration, "w") as file:
            file.write(_MAIN.format(module=module, folder=folder, user=user) + mail)
        arguments = [program, "-e", "stderr", "-p", folder, "-c", self.configuration]
        self._daemon = Daemon(arguments, os.path.join(folder, "nginx.output"))
        self._daemon.ready(*ports)

    def log(self) -> str:
        """What it has logged."""
        with open(self._log, errors="backslashreplace") as file:
            return file.read()

    def stop(self) -> None:
        """End it."""
        self._daemon.end()
