"""
The sandbox's servers as the backend of gateways under test.
"""

from __future__ import annotations

import shutil
import signal

from mailgate.test.integration.daemon import freePort, newFolder
from mailgate.test.integration.gateway import GatewayProcess

__all__ = ["Backend"]


class Backend:
    """The sandbox's servers, in a gateway of their own: the one that is tested has no room for them."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.folder = newFolder("sandbox")
        own = freePort()
        demo = "".join(f"{name} = 127.0.0.1:{port}\n" for name, port in ports.items())
        ini = f"[mailgate]\nerror_log = gateway.log\n[sandbox]\n{demo}"
        ini += f"[server imap]\nprotocol = imap\nlisten = 127.0.0.1:{own}\nproxy_pass = 127.0.0.1:{ports['imap']}\n"
        self._gateway = GatewayProcess(self.folder, ini, [own, *ports.values()])

    def stop(self) -> None:
        """End it."""
        self._gateway.signal(signal.SIGKILL)
        self._gateway.status()
        shutil.rmtree(self.folder, ignore_errors=True)
