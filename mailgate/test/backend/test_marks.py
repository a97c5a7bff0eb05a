"""
Tests for L{mailgate.backend.places}: what logins remember of servers, in groups and outside, and which they pass over.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.retry import RetrySettings
from mailgate.config import parse
from mailgate.login import BackendGroup
from mailgate.net.naming import NamingReactor
from mailgate.protocols.pop3 import POP3
from mailgate.test.backend.test_client import FIRST, GREETING, LOGGED_IN, OK, SECOND
from mailgate.test.support.failures import (
    TEMPORARY,
)
from mailgate.testing import Attempt, routeTo
from mailgate.upstream.peer import Peer, PeerState
from mailgate.upstream.upstreams import Upstreams


class MarkTests(SynchronousTestCase):
    """What is remembered of servers, in groups and outside."""

    def setUp(self) -> None:
        text = "[upstream store]\nserver =\n    192.0.2.1:110\n    192.0.2.2:110\n"
        text += "[server x]\nprotocol = pop3\nlisten = 127.0.0.1:110\nproxy_pass = store\n"
        self.clock = MemoryReactorClock()
        self.clock.advance(1000)
        self.upstreams = Upstreams(parse(text), NamingReactor(self.clock))
        self.rested: list[tuple[str, Peer]] = []
        self.upstreams.whenRested = lambda group, peer: self.rested.append((group, peer))

    def attempt(self, *backends: Any) -> Attempt:
        return Attempt(POP3, route=routeTo(*backends), upstreams=self.upstreams)

    def logIn(self, attempt: Attempt) -> None:
        attempt.accept()
        attempt.says(GREETING, OK, LOGGED_IN)
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)

    def test_rest(self) -> None:
        """A server that begins to rest says why and since when, and others hear of it."""
        attempt = self.attempt(BackendGroup("store"))
        attempt.reactor.advance(10)
        first, second = self.upstreams.groups[0].peers
        self.assertEqual((first.reason, first.since), ("timed out after 10 s", 1000))
        self.assertEqual(self.rested, [("store", first)])
        attempt.refuse()
        self.assertEqual(second.reason, "refused the connection")
        self.assertEqual(self.rested[1:], [("store", second)])

    def test_recovered(self) -> None:
        """When it serves again it is up since then."""
        attempt = self.attempt(BackendGroup("store"))
        attempt.refuse()
        self.logIn(attempt)
        first = self.upstreams.groups[0].peers[0]
        self.clock.advance(11)
        for _ in range(4):
            self.logIn(self.attempt(BackendGroup("store")))
        self.assertEqual((first.fails, first.since, first.state(1011)), (0, 1011, PeerState.UP))

    def test_order(self) -> None:
        """What an operator has ordered stays the reason."""
        first = self.upstreams.groups[0].peers[0]
        attempt = self.attempt(BackendGroup("store"))
        first.order, first.reason, first.since = "drain", "mailgate backend drain", 5
        attempt.refuse()
        self.assertEqual((first.reason, first.since), ("mailgate backend drain", 5))

    def test_restingLast(self) -> None:
        """Of several backends of a route, one that has failed is tried last, until its rest is over."""
        attempt = self.attempt(FIRST, SECOND)
        attempt.refuse()
        self.logIn(attempt)
        peer = self.upstreams.lone(FIRST)
        self.assertEqual((peer.reason, peer.since), ("refused the connection", 1000))
        self.assertEqual(self.rested, [("", peer)])
        line = "backend 192.0.2.99:110 failed once; for 10 s logins try their other backends first"
        self.assertIn(line, attempt.log)
        again = self.attempt(FIRST, SECOND)
        self.assertEqual(again.tried, [("192.0.2.100", 110)])
        again.refuse()
        self.assertEqual(again.tried[1:], [("192.0.2.99", 110)])
        self.logIn(again)

    def test_oneProbe(self) -> None:
        """After the rest one login tries it, and the others wait for its result."""
        attempt = self.attempt(FIRST, SECOND)
        attempt.refuse()
        self.logIn(attempt)
        self.clock.advance(11)
        probe = self.attempt(FIRST, SECOND)
        other = self.attempt(FIRST, SECOND)
        self.assertEqual((probe.tried, other.tried), ([("192.0.2.99", 110)], [("192.0.2.100", 110)]))
        self.logIn(probe)
        self.assertEqual(self.attempt(FIRST, SECOND).tried, [("192.0.2.99", 110)])

    def test_probeLeft(self) -> None:
        """If the client of that login leaves, the next login may try."""
        attempt = self.attempt(FIRST, SECOND)
        attempt.refuse()
        self.logIn(attempt)
        self.clock.advance(11)
        for _ in range(3):
            probe = self.attempt(FIRST, SECOND)
            self.assertEqual(probe.tried, [("192.0.2.99", 110)])
            probe.result.addErrback(lambda failure: None)
            probe.result.cancel()
        self.assertEqual(self.upstreams.lone(FIRST).connections, 0)

    def test_alone(self) -> None:
        """A server that is the only one of its route does not rest."""
        attempt = self.attempt(FIRST)
        attempt.refuse()
        peer = self.upstreams.lone(FIRST)
        self.assertEqual((peer.fails, peer.reason, self.rested), (0, "refused the connection", []))
        self.assertEqual(self.attempt(FIRST).tried, [("192.0.2.99", 110)])

    def test_passedOver(self) -> None:
        """Servers that an operator or a health check takes out are passed over."""
        peer = self.upstreams.lone(FIRST)
        for order, isFailing in (("drain", False), ("down", False), ("", True)):
            peer.order, peer.isFailing = order, isFailing
            attempt = self.attempt(FIRST, SECOND)
            self.assertEqual(attempt.tried, [("192.0.2.100", 110)])
            self.logIn(attempt)
            self.assertEqual(attempt.log, [])

    def test_drained(self) -> None:
        """Without another server the client hears of a temporary failure, and the log says who took it out."""
        for backends, peers in (
            ((FIRST,), [self.upstreams.lone(FIRST)]),
            ((FIRST, SECOND), [self.upstreams.lone(FIRST), self.upstreams.lone(SECOND)]),
            ((BackendGroup("store"),), self.upstreams.groups[0].peers),
        ):
            for order, words in (("drain", "an operator drained it"), ("down", "an operator took it down")):
                for peer in peers:
                    peer.order = order
                attempt = self.attempt(*backends)
                self.assertEqual(attempt.tried, [])
                self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
                for line in attempt.log:
                    self.assertIn(words, line)
                self.assertIn(f"mailgate backend resume {peers[0].backend}", attempt.log[0])
                self.assertEqual(attempt.levels[0], "error")
                self.assertEqual([peer.connections for peer in peers], [0] * len(peers))

    def test_drainedInTheWait(self) -> None:
        """An order counts for a login that waits to try the server again."""
        attempt = Attempt(POP3, RetrySettings(), route=routeTo(FIRST), upstreams=self.upstreams)
        attempt.refuse()
        peer = self.upstreams.lone(FIRST)
        peer.order = "drain"
        attempt.reactor.advance(1)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual((len(attempt.tried), peer.connections), (1, 0))
