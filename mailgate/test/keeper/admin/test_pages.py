"""
Tests for L{mailgate.keeper.admin.pages}: the page, its parts, and who gets what.
"""

from __future__ import annotations

import gzip
import os
import re
from base64 import b64encode
from typing import Any

from twisted.internet.defer import succeed

from mailgate.keeper.admin import pages
from mailgate.keeper.admin.callers import PENALTY
from mailgate.keeper.keeper import Collected
from mailgate.keeper.overview import MOST_ROWS
from mailgate.test.support.admincase import AdminCase
from mailgate.test.support.adminsite import TOKENS, Answered, request
from mailgate.test.support.processes import Processes

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)


def basic(password: str, user: str = "") -> str:
    """A header field with a password."""
    return f"Authorization: Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


class PagesTests(AdminCase):
    """What is answered."""

    def whole(self, path: str, *fields: str) -> Answered:
        """Ask for a document that is rendered in several turns of the event loop."""
        connection = self.connect()
        connection.send(request("GET", path, *fields))
        self.assertEqual(connection.take(), [])
        self.clock.advance(0)
        (answered,) = connection.take()
        return answered

    def test_compressed(self) -> None:
        """
        Files, and the page without data, are compressed for browsers that accept it. Documents with data are not, nor
        are other answers: their lengths would show what is in them.
        """
        self.keeper.stories.add([{"kind": "login", "at": "2026-11-28T10:02:11Z", "user": "mallory"}])
        field = "Accept-Encoding: gzip, deflate, br"
        for path in ("/static/page.css", "/static/uplot.js", "/"):
            plain, packed = (self.connect(isLocal=False).ask("GET", path, *each) for each in ((), (field,)))
            self.assertEqual(gzip.decompress(packed.body), plain.body, path)
            self.assertEqual((plain.fields.get("content-encoding"), packed.fields["content-encoding"]), (None, "gzip"))
            self.assertEqual((plain.fields["vary"], packed.fields["vary"]), ("Accept-Encoding",) * 2)
            self.assertEqual(packed.fields["content-length"], str(len(packed.body)))
            self.assertLess(len(packed.body), len(plain.body) / 2)
            self.assertEqual(plain.fields.get("etag") == packed.fields.get("etag"), path == "/")
        for path in ("/", "/plain"):
            answered = self.whole(path, field)
            self.assertIn(b"mallory", answered.body)
            self.assertNotIn("content-encoding", answered.fields)
        for path in ("/api/1/overview", "/api/1/events", "/static/none.js"):
            self.assertNotIn("content-encoding", self.ask("GET", path, field).fields, path)

    def test_oneAtATime(self) -> None:
        """Tables for several callers are rendered one after the other, also if some of them leave."""
        self.keeper.stories.add([{"kind": "login", "at": "2026-11-28T10:02:11Z", "user": "mallory"}])
        callers = [self.connect() for _ in range(4)]
        now = self.clock.seconds()
        for each in callers:
            each.send(request("GET", "/plain"))
            self.assertEqual([each.getTime() for each in self.clock.getDelayedCalls()].count(now), 1)
        for place in (0, 2):
            callers[place].lose()
        self.clock.advance(0)
        for place in (1, 3):
            self.assertIn(b"mallory", callers[place].take()[0].body)

    def test_headers(self) -> None:
        """Documents have their own policy, and all else that answers have."""
        for path in ("/", "/plain"):
            answered = self.ask("GET", path)
            self.assertEqual(answered.status, 200)
            self.assertEqual(answered.fields["content-type"], "text/html; charset=utf-8")
            self.assertEqual(answered.fields["content-security-policy"], POLICY)
            self.assertEqual(answered.fields["x-content-type-options"], "nosniff")
            self.assertEqual(answered.fields["referrer-policy"], "no-referrer")
            self.assertEqual(answered.fields["cross-origin-opener-policy"], "same-origin")
            self.assertEqual(answered.fields["cross-origin-resource-policy"], "same-origin")
            self.assertEqual(answered.fields["cache-control"], "no-store")

    def test_shell(self) -> None:
        """Without a token the page has no data; a process at the unix socket gets them."""
        story = {"kind": "login", "at": "2026-11-28T10:02:11Z", "user": "mallory<img>"}
        self.keeper.stories.add([story])
        shell = self.connect(isLocal=False).ask("GET", "/")
        self.assertEqual(shell.status, 200)
        self.assertNotIn(b"mallory", shell.body)
        self.assertIn(b"mallory&lt;img&gt;", self.whole("/").body)
        self.assertEqual(self.connect(isLocal=False).ask("HEAD", "/").status, 200)

    def test_shellWithHeader(self) -> None:
        """What a browser sends of itself does not matter for the page: it is neither checked nor used."""
        for field in (basic("wrong"), basic(TOKENS["admin"]), "Authorization: Bearer wrong"):
            connection = self.connect(isLocal=False)
            answered = connection.ask("GET", "/", field)
            self.assertEqual((answered.status, connection.isClosed), (200, False))

    def test_otherUser(self) -> None:
        """At the unix socket only the owners get it."""
        self.desk._callers._owners = frozenset((os.geteuid() + 1,))
        self.assertEqual(self.ask("GET", "/").status, 403)

    def test_parts(self) -> None:
        """The files of the page need no token, and are asked for again only if they have changed."""
        answered = self.connect(isLocal=False).ask("GET", "/static/page.css")
        self.assertEqual((answered.status, answered.fields["content-type"]), (200, "text/css; charset=utf-8"))
        self.assertEqual(answered.fields["cache-control"], "no-cache")
        self.assertRegex(answered.fields["etag"], r'\A"[0-9a-f]{32}"\Z')
        tag = f"If-None-Match: {answered.fields['etag']}"
        again = self.connect(isLocal=False).ask("GET", "/static/page.css", tag)
        self.assertEqual((again.status, again.body, again.fields["etag"]), (304, b"", answered.fields["etag"]))
        self.assertNotIn("content-length", again.fields)
        self.assertNotIn("transfer-encoding", again.fields)
        other = self.connect(isLocal=False).ask("GET", "/static/page.css", 'If-None-Match: "0"')
        self.assertEqual(other.status, 200)

    def test_plain(self) -> None:
        """The tables accept the token as the password of a browser. No other path does, and no change."""
        for field in (basic(TOKENS["read"]), basic(TOKENS["read"], "joe"), f"Authorization: Bearer {TOKENS['read']}"):
            self.assertEqual(self.connect(isLocal=False).ask("GET", "/plain", field).status, 200, field)
        for method, path in (
            ("GET", "/api/1/overview"),
            ("GET", "/api/1/events"),
            ("GET", "/api/1/stats"),
            ("POST", "/api/1/kick"),
            ("POST", "/api/1/reload"),
        ):
            connection = self.connect(isLocal=False)
            fields = [basic(TOKENS["admin"])]
            if method == "POST":
                fields.append("Content-Type: application/json")
            lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "Content-Length: 0", "", ""]
            connection.send("\r\n".join(lines).encode("ascii"))
            self.clock.advance(PENALTY)
            (answered,) = connection.take()
            self.assertEqual(answered.status, 401, path)
            self.assertIn("Bearer", answered.fields["www-authenticate"])
        self.assertEqual((self.operator.orders, self.stands.calls), ([], []))
        self.assertEqual(self.connect(isLocal=False).ask("POST", "/plain", basic(TOKENS["read"])).status, 415)

    def test_sessions(self) -> None:
        """Without scripts there is the first page of the sessions, for those whose level sees them."""
        processes = Processes("aaaaa")
        for number in range(MOST_ROWS + 3):
            processes.session(user=f"user{number:03}".encode("ascii"))
        self.patch(self.keeper, "ask", self.asked(processes))
        self.patch(self.keeper, "sums", lambda: {"mailgate_sessions": {("imap", "relay"): MOST_ROWS + 3}})
        for path in ("/plain", "/"):
            document = self.whole(path).body.decode("utf-8")
            users = re.findall(">(user[0-9]{3})<", document)
            self.assertEqual(users, [f"user{number:03}" for number in range(MOST_ROWS)], path)
            self.assertIn("Sessions, the oldest first", document)
            self.assertIn("and 3 more", document)
            self.assertIn("no answer: bbbbb has not answered", document)
        hidden = self.ask("GET", "/plain", token="read").body.decode("utf-8")
        self.assertNotIn("user0", hidden)
        self.assertNotIn("Sessions, the oldest first", hidden)
        self.clock.advance(1)
        self.patch(self.keeper, "sums", dict)
        self.assertIn("and 1 more", self.whole("/plain").body.decode("utf-8"))

    def asked(self, processes: Processes) -> Any:
        """A function that asks the processes for sessions; one of them is late."""

        def ask(word: str, arguments: Any, within: float = 2.0) -> Any:
            if word != "sessions":
                return succeed(Collected())
            return processes.ask(word, arguments).addCallback(
                lambda found: Collected(found.rows, ("bbbbb has not answered",))
            )

        return ask

    def test_challenge(self) -> None:
        """Without a token a browser asks for one. A wrong one is late, and logged without it."""
        answered = self.connect(isLocal=False).ask("GET", "/plain")
        self.assertEqual(answered.fields["www-authenticate"], 'Basic realm="mailgate", charset="UTF-8"')
        for field in (basic("wrong-token"), "Authorization: Basic ====", "Authorization: Basic", basic("")):
            connection = self.connect(isLocal=False)
            connection.send(f"GET /plain HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n".encode("ascii"))
            self.assertEqual(connection.take(), [])
            self.clock.advance(PENALTY)
            (answered,) = connection.take()
            self.assertEqual((answered.status, connection.isClosed), (401, True))

    def test_history(self) -> None:
        """The points of a span; another one is refused."""
        self.keeper.plots.spans["10m"].ring.put(1_000_000, {"logins.accepted": 2.5})
        self.assertEqual(
            self.ask("GET", "/api/1/history?span=10m", token="read").value,
            {"span": "10m", "step": 1, "begin": "1970-01-12T13:46:40Z", "series": {"logins.accepted": [2.5]}},
        )
        self.assertEqual(self.ask("GET", "/api/1/history?span=24h").value["series"], {})
        for query in ("", "?span=1h"):
            self.assertEqual(self.ask("GET", f"/api/1/history{query}").status, 400)

    def test_once(self) -> None:
        """
        What takes long is done once, and not for each request: the page without data, the documents of an overview, and
        the points of a second.
        """
        rendered: list[Any] = []

        def counted(name: str, function: Any) -> Any:
            def call(*arguments: Any) -> Any:
                rendered.append(name)
                return function(*arguments)

            return call

        for name in ("shell", "tables"):
            self.patch(pages, name, counted(name, getattr(pages, name)))
        self.patch(self.keeper.plots.__class__, "points", counted("points", self.keeper.plots.__class__.points))
        for _ in range(2):
            self.assertEqual(self.connect(isLocal=False).ask("GET", "/").status, 200)
            self.assertNotIn(b"as of", self.connect(isLocal=False).ask("GET", "/").body)
        self.assertEqual(rendered, ["shell"])
        rendered.clear()
        for token in ("read", "operate", "read", "operate"):
            self.assertEqual(self.ask("GET", "/plain", token=token).status, 200)
            self.assertEqual(b"Failed logins" in self.ask("GET", "/plain", token=token).body, token == "operate")
            self.assertEqual(self.ask("GET", "/api/1/history?span=24h", token=token).status, 200)
        self.assertEqual(rendered, ["tables", "points", "tables"])
        rendered.clear()
        self.clock.advance(1)
        self.assertIn(b"as of", self.ask("GET", "/").body)
        self.ask("GET", "/plain", token="read")
        self.ask("GET", "/api/1/history?span=24h", token="read")
        self.assertEqual(rendered, ["shell", "tables", "points"])

    def test_overview(self) -> None:
        """The level of the caller decides what it sees."""
        self.assertIsNone(self.ask("GET", "/api/1/overview", token="read").value["failures"])
        found = self.ask("GET", "/api/1/overview", token="operate").value
        self.assertEqual((found["failures"], found["level"]), ([], "operate"))

    def test_browser(self) -> None:
        """The page loads its parts; pages of other sites load nothing, but may link to the page."""
        own = ("Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: no-cors")
        other = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors")
        link = ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
        origin = "Origin: https://evil.example"
        for path, fields, status in (
            ("/static/page.css", own, 200),
            ("/static/page.css", other, 403),
            ("/static/page.css", link, 403),
            ("/api/1/overview", own, 403),
            ("/", ("Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate"), 200),
            ("/", link, 200),
            ("/", other, 403),
            ("/", (*link, origin), 403),
            ("/plain", link, 403),
            ("/api/1/overview", link, 403),
        ):
            self.assertEqual(self.ask("GET", path, *fields).status, status, (path, fields))
