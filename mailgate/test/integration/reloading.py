"""
A gateway in front of the sandbox's servers that tests reload, drain and stop by signals.
"""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.clients import PATIENCE
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import Address

__all__ = ["ACCEPTED", "GOODBYE", "PASSWORD", "PROTOCOLS", "QUIT", "TLS", "TWIST", "USER", "ReloadTestCase"]

PROTOCOLS = ("imap", "pop3", "smtp")
TLS = ("plain", "implicit")
USER, PASSWORD = "alice", "wonderland"
QUIT = {"imap": b"q LOGOUT\r\n", "pop3": b"QUIT\r\n", "smtp": b"QUIT\r\n"}
GOODBYE = {
    "imap": b"* BYE Gateway is shutting down, closing connection\r\n",
    "pop3": b"-ERR [SYS/TEMP] Gateway is shutting down, closing connection\r\n",
    "smtp": b"421 4.3.2 Gateway is shutting down, closing connection\r\n",
}
ACCEPTED = (b"OK", b"+OK", b"235")
"""The beginning of the reply to a successful login."""

TWIST = [sys.executable, "-c", "from twisted.application.twist._twist import Twist; Twist.main()"]


class ReloadTestCase(SynchronousTestCase):
    """A gateway in front of the sandbox's servers, with a port without TLS and one with TLS for each protocol."""

    starting: Sequence[str] | None = None
    """The command of a start, as of L{GatewayProcess}. Tests that are about the process itself say it."""

    def setUp(self):
        self.folder = newFolder("reload")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.authority = Authority(self.folder, "authority")
        self.pair = self.authority.sign("server")
        self.ports = {(protocol, tls): freePort() for protocol in PROTOCOLS for tls in TLS}
        self.sandbox = {name: freePort() for name in (*PROTOCOLS, "sieve", "auth_http")}

    def ini(self, process: str = "", mail: str = "", more: str = "") -> str:
        text = f"[mailgate]\nerror_log = gateway.log info\n{process}\n[mail]\nserver_name = mx.test\n"
        if "limit_conn" not in mail:
            # Tests have many sessions of one user.
            text += "limit_conn = off\n"
        text += f"auth_http = http://127.0.0.1:{self.sandbox['auth_http']}/auth\n{mail}\n"
        text += f"ssl_certificate = {self.pair.certificate}\nssl_certificate_key = {self.pair.key}\n"
        for protocol in PROTOCOLS:
            plain, implicit = (self.ports[protocol, tls] for tls in TLS)
            text += f"[server {protocol}]\nprotocol = {protocol}\n"
            text += f"listen =\n    127.0.0.1:{plain}\n    127.0.0.1:{implicit} ssl\n"
        demo = "".join(f"{name} = 127.0.0.1:{port}\n" for name, port in self.sandbox.items())
        return f"{text}{more}[sandbox]\n{demo}"

    def start(self, ini: str = "", command=None) -> GatewayProcess:
        self.gateway = GatewayProcess(
            self.folder, ini or self.ini(), list(self.ports.values()), command or self.starting
        )
        self.addCleanup(self.gateway.stop)
        self.reloads = 0
        return self.gateway

    def client(self, protocol: str, tls: str = "plain", port: int = 0) -> RawClient:
        """A client that has read the greeting."""
        address = Address(protocol, port or self.ports[protocol, tls], tls, self.authority.path)
        client = RawClient(address)
        self.addCleanup(client.close)
        return client

    def loggedIn(self, protocol: str, tls: str = "plain") -> RawClient:
        client = self.client(protocol, tls)
        self.assertIn(client.login(USER, PASSWORD).split()[0], ACCEPTED)
        return client

    def assertServes(self, client: RawClient) -> None:
        """Check that C{client} gets replies from its backend."""
        self.assertTrue(client.noop().startswith((b"OK", b"+OK", b"250")))

    def told(self, text: str, times: int = 1) -> None:
        """Wait until the log contains C{text}."""
        waitUntil(lambda: self.gateway.log().count(text) >= times, f"the log says {text!r} {times} times")

    def reload(self) -> None:
        """Reload the configuration."""
        self.gateway.signal(signal.SIGHUP)
        self.reloads += 1
        self.told(f"reload {self.reloads} done: the new configuration is active")

    def assertNoTraceback(self) -> None:
        self.assertNotIn("Traceback", self.gateway.log())

    def logins(self, protocol: str, tls: str, stop: threading.Event, done: list[str]) -> None:
        """Log in and out again until C{stop}; add each failure, or "well", to C{done}."""
        address = Address(protocol, self.ports[protocol, tls], tls, self.authority.path)
        while not stop.is_set():
            try:
                client = RawClient(address)
                answer = client.login(USER, PASSWORD)
                client.send(QUIT[protocol])
                client.rest()
                client.close()
                done.append("well" if answer.split()[:1][0] in ACCEPTED else f"{protocol} {tls}: {answer!r}")
            except Exception as error:
                done.append(f"{protocol} {tls}: {error!r}")
            # Six such clients without a pause would take the processor from the reload.
            stop.wait(0.02)

    @contextmanager
    def steadyLogins(self) -> Iterator[list[str]]:
        """Clients that connect and leave in the meantime; at the end all of them must have been served."""
        stop = threading.Event()
        done: list[str] = []
        threads = [threading.Thread(target=self.logins, args=(*which, stop, done)) for which in self.ports]
        for thread in threads:
            thread.start()
        try:
            yield done
        finally:
            stop.set()
            for thread in threads:
                thread.join(PATIENCE * 3)
        self.assertEqual([how for how in done if how != "well"], [])
