"""Tests for L{mailgate.cli.sessions}."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from mailgate.system.exitstatus import NOT_RUNNING, NOTHING_MATCHED, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase, Terminal

GATEWAYS = [{"name": "g1", "age": 0.0, "complete": True}]


def session(number: int = 0, **others: Any) -> dict[str, Any]:
    """A session as the admin server lists it."""
    return {
        "id": f"g1.5g0qa.{number}",
        "gateway": "g1",
        "worker": "5g0qa",
        "protocol": "imap",
        "server": "imaps",
        "client": {"address": "192.0.2.7", "port": 56416},
        "user": "joe@example.org",
        "backend": "10.0.0.1:143",
        "tls": None,
        "method": "plain",
        "phase": "relay",
        "since": "2026-11-28T07:01:03Z",
        "age": 11520.3,
        "idle": 241.0,
        "received": 12288,
        "sent": 3250585,
        **others,
    }


def page(*sessions: dict[str, Any], next: str | None = None, gateways: Any = GATEWAYS) -> dict[str, Any]:
    return {"sessions": list(sessions), "next": next, "gateways": gateways}


def counted(way: str, counts: Mapping[Any, int]) -> dict[str, Any]:
    """The answer to C{by}."""
    return {
        "by": way,
        "counts": [{way: name, "sessions": count} for name, count in counts.items()],
        "groups": len(counts) - (None in counts),
        "sessions": sum(counts.values()),
        "gateways": GATEWAYS,
    }


class SessionsTests(AdminTestCase):
    """C{mailgate sessions}."""

    def test_table(self) -> None:
        """Each session has a line, below the titles and above the sum."""
        self.answers(page(session(), session(1, client={"address": "2001:db8::1", "port": 1}, phase="auth", idle=None)))
        self.assertEqual(self.command("sessions"), 0)
        self.assertEqual(
            self.out.getvalue(),
            "SESSION     PROTO  USER             CLIENT           BACKEND       PHASE  SINCE  IDLE   IN   OUT\n"
            "g1.5g0qa.0  imap   joe@example.org  192.0.2.7:56416  10.0.0.1:143  relay  3h12m  4m1s  12K  3.1M\n"
            "g1.5g0qa.1  imap   joe@example.org  [2001:db8::1]:1  10.0.0.1:143  auth   3h12m  -       -     -\n"
            "2 sessions of 1 user at 1 gateway\n",
        )
        self.assertEqual(self.errors.getvalue(), "")

    def test_filters(self) -> None:
        """Each filter becomes a parameter, with times in seconds."""
        self.answers(page(session()))
        given = ["--user", "j*@example.org", "--address", "192.0.2.0/24", "--backend", "10.0.0.1:143", "--protocol"]
        given += ["imap", "--server", "imaps", "--phase", "relay", "--id", "g1.5g0qa.0", "--older", "1h"]
        self.assertEqual(self.command("sessions", *given, "--stuck", "5s", "--limit", "7"), 0)
        (asked,) = self.server.asked
        self.assertEqual((asked.method, asked.path), ("GET", "/api/1/sessions"))
        self.assertEqual(
            asked.query,
            {
                "user": "j*@example.org",
                "address": "192.0.2.0/24",
                "backend": "10.0.0.1:143",
                "protocol": "imap",
                "server": "imaps",
                "phase": "relay",
                "id": "g1.5g0qa.0",
                "older": "3600.0",
                "stuck": "5.0",
                "limit": "7",
            },
        )
        self.assertEqual(asked.headers["Host"], "localhost")
        self.assertNotIn("Authorization", asked.headers)

    def test_pages(self) -> None:
        """All pages are asked for, each by the cursor of the one before; one that is not complete counts."""
        late = [{"name": "g1", "age": 0.0, "complete": False}]
        self.answers(page(session(), next="a b"), page(session(1), gateways=late), page())
        self.assertEqual(self.command("sessions"), REFUSED)
        self.assertEqual([asked.query.get("cursor") for asked in self.server.asked], [None, "a b"])
        self.assertIn("\n2 sessions of 1 user at 1 gateway\n", self.out.getvalue())
        self.assertEqual(
            self.errors.getvalue(), "gateway g1: a process has not answered in time; sessions may be missing\n"
        )

    def test_limit(self) -> None:
        """With --limit no further page is asked for, and the sum says that there are more."""
        self.answers(page(session(), session(1), next="more"))
        self.assertEqual(self.command("sessions", "--limit", "2"), 0)
        self.assertEqual(len(self.server.asked), 1)
        self.assertIn("\nthe first 2 sessions of 1 user at 1 gateway\n", self.out.getvalue())

    def test_by(self) -> None:
        """Counts, the largest first; a session without a user counts for -."""
        for way, counts, expected in (
            ("user", {"joe": 2, None: 1}, "USER  SESSIONS\njoe          2\n-            1\n3 sessions of 1 user"),
            ("address", {"192.0.2.7": 3}, "ADDRESS    SESSIONS\n192.0.2.7         3\n3 sessions"),
            (
                "backend",
                {"10.0.0.1:143": 2, None: 1},
                "BACKEND       SESSIONS\n10.0.0.1:143         2\n-                    1\n3 sessions",
            ),
            ("protocol", {"imap": 3}, "PROTOCOL  SESSIONS\nimap             3\n3 sessions"),
        ):
            self.out.truncate(0)
            self.out.seek(0)
            self.answers(counted(way, counts))
            self.assertEqual(self.command("sessions", "--by", way, "--phase", "relay"), 0)
            self.assertEqual(self.out.getvalue(), f"{expected} at 1 gateway\n")
            self.assertEqual(self.server.asked[-1].query, {"phase": "relay", "by": way, "limit": "1000"})

    def test_byCut(self) -> None:
        """The gateway counts: there may be more users than lines. A process without an answer counts."""
        late = [{**GATEWAYS[0], "complete": False, "missing": ["worker 7 did not answer"]}]
        self.answers({**counted("user", {"joe": 2, "ann": 1}), "groups": 12, "sessions": 30, "gateways": late})
        self.assertEqual(self.command("sessions", "--by", "user", "--limit", "2"), REFUSED)
        self.assertEqual(self.server.asked[-1].query, {"by": "user", "limit": "2"})
        self.assertTrue(self.out.getvalue().endswith("\nand 10 more\n30 sessions of 12 users at 1 gateway\n"))
        self.assertEqual(self.errors.getvalue(), "gateway g1: worker 7 did not answer; sessions may be missing\n")

    def test_byJSON(self) -> None:
        """--json has the counts as the admin server has them."""
        self.answers(counted("user", {"joe": 2, None: 1}))
        self.assertEqual(self.command("sessions", "--by", "user", "--json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), counted("user", {"joe": 2, None: 1}))

    def test_byNothing(self) -> None:
        """A filter that nothing matches has its own status; an answer without counts is none."""
        self.answers(counted("user", {}))
        self.assertEqual(self.command("sessions", "--by", "user", "--phase", "auth"), NOTHING_MATCHED)
        self.assertEqual(self.out.getvalue(), "0 sessions of 0 users at 1 gateway\n")
        self.answers({"counts": [1]})
        self.assertEqual(self.command("sessions", "--by", "user"), REFUSED)

    def test_narrow(self) -> None:
        """At 80 columns the ports of clients are left out, and then no address need be cut."""
        self.out = Terminal()
        self.patch(os, "environ", {"COLUMNS": "80", "LINES": "24"})
        self.answers(page(session(user="joe", backend="127.0.0.1:11000")))
        self.assertEqual(self.command("sessions"), 0)
        lines = self.out.getvalue().split("\n")
        self.assertEqual(lines[1], "g1.5g0qa.0 imap  joe  192.0.2.7 127.0.0.1:11000 relay 3h12m 4m1s 12K 3.1M")

    def test_nothing(self) -> None:
        """Without a session that matches the filters the status says so; without filters that is no failure."""
        self.answers(page())
        self.assertEqual(self.command("sessions", "--user", "joe"), NOTHING_MATCHED)
        self.assertEqual(self.command("sessions"), 0)
        self.assertEqual(self.out.getvalue(), "0 sessions of 0 users at 1 gateway\n" * 2)

    def test_json(self) -> None:
        """--json has the sessions as the admin server has them."""
        self.answers(page(session(user="jo\u202e\x1b")))
        self.assertEqual(self.command("sessions", "--json"), 0)
        self.assertTrue(self.out.getvalue().isascii())
        found = json.loads(self.out.getvalue())
        self.assertEqual(found, {"sessions": [session(user="jo\u202e\x1b")], "complete": True, "gateways": GATEWAYS})

    def test_hostile(self) -> None:
        """A user name cannot control the terminal, turn the line around, or break the columns."""
        self.out = Terminal()
        name = "\x1b]0;x\x07\u202e\u2066\n" + "\ud800" + "日本語" + "x" * 500
        self.answers(page(session(user=name), session(user="e\u0301\u0301")))
        self.patch(os, "environ", {"COLUMNS": "100", "LINES": "24"})
        self.assertEqual(self.command("sessions"), 0)
        text = self.out.getvalue()
        self.assertTrue(all(char.isprintable() or char == "\n" for char in text), text)
        _, hostile, other, _, _ = text.split("\n")
        self.assertIn("\\x1b]0;x\\x07\\", hostile)
        self.assertIn("…", hostile)
        self.assertLessEqual(len(hostile), 100)
        # Two marks take no cells.
        self.assertEqual(hostile.index(" relay"), other.index(" relay") - 2)

    def test_older(self) -> None:
        """A gateway of an earlier release runs, and has no admin server: the command says so, and what to do."""
        with socket.socket(socket.AF_UNIX) as commands:
            commands.bind(f"{self.pidFile}.other.sock")
            commands.listen()
            self.assertEqual(self.bare("sessions", "--pid", f"{self.pidFile}.other"), REFUSED)
            configuration = os.path.join(self.folder, "gateway.ini")
            with open(configuration, "w") as file:
                file.write(f"[mailgate]\npid = {self.pidFile}.other\n")
            self.assertEqual(self.bare("status", "--config", configuration), REFUSED)
        expected = (
            f"a gateway runs, but its admin server does not answer: cannot connect to {self.pidFile}.other.admin; an"
            " earlier release has none: run mailgate upgrade; otherwise compare the directive admin, and see the error"
            " log\n"
        )
        self.assertEqual(self.errors.getvalue(), 2 * expected)
        # The socket of a gateway that was killed.
        self.errors.truncate(0)
        self.assertEqual(self.bare("sessions", "--pid", f"{self.pidFile}.other"), NOT_RUNNING)

    def test_metrics(self) -> None:
        """The address of metrics has none of the resources."""
        self.server.answer = lambda asked: (404, {"title": "not found", "status": 404})
        self.assertEqual(self.command("sessions"), REFUSED)
        self.assertEqual(
            self.errors.getvalue(),
            f"{self.pidFile}.admin has no /api/1/sessions: is it the address of metrics, or of a gateway of another"
            " release?\n",
        )

    def test_usage(self) -> None:
        """A mistake of the command line is two lines: usage names no options."""
        self.assertEqual(self.command("sessions", "--by", "color"), 2)
        self.assertEqual(self.errors.getvalue().count("\n"), 2)
        self.assertTrue(self.errors.getvalue().startswith("usage: mailgate sessions [OPTIONS]\n"))

    def test_absent(self) -> None:
        """Without a gateway the status says so, and where it was looked for."""
        self.assertEqual(self.bare("sessions", "--pid", f"{self.pidFile}.other"), NOT_RUNNING)
        self.assertEqual(
            self.errors.getvalue(), f"no gateway is running: cannot connect to {self.pidFile}.other.admin\n"
        )
