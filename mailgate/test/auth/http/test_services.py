"""
Tests of L{mailgate.auth.http.services}: what servers with the same service share.
"""

from __future__ import annotations

import gc
import weakref

from attrs import evolve
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.agent import COOLING
from mailgate.auth.http.authenticator import KIND
from mailgate.auth.http.services import sharedService
from mailgate.log.journal import Journal
from mailgate.login import Credentials, Method
from mailgate.net.naming import NamingReactor
from mailgate.test.support.httpagent import FakeEndpoint
from mailgate.test.support.httpauthenticator import ACCEPTED, REQUEST
from mailgate.test.support.httpsettings import server, settings

URL = "http://127.0.0.1:9000/auth"
ANSWER = "\r\n".join(["HTTP/1.1 200 OK", *ACCEPTED, "Content-Length: 0", "", ""]).encode()


class SharedServiceTests(SynchronousTestCase):
    """Authenticators of two servers on one reactor."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.events = []
        self.journal = Journal(LogLevel.info, self.events.append)

    def build(self, url=URL, reactor=None, **others):
        """Return an authenticator over a fake endpoint, and its only service."""
        group = settings(url, **others)
        authenticator = KIND.build(server(group), None, reactor or self.reactor, self.journal)
        inner = authenticator._inner if group.cacheTTL else authenticator
        shared = inner._services[0].shared
        if not isinstance(shared.agent._endpoint, FakeEndpoint):
            shared.agent._endpoint = FakeEndpoint()
        return authenticator, shared

    def log(self):
        """Return the log lines."""
        return [formatEvent(event) for event in self.events]

    def login(self, authenticator, shared):
        """Complete an accepted login over a new connection, and return the connection."""
        judged = authenticator.authenticate(REQUEST)
        connection = shared.agent._endpoint.accept()
        connection.dataReceived(ANSWER)
        self.successResultOf(judged)
        return connection

    def test_shared(self):
        """Servers with the same service and the same settings share one agent and one queue."""
        _, one = self.build()
        _, two = self.build(cacheTTL=5.0, headers=((b"X", b"y"),))
        self.assertIs(one, two)

    def test_notShared(self):
        """Settings that affect connections separate services, and so do gateways."""
        services = [self.build()[1]]
        for url, others in (
            ("http://127.0.0.1:9000/other", {}),
            ("https://127.0.0.1:9000/auth", {}),
            ("https://127.0.0.1:9000/auth", {"verify": False}),
            (URL, {"timeout": 7.0}),
            (URL, {"keepalive": "on"}),
            (URL, {"maxConnections": 7}),
            (URL, {"reactor": MemoryReactorClock()}),
        ):
            services.append(self.build(url, **others)[1])
        self.assertEqual(len(set(services)), len(services))

    def test_limit(self):
        """The limit applies to all servers together."""
        first, shared = self.build(maxConnections=2)
        second, _ = self.build(maxConnections=2)
        for authenticator in (first, second, first, second):
            authenticator.authenticate(REQUEST)
        self.assertEqual(len(shared.agent._endpoint.connecting), 2)

    def test_unlimited(self):
        """0 means no limit."""
        first, shared = self.build(maxConnections=0)
        for _ in range(100):
            first.authenticate(REQUEST)
        self.assertEqual(len(shared.agent._endpoint.connecting), 100)

    def test_keepalive(self):
        """Connections are used again after a pause, at once, or never."""
        for word, pauses in (("auto", (COOLING + 0.001,)), ("on", (0.0,)), ("off", ())):
            first, shared = self.build(keepalive=word)
            connection = self.login(first, shared)
            connection.transport.clear()
            self.assertEqual(connection.transport.left, word == "off")
            for pause in pauses:
                self.reactor.advance(pause)
                first.authenticate(REQUEST)
                self.assertIn(b"Auth-User: joe", connection.transport.value())

    def test_distrusted(self):
        """Surplus bytes on a connection of one server count for all, and are logged once with a remedy."""
        first, shared = self.build(URL + "?key=hush")
        second, _ = self.build(URL + "?key=hush")
        self.login(first, shared).dataReceived(b"x")
        for authenticator in (first, second):
            self.assertTrue(self.login(authenticator, shared).transport.left)
        self.assertEqual(
            self.log(),
            [
                f"auth http server {URL} sent more bytes than its Content-Length says; keepalive is off for it until"
                " the next reload; fix the service or set auth_http_keepalive = off"
            ],
        )

    def test_cachesForget(self):
        """The caches are emptied, because they may contain an answer for another login."""
        first, shared = self.build(cacheTTL=60.0)
        connection = self.login(first, shared)
        self.successResultOf(first.authenticate(REQUEST))
        connection.dataReceived(b"x")
        self.assertNoResult(first.authenticate(REQUEST))

    def test_cachedNeedsNoPlace(self):
        """Cached answers need no place in the queue."""
        first, shared = self.build(cacheTTL=60.0, maxConnections=1)
        self.login(first, shared)
        first.authenticate(evolve(REQUEST, credentials=Credentials(Method.PLAIN, b"ann", b"x")))
        self.assertNoResult(first.authenticate(evolve(REQUEST, credentials=Credentials(Method.PLAIN, b"bob", b"x"))))
        self.successResultOf(first.authenticate(REQUEST))

    def test_closed(self):
        """Closing one authenticator, even twice, keeps the connections of the others; the last one closes them."""
        first, shared = self.build()
        second, _ = self.build()
        connection = self.login(first, shared)
        first.close()
        first.close()
        self.assertFalse(connection.transport.aborting)
        second.close()
        self.assertTrue(connection.transport.aborting)
        self.assertIsNot(self.build()[1], shared)

    def test_forgotten(self):
        """Nothing of a gateway is left, whether it was closed or never started."""
        for closes in (True, False):
            reactor = NamingReactor(self.reactor)
            seen = weakref.ref(reactor)
            authenticator, shared = self.build(reactor=reactor)
            if closes:
                authenticator.close()
            del reactor, authenticator, shared
            gc.collect()
            self.assertIsNone(seen())

    def test_address(self):
        """The Host header is that of the URL."""
        (url,) = settings("https://auth.example.com/a?b").urls
        made = sharedService(url, settings(timeout=7.0), MemoryReactorClock(), Journal())
        self.assertTrue(made.agent.start.startswith(b"GET /a?b HTTP/1.1\r\nHost: auth.example.com\r\n"))
