"""
Tests of what authenticators report to a watch.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionRefusedError
from zope.interface.verify import verifyObject

from mailgate.auth.cache import CachedAuthenticator
from mailgate.auth.firstof import FirstOf
from mailgate.interfaces import IWatchedAuthenticator
from mailgate.test.support.cachecase import CacheTestCase, request
from mailgate.test.support.httpauthenticator import ACCEPTED, REQUEST, AuthenticatorTestCase
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing import FakeAuthenticator


class RequestTests(AuthenticatorTestCase):
    """C{asked}: each request to a service once."""

    def setUp(self) -> None:
        super().setUp()
        self.watch = RecordingWatch()
        self.authenticator.watchedBy(self.watch)

    def test_interface(self) -> None:
        """The authenticator can be watched, and names its services."""
        verifyObject(IWatchedAuthenticator, self.authenticator)
        self.assertEqual([service.label for service in self.authenticator.services], ["one:9000", "two:443"])

    def test_outcomes(self) -> None:
        """Accepted, denied, and unusable answers."""
        for fields, outcome in (
            (ACCEPTED, "accepted"),
            (("Auth-Status: Invalid login",), "denied"),
            (("Auth-Status: OK", "Auth-Server: nonsense"), "failed"),
        ):
            judged = self.authenticate()
            self.clock.advance(0.5)
            self.agents[0].answer(*fields)
            self.successResultOf(judged)
            self.assertEqual(self.watch.events.pop(), ("asked", "one:9000", outcome, 0.5))
        self.assertEqual(self.watch.events, [])

    def test_wait(self) -> None:
        """An answer that asks for patience is one, and the next request another."""
        judged = self.authenticate()
        self.agents[0].answer("Auth-Status: WAIT", "Auth-Wait: 2")
        self.clock.advance(2)
        self.agents[0].answer(*ACCEPTED)
        self.successResultOf(judged)
        self.assertEqual(
            self.watch.events, [("asked", "one:9000", "wait", 0.0), ("asked", "one:9000", "accepted", 0.0)]
        )

    def test_failed(self) -> None:
        """A failed service, and the next one."""
        judged = self.authenticate()
        self.agents[0].fail(ConnectionRefusedError())
        self.clock.advance(0.25)
        self.agents[1].answer(*ACCEPTED)
        self.successResultOf(judged)
        self.assertEqual(
            self.watch.events, [("asked", "one:9000", "failed", 0.0), ("asked", "two:443", "accepted", 0.25)]
        )

    def test_timeout(self) -> None:
        """A service that does not answer in time."""
        judged = self.authenticate()
        self.clock.advance(61)
        self.agents[1].answer(*ACCEPTED)
        self.successResultOf(judged)
        self.assertEqual(self.watch.valuesOf("asked")[0], ("one:9000", "timeout", 61.0))
        self.assertEqual(self.watch.valuesOf("asked")[1][:2], ("two:443", "accepted"))

    def test_abandoned(self) -> None:
        """The client has left: the service is not to blame."""
        judged = self.authenticate()
        judged.cancel()
        self.failureResultOf(judged, CancelledError)
        self.assertEqual(self.watch.events, [])

    def test_unwatched(self) -> None:
        """Without a watch nothing is read from the clock."""
        authenticator = self.make(self.agents)
        judged = authenticator.authenticate(REQUEST)
        self.agents[0].answer(*ACCEPTED)
        self.successResultOf(judged)
        self.assertEqual(self.watch.events, [])


class CacheTests(CacheTestCase):
    """C{cached}: each look-up once."""

    def setUp(self) -> None:
        super().setUp()
        self.watch = RecordingWatch()
        self.cache.watchedBy(self.watch)

    def test_results(self) -> None:
        """Hits, misses, and answers that are stale."""
        for seconds in (0, 1, 600, 1):
            self.clock.advance(seconds)
            self.ask()
        self.ask(request(b"amy"))
        self.assertEqual(self.watch.events, [("cached", each) for each in ("miss", "hit", "stale", "hit", "miss")])

    def test_inner(self) -> None:
        """What is behind a cache or in a chain is watched as well; what cannot be watched is left alone."""

        class Judge(FakeAuthenticator):
            pass

        self.assertEqual(list(self.cache.services), [])
        inner: Any = CachedAuthenticator(self.judge, self.clock, 60.0, self.size, (), self.randomness, lambda _: ())
        chain = FirstOf(Judge(), inner)
        verifyObject(IWatchedAuthenticator, chain)
        chain.watchedBy(self.watch)
        self.assertEqual(list(chain.services), [])
        self.successResultOf(inner.authenticate(request(b"amy")))
        self.assertEqual(self.watch.events, [("cached", "miss")])
