"""Tests for L{mailgate.cli.stats}."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from mailgate.cli import stats
from mailgate.system.exitstatus import NOT_RUNNING, REFUSED
from mailgate.test.cli.adminserver import AdminTestCase, Terminal

RATE = {"total": 4711, "per_second": 2.5}
STATS: dict[str, Any] = {
    "gateway": "g1",
    "version": "0.1.0",
    "time": "2026-11-28T10:02:11Z",
    "uptime": 93784.0,
    "loaded": "2026-11-28T09:00:00Z",
    "sessions": {
        "total": 812,
        "relayed": 790,
        "by_protocol": {
            "imap": {"total": 800, "phases": {"relay": 785, "command": 15}},
            "pop3": {"total": 12, "phases": {"relay": 5}},
        },
    },
    "users": 640,
    "connections": {"total": 1234567, "per_second": 120.04},
    "logins": {"accepted": RATE, "denied": {"total": 3, "per_second": None}, "temporary": RATE, "blocked": RATE},
    "login_wait": {"p50": 0.0121, "p99": 1.25, "total_p50": 0.01, "total_p99": 2.0},
    "bytes": {"from_client": {"total": 12288, "per_second": None}, "to_client": {"total": 3250585, "per_second": 2048}},
    "workers": {"serving": 2, "retiring": 1, "restarts": 0},
    "backends": {"up": 3, "down": 0, "draining": 1},
}
TEXT = """\
mailgate 0.1.0 g1, up for 1d2h
sessions     812, 790 of them relayed
  imap       800: relay 785, command 15
  pop3       12: relay 5
users        640
connections  1 234 567, 120/s
  accepted   4 711, 2.5/s
  denied     3, -
  temporary  4 711, 2.5/s
  blocked    4 711, 2.5/s
login wait   half below 12 ms, 99 % below 1.2 s
from clients 12K, -
to clients   3.1M, 2.0K/s
backends     3 up, 0 down, 1 draining
workers      2 serving, 1 retiring, 0 restarts
"""


class StatsTests(AdminTestCase):
    """C{mailgate stats}."""

    def test_noBackends(self) -> None:
        """Backends that only an authentication service names are not said to be none that is up."""
        stats = {**STATS, "backends": {"up": 0, "down": 0, "draining": 0}}
        self.answers(stats)
        self.assertEqual(self.command("stats"), 0)
        self.assertIn("\nbackends     none in the configuration\n", self.out.getvalue())
        self.assertNotIn("0 up", self.out.getvalue())

    def test_once(self) -> None:
        """The numbers, a line each."""
        self.answers(STATS)
        self.assertEqual(self.command("stats"), 0)
        self.assertEqual(self.out.getvalue(), TEXT)

    def test_json(self) -> None:
        """--json prints the answer."""
        self.answers(STATS)
        self.assertEqual(self.command("stats", "--json"), 0)
        self.assertEqual(json.loads(self.out.getvalue()), STATS)

    def test_older(self) -> None:
        """What the answer does not have is -."""
        self.answers({"sessions": {}})
        self.assertEqual(self.command("stats"), 0)
        self.assertIn("sessions     -, - of them relayed\n", self.out.getvalue())
        self.assertIn("workers      - serving, - retiring, - restarts\n", self.out.getvalue())

    def test_notOurs(self) -> None:
        """Another program's answer."""
        self.answers([])
        self.assertEqual(self.command("stats"), REFUSED)

    def interrupted(self, after: int) -> None:
        """Ctrl-C in the pause that follows so many answers."""
        pauses: list[float] = []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == after:
                raise KeyboardInterrupt

        self.patch(stats, "time", _Time(sleep))

    def test_watchedByAProgram(self) -> None:
        """A line for each answer; Ctrl-C ends that with status 0."""
        self.answers(STATS)
        self.interrupted(2)
        self.assertEqual(self.command("stats", "--watch"), 0)
        line = (
            "2026-11-28T10:02:11Z sessions 812, relayed 790, connections 120/s, accepted 2.5/s, denied -,"
            " temporary 2.5/s, wait 1.2 s\n"
        )
        self.assertEqual(self.out.getvalue(), line * 2)
        self.assertEqual(len(self.server.asked), 2)

    def test_watchedAsJSON(self) -> None:
        """An object a line."""
        self.answers(STATS)
        self.interrupted(2)
        self.assertEqual(self.command("stats", "--watch", "--json"), 0)
        self.assertEqual([json.loads(line) for line in self.out.getvalue().splitlines()], [STATS, STATS])

    def test_watchedOnATerminal(self) -> None:
        """The numbers are drawn over each other, and no line is longer than the terminal, nor the whole higher."""
        self.out = Terminal()
        self.patch(os, "environ", {"COLUMNS": "30", "LINES": "8"})
        self.answers(STATS)
        self.interrupted(2)
        self.assertEqual(self.command("stats", "--watch"), 0)
        cleared, *drawn = self.out.getvalue().split("\x1b[H")[1:]
        self.assertEqual(cleared, "\x1b[J")
        self.assertEqual(len(drawn), 2)
        lines = drawn[0].removesuffix("\x1b[J").split("\x1b[K\n")
        self.assertEqual(lines[0], "mailgate 0.1.0 g1, up for 1d2")
        self.assertEqual(len(lines), 8)
        self.assertLess(max(map(len, lines)), 30)

    def test_pause(self) -> None:
        """A gateway that is silent for a moment does not end the watch; one that is gone does."""
        pauses: list[float] = []
        self.patch(stats, "time", _Time(pauses.append))
        left = [(200, STATS), (503, {}), (503, {}), (200, STATS)]
        self.server.answer = lambda asked: left.pop(0) if left else (503, {})
        self.assertEqual(self.command("stats", "--watch"), REFUSED)
        self.assertEqual(self.out.getvalue().count("\n"), 2)
        self.assertEqual(len(self.server.asked), 10)

    def test_absent(self) -> None:
        """Without a gateway nothing is watched."""
        self.assertEqual(self.bare("stats", "--watch", "--pid", "/nonexistent/pid"), NOT_RUNNING)


class _Time:
    """The module C{time}, with another C{sleep}."""

    def __init__(self, sleep: Any) -> None:
        self.sleep = sleep
        self.monotonic = time.monotonic
