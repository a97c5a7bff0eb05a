# -*- test-case-name: mailgate.test.integration.test_retry -*-
"""
A gateway before groups of servers that fail as tests choose.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterable

from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import freePort, newFolder, waitUntil
from mailgate.test.integration.faultybackend import FaultyBackend, FaultyBackends
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.site import Address

__all__ = ["CONNECT", "LOGIN", "PROTOCOLS", "RETRY", "TEMPORARY", "WELCOME", "FaultySite"]

PROTOCOLS = ("imap", "pop3", "smtp")
WELCOME = {"imap": "OK", "pop3": "+OK", "smtp": "235", "sieve": "OK"}
TEMPORARY = {"imap": "NO [UNAVAILABLE]", "pop3": "-ERR [SYS/TEMP]", "smtp": "454 4.7.0", "sieve": "NO (TRYLATER)"}

CONNECT, LOGIN, RETRY = 1.5, 8.0, 1.0
"""Seconds that one server may take until its greeting, that a login may take, and after which a lone server is tried
again."""

_STATIC = {"imap": "IMAP4rev1", "pop3": "USER", "smtp": "PIPELINING", "sieve": "SIEVE fileinto"}
"""Capabilities as the configuration has them: the gateway then connects to servers for logins alone."""


class FaultySite:
    """
    The gateway, in a folder of its own. Groups and servers are added before L{start}.

    @ivar backends: by the name of their group, and their own.
    @ivar authority: signs the certificates of the gateway and of the servers.
    """

    gateway: GatewayProcess

    def __init__(self, process: str = "", connect: float = CONNECT, login: float = LOGIN) -> None:
        """
        @param process: lines of C{[mailgate]}.
        @param connect: C{proxy_connect_timeout} in seconds.
        @param login: C{proxy_login_timeout} in seconds.
        """
        self.folder = newFolder("faulty")
        self.authority = Authority(self.folder, "authority")
        pair = self.authority.sign("gateway")
        self._good, self._bad = pair, Authority(self.folder, "stranger").sign("stranger")
        self._process = FaultyBackends()
        self.backends: dict[tuple[str, str], FaultyBackend] = {}
        self._addresses: dict[str, Address] = {}
        self._text = f"""
[mailgate]
error_log = {self.folder}/gateway.log info
pid = {self.folder}/gateway.pid
{process}
[mail]
server_name = gate.example.com
ssl_certificate = {pair.certificate}
ssl_certificate_key = {pair.key}
proxy_ssl_trusted_certificate = {self.authority.path}
auth_delay = 0
limit_conn = off
proxy_connect_timeout = {connect * 1000:.0f}ms
proxy_login_timeout = {login * 1000:.0f}ms
"""

    def backend(self, group: str, name: str, protocol: str = "imap", *, isStranger: bool = False) -> FaultyBackend:
        """
        Start a server.

        @param group: the group that it belongs to in C{backends}.
        @param name: its name there.
        @param protocol: what it speaks.
        @param isStranger: whether its certificate is signed by an authority that the gateway does not trust.
        """
        pair = self._bad if isStranger else self._good
        made = self._process.make(protocol, name, pair.certificate, pair.key)
        self.backends[group, name] = made
        return made

    def group(self, name: str, servers: Iterable[str], more: str = "", protocol: str = "imap") -> None:
        """
        Add C{[upstream NAME]} and C{[server NAME]} before it.

        @param name: the name of both.
        @param servers: the name of each server and the parameters of its line. C{stranger} is one with a certificate
            that the gateway does not trust.
        @param more: other directives of the group.
        @param protocol: what they speak.
        """
        lines = []
        for server in servers:
            own, _, parameters = server.partition(" ")
            made = self.backend(name, own, protocol, isStranger=own == "stranger")
            lines.append(f"    127.0.0.1:{made.port} {parameters}\n")
        self.section(f"upstream {name}", f"server =\n{''.join(lines)}{more}")
        self.server(name, f"proxy_pass = {name}", protocol)

    def lone(self, name: str, more: str = "", protocol: str = "imap") -> None:
        """
        Add C{[server NAME]} before a server of no group, which is C{A} of C{NAME} in C{backends}.

        @param name: its name.
        @param more: other directives of C{[server NAME]}.
        @param protocol: what they speak.
        """
        made = self.backend(name, "A", protocol)
        self.server(name, f"proxy_pass = 127.0.0.1:{made.port}\n{more}", protocol)

    def section(self, header: str, text: str) -> None:
        """
        Add a section.

        @param header: what stands in the brackets.
        @param text: its lines.
        """
        self._text += f"[{header}]\n{text}\n"

    def server(self, name: str, text: str, protocol: str = "imap") -> None:
        """
        Add C{[server NAME]}.

        @param name: its name.
        @param text: its lines.
        @param protocol: what it speaks.
        """
        port = freePort()
        self._addresses[name] = Address(protocol, port, "plain", self.authority.path)
        capabilities = f"{protocol}_capabilities = {_STATIC[protocol]}"
        self.section(f"server {name}", f"protocol = {protocol}\nlisten = 127.0.0.1:{port}\n{capabilities}\n{text}")

    def start(self) -> FaultySite:
        """Start the gateway."""
        ports = [address.port for address in self._addresses.values()]
        self.gateway = GatewayProcess(self.folder, self._text, ports)
        waitUntil(lambda: os.path.exists(f"{self.folder}/gateway.pid.sock"), "commands are answered")
        return self

    def at(self, name: str) -> Address:
        """
        Return where C{[server NAME]} listens.

        @param name: its name.
        """
        return self._addresses[name]

    def client(self, name: str) -> RawClient:
        """
        Return a client of C{[server NAME]}.

        @param name: its name.
        """
        return RawClient(self.at(name))

    def login(self, name: str, user: str = "alice") -> str:
        """
        Log in and out; return the answer to the login.

        @param name: where: C{[server NAME]}.
        @param user: the name of the user.
        """
        client = self.client(name)
        try:
            answer = client.login(user, "wonderland").decode().strip()
            client.send({"imap": b"q LOGOUT\r\n", "sieve": b"LOGOUT\r\n"}.get(self.at(name).protocol, b"QUIT\r\n"))
            client.ended()
            return answer
        finally:
            client.close()

    def reload(self) -> None:
        """Reload the configuration, and wait until it is active."""
        before = self.gateway.log().count("the new configuration is active")
        self.gateway.signal(signal.SIGHUP)
        waitUntil(lambda: self.gateway.log().count("the new configuration is active") > before, "the reload is done")

    def stop(self) -> None:
        """
        End all.

        @raise AssertionError: the gateway did not exit cleanly.
        """
        try:
            self.gateway.stop()
        finally:
            self._process.stop()
            shutil.rmtree(self.folder, ignore_errors=True)
