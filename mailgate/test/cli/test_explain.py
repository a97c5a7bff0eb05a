"""Tests for L{mailgate.cli.explain}."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timezone
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.explain import lines
from mailgate.keeper.admin.examples import A_BLOCK, AN_EXPLANATION
from mailgate.system.exitstatus import NOTHING_MATCHED, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=timezone.utc).timestamp()


def service(url: str = "http://127.0.0.1:9000/auth", **others: Any) -> dict[str, Any]:
    return {"url": url, "rests": 0.0, "resting": 0, "failing": False, "waiting": 0, **others}


def backend(address: str = "10.0.0.1:143", **others: Any) -> dict[str, Any]:
    row = {"address": address, "state": "up", "reason": "", "sessions": 1, "weight": 1, "backup": False}
    return {**row, **others}


def goes(*servers: dict[str, Any], **others: Any) -> dict[str, Any]:
    order = [server["address"] for server in servers]
    found = {"group": "store", "method": "round robin", "servers": list(servers), "order": order, "first": order[:1]}
    return {**found, "why": "round robin", "guessed": False, **others}


def server(*asks: dict[str, Any], goes: tuple[Any, ...] = (), **others: Any) -> dict[str, Any]:
    found = {"server": "imaps", "protocol": "imap", "by": "auth_http", "named": False, "processes": 1}
    return {**found, "asks": list(asks), "goes": list(goes), **others}


def http(*services: dict[str, Any], cache: Any = None) -> dict[str, Any]:
    return {"kind": "auth_http", "services": list(services), "cache": cache}


def explained(*would: dict[str, Any], recent: tuple[Any, ...] = (), **others: Any) -> dict[str, Any]:
    found = {"user": "joe@example.org", "address": "192.0.2.7", "protocol": "imap", "missing": []}
    return {**found, "would": list(would), "recent": list(recent), **others}


def story(**others: Any) -> dict[str, Any]:
    found = {
        "id": "g1.5g0qa.7j",
        "kind": "login",
        "protocol": "imap",
        "server": "0.0.0.0:993",
        "client": {"address": "192.0.2.7", "port": 56416},
        "user": "joe@example.org",
        "backend": None,
        "method": "plain",
        "attempts": 1,
        "reached": "auth",
        "outcome": "denied",
        "reason": "wrong password",
        "trouble": "denied",
        "at": "2026-11-28T10:02:11Z",
        "seconds": 0.05,
        "times": {"auth": 8.3},
        "text": "",
    }
    return {**found, **others}


class TextTests(SynchronousTestCase):
    """The text for operators."""

    def setUp(self) -> None:
        self.patch(os, "environ", {**os.environ, "TZ": "UTC"})
        time.tzset()
        self.addCleanup(time.tzset)

    def text(self, found: dict[str, Any]) -> str:
        return "\n".join(lines(found, NOW))

    def test_whole(self) -> None:
        """What would be asked, where the login would go, and the last ones."""
        first, second = backend(), backend("10.0.0.2:143", sessions=0, weight=2, backup=True)
        relayed = story(
            reached="relay",
            outcome="relayed",
            seconds=723,
            backend="10.0.0.1:143",
            reason="",
            trouble=None,
            at="2026-11-27T09:58:40Z",
        )
        found = explained(server(http(service()), goes=(goes(first, second),)), recent=(story(), relayed))
        self.assertEqual(
            self.text(found),
            "login of joe@example.org from 192.0.2.7 (imap, server imaps)\n"
            "  would      be asked of http://127.0.0.1:9000/auth at once\n"
            "  backends   10.0.0.1:143 first of upstream store: round robin\n"
            "             then, if that fails: 10.0.0.2:143\n"
            "             10.0.0.1:143 up, 1 session\n"
            "             10.0.0.2:143 up, 0 sessions, weight 2, backup\n"
            "  last       10:02:11 denied in phase auth, 8 ms, imap from 192.0.2.7, session g1.5g0qa.7j:"
            " wrong password\n"
            "             2026-11-27 09:58:40 relayed 12m3s by 10.0.0.1:143, imap from 192.0.2.7, session g1.5g0qa.7j",
        )

    def test_limits(self) -> None:
        """Above what would be asked stand the limits: what they count, what is known, what is blocked, what acts."""
        counted = {"address": {"count": 3, "limit": 100}, "user": {"count": 4, "limit": 50}}
        limits = {
            **AN_EXPLANATION["limits"],
            **{"rule": "R6", "action": "wait", "seconds": 60.0, "would": ["R2 would refuse"], "blocks": [A_BLOCK]},
        }
        found = explained(server(http(service()), limits=counted), limits=limits)
        self.assertEqual(
            self.text(found).splitlines()[1:8],
            [
                "  limits     address 3 of 100, user 4 of 50",
                "  failures   pair 1 of 10 (since 10:02:11), address 1 of 300 (since 10:02:11), users of the address"
                " 1 of 20 (since 10:02:11), network 4 of 1500 (since 09:41:00), user 61 of 50 from unknown networks"
                " (since 2026-11-27 22:10:47)",
                "  known      yes: the user has logged in from this network, last success 3d4h ago",
                "  blocks     198.51.100.0/24 by block, 13m3s left: abuse (b7)",
                "  dry run    R2 would refuse",
                "  would      wait 1m (R6), and then:",
                "             be asked of http://127.0.0.1:9000/auth at once",
            ],
        )

    def test_services(self) -> None:
        """Services that rest are named after those that are asked; a queue is said; and the cache."""
        resting = service("http://10.0.0.9/auth", resting=2, rests=7.4, failing=True)
        ask = http(resting, service(waiting=3), cache={"ttl": 60.0, "held": 1})
        text = self.text(explained(server(ask, named=True)))
        self.assertIn("  would      be asked of http://127.0.0.1:9000/auth after 3 logins that wait\n", text)
        self.assertIn("             not of http://10.0.0.9/auth, which failed: it rests for 7 s\n", text)
        self.assertIn(" 1 answer for this user is held in the cache: the same login again is not asked (auth_c", text)
        self.assertIn("             the answer of the authentication service names the backend\n", text)
        # If all rest, all are asked.
        text = self.text(explained(server(http(resting, cache={"ttl": 60.0, "held": 0}))))
        self.assertIn("be asked of http://10.0.0.9/auth at once, though it gave no answer to its last login\n", text)
        self.assertIn("be asked of http://127.0.0.1:9000/auth at once\n", self.text(explained(server(http(service())))))
        self.assertIn("no answer for this user is held in the cache (auth_cache_ttl 60 s)\n", text)

    def test_others(self) -> None:
        """An account file, a backend that decides, and an authenticator of the installation."""
        file = {"kind": "auth_file", "file": "/etc/accounts", "objection": "", "changed": False}
        for ask, expected in (
            (file, "be accepted with the right password (/etc/accounts)\n"),
            (
                {**file, "objection": "unknown user", "changed": True},
                "be refused by auth_file: unknown user (/etc/accounts)\n             the file has changed since",
            ),
            ({"kind": "proxy_pass"}, "be judged by the backend (proxy_pass)\n"),
            ({"kind": "other", "name": "Mine"}, "be asked of Mine, an authenticator of this installation\n"),
        ):
            self.assertIn(expected, self.text(explained(server(ask))))

    def test_backends(self) -> None:
        """No backend, one that depends on the worker or the address, and the state of each."""
        worked = backend(reason="refused the connection")
        self.assertIn(
            " up, 1 session, last failure: refused the connection", self.text(explained(server(goes=(goes(worked),))))
        )
        down = backend(state="down", reason="health check: timed out", sessions=0)
        text = self.text(explained(server(goes=(goes(down, first=[], order=[], why="no server can be used"),))))
        self.assertIn("no server can be used of upstream store (round robin)\n", text)
        self.assertIn("10.0.0.1:143 down, 0 sessions, health check: timed out\n", text)
        split = goes(backend(), backend("10.0.0.2:143"), first=["10.0.0.1:143", "10.0.0.2:143"], order=[], guessed=True)
        text = self.text(explained(server(goes=(split,))))
        self.assertIn("10.0.0.1:143 or 10.0.0.2:143, by worker of upstream store: round robin\n", text)
        self.assertIn("this depends on the address of the client: give --address\n", text)

    def test_hostile(self) -> None:
        """Texts from the network cannot control the terminal."""
        hostile = "\x1b[2J\u202e"
        one = story(reason=hostile, text=hostile, id=hostile, outcome=hostile, reached=hostile, at=hostile)
        row = backend(hostile, reason=hostile)
        found = explained(
            server(http(service(hostile)), goes=(goes(row),)), recent=(one,), user=hostile, address=hostile
        )
        self.assertTrue(all(line.isprintable() for line in lines(found, NOW)))

    def test_hostileNumbers(self) -> None:
        """A gateway that is taken over sends texts where numbers should be: they do not control the terminal."""
        place = backend(sessions="\x1b[2J", weight="\x1b[2J\u202e")
        text = self.text(explained(server(goes=(goes(place),))))
        self.assertEqual([text.count(each) for each in ("\x1b", "\u202e")], [0, 0])
        self.assertIn("weight \\x1b[2J\\u202e", text)

    def test_text(self) -> None:
        """The text of a refusal is escaped once, as in the log."""
        text = self.text(explained(recent=(story(text=r"NO \"no\" \\ \x1b"), story(text="\x1b[2J" + "x" * 9000))))
        self.assertIn(r'text "NO \"no\" \\ \x1b"', text)
        self.assertNotIn("\x1b", text)
        self.assertLess(len(text), 2000)

    def test_unknown(self) -> None:
        """No server and no story."""
        text = self.text(explained())
        self.assertIn("login of joe@example.org: no server takes it\n", text)
        self.assertIn("  last       nothing is known", text)


class ExplainTests(AdminTestCase):
    """C{mailgate explain}."""

    def test_question(self) -> None:
        """The question has what was given; --json prints the answer."""
        found = explained(server(http(service())))
        self.answers(found)
        given = ("explain", "joe@example.org", "--address", "192.0.2.7", "--protocol", "imap", "--json")
        self.assertEqual(self.command(*given), 0)
        self.assertEqual(json.loads(self.out.getvalue()), found)
        self.assertEqual(self.command("explain", "joe"), 0)
        self.assertEqual({(asked.method, asked.path) for asked in self.server.asked}, {("POST", "/api/1/explain")})
        first, second = (asked.body for asked in self.server.asked)
        self.assertEqual(first, {"user": "joe@example.org", "address": "192.0.2.7", "protocol": "imap"})
        self.assertEqual(second, {"user": "joe"})

    def test_statuses(self) -> None:
        """2 if nothing is known, 1 if the answer is not complete or of another form."""
        for found, expected in (
            (explained(), NOTHING_MATCHED),
            (explained(server(), missing=["process 4711 has not answered"]), REFUSED),
            (explained({"server": "x"}), REFUSED),
            ([], REFUSED),
        ):
            self.answers(found)
            self.assertEqual(self.command("explain", "joe"), expected)

    def test_badAddress(self) -> None:
        """A network or a name is no address."""
        self.assertEqual(self.command("explain", "joe", "--address", "192.0.2.0/24"), 2)
        self.assertEqual(self.server.asked, [])
