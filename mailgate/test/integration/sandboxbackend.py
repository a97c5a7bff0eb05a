"""
The servers of the sandbox as the backend of gateways under test.
"""

from __future__ import annotations

import shutil
import signal

from mailgate.test.integration.daemon import freePort, newFolder, shared
from mailgate.test.integration.gateway import GatewayProcess

__all__ = ["Backend", "sandboxPorts"]


SERVERS = ("imap", "pop3", "smtp", "sieve", "auth_http")


class Backend:
    """
    The servers of the sandbox, in a gateway of their own, because the gateway under test has no [sandbox]. C{ports} has
    the ports of its protocols and of its service, C{auth_http}.
    """

    def __init__(self) -> None:
        self.folder = newFolder("sandbox")
        self.ports = {name: freePort() for name in SERVERS}
        own = freePort()
        demo = "".join(f"{name} = 127.0.0.1:{port}\n" for name, port in self.ports.items())
        ini = f"[mailgate]\nerror_log = gateway.log\n[sandbox]\n{demo}"
        ini += (
            f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{own}\nproxy_pass = 127.0.0.1:{self.ports['imap']}\n"
        )
        self._gateway = GatewayProcess(self.folder, ini, [own, *self.ports.values()])

    def stop(self) -> None:
        """End it."""
        self._gateway.signal(signal.SIGKILL)
        self._gateway.status()
        shutil.rmtree(self.folder, ignore_errors=True)


def sandboxPorts() -> dict[str, int]:
    """The ports of the backend, which all tests of a process share."""
    return shared("sandbox", Backend).ports
