"""
Tests for L{mailgate.backend.outages}: the log says once that a backend is down, and once that it answers again.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.login import BackendGroup
from mailgate.net.naming import NamingReactor
from mailgate.protocols.pop3 import POP3
from mailgate.session import Phase
from mailgate.test.backend.test_client import GREETING, LOGGED_IN, OK
from mailgate.testing import Attempt, CheckedSession, routeTo
from mailgate.testing.fakes import makeSession
from mailgate.upstream.upstreams import Upstreams

GROUP = """
[upstream store]
server =
    192.0.2.1:110 max_fails={fails} fail_timeout=10s
    192.0.2.2:110 max_fails={fails} fail_timeout=10s
[server x]
protocol = pop3
listen = 127.0.0.1:110
proxy_pass = store
"""
REFUSED = "is down: it refused the connection"


class OutageCase(SynchronousTestCase):
    """Logins one after another."""

    def begin(self, fails: int = 1, lone: bool = False) -> Attempt:
        clock = MemoryReactorClock()
        upstreams = Upstreams(parse(GROUP.format(fails=fails)), NamingReactor(clock))
        self.clock = clock
        route = routeTo() if lone else routeTo(BackendGroup("store"))
        attempt = Attempt(POP3, route=route, upstreams=upstreams)
        self.time(attempt, 0)
        return attempt

    def time(self, attempt: Attempt, seconds: float) -> None:
        attempt.reactor.advance(seconds)
        self.clock.rightNow = attempt.reactor.rightNow

    def again(self, attempt: Attempt) -> None:
        attempt.session = makeSession(
            "pop3", "127.0.0.1:110", "192.0.2.7:1", 0.0, Phase.AUTH, user=b"joe", kind=CheckedSession
        )
        attempt.result = attempt.again()

    def serve(self, attempt: Attempt) -> None:
        attempt.accept()
        attempt.says(GREETING, OK, LOGGED_IN)
        self.successResultOf(attempt.result)

    def told(self, attempt: Attempt) -> list[tuple[str, str]]:
        """Return level and beginning of each line since the last call."""
        found = [
            (level, line.partition(", in phase")[0]) for level, line in zip(attempt.levels, attempt.log, strict=True)
        ]
        attempt.events.clear()
        return [
            (level, line.replace("client 192.0.2.7:40123, ", "").replace("client 192.0.2.7:1, ", ""))
            for level, line in found
        ]


class LoneTests(OutageCase):
    """A backend outside of groups."""

    def test_once(self) -> None:
        """The first failing login logs the outage, and an error of its own; those that follow are at level info."""
        attempt = self.begin(lone=True)
        attempt.refuse()
        failed = "backend failed: backend 192.0.2.99:110 refused the connection"
        self.assertEqual(self.told(attempt), [("error", f"backend 192.0.2.99:110 {REFUSED}"), ("error", failed)])
        for _ in range(3):
            self.time(attempt, 5)
            self.again(attempt)
            attempt.refuse()
            self.assertEqual(self.told(attempt), [("info", failed)])
        self.time(attempt, 5)
        self.again(attempt)
        self.serve(attempt)
        back = "backend 192.0.2.99:110 answers again, after 20 s and 4 failed logins"
        self.assertEqual(self.told(attempt), [("info", back)])
        self.again(attempt)
        self.serve(attempt)
        self.assertEqual(self.told(attempt), [])

    def test_refusedLogin(self) -> None:
        """A refused login is an answer: it ends an outage, and begins none."""
        attempt = self.begin(lone=True)
        attempt.refuse()
        self.told(attempt)
        self.again(attempt)
        attempt.accept()
        attempt.says(GREETING, OK, b"-ERR [AUTH] no\r\n")
        lines = self.told(attempt)
        self.assertEqual(lines[0][1], "backend 192.0.2.99:110 answers again, after 0 s and 1 failed logins")
        self.assertFalse([line for _, line in lines if REFUSED in line])

    def test_full(self) -> None:
        """A server that is full is not down."""
        attempt = self.begin(lone=True)
        attempt.accept()
        attempt.says(b"-ERR too many\r\n")
        self.assertEqual(self.told(attempt), [("error", "backend failed: backend 192.0.2.99:110 greets with -ERR")])


class GroupTests(OutageCase):
    """A backend of a group."""

    def test_once(self) -> None:
        """The lines name the group. A server that serves in its place makes no difference."""
        attempt = self.begin(fails=0)
        attempt.refuse()
        self.serve(attempt)
        failed = "backend failed: backend 192.0.2.1:110 refused the connection"
        self.assertEqual(
            self.told(attempt), [("error", f"upstream store: backend 192.0.2.1:110 {REFUSED}"), ("warn", failed)]
        )
        tried: Any = None
        while tried != "192.0.2.1":
            self.again(attempt)
            tried = attempt.tried[-1][0]
            if tried != "192.0.2.1":
                self.serve(attempt)
        attempt.refuse()
        self.serve(attempt)
        self.assertEqual(self.told(attempt), [("info", failed)])

    def test_allRest(self) -> None:
        """While all servers rest, lines about logins without a server are at level info."""
        attempt = self.begin(fails=1)
        attempt.refuse()
        attempt.refuse()
        levels = [level for level, _ in self.told(attempt)]
        self.assertEqual(levels, ["error", "warn", "error", "warn", "error", "error"])
        # One login at a time tries the server whose rest ends first.
        self.again(attempt)
        probing = attempt.result
        self.again(attempt)
        ((level, line),) = self.told(attempt)
        self.assertEqual(level, "info")
        self.assertIn("backend upstream store has no usable server", line)
        attempt.result = probing
        self.serve(attempt)
        ((level, line),) = self.told(attempt)
        self.assertRegex(line, r"\Aupstream store: backend 192.0.2.[12]:110 answers again, after 0 s and 1 failed")

    def test_ordered(self) -> None:
        """A server that an operator took out is no known outage: the lines about logins stay errors."""
        attempt = self.begin()
        attempt.result.addErrback(lambda failure: None)
        attempt.result.cancel()
        for peer in attempt.connector._places._upstreams.groups[0].peers:  # type: ignore[union-attr]
            peer.order = "down"
        for _ in range(2):
            self.again(attempt)
            self.assertEqual([level for level, _ in self.told(attempt)], ["error"])
