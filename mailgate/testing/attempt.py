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
from mailgate.backend.retry import RetrySettings
from mailgate.frontend.protocol import MailProtocol
from mailgate.interfaces import IWatch
from mailgate.log.journal import Journal
from mailgate.login import Backend, Client, Credentials, Destination, LoginRequest, Method, Route
from mailgate.session import Phase
from mailgate.testing.fakes import CheckedSession, FakeTransport, makeSession, settingsOf
from mailgate.tls.backendcontexts import BackendContexts
from mailgate.tls.backendsettings import BackendTLSSettings
from mailgate.upstream.upstreams import Upstreams

__all__ = ["BACKEND", "Attempt", "requestFor", "resultOf", "routeTo"]

BACKEND = Backend("192.0.2.99", 110)


def routeTo(*backends: Destination, **changes: Any) -> Route:
    """
    Make a route for the user joe with the password sesame.

    @param backends: L{Backend}s; by default L{BACKEND}.
    @param changes: fields of the L{Route} that differ.
    """
    return Route(backends or (BACKEND,), **{"user": b"joe", "password": b"sesame", **changes})


def requestFor(protocol: str, **changes: Any) -> LoginRequest:
    """
    Make a login of the user joe with the password sesame and IMAP's tag a1.

    @param protocol: the name of the protocol, such as C{imap}.
    @param changes: fields of the L{LoginRequest} that differ.
    """
    given = {
        "credentials": Credentials(Method.PLAIN, b"joe", b"sesame"),
        "client": Client("192.0.2.7", 40123),
        "tag": b"a1",
        **changes,
    }
    return LoginRequest(protocol, **given)


def resultOf(awaitable: Awaitable[Any]) -> Deferred[Any]:
    """
    Convert an awaitable to a Deferred. The gateway's connector and its backend clients use their own coroutines, which
    Twisted's C{Deferred.fromCoroutine} cannot run.

    @param awaitable: what the connector or client returned.
    @return: a Deferred of the result. Cancelling it cancels the work.
    """

    async def awaiting() -> None:
        result.callback(await awaitable)

    result: Deferred[Any] = Deferred(lambda _: task.cancel())
    task = Task(awaiting(), result.errback)
    task.start()
    return result


class Attempt:
    """
    A login through a L{Connector} on a reactor that makes no real connections: the test plays the backends. A route
    with one backend tries that once, unless C{groups} have L{RetrySettings}.

    @param record: the protocol, such as L{mailgate.protocols.imap4.IMAP4}.
    @param groups: instances of settings classes that differ from the defaults.
    @param route: the route to log in by; by default that of L{routeTo}.
    @param timeout: the limit for a login at a backend, in seconds.
    @param upstreams: the groups of backends, if the route names one.
    @param resolver: an C{IHostnameResolver} for host names of backends.
    @param watch: receives each attempt at a backend.
    @param request: arguments for L{requestFor}.
    @ivar result: a Deferred of the connector's result.
    @ivar reactor: a C{MemoryReactorClock}; advance it to let time pass.
    @ivar session: the session, whose moves are checked.
    @ivar transport: the connection that was accepted last.
    """

    def __init__(
        self,
        record: MailProtocol,
        *groups: Any,
        route: Route | None = None,
        timeout: float = 30.0,
        upstreams: Upstreams | None = None,
        resolver: Any = None,
        watch: IWatch | None = None,
        **request: Any,
    ) -> None:
        self.reactor = MemoryReactorClock()
        # A machine has run for a while when its gateway starts: no time is near 0.
        self.reactor.advance(100_000.0)
        if resolver is not None:
            self.reactor.installNameResolver(resolver)
        self.events: list[Any] = []
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.route = route or routeTo()
        self.session = makeSession(
            record.name,
            "127.0.0.1:110",
            "192.0.2.7:40123",
            0.0,
            Phase.AUTH,
            user=self.route.user,
            kind=CheckedSession,
        )
        if watch is not None:
            self.session.readings = [self.reactor.seconds, Phase.AUTH, self.reactor.seconds()]
        settings = settingsOf(record.name, *groups)
        isGiven = any(isinstance(each, RetrySettings) for each in groups)
        isAlone = len(self.route.backends) == 1 and isinstance(self.route.backends[0], Backend)
        retry = RetrySettings(causes=()) if isAlone and not isGiven else settings[RetrySettings]
        self.connector = Connector(
            record.client,
            settings,
            "mx.test",
            self.reactor,
            Journal(LogLevel.info, publisher),
            Places(settings[BackendTLSSettings], upstreams, BackendContexts, self.reactor, retry.within(timeout)),
            watch,
        )
        self.transport = FakeTransport()
        self.request = requestFor(record.name, **request)
        self.result = self.again()

    def again(self) -> Deferred[Any]:
        """Log in once more, and return a Deferred of the result."""
        self.session.attempts += 1
        return resultOf(self.connector.connect(self.route, self.request, self.session))

    @property
    def tried(self) -> list[tuple[str, int]]:
        """The addresses that the gateway has connected to, as pairs of host and port."""
        return [(host, port) for host, port, *_ in self.reactor.tcpClients]

    @property
    def log(self) -> list[str]:
        """The text of each log event."""
        return [formatEvent(event) for event in self.events]

    @property
    def levels(self) -> list[str]:
        """The level of each log event."""
        return [event["log_level"].name for event in self.events]

    def accept(self) -> FakeTransport:
        """Accept the last connection attempt as the backend, and return its transport."""
        factory = self.reactor.tcpClients[-1][2]
        self.transport = FakeTransport(IPv4Address("TCP", *self.tried[-1]))
        self.transport.connect(factory.buildProtocol(self.transport.getPeer()))
        return self.transport

    def refuse(self, error: Exception | None = None) -> None:
        """
        Let the last connection attempt fail.

        @param error: the reason; by default the backend refuses the connection.
        """
        factory = self.reactor.tcpClients[-1][2]
        factory.clientConnectionFailed(self.reactor.connectors[-1], Failure(error or ConnectionRefusedError()))

    def says(self, *data: bytes) -> bytes:
        """
        Send data as the backend.

        @param data: the segments, delivered one by one.
        @return: the bytes that the gateway sends in return.
        """
        for segment in data:
            self.transport.protocol.dataReceived(segment)
        return self.hears()

    def hears(self) -> bytes:
        """Return the bytes that the backend received since the last call."""
        heard: bytes = self.transport.value()
        self.transport.clear()
        return heard

    def hasNoTimers(self) -> bool:
        """Return whether no call is pending on the clock."""
        return self.reactor.getDelayedCalls() == []
