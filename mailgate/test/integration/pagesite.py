# -*- test-case-name: mailgate.test.integration.test_browser -*-
"""
A gateway whose live page a browser shows: workers, an authentication service, a group of IMAP servers, and one server
each for POP3 and SMTP.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from mailgate.test.integration.authservice import Answer, AuthService, Manner, Question
from mailgate.test.integration.certificates import Authority
from mailgate.test.integration.daemon import freePort, ifKilled, newFolder, waitUntil
from mailgate.test.integration.gateway import GatewayProcess
from mailgate.test.integration.groupsite import namedBackend
from mailgate.test.integration.procfs import runs
from mailgate.test.integration.rawclient import RawClient
from mailgate.test.integration.scripted import ScriptedBackend
from mailgate.test.integration.site import Address

__all__ = ["PASSWORD", "TOKENS", "PageSite"]

PASSWORD = "wonderland"
"""The password of all users."""

TOKENS = {level: f"{level}-0123456789abcdefghij" for level in ("admin", "operate", "read")}
"""The tokens, by their levels."""


def _judge(service: AuthService, question: Question) -> Answer:
    if question["Auth-Pass"] == PASSWORD:
        return Answer({"Auth-Status": "OK"})
    return Answer({"Auth-Status": "Invalid login or password"})


class _Manners(dict[str, Manner]):
    """
    How users are treated.

    @param usual: how those are that the dictionary does not have.
    """

    def __init__(self, usual: Manner) -> None:
        super().__init__()
        self._usual = usual

    def get(self, user: str, default: Any = None) -> Any:
        return super().get(user, self._usual)


class PageSite:
    """
    The gateway.

    @param hosts: the addresses of the servers of the group; the first is called A, the next B.
    @param process: more lines of C{[mailgate]}.
    @param judge: what the authentication service answers.
    @ivar gateway: its process; after an upgrade the one before it.
    @ivar service: its authentication service.
    @ivar servers: the servers of the group C{store}, by name.
    @ivar origin: the origin of its page.
    @ivar ports: the ports of its servers, by name.
    """

    gateway: GatewayProcess

    def __init__(
        self,
        hosts: Sequence[str] = ("127.0.0.1", "127.0.0.1"),
        process: str = "worker_processes = 2\n",
        judge: Manner = _judge,
    ) -> None:
        self.folder = newFolder("page")
        self._process = process
        self._pair = Authority(self.folder, "authority").sign("gateway")
        self.service = AuthService({})
        self.service.manners = _Manners(judge)
        self.service.start()
        self._hosts = dict(zip(ascii_uppercase, hosts, strict=False))
        self.servers = {name: namedBackend(name, host) for name, host in self._hosts.items()}
        self._others = {name: ScriptedBackend(name) for name in ("pop3", "smtp")}
        self.ports = {name: freePort() for name in ("imap", "imaps", "pop3", "smtp")}
        self._admin = freePort()
        self.origin = f"http://127.0.0.1:{self._admin}"
        self._pidFile = os.path.join(self.folder, "gateway.pid")
        self._tokens = os.path.join(self.folder, "tokens")
        with open(os.open(self._tokens, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="ascii") as opened:
            opened.writelines(f"{level}er {level} {token}\n" for level, token in TOKENS.items())

    def ini(self, more: str = "") -> str:
        """
        Return the configuration.

        @param more: lines of C{[mail]}.
        """
        servers = "".join(f"    {self.at(name)}\n" for name in self.servers)
        others = "".join(
            f"[server {name}]\nprotocol = {name}\nlisten = 127.0.0.1:{self.ports[name]}\n"
            f"proxy_pass = 127.0.0.1:{server.port}\n"
            for name, server in self._others.items()
        )
        return f"""\
[mailgate]
error_log = gateway.log info
pid = {self._pidFile}
{self._process}
admin = {self.origin.removeprefix("http://")}
admin_token_file = {self._tokens}
[mail]
server_name = mx.test
auth_http = {self.service.url}
auth_delay = 0
imap_capabilities = IMAP4rev1
ssl_certificate = {self._pair.certificate}
ssl_certificate_key = {self._pair.key}
{more}
[upstream store]
server =
{servers}
[server imap]
protocol = imap
listen =
    127.0.0.1:{self.ports["imap"]}
    127.0.0.1:{self.ports["imaps"]} ssl
proxy_pass = store
{others}"""

    def start(self) -> PageSite:
        """Start the gateway, also again after its end."""
        self.gateway = GatewayProcess(self.folder, self.ini(), list(self.ports.values()))
        waitUntil(self.isUp, "two workers serve, and the page can be asked for", 60)
        return self

    def isUp(self) -> bool:
        """Whether all its processes serve."""
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            return bool(sum(worker["accepts"] for worker in self.ask("workers")["workers"]) > 1)
        return False

    def options(self) -> list[str]:
        """Return the options of commands that ask its admin server."""
        # Its first line has the token of an administrator.
        return ["--admin", self.origin, "--token-file", self._tokens]

    def ask(self, path: str, body: Any = None) -> Any:
        """
        Ask the admin server without the page.

        @param path: below C{/api/1/}.
        @param body: of a POST; L{None}: a GET.
        @return: the JSON of its answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=20)
        headers = {"Authorization": f"Bearer {TOKENS['admin']}", "Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        with contextlib.closing(connection):
            connection.request("GET" if body is None else "POST", f"/api/1/{path}", text, headers)
            answer = connection.getresponse()
            said = answer.read()
        assert answer.status == 200, f"{answer.status} {said!r}"
        return json.loads(said)

    def at(self, name: str) -> str:
        """
        Return the address of a server of the group.

        @param name: its name.
        """
        return f"{self._hosts[name]}:{self.servers[name].port}"

    def stateOf(self, address: str) -> str:
        """
        Return the state of a server of the group.

        @param address: its address.
        """
        (state,) = {row["state"] for row in self.ask("backends")["backends"] if row["address"] == address}
        return str(state)

    def client(self, name: str = "imap") -> RawClient:
        """
        Connect.

        @param name: C{imap}, C{imaps}, C{pop3} or C{smtp}.
        """
        protocol, tls = ("imap", "implicit") if name == "imaps" else (name, "plain")
        return RawClient(Address(protocol, self.ports[name], tls, f"{self.folder}/authority.pem"))

    def login(self, user: str, password: str = PASSWORD, name: str = "imap") -> RawClient:
        """
        Connect and log in, with any answer.

        @param user: the name; with special characters only by SMTP.
        @param password: the password.
        @param name: as of L{client}.
        """
        client = self.client(name)
        client.login(user, password)
        return client

    def lose(self, name: str) -> None:
        """Let a server of the group refuse connections, after it closed those that it has."""
        self.servers[name].stop()

    def find(self, name: str) -> None:
        """Let it serve again."""
        self.servers[name] = namedBackend(name, self._hosts[name], self.servers[name].port)

    def reload(self, more: str = "") -> None:
        """
        Order a reload, and wait until it is done or refused.

        @param more: lines of C{[mail]}.
        """
        before = self._reloads()
        self.gateway.configure(self.ini(more))
        os.kill(self.running(), signal.SIGHUP)
        waitUntil(lambda: self._reloads() > before, "the log says how the reload ended", 60)

    def _reloads(self) -> int:
        log = self.gateway.log()
        return log.count("reload refused: ") + log.count(" done: the new configuration is active")

    def running(self) -> int:
        """Return the process in the pid file; 0 if there is none."""
        with contextlib.suppress(FileNotFoundError), open(self._pidFile, encoding="ascii") as opened:
            return int(opened.read() or 0)
        return 0

    def upgrade(self) -> None:
        """Upgrade the gateway, and wait until another process has taken over."""
        before = self.running()
        os.kill(before, signal.SIGUSR2)
        waitUntil(lambda: self.running() not in (0, before), "another process takes over", 60)
        ifKilled("kill", str(self.running()))
        waitUntil(self.isUp, "its workers serve")

    def end(self) -> None:
        """End the gateway, whichever process it is."""
        pid = self.running()
        os.kill(pid, signal.SIGTERM)
        # A child of this process is a zombie until its status is read.
        self.gateway.forget()
        waitUntil(lambda: not runs(pid), "the gateway ends")

    def stop(self) -> None:
        """End all."""
        self.end()
        self.service.stop()
        for server in (*self.servers.values(), *self._others.values()):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
