"""
Logins through a dialogue, an authentication service and a backend, without sockets: the test plays the client, and this
module the other two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.failure import Failure

from mailgate.auth.cache import CachedAuthenticator
from mailgate.auth.fairqueue import FairQueue
from mailgate.auth.http.authenticator import HTTPAuthenticator
from mailgate.auth.http.services import SharedService
from mailgate.backend.connector import Connector
from mailgate.backend.places import Places
from mailgate.config import parse
from mailgate.frontend.protocol import MailProtocol
from mailgate.interfaces import IAuthenticator, IWatch
from mailgate.limits.settings import LimitSettings
from mailgate.log.journal import Journal
from mailgate.net.naming import NamingReactor
from mailgate.test.support.httpauthenticator import ACCEPTED, FakeAgent
from mailgate.test.support.httpsettings import server, settings
from mailgate.testing import Conversation, FakeTransport
from mailgate.testing.fakes import settingsOf
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

__all__ = ["WholeLogin"]

Reply = Callable[[bytes], bytes]


class WholeLogin:
    """
    A client's connection to a gateway with one authentication service.

    @param record: the protocol.
    @param groups: instances of settings classes that differ from the defaults.
    @param level: the level of the log.
    @param http: arguments for L{mailgate.auth.http.settings.HTTPSettings}.
    @param group: a configuration with groups of backends.
    @param cached: whether answers of the service are cached.
    @param watch: follows the connection, in all its parts.
    @param judge: the authenticator; L{None} for one that asks the service.
    @param more: arguments for L{Conversation}.
    @ivar conversation: the client's connection.
    @ivar agent: receives the questions to the service.
    @ivar backend: the connection to the backend that was accepted last.
    @ivar heard: what the backend has received.
    """

    def __init__(
        self,
        record: MailProtocol,
        *groups: Any,
        level: Any = LogLevel.debug,
        http: dict[str, Any] | None = None,
        group: str = "",
        cached: bool = False,
        watch: IWatch | None = None,
        judge: IAuthenticator | None = None,
        **more: Any,
    ) -> None:
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1000)
        # One log for all.
        self.conversation: Conversation
        journal = Journal(level, cast(ILogObserver, lambda event: self.conversation.events.append(event)))
        asking = settings("http://one:9000/auth?key=hush", **(http or {}))
        dialect = asking.dialect(server(asking))
        self.agent = FakeAgent()
        queue = FairQueue(0, self.reactor)
        service = SharedService(asking.urls[0], self.agent, queue, self.reactor, journal).join()
        clientOf = LimitSettings().clientOf
        authenticator: Any = HTTPAuthenticator(asking, dialect, None, self.reactor, journal, [service], clientOf)
        self.question = authenticator
        if cached:
            authenticator = CachedAuthenticator(
                authenticator, self.reactor, 60.0, 100_000, (), lambda n: bytes(n), dialect.told
            )
        if watch is not None:
            authenticator.watchedBy(watch)
        chosen = settingsOf(record.name, *groups)
        upstreams = Upstreams(parse(group), NamingReactor(self.reactor)) if group else None
        places = Places(chosen[BackendTLSSettings], upstreams, BackendContexts, self.reactor)
        connector: Any = Connector(record.client, chosen, "mx.test", self.reactor, journal, places, watch)
        self.heard = b""
        self.backend = FakeTransport()
        conversation = type("Watched", (Conversation,), {"watch": watch})
        self.conversation = conversation(
            record, *groups, authenticator=judge or authenticator, connector=connector, level=level, **more
        )

    def says(self, *lines: bytes) -> bytes:
        """Send lines as the client."""
        return self.conversation.says(*lines)

    def answer(self, *fields: str) -> None:
        """Answer the last question as the service."""
        self.agent.answer(*(fields or ACCEPTED))

    def accept(self) -> FakeTransport:
        """Accept the last connection as the backend."""
        host, port, factory, *_ = self.reactor.tcpClients[-1]
        self.backend = FakeTransport(IPv4Address("TCP", host, port))
        self.backend.connect(factory.buildProtocol(self.backend.getPeer()))
        return self.backend

    def refuse(self) -> None:
        """Refuse the last connection as the backend."""
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(ConnectionRefusedError()))

    def serve(self, greeting: bytes, reply: Reply) -> None:
        """Accept the last connection, greet, and answer each line of the gateway with C{reply} of it."""
        backend = self.accept()
        backend.protocol.dataReceived(greeting)
        while backend.value():
            received = backend.value()
            backend.clear()
            self.heard += received
            for line in received.splitlines():
                answer = reply(line)
                if answer and not backend.disconnecting:
                    backend.protocol.dataReceived(answer)

    @property
    def events(self) -> list[LogEvent]:
        """The events of the log."""
        return self.conversation.events

    @property
    def lines(self) -> list[str]:
        """The lines of the log."""
        return [formatEvent(event) for event in self.events]

    @property
    def steps(self) -> list[str]:
        """The names of the events in the log: the lines up to the colon."""
        return [line.partition(":")[0] for line in self.lines]

    def line(self, step: str) -> str:
        """Return the only line about C{step}."""
        (found,) = [line for line in self.lines if line.startswith(f"{step}: ")]
        return found
