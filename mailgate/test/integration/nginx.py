# -*- test-case-name: mailgate.test.integration.test_nginx -*-
"""
nginx with its mail module, as Debian has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from mailgate.test.integration.daemon import Daemon
from mailgate.test.integration.programs import programPath

__all__ = ["NginxProcess", "writeConfiguration"]

_MAIN = """
load_module {module};
daemon off;
master_process off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/gateway.log info;
events {{ worker_connections 256; }}
"""


def writeConfiguration(folder: str, mail: str) -> str:
    """
    Write an nginx.conf to C{folder}, with the block C{mail}; return its path. All files of nginx stay in that folder.
    """
    # Started by root, nginx would become a user that cannot read the folder.
    user = "user root;" if os.geteuid() == 0 else ""
    path = os.path.join(folder, "nginx.conf")
    with open(path, "w") as file:
        file.write(_MAIN.format(module=programPath("nginx-mail"), folder=folder, user=user) + mail)
    return path


class NginxProcess:
    """nginx with the C{configuration} of L{writeConfiguration}, listening on C{ports} of 127.0.0.1; one process."""

    def __init__(self, configuration: str, ports: Sequence[int]) -> None:
        program = programPath("nginx")
        assert program is not None
        folder = os.path.dirname(configuration)
        arguments = [program, "-e", "stderr", "-p", folder, "-c", configuration]
        self._daemon = Daemon(arguments, os.path.join(folder, "output"))
        self._daemon.ready(*ports)

    def stop(self) -> None:
        """End it."""
        self._daemon.end()
