# -*- test-case-name: mailgate.test.integration.test_groups -*-
"""
A gateway before groups of scripted backends, each of which says its name to those who log in.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import freePort, newFolder
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.nameserver import NameServer
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import ScriptedBackend
from mailgate.test.integration.site import Address

__all__ = ["FOR_LONG", "GroupSite", "namedBackend"]

FOR_LONG = "fail_timeout=1h"
"""Parameter of a server that rests for the rest of the test."""


def namedBackend(name: str, host: str = "127.0.0.1", port: int = 0) -> ScriptedBackend:
    """An IMAP server that calls itself C{name}."""
    backend = ScriptedBackend("imap", host, port)
    backend.script({"LOGIN": f"TAG OK this is {name}"})
    return backend


class GroupSite:
    """
    The gateway, in C{folder}. Groups and servers are added before it is started.

    @param process: lines of C{[mailgate]}.
    @param capabilities: C{imap_capabilities} of all servers. With C{backend} the gateway asks the servers what they
        offer as soon as it starts: a test must have said before what they do.
    @ivar backends: by group and name.
    @ivar names: a name server that the gateway may use.
    """

    gateway: GatewayProcess

    def __init__(self, process: str = "", capabilities: str = "IMAP4rev1") -> None:
        self._capabilities = capabilities
        self.folder = newFolder("groups")
        self.authority = Authority(self.folder, "authority")
        pair = self.authority.sign("gateway")
        self.names = NameServer()
        self.backends: dict[tuple[str, str], ScriptedBackend] = {}
        self._ports: dict[str, int] = {}
        self._tls: dict[str, str] = {}
        self._text = f"""
[mailgate]
error_log = {self.folder}/gateway.log info
{process}
[mail]
server_name = gate.example.com
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
auth_delay = 0
limit_conn = off
timeout = 2s
"""

    def group(self, name: str, lines: Iterable[str], more: str = "") -> None:
        """
        Add C{[upstream NAME]}, and C{[server NAME]} before it.

        @param lines: the servers: a name and parameters; C{-} is for a port where nothing listens.
        @param more: other directives of the group.
        """
        servers = []
        for line in lines:
            backend, _, parameters = line.partition(" ")
            if backend == "-":
                port = freePort()
            else:
                made = self.backends[name, backend] = namedBackend(backend)
                port = made.port
            servers.append(f"    127.0.0.1:{port} {parameters}\n")
        self.section(f"upstream {name}", f"server =\n{''.join(servers)}{more}")
        self.server(name, f"proxy_pass = {name}")

    def section(self, header: str, text: str) -> None:
        """Add a section."""
        self._text += f"[{header}]\n{text}\n"

    def server(self, name: str, text: str, listen: str = "") -> None:
        """Add C{[server NAME]} of IMAP; C{listen} are parameters of its address."""
        self._ports[name] = freePort()
        self._tls[name] = "implicit" if listen.startswith("ssl") else "plain"
        own = f"protocol = imap\nimap_capabilities = {self._capabilities}\n"
        own += f"listen = 127.0.0.1:{self._ports[name]} {listen}\n"
        self.section(f"server {name}", own + text)

    def start(self) -> GroupSite:
        """Start the gateway."""
        self.gateway = GatewayProcess(self.folder, self._text, list(self._ports.values()))
        return self

    def at(self, name: str) -> Address:
        """Where C{[server NAME]} listens."""
        return Address("imap", self._ports[name], self._tls[name], self.authority.path)

    def login(self, name: str, user: str = "alice") -> tuple[str, RawClient]:
        """The answer to a login, and its client: the name of the backend, or the refusal."""
        client = RawClient(self.at(name))
        answer = client.login(user, "wonderland").decode().strip()
        return answer.removeprefix("OK this is "), client

    def stop(self) -> None:
        """End all."""
        self.names.stop()
        try:
            self.gateway.stop()
        finally:
            for backend in self.backends.values():
                backend.stop()
            shutil.rmtree(self.folder, ignore_errors=True)
