"""Tests for L{mailgate.cli.limitlines}."""

from __future__ import annotations

import os
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.limitlines import blocks, counts, dryRuns, failures, known, verdict
from mailgate.keeper.admin.examples import A_BLOCK, AN_EXPLANATION
from mailgate.keeper.moments import secondsOf

NOW = secondsOf("2026-11-28T11:13:03Z") or 0.0
LIMITS: dict[str, Any] = AN_EXPLANATION["limits"]


class LinesTests(SynchronousTestCase):
    """The lines of C{mailgate explain}."""

    def setUp(self) -> None:
        self.patch(os, "environ", {**os.environ, "TZ": "UTC"})
        time.tzset()
        self.addCleanup(time.tzset)

    def test_counts(self) -> None:
        """Connections and sessions, with their limits."""
        self.assertEqual(
            counts(AN_EXPLANATION["would"][0]["limits"]),
            ["address 3 of 300, user 4 of 50, user at address 1 of 20, server 812 of 20000"],
        )
        self.assertEqual(counts({"user": {"count": 4, "limit": 0}}), ["user 4, no limit"])
        self.assertEqual(counts({}), [])

    def test_elsewhere(self) -> None:
        """With a store, sessions at other gateways are shown, or that they are not known."""
        row = {"count": 4, "limit": 50}
        self.assertEqual(counts({"user": {**row, "elsewhere": 3}}), ["user 4 of 50 (3 more at other gateways)"])
        self.assertEqual(counts({"user": {**row, "elsewhere": None}}), ["user 4 of 50 (at other gateways not known)"])

    def test_failures(self) -> None:
        """Failed logins, with their limits and since when; those without any are left out."""
        self.assertEqual(
            failures(LIMITS, NOW),
            [
                "pair 1 of 10 (since 10:02:11), address 1 of 300 (since 10:02:11), users of the address 1 of 20 (since"
                " 10:02:11), network 4 of 1500 (since 09:41:00), user 61 of 50 from unknown networks (since"
                " 2026-11-27 22:10:47)"
            ],
        )
        self.assertEqual(failures({"pair": {"failures": 0, "limit": 10}}, NOW), ["none"])
        fresh = {"user": {"failures": 61, "limit": 50, "since": None, "quiet": 3130.5}}
        words = ["user 61 of 50 from unknown networks; R6 and R7 only log for 52m10s more"]
        self.assertEqual(failures(fresh, NOW), words)
        self.assertEqual(failures({}, NOW), [])

    def test_known(self) -> None:
        """Whether the network is known."""
        self.assertEqual(
            known(LIMITS, True, NOW), ["yes: the user has logged in from this network, last success 3d4h ago"]
        )
        self.assertEqual(
            known({**LIMITS, "known": False}, True, NOW), ["no: the user has not logged in from this network lately"]
        )
        self.assertEqual(known(LIMITS, False, NOW), ["this depends on the address of the client: give --address"])
        self.assertEqual(known({}, True, NOW), [])

    def test_blocks(self) -> None:
        """Each block that concerns the login, with what is left of it."""
        self.assertEqual(blocks({"blocks": [A_BLOCK]}, NOW), ["198.51.100.0/24 by block, 1h left: abuse (b7)"])
        hostile = {**A_BLOCK, "thing": "joe\x1b[2J", "reason": ""}
        self.assertEqual(blocks({"blocks": [hostile]}, NOW), [r"joe\x1b[2J by block, 1h left (b7)"])

    def test_dryRuns(self) -> None:
        """What dry runs would do; nothing from an older gateway."""
        self.assertEqual(dryRuns(LIMITS), [])
        self.assertEqual(dryRuns({}), [])
        self.assertEqual(dryRuns({"would": ["R1 would refuse", "R6\x1b"]}), ["R1 would refuse", r"R6\x1b"])

    def test_verdict(self) -> None:
        """The rule that acts."""
        self.assertEqual(verdict(LIMITS), [])
        for action, seconds, text in (
            ("wait", 4.0, "wait 4s (R1), and then:"),
            ("wait", 0.2, "wait 1s (R1), and then:"),
            ("wait", None, "wait some time (R1), and then:"),
            ("refuse", 0.0, "be refused by R1; without it:"),
        ):
            self.assertEqual(verdict({"rule": "R1", "action": action, "seconds": seconds}), [text])
