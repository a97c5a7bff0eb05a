"""
Tests for L{mailgate.keeper.gauges}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.keeper import Keeper
from mailgate.limits.attempt import Rule
from mailgate.test.support.limitstore import StandInLimits
from mailgate.test.support.neighbours import Neighbourhood


class GaugesTests(SynchronousTestCase):
    """The metrics of the limits, of the log and of the store in the sums of the keeper."""

    def setUp(self) -> None:
        self.keeper = Keeper(Clock(), "g1")
        self.keeper.limits = self.limits = StandInLimits()

    def test_gauges(self) -> None:
        """Blocks are counted by their rules, also those that make none now; entries by their tables."""
        self.limits.add("192.0.2.7")
        self.limits.add("192.0.2.8")
        self.limits.add("joe", Rule.HOLD)
        self.limits.counts["held"] = 6
        values = self.keeper.sums()
        blocks = {rule: count for (rule,), count in values["mailgate_blocks"].items()}
        self.assertEqual(blocks, {"block": 0, "hold": 1, "R2": 0, "R4": 2, "R7": 0})
        self.assertEqual(values["mailgate_limit_entries"], {("pairs",): 3})
        self.assertEqual(values["mailgate_delayed_logins"], {(): 6})

    def test_evictions(self) -> None:
        """What was dropped is counted, and never falls: a successor continues with the sum."""
        evictions = self.limits.counts["evictions"]
        self.assertEqual(self.keeper.sums()["mailgate_limit_evictions"], {("pairs",): 0})
        evictions["pairs"] = 5
        for _ in range(2):
            self.assertEqual(self.keeper.sums()["mailgate_limit_evictions"], {("pairs",): 5})
        successor = Keeper(Clock(), "g1")
        successor.limits = StandInLimits()
        successor.restore(self.keeper.state())
        successor.limits.counts["evictions"] = {"pairs": 2}
        self.assertEqual(successor.sums()["mailgate_limit_evictions"], {("pairs",): 7})

    def test_lines(self) -> None:
        """What the keeper has logged is counted beside the lines of the workers; a successor begins at 0 again."""
        self.keeper.lines = {LogLevel.warn: 2, LogLevel.critical: 0}
        for _ in range(2):
            self.assertEqual(self.keeper.sums()["mailgate_log_lines"]["warn",], 2)
        self.assertEqual(self.keeper.sums()["mailgate_log_lines"]["critical",], 0)
        successor = Keeper(Clock(), "g1")
        successor.restore(self.keeper.state())
        successor.lines = {LogLevel.warn: 1}
        self.assertEqual(successor.sums()["mailgate_log_lines"]["warn",], 3)

    def test_none(self) -> None:
        """Without limits there are none of them."""
        self.keeper.limits = None
        self.assertFalse([name for name in self.keeper.sums() if "limit_" in name or "blocks" in name])

    def test_store(self) -> None:
        """The store and the gateways that share it; nothing of them without a store."""
        self.assertFalse([name for name in self.keeper.sums() if "store" in name or "gateways" in name])
        others: Any = Neighbourhood("g1", "g2", "g3").gateways["g1"].others
        self.keeper.others = others
        others.neighbours.look()
        self.assertEqual(self.keeper.sums()["mailgate_store_up"], {(): 1})
        self.assertEqual(self.keeper.sums()["mailgate_gateways"], {("living",): 3, ("silent",): 0})
        others.neighbours.changed(False, "hangs")
        self.assertEqual(self.keeper.sums()["mailgate_store_up"], {(): 0})
