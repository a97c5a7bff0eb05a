"""
Tests for L{mailgate.keeper.admin.site}: who may ask what, the answers to mistakes, and the log.
"""

from __future__ import annotations

import gc
import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from mailgate.keeper.admin.callers import PENALTY
from mailgate.keeper.admin.endpoints import ENDPOINTS, Endpoint
from mailgate.keeper.admin.site import MOST_QUESTIONS, WITHIN, adminSite
from mailgate.process.answer import Answer
from mailgate.system.privileges import ProcessSettings, User
from mailgate.test.support.admincase import AdminCase, writeTokens
from mailgate.test.support.adminsite import TOKENS, adminSettings, request
from mailgate.watch.settings import AdminAddress
from mailgate.watch.tokens import Level


def _path(path: str) -> str:
    given = {"id": "a.1", "user": "joe", "address": "10.0.0.1:143", "name": "page.css"}
    return path.format(**given) + ("?span=10m" if path.endswith("/history") else "")


def _body(endpoint: Endpoint) -> bytes:
    if endpoint.path.endswith(("/hold", "/blocks")) and endpoint.method == "POST":
        return b'{"for": 60}' if endpoint.path.endswith("/hold") else b'{"for": 60, "thing": "joe"}'
    if endpoint.path.endswith("/move"):
        return b'{"backend": "10.0.0.2:143"}'
    return b'{"user": "joe"}' if endpoint.path.endswith(("kick", "explain")) else b""


class LevelTests(AdminCase):
    """Levels."""

    def test_table(self) -> None:
        """Each endpoint is open to its level and those above, and closed to those below."""
        for endpoint in ENDPOINTS:
            for word in TOKENS:
                answered = self.ask(endpoint.method, _path(endpoint.path), token=word, body=_body(endpoint))
                isAllowed = Level[word.upper()] >= endpoint.level
                self.assertEqual(answered.status != 403, isAllowed, f"{endpoint.method} {endpoint.path} {word}")
                if not isAllowed:
                    self.assertEqual(answered.detail, f"this needs the level {endpoint.level.word}; you have {word}")

    def test_local(self) -> None:
        """A process of the gateway's user at the unix socket may do everything, and needs no token."""
        for endpoint in ENDPOINTS:
            answered = self.ask(endpoint.method, _path(endpoint.path), body=_body(endpoint))
            # There is no such block.
            ended = 404 if "blocks/{id}" in endpoint.path else 200
            self.assertIn(answered.status, (ended, 503), endpoint.path)

    def test_withoutToken(self) -> None:
        """Over TCP all but health needs a token. No token is accepted elsewhere than in Authorization: Bearer."""
        for endpoint in ENDPOINTS:
            fields = () if endpoint.method == "GET" else ("Content-Type: application/json",)
            connection = self.connect(isLocal=False)
            answered = connection.ask(endpoint.method, _path(endpoint.path), *fields, body=_body(endpoint))
            self.assertEqual(answered.status == 401, endpoint.level is not Level.NONE, endpoint.path)
            if answered.status == 401:
                scheme = 'Basic realm="mailgate", charset="UTF-8"' if endpoint.isBasic else 'Bearer realm="mailgate"'
                self.assertEqual(answered.fields["www-authenticate"], scheme)
        self.assertEqual(self.stands.calls, [])
        self.assertEqual(self.operator.orders, [])
        token = TOKENS["admin"]
        for fields, path in (
            ((f"Cookie: token={token}",), "/api/1/"),
            ((f"X-Api-Key: {token}",), "/api/1/"),
            ((), f"/api/1/?token={token}"),
            ((), f"/api/1/?access_token={token}"),
        ):
            self.assertEqual(self.connect(isLocal=False).ask("GET", path, *fields).status, 401)

    def test_wrongToken(self) -> None:
        """The answer to a wrong token is late, ends the connection, and is in the log without the token."""
        for wrong in (
            "Bearer wrong-0123456789",
            f"Bearer {TOKENS['admin'][:-1]}",
            f"Bearer {TOKENS['admin']}x",
            f"Basic {TOKENS['admin']}",
            TOKENS["admin"],
            "Bearer",
            "",
        ):
            connection = self.connect(isLocal=False)
            with capturedLogs() as events:
                connection.send(request("GET", "/api/1/", f"Authorization: {wrong}"))
            (event,) = events
            self.assertEqual(event["log_level"], LogLevel.warn)
            self.assertEqual(
                event["log_format"].format(**event), "admin request refused: wrong token; client 192.0.2.7:40000"
            )
            self.assertEqual(connection.take(), [])
            self.clock.advance(PENALTY)
            (answered,) = connection.take()
            self.assertEqual((answered.status, answered.detail), (401, "the token is wrong"))
            self.assertTrue(connection.isClosed)

    def test_bearer(self) -> None:
        """The word Bearer is in any case."""
        connection = self.connect(isLocal=False)
        self.assertEqual(connection.ask("GET", "/api/1/", f"Authorization: bEARER {TOKENS['read']}").status, 200)

    def test_tokensChange(self) -> None:
        """The file of tokens is read again when it changes. While it is not valid, no token is, and the log says so."""
        self.assertEqual(self.ask("GET", "/api/1/", token="read").status, 200)
        writeTokens(self.tokenFile, ["other read 98765432109876543210"])
        self.assertEqual(self.refusal(), 401)
        writeTokens(self.tokenFile)
        self.assertEqual(self.ask("GET", "/api/1/", token="read").status, 200)
        with capturedLogs() as events:
            writeTokens(self.tokenFile, mode=0o644)
            self.assertEqual(self.refusal(), 401)
            self.assertEqual(self.refusal(), 401)
        errors = [event for event in events if event["log_level"] is LogLevel.error]
        self.assertEqual(len(errors), 1)
        self.assertIn("every user on this host can open it", errors[0]["reason"])
        writeTokens(self.tokenFile)
        self.assertEqual(self.ask("GET", "/api/1/", token="read").status, 200)

    def refusal(self) -> int:
        connection = self.connect(isLocal=False)
        connection.send(request("GET", "/api/1/", f"Authorization: Bearer {TOKENS['read']}"))
        self.clock.advance(PENALTY)
        return connection.take()[0].status

    def test_otherUser(self) -> None:
        """A process of another user at the unix socket has no access."""
        self.desk._callers._owners = frozenset((1 << 20,))
        with capturedLogs() as events:
            answered = self.ask("GET", "/api/1/")
        self.assertEqual(answered.status, 403)
        self.assertIn("only root and the user of the gateway", events[0]["log_format"])

    def test_owners(self) -> None:
        """
        Root and the gateway's user have access, also if this process is still root when the server is made. The
        directive counts for root alone: others cannot become that user.
        """
        settings = adminSettings().having(ProcessSettings(User("mail", 4711, 4712)))
        for uid, expected in ((0, {0, 4711}), (12, {0, 12})):
            self.patch(os, "geteuid", lambda uid=uid: uid)
            site: Any = adminSite(self.keeper, settings, self.clock)
            self.assertEqual(site.answer.__self__._callers._owners, expected)


class BrowserTests(AdminCase):
    """Requests of web pages are refused, at unix sockets too: C{ssh -L} may put one behind a browser."""

    def both(
        self, status: int, *fields: str, method: str = "GET", path: str = "/api/1/", host: str = "localhost"
    ) -> None:
        """The same request has this status at a unix socket and over TCP."""
        for token in (None, "admin"):
            answered = self.ask(method, path, *fields, token=token, host=host)
            self.assertEqual(answered.status, status, f"{fields} {host} {token}")
            self.assertFalse([name for name in answered.fields if name.startswith("access-control-")])
            self.assertNotIn("set-cookie", answered.fields)

    def test_host(self) -> None:
        """Host must be a name of this host, the listening address, or in admin_host: DNS rebinding needs another."""
        for host in ("localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:9143", "[::1]", "[::1]:9143"):
            self.both(200, host=host)
        for host in (
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "[::2]",
            "a@b",
            "",
            "localhost:x",
        ):
            self.both(421, host=host)
        self.assertEqual(self.stands.calls, [])

    def test_adminHost(self) -> None:
        """admin_host adds names, for all ports or for one."""
        self.factory = self.make(hosts=("g1.example", "g2.example:9143"))
        self.both(200, host="G1.example:7")
        self.both(200, host="g2.example:9143")
        self.both(421, host="g2.example")
        self.both(421, host="g2.example:91")

    def test_wildcard(self) -> None:
        """At a wildcard address the address that the client has connected to is known, but no other."""
        self.factory = self.make(admin=AdminAddress(None, "0.0.0.0", 9143, True))
        for host, status in (("192.0.2.99:9143", 200), ("192.0.2.98", 421), ("0.0.0.0", 421)):
            connection = self.connect(isLocal=False, host="192.0.2.99")
            answered = connection.ask("GET", "/healthz", host=host)
            self.assertEqual(answered.status, status)

    def test_origin(self) -> None:
        """An Origin must be that of the server itself."""
        self.both(200, "Origin: http://localhost")
        self.both(200, "Origin: https://localhost:9143", host="localhost:9143")
        for origin in (
            "null",
            "http://evil.example",
            "http://localhost:1",
            "file://localhost",
            "localhost",
            "http://localhost/",
        ):
            self.both(403, f"Origin: {origin}")

    def test_fetch(self) -> None:
        """Browsers say where a request comes from."""
        for value in ("same-origin", "none"):
            self.both(200, f"Sec-Fetch-Site: {value}")
        for value in ("cross-site", "same-site", "Same-Origin", "x"):
            self.both(403, f"Sec-Fetch-Site: {value}")
        for value, status in (
            ("cors", 200),
            ("same-origin", 200),
            ("navigate", 200),
            ("no-cors", 403),
            ("websocket", 403),
        ):
            self.both(status, f"Sec-Fetch-Mode: {value}")

    def test_upgrade(self) -> None:
        """No other protocol follows."""
        self.both(400, "Connection: Upgrade", "Upgrade: websocket")
        self.both(400, "Upgrade: h2c")

    def test_preflight(self) -> None:
        """The question of a browser whether a page may send JSON is answered with no."""
        self.both(
            405,
            "Access-Control-Request-Method: POST",
            "Access-Control-Request-Headers: content-type",
            method="OPTIONS",
            path="/api/1/kick",
        )

    def test_contentType(self) -> None:
        """A change needs JSON, which a page cannot send without that question."""
        for kind in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
            "application/json-patch+json",
            "text/plain; application/json",
        ):
            for method, path in (("POST", "/api/1/kick"), ("DELETE", "/api/1/sessions/a.1"), ("POST", "/api/1/reload")):
                self.both(415, f"Content-Type: {kind}", method=method, path=path)
        connection = self.connect()
        self.assertEqual(connection.ask("POST", "/api/1/reload").status, 415)
        self.assertEqual(self.stands.calls, [])
        self.assertEqual(self.operator.orders, [])
        self.both(200, "Content-Type: Application/JSON; charset=utf-8", method="POST", path="/api/1/reload")


class MistakeTests(AdminCase):
    """Requests that are not right have an answer in the form of RFC 9457."""

    def assertProblem(self, status: int, detail: str, method: str, path: str, body: bytes = b"") -> None:
        answered = self.ask(method, path, body=body)
        self.assertEqual((answered.status, answered.detail), (status, detail))
        self.assertEqual(answered.fields["content-type"], "application/problem+json")
        self.assertEqual(answered.value["type"], "about:blank")
        self.assertEqual(answered.value["status"], status)

    def test_path(self) -> None:
        """The nearest known path is named. Nothing of the path is taken for HTML or for a file."""
        self.assertProblem(404, "there is no such path; did you mean /api/1/stats?", "GET", "/api/1/stat")
        for path in (
            "/api",
            "/api/1",
            "/api/2/",
            "//api/1/",
            "/api/1//",
            "/api/1/sessions/",
            "/../etc/passwd",
            "/static/",
            "/static/x",
            "/static/..%2Frender.py",
            "/static/.%2E",
            "/static/render.py",
            "/plain/",
        ):
            self.assertEqual(self.ask("GET", path).status, 404, path)
        self.assertEqual(self.ask("GET", "http://localhost/api/1/").status, 400)
        answered = self.ask("GET", "/<script>alert(1)</script>")
        self.assertEqual(answered.status, 404)
        self.assertNotIn(b"<", answered.body)

    def test_method(self) -> None:
        """Methods that a path lacks, OPTIONS and TRACE among them, are refused."""
        for method, path, allowed in (
            ("POST", "/api/1/stats", "GET, HEAD"),
            ("PUT", "/api/1/sessions/a.1", "GET, HEAD, DELETE"),
            ("GET", "/api/1/kick", "POST"),
            ("HEAD", "/api/1/kick", "POST"),
            ("OPTIONS", "/api/1/kick", "POST"),
            ("TRACE", "/api/1/stats", "GET, HEAD"),
            ("get", "/api/1/stats", "GET, HEAD"),
        ):
            answered = self.ask(method, path)
            self.assertEqual((answered.status, answered.fields["allow"]), (405, allowed), f"{method} {path}")

    def test_query(self) -> None:
        """Parameters that are unknown, repeated or not valid are refused, with the nearest known name."""
        sessions = "/api/1/sessions"
        for query, detail in (
            ("usr=joe", "usr is no known parameter; did you mean user?"),
            ("user=a&user=b", "user is repeated"),
            ("user", "the query must have the form NAME=VALUE&NAME=VALUE"),
            ("user=", "user must be a text that is not empty"),
            ("user=%ff", "user is not UTF-8"),
            ("user=%4", "user has a percent sign without two hexadecimal digits behind it"),
            ("user=%00", "user contains a null character"),
            ("user=" + 1025 * "a", "user is longer than 1024 characters"),
            ("limit=-1", "limit must be a whole number from 1 to 1000"),
            ("limit=0", "limit must be a whole number from 1 to 1000"),
            ("limit=1e3", "limit must be a whole number from 1 to 1000"),
            ("limit=1001", "limit must be a whole number from 1 to 1000"),
            ("older=nan", "older must be a number from 0 to 1000000000"),
            ("&".join(f"a{number}=1" for number in range(33)), "the query has too many parameters"),
        ):
            self.assertProblem(400, detail, "GET", f"{sessions}?{query}")
        self.assertEqual(self.ask("GET", "/api/1/stats?x=1").status, 400)
        self.assertEqual(self.ask("GET", "/healthz?x=1").status, 400)
        self.assertEqual(self.stands.calls, [])

    def test_body(self) -> None:
        """So is a body that is not one JSON object with known members."""
        for body, detail in (
            (b"[1]", "the body must be a JSON object"),
            (b'"a"', "the body must be a JSON object"),
            (b"{", "the body is not valid JSON"),
            (b"{} {}", "the body is not valid JSON"),
            (b'{"user": "\xff"}', "the body is not valid JSON"),
            (b'{"user": "a", "user": "b"}', "the body is not valid JSON"),
            (b'{"over": NaN}', "the body is not valid JSON"),
            (40000 * b"[", "the body is not valid JSON"),
            (b'{"over": ' + 5000 * b"9" + b"}", "the body is not valid JSON"),
            (b'{"usr": "a"}', "usr is no known member; did you mean user?"),
            (b'{"user": 1}', "user must be a text that is not empty"),
            (b'{"user": "\\ud800"}', "user has half of a surrogate pair"),
            (b'{"user": "a", "over": "1"}', "over must be a number from 0 to 3600"),
            (b'{"user": "a", "over": true}', "over must be a number from 0 to 3600"),
            (b'{"user": "a", "over": 1e9}', "over must be a number from 0 to 3600"),
            (b'{"user": "a", "dry_run": 1}', "dry_run must be true or false"),
            (b'{"user": "a", "block": 1e9}', "block must be a number from 0 to 31622400"),
            (b'{"user": "a", "hold": 86401}', "hold must be a number from 0 to 86400"),
        ):
            self.assertProblem(400, detail, "POST", "/api/1/kick", body)
        self.assertProblem(400, "parameters belong into the body", "POST", "/api/1/kick?user=joe")
        self.assertEqual(self.stands.calls, [])

    def test_crash(self) -> None:
        """A defect is logged once; the answer says nothing about it."""
        self.stands.results["stats"] = RuntimeError("secret")
        answered = self.ask("GET", "/api/1/stats")
        self.assertEqual((answered.status, answered.detail), (500, "the error log has the reason"))
        self.assertNotIn(b"secret", answered.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.stands.results["stats"] = {"seconds": float("nan")}
        self.assertEqual(self.ask("GET", "/api/1/stats").status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_timeout(self) -> None:
        """An answer that does not come has one in its place."""
        self.stands.results["stats"] = Deferred()
        connection = self.connect()
        connection.send(request("GET", "/api/1/stats"))
        self.clock.advance(WITHIN)
        (answered,) = connection.take()
        self.assertEqual((answered.status, answered.detail), (504, "the answer took too long"))

    def test_tooMany(self) -> None:
        """So many requests ask the processes at a time; further ones have the status 503, and metrics have not."""
        self.stands.results["listSessions"] = waiting = Deferred[object]()
        connections = [self.connect() for _ in range(MOST_QUESTIONS)]
        for connection in connections:
            connection.send(request("GET", "/api/1/sessions"))
        answered = self.ask("GET", "/api/1/sessions")
        self.assertEqual((answered.status, answered.fields["retry-after"]), (503, "1"))
        self.assertEqual(self.ask("GET", "/metrics").status, 200)
        waiting.callback({"sessions": []})
        self.clock.advance(WITHIN)
        self.stands.results["listSessions"] = {"sessions": []}
        self.assertEqual(self.ask("GET", "/api/1/sessions").status, 200)

    def test_oneAtATime(self) -> None:
        """One connection has one list at a time."""
        self.stands.results["listSessions"] = Deferred()
        connection = self.connect()
        connection.send(2 * request("GET", "/api/1/sessions"))
        self.assertEqual(len(self.stands.calls), 1)


class LogTests(AdminCase):
    """Who has ordered what is in the log, one line a change."""

    def lines(self, *arguments: object, **given: object) -> list[str]:
        with capturedLogs() as events:
            self.ask(*arguments, **given)  # type: ignore[arg-type]
        return [event["log_format"].format(**event) for event in events if event["log_level"] is LogLevel.info]

    def test_changes(self) -> None:
        """Each change has a line of the level notice with the caller, and what the caller has written is escaped."""
        pid = os.getpid()
        uid = os.geteuid()
        body = b'{"user": "j\\"oe\\n", "reason": "left\\u202e"}'
        self.assertEqual(
            self.lines("POST", "/api/1/kick", body=body),
            [
                f"admin request POST /api/1/kick by uid {uid}, pid {pid}: status 200,"
                ' user "j\\"oe\\n", reason "left\\u202e"'
            ],
        )
        self.assertEqual(
            self.lines("POST", "/api/1/backends/10.0.0.1%3A143/drain", token="admin"),
            [
                "admin request POST /api/1/backends/{address}/drain by token a, client 192.0.2.7:40000: status 200,"
                ' address "10.0.0.1:143"'
            ],
        )
        self.operator.answer = Answer(False, ("gateway.ini:1: wrong",))
        self.assertEqual(
            self.lines("POST", "/api/1/reload", token="admin"),
            ["admin request POST /api/1/reload by token a, client 192.0.2.7:40000: status 409"],
        )

    def test_others(self) -> None:
        """What changes nothing has no line."""
        self.assertEqual(self.lines("GET", "/api/1/sessions"), [])
        self.assertEqual(self.lines("POST", "/api/1/explain", body=b'{"user": "joe"}'), [])
        self.assertEqual(self.lines("POST", "/api/1/kick", body=b'{"user": "joe", "dry_run": true}'), [])

    def test_left(self) -> None:
        """A change goes on, and is logged, when the client leaves."""
        self.operator.answer = waiting = Deferred[object]()
        connection = self.connect()
        connection.send(request("POST", "/api/1/reload", "Content-Type: application/json"))
        with capturedLogs() as events:
            connection.channel.requests[0].connectionLost(Failure(ConnectionDone()))
            waiting.callback(Answer(True))
        self.assertEqual([event["status"] for event in events], [200])
        # An error that no Deferred has handled is logged when it is collected.
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        connection.channel.requests.clear()

    def test_noToken(self) -> None:
        """No token gets into the log, whatever a client does with it."""
        token = TOKENS["admin"]
        with capturedLogs() as events:
            self.ask("GET", f"/{token}", f"X: {token}", token="admin")
            self.ask("GET", "/api/1/", f"Authorization: Basic {token}")
            connection = self.connect(isLocal=False)
            connection.send(request("GET", "/", f"Authorization: {token}"))
        self.assertNotIn(token, repr(events))


class MetricsPortTests(AdminCase):
    """The port for metrics."""

    def setUp(self) -> None:
        super().setUp()
        chosen = [each for each in ENDPOINTS if each.path in ("/metrics", "/healthz", "/readyz")]
        self.factory = self.make(chosen, isOpen=True)

    def test_metrics(self) -> None:
        """It serves metrics and health without a token, in the type that the scraper asks for."""
        connection = self.connect(isLocal=False)
        answered = connection.ask("GET", "/metrics", "Accept: application/openmetrics-text;version=1.0.0")
        self.assertEqual((answered.status, answered.body), (200, b"mailgate_users 3\n# EOF\n"))
        self.assertEqual(answered.fields["content-type"], "application/openmetrics-text")
        self.assertEqual(
            self.stands.calls, [("expose", {"mailgate_users": [[[], 3]]}, "application/openmetrics-text;version=1.0.0")]
        )
        self.assertEqual(connection.ask("GET", "/healthz").status, 200)

    def test_others(self) -> None:
        """It serves nothing else, not even with a token, and checks Host too."""
        for endpoint in ENDPOINTS:
            if endpoint.path not in ("/metrics", "/healthz", "/readyz"):
                answered = self.ask(endpoint.method, _path(endpoint.path), token="admin", body=_body(endpoint))
                self.assertEqual(answered.status, 404, endpoint.path)
        self.assertEqual(self.connect(isLocal=False).ask("GET", "/metrics", host="evil.example").status, 421)
        self.assertEqual(self.ask("POST", "/metrics").status, 405)
