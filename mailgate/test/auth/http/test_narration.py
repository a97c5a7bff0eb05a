"""
Tests for L{mailgate.auth.http.narration}: what the log shows of questions and answers, and C{auth_http_traceparent}.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.exchange import question
from mailgate.auth.http.headers import PreparedHeaders
from mailgate.auth.http.narration import logAnswer, logQuestion, traced
from mailgate.auth.http.services import tracesQuestions
from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.log.connection import ANSWERED, ASKED
from mailgate.login import Denial, Trouble
from mailgate.test.support.httpagent import byName
from mailgate.test.support.httpauthenticator import ACCEPTED, REQUEST, ROUTE, AuthenticatorTestCase

TRACE = "0af7651916cd43dd8448eb211c80319c"
URL = "http://one:9000/auth"


class ShownTests(SynchronousTestCase):
    """The lines about headers."""

    def setUp(self) -> None:
        self.steps: list[tuple[str, dict[str, Any]]] = []
        self.request = evolve(REQUEST, step=lambda format, **fields: self.steps.append((format, fields)))

    def asked(self, *fields: tuple[bytes, bytes]) -> str:
        logQuestion(self.request, URL, PreparedHeaders.of(fields))
        format, found = self.steps.pop()
        self.assertEqual((format, found["url"]), (ASKED, URL))
        return str(found["headers"])

    def answered(self, *fields: str) -> str:
        pairs = [field.encode().split(b": ", 1) for field in fields]
        logAnswer(self.request, URL, byName(pairs), Denial(Trouble.DENIED), 1.5)
        format, found = self.steps.pop()
        self.assertEqual((format, found["verdict"], found["seconds"]), (ANSWERED, "refuses the login", 1.5))
        return str(found["headers"])

    def test_question(self) -> None:
        """Values are shown of listed headers alone, in any case."""
        self.assertEqual(
            self.asked(
                *((b"Auth-Method", b"plain"), (b"AUTH-PROTOCOL", b"imap"), (b"Auth-User", b"joe")),
                *((b"Auth-Pass", b"x"), (b"Auth-Salt", b"<7@mx>"), (b"Cookie", b"c"), (b"Auth-Key", b"k")),
            ),
            "Auth-Method: plain, AUTH-PROTOCOL: imap, Auth-User: ***, Auth-Pass: ***, Auth-Salt: ***, Cookie: ***,"
            " Auth-Key: ***",
        )

    def test_answer(self) -> None:
        """The same for the answer."""
        self.assertEqual(
            self.answered("Auth-Status: no", "Auth-Wait: 3", "Auth-Pass: master", "Auth-User: x", "Set-Cookie: c"),
            "auth-status: no, auth-wait: 3, auth-pass: ***, auth-user: ***, set-cookie: ***",
        )

    def test_secret(self) -> None:
        """A value that repeats the client's secret is not shown, nor one with its base64."""
        shown = self.answered("Auth-Status: not sesame", "Auth-Server: c2VzYW1l", "Auth-Port: 143")
        self.assertEqual(shown, "auth-status: ***, auth-server: ***, auth-port: 143")

    def test_escaped(self) -> None:
        """Texts from the network are escaped and cut, and there are at most 32 headers."""
        self.assertIn('auth-status: x\\", session 1\\x1b', self.answered('Auth-Status: x", session 1\x1b'))
        self.assertIn(f"{'x' * 256}...", self.answered("Auth-Status: " + "x" * 300))
        many = self.answered(*(f"X-{number}: y" for number in range(40)))
        self.assertEqual((many.count("***"), many[-5:]), (32, ", ..."))

    def test_off(self) -> None:
        """Without debug, nothing is built."""
        prepared: Any = object()
        logQuestion(REQUEST, URL, prepared)
        logAnswer(REQUEST, URL, prepared, None, 0.0)


class TraceTests(AuthenticatorTestCase):
    """C{auth_http_traceparent}."""

    def setUp(self):
        super().setUp()
        self.spans = iter(range(1, 100))
        self.authenticator = self.traced(True)
        self.request = evolve(REQUEST, trace=TRACE)

    def traced(self, isOn):
        authenticator = self.make(self.agents, traceparent=isOn)
        authenticator.randomness = lambda n: next(self.spans).to_bytes(n, "big")
        return authenticator

    def parents(self, agent):
        """Return the headers traceparent of the questions to C{agent}."""
        blocks = [block.decode() for _, _, block, _ in agent.asked]
        for block in blocks:
            self.assertLessEqual(block.count("traceparent"), 1)
            self.assertTrue(block.endswith("\r\n"))
        return [block.partition("\r\ntraceparent: ")[2].partition("\r\n")[0] for block in blocks]

    def test_question(self):
        """Each question has the trace id of the connection and a span of its own."""
        one, two = self.agents
        self.authenticate(self.request)
        one.answer(code=500)
        two.answer("Auth-Status: WAIT", "Auth-Wait: 20")
        self.clock.advance(20)
        one.answer(*ACCEPTED)
        self.authenticate(self.request)
        expected = [f"00-{TRACE}-{span:016x}-01" for span in (1, 3, 4)]
        self.assertEqual(self.parents(one), expected)
        self.assertEqual(self.parents(two), [f"00-{TRACE}-{2:016x}-01"])
        self.assertRegex(expected[0], r"\A00-[0-9a-f]{32}-[0-9a-f]{16}-01\Z")

    def test_off(self):
        """Without the directive, or without a trace id, there is no header."""
        self.authenticate(REQUEST)
        self.authenticator = self.traced(False)
        self.authenticate(self.request)
        self.assertEqual(self.parents(self.agents[0]), ["", ""])
        self.assertEqual(self.agents[0].asked[0][2], question(REQUEST).block)

    def test_spelling(self):
        """The header comes last, and other agents see it as well."""
        headers = traced(question(self.request), TRACE, lambda n: bytes(n))
        self.assertEqual(headers.getRawHeaders("traceparent"), [f"00-{TRACE}-{'0' * 16}-01"])
        self.assertTrue(headers.block.endswith(b"-01\r\n"))
        self.assertEqual(question(self.request).getRawHeaders("traceparent"), None)

    def test_log(self):
        """Lines about logins have the trace id."""
        judged = self.authenticate(self.request)
        for agent in self.agents:
            agent.answer(code=500)
        self.successResultOf(judged)
        for line in self.log():
            self.assertIn(f", session -, trace {TRACE}, user ", line)

    def test_route(self):
        """The answer is the same."""
        judged = self.authenticate(self.request)
        self.agents[0].answer(*ACCEPTED)
        self.assertEqual(self.successResultOf(judged), ROUTE)


class DirectiveTests(SynchronousTestCase):
    """The directive."""

    def read(self, *lines: str) -> bool:
        text = "\n".join(("[server x]", "protocol = imap", "listen = 127.0.0.1:143", *lines))
        (server,) = parse(f"{text}\n").servers
        return tracesQuestions(server)

    def test_values(self) -> None:
        """It is off by default, and has no effect without auth_http."""
        self.assertFalse(self.read("auth_http = a:1"))
        self.assertTrue(self.read("auth_http = a:1", "auth_http_traceparent = on"))
        error = self.assertRaises(ConfigurationError, self.read, "auth_http = a:1", "auth_http_traceparent = yes")
        self.assertIn("auth_http_traceparent", str(error))
