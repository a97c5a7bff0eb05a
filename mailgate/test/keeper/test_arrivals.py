# -*- test-case-name: mailgate.test.keeper.test_arrivals -*-
"""
Tests for L{mailgate.keeper.arrivals}.
"""

from __future__ import annotations

import os

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.arrivals import PATIENCE, Arrivals, isRunning


class ArrivalsTests(SynchronousTestCase):
    """L{Arrivals}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[str] = []
        self.running = {7, 8}
        self.arrivals = Arrivals(self.clock, lambda: self.late.append("late"), lambda pid: pid in self.running)
        self.arrivals.settled = lambda: self.late.append("settled")

    def test_ended(self) -> None:
        """A process that has ended, or ends meanwhile, is not waited for."""
        self.arrivals.expect({"a": 7, "b": 8, "gone": 9})
        complete = self.arrivals.whenComplete()
        self.assertEqual(self.arrivals.names, {"a", "b"})
        self.arrivals.arrived("a")
        self.assertNoResult(complete)
        self.running.clear()
        self.clock.advance(0.1)
        self.successResultOf(complete)
        self.assertEqual((self.late, self.clock.getDelayedCalls()), ([], []))

    def test_allEnded(self) -> None:
        """If all have ended, there is nothing to wait for."""
        self.arrivals.expect({"gone": 9})
        self.assertTrue(self.arrivals.isComplete)

    def test_handedOver(self) -> None:
        """A handover is settled once."""
        self.arrivals.expectHandover()
        self.assertTrue(self.arrivals.isHandoverDue)
        self.arrivals.handedOver()
        self.arrivals.handedOver()
        self.assertEqual((self.arrivals.isComplete, self.late), (True, ["settled"]))

    def test_late(self) -> None:
        """A handover that is late is settled, too, before what waits goes on."""
        self.arrivals.expectHandover()
        self.arrivals.whenComplete().addCallback(lambda _: self.late.append("complete"))
        self.clock.advance(PATIENCE)
        self.assertEqual(self.late, ["late", "settled", "complete"])
        # There is no further wait.
        self.arrivals.expectHandover()
        self.arrivals.expect({"a": 7})
        self.assertEqual((self.arrivals.isComplete, self.late[3:]), (True, ["settled"]))

    def test_isRunning(self) -> None:
        """Processes that run, that have ended, that are not known, and what is no process id."""
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)
        found = [isRunning(each) for each in (os.getpid(), 1, 0, pid, 2**70)]
        self.assertEqual(found, [True, True, True, False, False])
