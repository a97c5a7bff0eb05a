"""
Tests for L{mailgate.limits.explain}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.support.attacks import START, Scene

NEAR, FAR = "192.0.2.7", "203.0.113.9"


class ExplainTests(SynchronousTestCase):
    """What C{mailgate explain} prints."""

    def setUp(self) -> None:
        self.scene = Scene()

    def explain(self, user: str, host: str) -> Mapping[str, Any]:
        """The explanation, as JSON has it; it changes nothing."""
        before = self.scene.defence.state(withCounters=True)
        found: dict[str, Any] = json.loads(json.dumps(self.scene.defence.explain(user.encode(), host, "imap")))
        self.assertEqual(self.scene.defence.state(withCounters=True), before)
        return found

    def test_nothing(self) -> None:
        """A login that nothing concerns."""
        none = {"failures": 0, "since": None}
        self.assertEqual(
            self.explain("joe", NEAR),
            {
                "known": False,
                "lastSuccess": None,
                "allowance": 1,
                "pair": {**none, "limit": 10},
                "address": {**none, "limit": 100},
                "network": {**none, "limit": 500},
                "user": {**none, "limit": 50},
                "users": {**none, "limit": 20},
                "rule": None,
                "action": "go",
                "seconds": 0.0,
                "would": [],
                "blocks": [],
            },
        )
        self.assertEqual(self.explain("", "")["action"], "go")

    def test_fresh(self) -> None:
        """Without the successes of an earlier process R6 only logs for an hour: it says so until then."""
        self.scene = Scene(isFresh=True)
        self.scene.run(600)
        self.assertEqual(self.explain("joe", NEAR)["user"]["quiet"], 3000)
        self.scene.run(3000)
        self.assertNotIn("quiet", self.explain("joe", NEAR)["user"])

    def test_counters(self) -> None:
        """Counters of all kinds, with Unix times."""
        self.scene.run(100)
        self.scene.succeed(NEAR, "ann")
        self.scene.fail(NEAR, "joe", 5)
        found = self.explain("joe", NEAR)
        self.assertEqual((found["known"], found["allowance"], found["users"]["limit"]), (False, 2, 0))
        self.assertEqual([found[each]["failures"] for each in ("pair", "address", "network", "user")], [5] * 4)
        self.assertEqual(found["users"]["failures"], 1)
        self.assertEqual([found[each]["limit"] for each in ("pair", "address", "network")], [10, 200, 1000])
        self.assertEqual([found[each]["since"] - START for each in ("pair", "address", "user")], [100] * 3)
        self.assertEqual((found["rule"], found["action"], found["seconds"]), ("R1", "wait", 2.0))
        found = self.explain("ann", NEAR)
        self.assertEqual((found["known"], found["lastSuccess"] - START), (True, 100))

    def test_wallClock(self) -> None:
        """After the clock was set, times are those of the new one."""
        self.scene.fail(NEAR, "joe", 1)
        self.scene.wallShift = 1000.0
        self.assertAlmostEqual(self.explain("joe", NEAR)["pair"]["since"], START + 1000, 3)

    def test_blocks(self) -> None:
        """Those that concern the login, and what they do."""
        self.scene.fail(NEAR, "joe", 10)
        found = self.explain("joe", NEAR)
        self.assertEqual((found["rule"], found["action"]), ("R2", "refuse"))
        self.assertEqual([each["thing"] for each in found["blocks"]], ["joe 192.0.2.7"])
        self.assertEqual(self.explain("ann", NEAR)["blocks"], [])
        self.scene.defence.block("joe", 60, "move", isHold=True)
        found = self.explain("joe", FAR)
        self.assertEqual((found["rule"], found["action"], found["seconds"]), ("hold", "wait", 20.0))
        self.assertEqual([each["reason"] for each in found["blocks"]], ["move"])
