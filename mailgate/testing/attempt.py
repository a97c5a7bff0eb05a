# -*- test-case-name: mailgate.test.test_testing -*-
"""
A login at backends that the test plays.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, LogPublisher, formatEvent
from twisted.python.failure import Failure

from mailgate.backend.connector import Connector
from mailgate.backend.coroutine import Task
from mailgate.backend.places import Places
from mailgate.frontend.protocol import MailProtocol
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Destination, LoginRequest, Method, Route
from mailgate.session import Phase
from mailgate.testing.fakes import CheckedSession, FakeTransport, settingsOf
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

__all__ = ["BACKEND", "Attempt", "requestFor", "resultOf", "routeTo"]

BACKEND = Backend("192.0.2.99", 110)


def routeTo(*backends: Destination, **changes: Any) -> Route:
    """joe's route, with the password sesame."""
    return Route(backends or (BACKEND,), **{"user": b"joe", "password": b"sesame", **changes})


def requestFor(protocol: str, **changes: Any) -> LoginRequest:
    """joe's request, with IMAP's tag a1."""
    given = {
        "credentials": Credentials(Method.PLAIN, b"joe", b"sesame"),
        "client": Client("192.0.2.7", 40123),
        "tag": b"a1",
        **changes,
    }
    return LoginRequest(protocol, **given)


def resultOf(awaitable: Awaitable[Any]) -> Deferred[Any]:
    """
    A Deferred that fires with the result of C{awaitable}: what a gateway's connector and clients of backends await is
    nothing for Twisted's own coroutines. It can be cancelled.
    """

    async def awaiting() -> None:
        result.callback(await awaitable)

    result: Deferred[Any] = Deferred(lambda _: task.cancel())
    task = Task(awaiting(), result.errback)
    task.start()
    return result


class Attempt:
    """
    A L{Connector} at work, on a reactor that connects nowhere: the test plays the backends. C{result} fires with what
    the connector gives.
    """

    def __init__(
        self,
        record: MailProtocol,
        *groups: Any,
        route: Route | None = None,
        timeout: float = 30.0,
        upstreams: Upstreams | None = None,
        resolver: Any = None,
        **request: Any,
    ) -> None:
        self.reactor = MemoryReactorClock()
        if resolver is not None:
            self.reactor.installNameResolver(resolver)
        self.events: list[Any] = []
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.route = route or routeTo()
        self.session = CheckedSession(
            record.name, "127.0.0.1:110", "192.0.2.7:40123", 0.0, Phase.AUTH, user=self.route.user
        )
        settings = settingsOf(record.name, *groups)
        self.connector = Connector(
            record.client,
            settings,
            "mx.test",
            timeout,
            self.reactor,
            Journal(LogLevel.info, publisher),
            Places(settings[BackendTLSSettings], upstreams, BackendContexts, self.reactor),
        )
        self.transport = FakeTransport()
        self.request = requestFor(record.name, **request)
        self.result = self.again()

    def again(self) -> Deferred[Any]:
        """Ask for the same once more."""
        return resultOf(self.connector.connect(self.route, self.request, self.session))

    @property
    def tried(self) -> list[tuple[str, int]]:
        """The addresses that have been connected to."""
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    @property
    def log(self) -> list[str]:
        """A text for each event."""
        return [formatEvent(event) for event in self.events]

    @property
    def levels(self) -> list[str]:
        """The level of each event."""
        return [event["log_level"].name for event in self.events]

    def accept(self) -> FakeTransport:
        """The backend that was tried last accepts the connection."""
        factory = self.reactor.tcpClients[-1][2]
        self.transport = FakeTransport(IPv4Address("TCP", *self.tried[-1]))
        self.transport.connect(factory.buildProtocol(self.transport.getPeer()))
        return self.transport

    def refuse(self, error: Exception | None = None) -> None:
        """The backend that was tried last cannot be connected to."""
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(error or ConnectionRefusedError()))

    def says(self, *data: bytes) -> bytes:
        """The backend sends C{data}, a segment each; gives what it hears then."""
        for segment in data:
            self.transport.protocol.dataReceived(segment)
        return self.hears()

    def hears(self) -> bytes:
        """What the backend has heard since it last asked."""
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def hasNoTimers(self) -> bool:
        """Whether nothing is left on the clock."""
        return self.reactor.getDelayedCalls() == []
