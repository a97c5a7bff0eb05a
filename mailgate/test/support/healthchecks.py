# -*- test-case-name: mailgate.test.backend.test_health -*-
"""
A gateway's health checks, of servers that the test plays.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogPublisher, formatEvent
from twisted.python.failure import Failure

from mailgate.backend.health import HealthChecks
from mailgate.backend.places import Places
from mailgate.backend.probing import Use
from mailgate.config import parse
from mailgate.frontend.settings import DialogueSettings
from mailgate.log.journal import Journal
from mailgate.log.levels import NOTICE
from mailgate.net.naming import NamingReactor
from mailgate.registry import PROTOCOLS
from mailgate.testing import FakeTransport
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.notices import Notices
from mailgate.upstream.standing import Standing
from mailgate.upstream.upstreams import Upstreams

__all__ = ["GREETING", "ONE", "A", "B", "Checked", "configuration"]

A, B = "192.0.2.1", "192.0.2.2"

GREETING = b"* OK ready\r\n"


def configuration(check: str = "interval=5s jitter=0", lines: str = f"{A}:143\n    {B}:143", more: str = "") -> str:
    """A gateway with one group."""
    return f"""
[upstream store]
server =
    {lines}
health_check = {check}
health_check_timeout = 3s
{more}

[server imap]
listen = 127.0.0.1:10143
protocol = imap
proxy_pass = store
"""


class Checked:
    """
    A generation in one process, with its health checks.

    @param text: the configuration.
    @param notices: those of an earlier generation.
    @param draw: the random numbers.
    @param before: an earlier generation, whose clock and notices this one has.
    """

    def __init__(self, text: str, notices: Notices | None = None, draw: float = 0.5, before: Any = None) -> None:
        settings = parse(text)
        self.reactor = MemoryReactorClock() if before is None else before.reactor
        if before is None:
            self.reactor.advance(1000)
        self.events: list[Any] = []
        naming = NamingReactor(self.reactor)
        self.journal = Journal(NOTICE, LogPublisher(self.events.append), None, self.reactor)  # type: ignore[arg-type]
        self.upstreams = Upstreams(settings, naming)
        self.notices = notices or (Notices(self.reactor) if before is None else before.notices)
        self.standing = Standing(self.upstreams, self.notices, self.reactor, self.journal)
        self.down: list[str] = []
        self.standing.whenDown.append(lambda peer: self.down.append(str(peer.backend)))
        uses = []
        for server in settings.servers:
            places = Places(server[BackendTLSSettings], self.upstreams, BackendContexts, naming)
            record = PROTOCOLS[server.protocol]
            uses.append(Use(server, record.client, places, server[DialogueSettings].serverName, record.ports))
        self.uses = uses
        self.checks = HealthChecks(
            self.upstreams, self.standing, self.notices, uses, self.reactor, self.journal, lambda: draw
        )
        self.seen = len(self.reactor.tcpClients)

    def start(self) -> Checked:
        self.checks.startService()
        self.reactor.advance(0)
        return self

    def elapse(self, seconds: float) -> list[str]:
        """Let time pass, in steps. Return the addresses that are connected to meanwhile, with their ports."""
        before = len(self.reactor.tcpClients)
        for _ in range(round(seconds * 8)):
            self.reactor.advance(0.125)
        return [f"{host}:{port}" for host, port, *_ in self.reactor.tcpClients[before:]]

    def accept(self, place: int = -1) -> FakeTransport:
        """Accept a connection as the server."""
        host, port, factory, *_ = self.reactor.tcpClients[place]
        transport = FakeTransport(IPv4Address("TCP", host, port))
        transport.connect(factory.buildProtocol(transport.getPeer()))
        return transport

    def refuse(self, place: int = -1, error: Exception | None = None) -> None:
        """Refuse a connection."""
        factory = self.reactor.tcpClients[place][2]
        factory.clientConnectionFailed(self.reactor.connectors[place], Failure(error or ConnectionRefusedError()))

    def works(self, place: int = -1) -> bytes:
        """Be a server that works. Return what it has heard."""
        transport = self.accept(place)
        for line in (GREETING, b"mailgate OK\r\n", b"* BYE\r\nmailgate OK\r\n"):
            transport.protocol.dataReceived(line)
        heard: bytes = transport.value()
        transport.lose()
        return heard

    def rounds(self, count: int, play: Any, seconds: float = 5) -> None:
        """Let C{count} checks of the only server come, and play it."""
        for _ in range(count):
            if self.seen == len(self.reactor.tcpClients):
                self.elapse(seconds)
            self.seen = len(self.reactor.tcpClients)
            play()

    @property
    def log(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    @property
    def levels(self) -> list[str]:
        return [event["log_level"].name for event in self.events]

    @property
    def states(self) -> list[str]:
        return [row.state for row in self.standing.rows()]


ONE = f"{A}:143"
