"""
Tests for L{mailgate.backend.tries}: how many servers a login tries and for how long, and a server that is alone.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.backend.retry import CAUSES, RetrySettings
from mailgate.backend.tries import Tries
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.lean.clock import CoarseClock
from mailgate.login import Backend, BackendGroup, BackendTLS
from mailgate.net.naming import NamingReactor
from mailgate.protocols.pop3 import POP3
from mailgate.session import Phase
from mailgate.test.backend.test_client import FIRST, GREETING, LOGGED_IN, OK, SECOND
from mailgate.test.support.failures import (
    POP,
    TEMPORARY,
    RetryCase,
    answers,
    drops,
    says,
    settingsOfGroup,
    shakes,
)
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing import Attempt, CheckedSession, requestFor, routeTo
from mailgate.testing.fakes import makeSession
from mailgate.tls.errors import CertificateError
from mailgate.upstream.upstreams import Upstreams


class BoundTests(RetryCase):
    """How many servers a login tries, and for how long."""

    def test_tries(self) -> None:
        """proxy_next_upstream_tries counts servers; 0 is all."""
        for tries, expected in ((1, 1), (2, 2), (3, 3), (0, 3)):
            attempt = self.attempt(POP, RetrySettings(tries=tries))
            for _ in range(expected):
                attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
            self.assertEqual(len(attempt.tried), expected)

    def test_default(self) -> None:
        """Three servers are tried unless a directive says otherwise."""
        routes = [Backend(f"192.0.2.{number}", 110) for number in range(1, 6)]
        attempt = Attempt(POP3, route=routeTo(*routes))
        for _ in range(3):
            attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_timeout(self) -> None:
        """After proxy_next_upstream_timeout no further attempt begins; one that runs goes on."""
        attempt = self.attempt(POP, RetrySettings(timeout=5))
        attempt.reactor.advance(4.9)
        attempt.refuse()
        self.assertEqual(len(attempt.tried), 2)
        attempt.reactor.advance(2)
        self.assertNoResult(attempt.result)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(len(attempt.tried), 2)

    def test_group(self) -> None:
        """A group's section goes before that of the server."""
        attempt = self.attempt(
            POP,
            RetrySettings(causes=("timeout",)),
            directives="proxy_next_upstream = error\nproxy_connect_timeout = 3s\n",
        )
        attempt.refuse()
        self.assertEqual(len(attempt.tried), 2)
        attempt.reactor.advance(3)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        *outages, _, line = attempt.log
        self.assertEqual([": it timed out after 3 s" in outage for outage in outages], [False, True])
        self.assertIn("timed out after 3 s, in phase connect", line)

    def test_wholeLogin(self) -> None:
        """All attempts together have proxy_login_timeout. What is left may be too short to blame a server."""
        attempt = self.attempt(POP, RetrySettings(connectTimeout=10, loginTimeout=14))
        attempt.reactor.advance(10)
        self.assertEqual(self.fails, [1, 0, 0])
        attempt.reactor.advance(3.9)
        self.assertNoResult(attempt.result)
        attempt.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(self.fails, [1, 0, 0])
        outage, _, line = attempt.log
        self.assertIn("backend 192.0.2.1:143 is down: it timed out after 10 s", outage)
        self.assertIn("timed out after 4 s, in phase connect", line)
        self.assertEqual(len(attempt.tried), 2)

    def test_longConnect(self) -> None:
        """proxy_connect_timeout never exceeds proxy_login_timeout."""
        attempt = self.attempt(POP, RetrySettings(connectTimeout=60, loginTimeout=4))
        attempt.reactor.advance(4)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(self.fails, [1, 0, 0])

    def test_oneTimer(self) -> None:
        """An attempt has one timer. It moves when it is due, if the backend has greeted."""
        attempt = self.attempt(POP)
        attempt.accept()
        (timer,) = attempt.reactor.getDelayedCalls()
        begun = attempt.reactor.seconds()
        self.assertEqual(timer.getTime() - begun, 10)
        attempt.reactor.advance(6)
        attempt.says(GREETING)
        self.assertEqual(attempt.reactor.getDelayedCalls(), [timer])
        attempt.reactor.advance(4)
        (timer,) = attempt.reactor.getDelayedCalls()
        self.assertEqual(timer.getTime() - begun, 30)
        attempt.says(OK, LOGGED_IN)
        self.assertEqual(attempt.reactor.getDelayedCalls(), [])
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)


class LoneTests(RetryCase):
    """A server that is alone is tried again, as in Dovecot."""

    def lone(self, *groups: Any, **changes: Any) -> Attempt:
        upstreams = Upstreams(settingsOfGroup(""), NamingReactor(MemoryReactorClock()))
        return Attempt(POP3, *groups, RetrySettings(**changes), upstreams=upstreams)

    def test_again(self) -> None:
        """It is tried again after a second, three times. The log has equal failures once."""
        attempt = self.lone()
        for tries in range(1, 4):
            attempt.refuse()
            self.assertEqual(len(attempt.tried), tries)
            attempt.reactor.advance(0.9)
            self.assertEqual(len(attempt.tried), tries)
            attempt.reactor.advance(0.1)
            self.assertEqual(len(attempt.tried), tries + 1)
        self.assertNoResult(attempt.result)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(attempt.levels, ["error", "error"])
        self.assertEqual(attempt.log[0], "backend 192.0.2.99:110 is down: it refused the connection")
        self.assertTrue(attempt.hasNoTimers())

    def test_temporaryLater(self) -> None:
        """A temporary refusal of the login is tried again, however long the gateway runs: the server has not failed."""
        attempt = self.lone()
        self.serve(attempt, POP)
        attempt.session = makeSession(
            "pop3", "127.0.0.1:110", "192.0.2.7:40123", 0.0, Phase.AUTH, user=b"joe", kind=CheckedSession
        )
        attempt.reactor.advance(1000)
        result = attempt.again()
        answers(POP, b"-ERR [SYS/TEMP] x\r\n")(attempt)
        self.assertNoResult(result)
        attempt.reactor.advance(1)
        attempt.result = result
        self.assertEqual(len(attempt.tried), 3)
        self.serve(attempt, POP)

    def test_served(self) -> None:
        """It serves as soon as it works again, which the log says, and the failure is a warning."""
        attempt = self.lone()
        attempt.refuse()
        attempt.reactor.advance(1)
        self.serve(attempt, POP)
        self.assertEqual(attempt.levels, ["error", "info", "warn"])
        self.assertEqual(attempt.log[1], "backend 192.0.2.99:110 answers again, after 1 s and 1 failed logins")

    def test_group(self) -> None:
        """So is the only server of a group, and its sessions are counted right."""
        text = "[upstream one]\nserver = 192.0.2.1:110\n[server x]\nprotocol = pop3\nlisten = 127.0.0.1:110\n"
        upstreams = Upstreams(parse(f"{text}proxy_pass = one\n"), NamingReactor(MemoryReactorClock()))
        (peer,) = upstreams.groups[0].peers
        attempt = Attempt(POP3, route=routeTo(BackendGroup("one")), upstreams=upstreams)
        attempt.refuse()
        self.assertEqual((peer.connections, peer.fails, peer.reason), (0, 0, "refused the connection"))
        attempt.reactor.advance(1)
        self.assertEqual(peer.connections, 1)
        self.serve(attempt, POP)
        self.assertEqual(peer.connections, 1)
        attempt.session.leave()
        self.assertEqual(peer.connections, 0)

    def test_watchRaises(self) -> None:
        """A session that an exception ends after the backend has accepted it is counted once, and disconnected."""

        class Raising(RecordingWatch):
            def attempted(self, *values: Any) -> None:
                raise KeyError("watch")

        text = "[upstream one]\nserver = 192.0.2.1:110\n[server x]\nprotocol = pop3\nlisten = 127.0.0.1:110\n"
        upstreams = Upstreams(parse(f"{text}proxy_pass = one\n"), NamingReactor(MemoryReactorClock()))
        (peer,) = upstreams.groups[0].peers
        attempt = Attempt(POP3, route=routeTo(BackendGroup("one")), upstreams=upstreams, watch=Raising())
        transport = attempt.accept()
        attempt.says(POP.greeting, *POP.prelude, POP.accepted)
        self.failureResultOf(attempt.result, KeyError)
        self.assertTrue(transport.aborted)
        self.assertTrue(attempt.hasNoTimers())
        self.assertEqual(peer.connections, 0)
        attempt.session.leave()
        self.assertEqual(peer.connections, 0)

    def test_off(self) -> None:
        """Not with proxy_next_upstream = off, nor after a failure that it does not name."""
        for causes in ((), ("timeout",)):
            attempt = self.lone(causes=causes)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_lasting(self) -> None:
        """Nor for what is the same a second later: configuration, or what the client has caused."""
        for fail, tls in (
            (says(b"+OK\r\n", b"-ERR no STLS\r\n"), BackendTLS.STARTTLS),
            (shakes(CertificateError("has expired")), BackendTLS.IMPLICIT),
        ):
            route = routeTo(Backend("192.0.2.1", 110, tls, name="mail.test"))
            attempt = Attempt(POP3, RetrySettings(), route=route)
            fail(attempt)
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        attempt = self.lone()
        answers(POP, b"-ERR [AUTH] no\r\n")(attempt)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_temporary(self) -> None:
        """It is tried again after a temporary refusal, and once after a loss behind the credentials."""
        attempt = self.lone()
        answers(POP, b"-ERR [SYS/TEMP] no\r\n")(attempt)
        attempt.reactor.advance(1)
        drops(POP, GREETING, OK)(attempt)
        attempt.reactor.advance(1)
        self.assertEqual(len(attempt.tried), 3)
        drops(POP, GREETING, OK)(attempt)
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_gateway(self) -> None:
        """A gateway that refuses a login for now is not tried again: a login that goes round would multiply."""
        for greeting in (b"+OK POP3 ready\r\n", b"+OK POP3 ready <1.2@mx.test>\r\n"):
            attempt = self.lone()
            attempt.accept()
            attempt.says(greeting, OK, OK, b"-ERR [SYS/TEMP] no\r\n")
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        attempt = self.attempt(POP)
        attempt.accept()
        attempt.says(b"+OK POP3 ready\r\n", OK, OK, b"-ERR [SYS/TEMP] no\r\n")
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertEqual(len(attempt.tried), 1)

    def test_noTimeLeft(self) -> None:
        """Not where a second or less of the login's time is left."""
        attempt = self.lone(loginTimeout=2)
        attempt.reactor.advance(0.95)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        attempt = self.lone(loginTimeout=2)
        attempt.reactor.advance(0.8)
        attempt.refuse()
        attempt.reactor.advance(1)
        self.assertEqual(len(attempt.tried), 2)

    def test_retryTimeout(self) -> None:
        """Nor after proxy_next_upstream_timeout."""
        attempt = self.lone(timeout=1)
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_down(self) -> None:
        """After 30 seconds without a success logins fail at once, until it serves again."""
        attempt = self.lone()
        attempt.reactor.advance(1000)
        for seconds, isRepeated in ((0, True), (26, True), (2, False), (60, False)):
            attempt.reactor.advance(seconds)
            result = attempt.again()
            for _ in range(4 if isRepeated else 1):
                self.assertNoResult(result)
                attempt.refuse()
                attempt.reactor.advance(1 if isRepeated else 0)
            self.assertEqual(self.successResultOf(result), TEMPORARY)
        result = attempt.again()
        attempt.accept()
        attempt.says(GREETING, OK, LOGGED_IN)
        self.assertIsInstance(self.successResultOf(result), ProxyClient)
        tried = len(attempt.tried)
        attempt.again()
        attempt.refuse()
        attempt.reactor.advance(1)
        self.assertEqual(len(attempt.tried), tried + 2)

    def test_refusedMeanwhile(self) -> None:
        """A refused login is a success of the server: it has answered."""
        attempt = self.lone()
        for seconds in (1000, 31):
            attempt.reactor.advance(seconds)
            attempt.again()
            attempt.refuse()
            attempt.reactor.advance(1)
            answers(POP, b"-ERR [AUTH] no\r\n")(attempt)
        self.assertEqual(len(attempt.tried), 5)

    def test_left(self) -> None:
        """The client may leave during the wait: nothing is tried then, and no timer stays."""
        attempt = self.lone()
        attempt.refuse()
        self.assertIs(attempt.session.phase, Phase.CONNECT)
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)
        self.assertTrue(attempt.hasNoTimers())
        self.assertEqual(len(attempt.tried), 1)

    def test_phases(self) -> None:
        """The wait is in the phase connect, from whatever phase the failure came."""
        attempt = self.lone()
        attempt.accept()
        attempt.says(b"what?\r\n")
        self.assertIs(attempt.session.phase, Phase.CONNECT)
        attempt.reactor.advance(1)
        self.serve(attempt, POP)

    def test_several(self) -> None:
        """Where there is another server, that is tried, and none of them again."""
        attempt = Attempt(POP3, route=routeTo(FIRST, SECOND))
        attempt.refuse()
        attempt.refuse()
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)


class DirectiveTests(SynchronousTestCase):
    """L{RetrySettings}."""

    SERVER = "[server x]\nprotocol = pop3\nlisten = 127.0.0.1:110\nproxy_pass = 192.0.2.1:110\n"

    def settings(self, text: str = "") -> RetrySettings:
        (server,) = parse(self.SERVER + text).servers
        found: RetrySettings = server[RetrySettings]
        return found

    def test_defaults(self) -> None:
        """The defaults of the documentation."""
        settings = self.settings()
        self.assertEqual((settings.attempt, settings.wholeLogin), (10, 30))
        self.assertEqual((settings.causes, settings.tries, settings.timeout), (CAUSES, 3, 0))

    def test_words(self) -> None:
        """on is the default, off is none."""
        for text, expected in (("on", CAUSES), ("off", ()), ("error timeout", ("error", "timeout"))):
            self.assertEqual(self.settings(f"proxy_next_upstream = {text}\n").causes, expected)
        for text in ("error off", "on tls", "http_500"):
            self.assertRaises(ConfigurationError, self.settings, f"proxy_next_upstream = {text}\n")

    def test_within(self) -> None:
        """proxy_login_timeout is timeout where that is written."""
        self.assertEqual(RetrySettings().within(None).wholeLogin, 30)
        self.assertEqual(RetrySettings().within(45.0).wholeLogin, 45)
        self.assertEqual(RetrySettings(loginTimeout=20.0).within(45.0).wholeLogin, 20)
        self.assertEqual(evolve(RetrySettings(), loginTimeout=4.0).attempt, 4)


class DeadlineTests(SynchronousTestCase):
    """The deadline of an attempt, in a clock that is exact to one second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100_000.0)
        self.expired: list[float] = []

    def begin(self, retry: RetrySettings) -> Tries:
        session = makeSession("pop3", "127.0.0.1:110", "192.0.2.7:40123", 0.0, Phase.AUTH, kind=CheckedSession)
        tries = Tries(routeTo(), requestFor("pop3"), session, CoarseClock(self.clock))
        client: Any = SimpleNamespace(expired=lambda: self.expired.append(self.clock.seconds() - 100_000.0))
        place: Any = SimpleNamespace(wholeLogin=retry.wholeLogin, attempt=retry.attempt)
        tries.begin(place, client)
        return tries

    def letPass(self, seconds: int) -> None:
        self.clock.pump([0.25] * (4 * seconds))

    def test_short(self) -> None:
        """A short one is exact."""
        self.begin(RetrySettings(connectTimeout=2.25))
        self.letPass(5)
        self.assertEqual(self.expired, [2.25])

    def test_moved(self) -> None:
        """It moves to the end of the login once the backend has greeted, and expires once."""
        for hasGreeted, expected in ((False, 10.0), (True, 30.0)):
            self.setUp()
            tries = self.begin(RetrySettings())
            self.letPass(5)
            if hasGreeted:
                tries.due = tries.deadline
            self.letPass(60)
            (moment,) = self.expired
            self.assertTrue(expected <= moment <= expected + 1, moment)

    def test_dropped(self) -> None:
        """After the attempt nothing waits for it, whether or not the deadline has moved."""
        for seconds in (0, 15):
            tries = self.begin(RetrySettings())
            tries.due = tries.deadline
            self.letPass(seconds)
            tries.deadlines.drop(tries)
            self.letPass(60)
            self.assertEqual((self.expired, self.clock.getDelayedCalls()), ([], []))
