"""
Requests that are put together at random, against the whole admin server.
"""

from __future__ import annotations

import json
import random
from typing import Any

from twisted.logger import LogLevel, capturedLogs

from mailgate.keeper.admin.callers import PENALTY
from mailgate.keeper.admin.endpoints import ENDPOINTS
from mailgate.test.support.admincase import AdminCase
from mailgate.test.support.adminsite import TOKENS, Connection, answers, request
from mailgate.watch.tokens import Level

WORDS = [
    "",
    "joe",
    "*",
    "%2a",
    "%",
    "%zz",
    "%00",
    "%ff",
    "a/b",
    "..",
    "1",
    "-1",
    "1e99",
    "nan",
    "\u202e",
    "<b>",
    "'\"",
    300 * "a",
]
VALUES: list[Any] = [None, True, 0, -1, 1.5, 1e308, 10**30, "", "joe", "*", "a\nb", "\ud800", [], {}, [[]], "x" * 2000]


class FuzzTests(AdminCase):
    """Random requests."""

    def setUp(self) -> None:
        super().setUp()
        self.random = random.Random(10)

    def pick(self, *choices: Any) -> Any:
        return self.random.choice(choices)

    def path(self) -> str:
        path = self.random.choice(ENDPOINTS).path
        for name in ("id", "user", "address"):
            path = path.replace(f"{{{name}}}", self.random.choice(WORDS).encode("unicode_escape").decode())
        if self.pick(True, False, False):
            place = self.random.randrange(len(path))
            path = path[:place] + self.pick("/", "%2f", "?", "//", "a", ";", "#") + path[place:]
        if self.pick(True, False):
            names = [*["user", "address", "older", "limit", "cursor", "usr", "id"], ""]
            pairs = [
                f"{self.random.choice(names)}={self.random.choice(WORDS)}" for _ in range(self.random.randint(1, 3))
            ]
            path += "?" + "&".join(pairs)
        return path.encode("ascii", "backslashreplace").decode().replace(" ", "+")

    def body(self) -> bytes:
        names = ["user", "reason", "over", "dry_run", "all", "block", "id", "older", "usr"]
        value = {self.random.choice(names): self.random.choice(VALUES) for _ in range(self.random.randint(0, 4))}
        raw = json.dumps(self.pick(value, value, value, [value], "x")).encode()
        if raw and self.pick(True, False, False, False):
            place = self.random.randrange(len(raw))
            raw = raw[:place] + self.random.randbytes(3) + raw[place:]
        return raw

    def fields(self, token: str) -> list[str]:
        found = [f"Content-Type: {self.pick(*4 * ['application/json'], 'text/plain', '')}"]
        optional = (
            f"Origin: {self.pick('http://localhost', 'null', 'http://evil.example')}",
            f"Sec-Fetch-Site: {self.pick('same-origin', 'cross-site')}",
            f"Sec-Fetch-Mode: {self.pick('cors', 'no-cors')}",
            "Upgrade: websocket",
            "Cookie: a=b",
            "X-Forwarded-For: 127.0.0.1",
            "X-HTTP-Method-Override: DELETE",
        )
        found += [each for each in optional if self.random.random() < 0.06]
        if token:
            found.append(f"Authorization: Bearer {token}")
        return found

    def test_requests(self) -> None:
        """
        Every answer is JSON or metrics with all security headers and a status of the documentation. Nothing is called
        for a client without the level for it, no answer allows another origin, and no failure is logged.
        """
        statuses: dict[int, int] = {}
        needed = {
            "listSessions": Level.OPERATE,
            "countSessions": Level.OPERATE,
            "kick": Level.OPERATE,
            "explain": Level.OPERATE,
            "showUser": Level.OPERATE,
            "stats": Level.READ,
        }
        with capturedLogs() as events:
            for _ in range(3000):
                word = self.pick("", "wrong", *TOKENS)
                isLocal = self.random.random() < 0.2
                connection = Connection(self.factory, isLocal)
                method = self.pick("GET", "GET", "POST", "POST", "DELETE", "PUT", "OPTIONS", "TRACE", "get")
                host = self.pick(*9 * ["localhost"], "127.0.0.1:9143", "evil.example")
                body = self.body() if method in ("POST", "DELETE", "PUT") else b""
                connection.send(
                    request(method, self.path(), *self.fields(TOKENS.get(word, word)), body=body, host=host)
                )
                self.clock.advance(PENALTY)
                found = answers(connection.transport.value())
                connection.lose()
                self.assertEqual(len(found), 1)
                (answered,) = found
                statuses[answered.status] = statuses.get(answered.status, 0) + 1
                self.assertEqual(answered.fields["x-content-type-options"], "nosniff")
                self.assertFalse(
                    [each for each in answered.fields if each.startswith(("access-control", "set-cookie"))]
                )
                kind = answered.fields["content-type"]
                if kind.startswith(("text/html", "text/javascript", "text/css", "image/")):
                    self.assertEqual((method, answered.status), ("GET", 200))
                    self.assertIn("default-src 'none'", answered.fields["content-security-policy"])
                else:
                    self.assertTrue(answered.body.isascii())
                    if kind not in ("application/openmetrics-text", "text/event-stream"):
                        self.assertIsInstance(answered.value, dict)
                level = Level.ADMIN if isLocal else Level[word.upper()] if word in TOKENS else Level.NONE
                for name, *_ in self.stands.calls:
                    self.assertGreaterEqual(level, needed.get(name, Level.READ))
                    self.assertEqual(answered.status, 200)
                for _ in self.operator.orders:
                    self.assertEqual((level, answered.status), (Level.ADMIN, 200))
                self.stands.calls.clear()
                self.operator.orders.clear()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual([event for event in events if event["log_level"] is LogLevel.critical], [])
        self.assertLessEqual(set(statuses), {200, 400, 401, 403, 404, 405, 415, 421, 503})
        for status in (200, 400, 401, 403, 404, 405, 415, 421):
            self.assertIn(status, statuses)
        self.assertEqual(self.clock.getDelayedCalls(), [])
