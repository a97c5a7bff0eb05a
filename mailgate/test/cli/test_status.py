"""Tests for L{mailgate.cli.status}."""

from __future__ import annotations

import json
from typing import Any

from mailgate.system.exitstatus import NOT_RUNNING, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase
from mailgate.test.cli.test_stats import STATS

UP = {
    "group": "store",
    "address": "10.0.0.1:143",
    "server": "",
    "state": "up",
    "reason": "",
    "seconds": None,
    "sessions": 812,
    "weight": 1,
}
SERVICE = {"service": "127.0.0.1:9000", "url": "http://127.0.0.1:9000/auth", "state": "up", "asking": 2, "waiting": 0}
WORKER = {
    "worker": "5g0qa",
    "pid": 4711,
    "accepts": True,
    "generations": 1,
    "sessions": 812,
    "relayed": 790,
    "cpu": 31.2,
    "memory": 52428800,
}


class StatusTests(AdminTestCase):
    """C{mailgate status}."""

    def serve(
        self, backends: Any = (UP,), services: Any = (SERVICE,), ready: Any = (), missing: Any = (), store: Any = None
    ) -> None:
        answers = {
            "/api/1/stats": (200, {**STATS, "store": store}),
            "/readyz": (503 if ready else 200, {"status": "", "reasons": list(ready)}),
            "/api/1/backends": (200, {"backends": list(backends), "missing": list(missing)}),
            "/api/1/auth": (200, {"services": list(services), "missing": list(missing)}),
            "/api/1/workers": (200, {"workers": [WORKER], "missing": []}),
        }
        self.server.answer = lambda asked: answers[asked.path]

    def test_good(self) -> None:
        """One screen, and status 0."""
        self.serve()
        self.assertEqual(self.command("status"), 0)
        text = self.out.getvalue()
        self.assertTrue(text.startswith("mailgate 0.1.0 g1, up for 1d2h: good\n\nsessions "), text)
        self.assertIn(
            "GROUP  BACKEND       STATE  SINCE  SESSIONS  REASON\n"
            "store  10.0.0.1:143  up     -           812  -\n\n"
            "AUTH SERVICE                STATE  ASKING  WAITING\n"
            "http://127.0.0.1:9000/auth  up          2        0\n\n"
            "WORKER   PID  CLIENTS  SESSIONS  RELAYED  CPU  MEMORY\n"
            "5g0qa   4711  accepts       812      790  31s     50M\n",
            text,
        )
        self.assertLess(text.count("\n"), 40)

    def test_store(self) -> None:
        """The store and the gateways have a line each; a store that is down and a silent gateway are wrong."""
        store: dict[str, Any] = {"up": True, "since": "2026-11-28T09:02:11Z", "reason": ""}
        store["gateways"] = [{"name": "g1", "age": 0.0}, {"name": "g2\x1b", "age": 1.4}]
        self.serve(store=store)
        self.assertEqual(self.command("status"), 0)
        lines = "store        up for 1h\ngateways     g1, g2\\x1b (heard 1s ago)\n"
        self.assertIn(lines, self.out.getvalue())
        store["gateways"][1]["age"] = 61.0
        self.assertEqual(self.command("status"), 1)
        self.assertIn("the gateway g2\\x1b was last heard of 1m1s ago", self.out.getvalue())
        store.update(up=False, reason="at s:1 hangs")
        self.assertEqual(self.command("status"), 1)
        self.assertIn("  the store at s:1 hangs\n", self.out.getvalue())
        self.assertIn("store        down for 1h: the store at s:1 hangs\n", self.out.getvalue())

    def test_degraded(self) -> None:
        """Each cause makes the status 1, and has a line."""
        failing = {**UP, "state": "resting", "reason": "refused the connection\x1b"}
        for given, expected in (
            ({"ready": ["no backend is used"]}, "no backend is used"),
            (
                {"backends": [failing]},
                "the backend 10.0.0.1:143 of upstream store is resting: refused the connection\\x1b",
            ),
            (
                {"backends": [{**failing, "group": "-", "state": "down", "reason": "x"}]},
                "the backend 10.0.0.1:143 is down: x",
            ),
            (
                {"services": [{**SERVICE, "state": "failing"}]},
                "the authentication service http://127.0.0.1:9000/auth is failing",
            ),
            ({"missing": ["process 4711 has not answered"]}, "process 4711 has not answered"),
        ):
            self.out.truncate(0)
            self.out.seek(0)
            self.serve(**given)
            self.assertEqual(self.command("status"), 1, expected)
            self.assertIn(f": degraded\n  {expected}\n\n", self.out.getvalue())

    def test_ordered(self) -> None:
        """What an operator has ordered or configured is as it should be."""
        for state, reason in (("drain", "mailgate backend drain"), ("down", "mailgate backend down"), ("down", "")):
            self.serve(backends=[{**UP, "state": state, "reason": reason}])
            self.assertEqual(self.command("status"), 0, state)

    def test_json(self) -> None:
        """--json has all of it."""
        self.serve(ready=["no backend is used"])
        self.assertEqual(self.command("status", "--json"), 1)
        found = json.loads(self.out.getvalue())
        self.assertEqual((found["status"], found["reasons"]), ("degraded", ["no backend is used"]))
        self.assertEqual((found["backends"], found["services"], found["workers"]), ([UP], [SERVICE], [WORKER]))
        self.assertEqual(found["stats"], {**STATS, "store": None})

    def test_notRunning(self) -> None:
        """69 without a gateway; 1 if another program answers."""
        self.assertEqual(self.bare("status", "--pid", "/nonexistent/pid"), NOT_RUNNING)
        self.server.answer = lambda asked: (200, {})
        self.assertEqual(self.command("status"), REFUSED)
        self.assertEqual(self.out.getvalue(), "")
