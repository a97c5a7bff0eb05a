"""
The log lines about failed backends and services: one line each, at a level that depends on the result of the login.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionLost, ConnectionRefusedError, DNSLookupError, NoRouteError
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseFailed

from mailgate.auth.http.asking import REST
from mailgate.log.seldom import PERIOD
from mailgate.login import Denial, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.test.backend.test_client import FIRST, GREETING, LOGGED_IN, OK, SECOND, loggedIn
from mailgate.test.support.httpauthenticator import ACCEPTED, REQUEST, ROUTE, AuthenticatorTestCase, failed
from mailgate.testing import Attempt, routeTo

NAMES = ("192.0.2.99:110", "192.0.2.100:110")


class BackendTests(SynchronousTestCase):
    """A route with two backends."""

    def attempt(self, **changes: Any) -> Attempt:
        return Attempt(POP3, route=routeTo(FIRST, SECOND, **changes))

    def test_line(self) -> None:
        """A line has the client, the user, the backend, the failure and the phase."""
        attempt = Attempt(POP3, route=routeTo(FIRST))
        attempt.refuse()
        self.assertEqual(
            attempt.log,
            [
                "backend failed: client 192.0.2.7:40123, backend 192.0.2.99:110 refused the connection,"
                ' in phase connect, protocol pop3, server 127.0.0.1:110, session -, user "joe"'
            ],
        )

    def test_words(self) -> None:
        """Twisted's errors of connections are replaced with words of ours."""
        for error, words in (
            (ConnectionRefusedError(111, "Connection refused"), "refused the connection"),
            (NoRouteError(101, "x"), "cannot be reached: there is no route to its network"),
            (DNSLookupError("x"), "cannot be found: its name does not resolve"),
        ):
            attempt = Attempt(POP3, route=routeTo(FIRST))
            attempt.refuse(error)
            self.assertIn(f", backend 192.0.2.99:110 {words}, in phase connect, ", attempt.log[0])
        attempt = Attempt(POP3, route=routeTo(FIRST))
        attempt.accept()
        attempt.transport.lose(ConnectionLost("[Errno 104] Connection reset by peer"))
        self.assertIn(" reset the connection, in phase backend-login, ", attempt.log[0])

    def test_served(self) -> None:
        """If the second backend serves the client, the failure of the first is one warning."""
        attempt = self.attempt()
        attempt.refuse()
        attempt.accept()
        attempt.says(GREETING, OK, LOGGED_IN)
        self.successResultOf(attempt.result)
        self.assertEqual(attempt.levels, ["warn"])
        self.assertIn(f"backend {NAMES[0]} refused the connection, ", attempt.log[0])

    def test_judged(self) -> None:
        """The same if the second backend decides on the password and refuses it."""
        attempt = self.attempt(judged=False)
        attempt.refuse()
        attempt.accept()
        attempt.says(GREETING, OK, b"-ERR no\r\n")
        self.assertIs(self.successResultOf(attempt.result).trouble, Trouble.DENIED)
        self.assertEqual(attempt.levels, ["warn"])

    def test_notServed(self) -> None:
        """If no backend serves the client, each failure is an error with its backend and phase."""
        attempt = self.attempt()
        attempt.refuse()
        attempt.accept()
        attempt.says(b"-ERR full\r\n")
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.TEMPORARY))
        self.assertEqual(attempt.levels, ["error", "error"])
        self.assertIn(f"backend {NAMES[0]} refused the connection, in phase connect, ", attempt.log[0])
        self.assertIn(f"backend {NAMES[1]} greets with -ERR, in phase backend-login, ", attempt.log[1])

    def test_refused(self) -> None:
        """A backend that refuses a login that the service accepted is an error."""
        attempt = loggedIn(route=routeTo(FIRST, SECOND))
        attempt.says(b"-ERR no\r\n")
        self.assertEqual(attempt.levels, ["error"])

    def test_clientLeft(self) -> None:
        """If the client leaves meanwhile, the failures so far are errors: the client was not served."""
        attempt = self.attempt()
        attempt.refuse()
        attempt.accept()
        attempt.result.addErrback(lambda failure: None)
        attempt.result.cancel()
        self.assertEqual(attempt.levels, ["error"])

    def test_quoted(self) -> None:
        """The backend's words come last and escaped."""
        attempt = Attempt(POP3, route=routeTo(FIRST, user=b'j"oe'))
        attempt.accept()
        attempt.says(b'-ERR "x", session 1, user "eve\r\n')
        self.assertTrue(
            attempt.log[0].endswith(', session -, user "j\\"oe", text "-ERR \\"x\\", session 1, user \\"eve"'),
            attempt.log[0],
        )


class ServiceTests(AuthenticatorTestCase):
    """Two authentication services."""

    def levels(self) -> list[str]:
        """The level of each event."""
        return [event["log_level"].name for event in self.events]

    def test_served(self) -> None:
        """If the second service answers, the failure of the first is a warning with the time for which it rests."""
        judged = self.authenticate()
        self.agents[0].fail(ResponseFailed([]))
        self.assertEqual(self.levels(), [])
        self.agents[1].answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)
        self.assertEqual(self.levels(), ["warn"])
        (line,) = self.log()
        self.assertIn(", skipping it for 10 s, protocol imap, server -, session -, user ", line)

    def test_back(self) -> None:
        """
        The log says once that a service is down, and once that it answers again, with the time and the failed logins.
        Failures in between are at level info.
        """
        for answers in (1, 1, 1, 0, 0):
            self.authenticate()
            if answers:
                self.agents[0].fail(ResponseFailed([]))
                self.agents[1].answer(*ACCEPTED)
                self.clock.advance(REST)
            else:
                self.agents[0].answer(*ACCEPTED)
        self.assertEqual(self.levels(), ["warn", "info", "info"])
        self.assertEqual(
            self.said(),
            [
                ("error", "auth service http://one:9000/auth is down: it failed []"),
                ("notice", "auth service http://one:9000/auth answers again, after 30 s and 3 failed logins"),
            ],
        )

    def test_unserved(self) -> None:
        """Failures in a known outage are at level info although the clients were not served."""
        for _ in range(3):
            self.authenticate()
            for agent in self.agents:
                agent.answer(code=500)
            self.clock.advance(REST)
        self.assertEqual(self.levels(), ["error", "error", "info", "info", "info", "info"])
        self.assertEqual([level for level, _ in self.said()], ["error", "error"])

    def test_flapping(self) -> None:
        """Of outages that follow each other within a minute, the first is logged. Failures in the others are errors."""
        for _ in range(3):
            self.authenticate()
            self.agents[0].fail(ResponseFailed([]))
            self.agents[1].answer(*ACCEPTED)
            self.clock.advance(REST)
            self.authenticate()
            self.agents[0].answer(*ACCEPTED)
        self.assertEqual(self.levels(), ["warn", "warn", "warn"])
        self.assertEqual([level for level, _ in self.said()], ["error", "notice"])
        self.clock.advance(PERIOD)
        self.authenticate()
        self.agents[0].fail(ResponseFailed([]))
        self.assertEqual([level for level, _ in self.said()], ["error"])

    def test_notServed(self) -> None:
        """If no service answers, each failure is an error with client, user, server and session."""
        judged = self.authenticate()
        self.agents[0].answer(code=500)
        self.agents[1].answer(code=502)
        self.assertEqual(self.successResultOf(judged), Denial(Trouble.TEMPORARY))
        self.assertEqual(self.levels(), ["error", "error"])
        first, second = self.log()
        reason = "failed while reading the response: 500 without Auth-Status, skipping it for 10 s"
        self.assertEqual(first, failed(reason))
        self.assertIn("http server https://two:443/auth failed while reading the response: 502 ", second)

    def test_clientLeft(self) -> None:
        """If the client leaves meanwhile, it is an error as well."""
        judged = self.authenticate()
        self.agents[0].fail(ResponseFailed([]))
        judged.addErrback(lambda failure: None)
        judged.cancel()
        self.assertEqual(self.levels(), ["error"])

    def test_refused(self) -> None:
        """A refusal by the second service is an answer: the client was served."""
        self.authenticate(REQUEST)
        self.agents[0].fail(ResponseFailed([]))
        self.agents[1].answer("Auth-Status: no")
        self.assertEqual(self.levels(), ["warn"])
