"""
Tests for L{mailgate.process.tables}.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.tables import duration, objects, standing, table


def row(**more: Any) -> dict[str, Any]:
    found = {"group": "store", "address": "192.0.2.1:143", "server": "", "state": "up", "reason": "", "seconds": None}
    return {**found, "sessions": 0, "weight": 1, **more}


class TableTests(SynchronousTestCase):
    """What operators and programs read."""

    def test_duration(self) -> None:
        """The two largest units."""
        for seconds, text in (
            (None, "-"),
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m1s"),
            (3600, "1h"),
            (3605, "1h"),
            (11520, "3h12m"),
            (90000, "1d1h"),
            (86400 * 40 + 59, "40d"),
        ):
            self.assertEqual(duration(seconds), text)

    def test_table(self) -> None:
        """A line for each server, in columns."""
        rows = [
            row(sessions=1200),
            row(address="[2001:db8::1]:143", state="drain", seconds=61, reason="mailgate backend drain", sessions=7),
            row(group="-", address="unix:/run/x"),
        ]
        self.assertEqual(
            table(rows).splitlines(),
            [
                "GROUP  ADDRESS            STATE  SINCE  SESSIONS  REASON",
                "store  192.0.2.1:143      up     -          1200",
                "store  [2001:db8::1]:143  drain  1m1s          7  mailgate backend drain",
                "-      unix:/run/x        up     -             0",
            ],
        )

    def test_escaped(self) -> None:
        """What comes from the network cannot control the terminal or change the order of the text."""
        hostile = "a\x1b[2J\r\n\u202eb\x9b"
        text = table([row(address=hostile, reason=hostile)])
        self.assertEqual(len(text.splitlines()), 2)
        self.assertIn("a\\x1b[2J\\r\\n\\u202eb\\x9b", text)
        self.assertTrue(standing(row(address=hostile)).isascii())
        self.assertTrue(json.dumps(objects([row(reason=hostile)], datetime.now(timezone.utc))).isprintable())

    def test_standing(self) -> None:
        """The answer to an order."""
        self.assertEqual(
            standing(row(state="drain", sessions=12)), "192.0.2.1:143 (store): drain; 12 sessions continue"
        )
        self.assertEqual(standing(row(state="drain", sessions=1)), "192.0.2.1:143 (store): drain; 1 session continues")
        self.assertEqual(standing(row(state="down", sessions=2)), "192.0.2.1:143 (store): down; 2 sessions")
        self.assertEqual(standing(row(group="-")), "192.0.2.1:143 (outside of groups): up; 0 sessions")

    def test_objects(self) -> None:
        """The keys are stable. What does not exist is null."""
        now = datetime(2026, 11, 29, 1, 0, 30, tzinfo=timezone.utc)
        found = objects([row(group="-", seconds=31, state="down"), row(server="mail.test:143")], now)
        self.assertEqual(
            found,
            [
                {
                    "group": None,
                    "address": "192.0.2.1:143",
                    "server": "192.0.2.1:143",
                    "state": "down",
                    "since": "2026-11-29T00:59:59Z",
                    "seconds": 31,
                    "sessions": 0,
                    "weight": 1,
                    "reason": "",
                },
                {
                    "group": "store",
                    "address": "192.0.2.1:143",
                    "server": "mail.test:143",
                    "state": "up",
                    "since": None,
                    "seconds": None,
                    "sessions": 0,
                    "weight": 1,
                    "reason": "",
                },
            ],
        )
