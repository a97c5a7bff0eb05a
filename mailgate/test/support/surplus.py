# -*- test-case-name: mailgate.test.auth.http.test_surplus -*-
"""
A gateway with a service that sends surplus bytes (L{mailgate.test.support.surplusservice}), attackers who choose these
bytes, and clients who log in at the same time, half of them with wrong passwords. The test counts which users the
backend accepts.
"""

from __future__ import annotations

import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from itertools import count
from typing import Any

from attrs import Factory as Default
from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.basic import LineReceiver

from mailgate.config import parse
from mailgate.service import Gateway
from mailgate.test.integration.daemon import freePort
from mailgate.test.support import surplusservice

__all__ = ["CASES", "FAULT", "Attack", "Service", "Tally"]

CASES = ("same", "0", "0.5", "5", "15", "filled", "server")
"""When the surplus comes, as L{surplusservice} reads it."""

FAULT = "sent more bytes than its Content-Length says"
"""These words name the fault in the log."""

INI = """
[mailgate]
error_log = stderr error
use = {use}
[mail]
server_name = mx.test
auth_http = {url}
auth_http_ssl_verify = off
auth_http_keepalive = {keepalive}
auth_http_header = X-Backend {backend}
[server imap]
protocol = imap
imap_auth = plain
listen = 127.0.0.1:{imap}
"""


class Service:
    """The process of a service of the kind C{case}. With a C{path} it listens there, with C{pem} it uses TLS."""

    def __init__(self, case: str, path: str = "", pem: str = "") -> None:
        port = freePort()
        address = path or f"127.0.0.1:{port}"
        self.url = f"unix:{path}" if path else f"http{'s' if pem else ''}://127.0.0.1:{port}/"
        script = os.path.abspath(surplusservice.__file__)
        arguments = [sys.executable, "-S", "-E", script, case, address, *filter(None, [pem])]
        self._process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def stop(self) -> None:
        """Stop the process."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(10)


@define
class Tally:
    """
    The result. C{smuggled}: logins as the attackers' admin. C{wrong}: logins with a wrong password. C{shifted}: logins
    as another user. C{right}: correct logins. C{attempts}: attempts of clients. C{faults}: how often the log named the
    fault. C{rounds}: gateways.
    """

    attempts: int = 0
    right: int = 0
    smuggled: int = 0
    wrong: int = 0
    shifted: int = 0
    faults: int = 0
    rounds: int = 0
    others: list[str] = Default(list)

    @property
    def harm(self) -> tuple[int, int, int]:
        """The logins that should have been refused."""
        return self.smuggled, self.wrong, self.shifted


class _Backend(LineReceiver):
    """Accepts every login, and counts it in the tally."""

    factory: Any

    def connectionMade(self) -> None:
        self.sendLine(b"* OK ready")

    def lineReceived(self, line: bytes) -> None:
        tag, command, user, password, *_ = [*(word.strip(b'"') for word in line.split()), b"", b"", b""]
        if command.upper() != b"LOGIN":
            self.sendLine(tag + b" OK")
            return
        tally: Tally = self.factory.tally
        if user == b"admin":
            tally.smuggled += 1
        elif password.endswith(b"-wrong"):
            tally.wrong += 1
        elif user + b"-right" != b"r-" + password:
            tally.shifted += 1
        else:
            tally.right += 1
        self.sendLine(tag + b" OK logged in")


class _Client(LineReceiver):
    """One attempt to log in; C{done} fires when it is over."""

    transport: Any

    def __init__(self, user: bytes, password: bytes) -> None:
        self._said = [b"a AUTHENTICATE PLAIN", b64encode(b"\0" + user + b"\0" + password)]
        self.done: Deferred[None] = Deferred()

    def lineReceived(self, line: bytes) -> None:
        if self._said and line[:1] in b"*+":
            self.sendLine(self._said.pop(0))
        elif line.startswith(b"a "):
            self.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.done.callback(None)


class Attack:
    """
    C{clients}, and a fifth as many attackers, log in at gateways with C{service}, one gateway after the other. C{use}
    names the transports. The surplus of an attacker is an acceptance as admin.
    """

    def __init__(
        self, reactor: Any, service: Service, clients: int, use: str = "epoll", keepalive: str = "auto"
    ) -> None:
        self.tally = Tally()
        self._reactor = reactor
        self._service = service
        self._clients = clients
        self._attackers = max(1, clients // 5)
        self._use = use
        self._keepalive = keepalive
        self._going = False

    async def round(self, tries: int, patience: float = 10.0) -> None:
        """
        Run one gateway until the log has named the fault, or for C{patience} seconds, and then until each client has
        tried C{tries} more times.
        """
        factory = Factory.forProtocol(_Backend)
        factory.tally = self.tally  # type: ignore[attr-defined]
        factory.noisy = False
        backend = self._reactor.listenTCP(0, factory, interface="127.0.0.1")
        ports = {"imap": freePort(), "backend": backend.getHost().port}
        ini = INI.format(use=self._use, url=self._service.url, keepalive=self._keepalive, **ports)
        gateway = Gateway(parse(ini), self._reactor)
        globalLogPublisher.addObserver(self._observe)  # type: ignore[arg-type]
        try:
            gateway.privilegedStartService()
            gateway.startService()
            await self._play(ports, tries, patience)
        finally:
            globalLogPublisher.removeObserver(self._observe)  # type: ignore[arg-type]
            await gateway.stopService()
            await backend.stopListening()

    def _observe(self, event: LogEvent) -> None:
        text = formatEvent(event)
        if FAULT in text:
            self.tally.faults += 1
        elif event["log_namespace"] == "mailgate":
            self.tally.others.append(text)

    async def _play(self, ports: dict[str, int], tries: int, patience: float) -> None:
        self.tally.rounds += 1
        self._going = True
        backend = f"Auth-Server: 127.0.0.1\r\nAuth-Port: {ports['backend']}\r\n"
        smuggled = f"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n{backend}Auth-User: admin\r\nContent-Length: 0\r\n\r\n"
        counted = [0] * self._clients
        loops = [self._tryOn(ports["imap"], self._of(number), counted, number) for number in range(self._clients)]
        attack = ((smuggled.encode(), b"x") for _ in count())
        loops += [self._tryOn(ports["imap"], attack, [0], 0) for _ in range(self._attackers)]
        running = [Deferred.fromCoroutine(loop) for loop in loops]
        deadline = self._reactor.seconds() + patience
        while self.tally.faults < self.tally.rounds and self._reactor.seconds() < deadline:
            await deferLater(self._reactor, 0.01)
        before = list(counted)
        while any(now - then < tries for now, then in zip(counted, before, strict=True)):
            await deferLater(self._reactor, 0.01)
        self._going = False
        for each in running:
            await each
        self.tally.attempts += sum(counted)

    def _of(self, number: int) -> Iterator[tuple[bytes, bytes]]:
        for turn in count(number):
            yield b"victim%d" % number, b"victim%d-%b" % (number, b"wrong" if turn % 2 else b"right")

    async def _tryOn(self, port: int, logins: Iterator[tuple[bytes, bytes]], counted: list[int], number: int) -> None:
        endpoint = TCP4ClientEndpoint(self._reactor, "127.0.0.1", port)
        while self._going:
            client = _Client(*next(logins))
            await connectProtocol(endpoint, client)
            await client.done
            counted[number] += 1
