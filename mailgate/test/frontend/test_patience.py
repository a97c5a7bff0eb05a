"""
Limits of a client before login: time and errors.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.patience import Patience
from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.lean.clock import CoarseClock, Deadlines, ExactClock

TIMEOUT = 60.0


class DeadlineTests(SynchronousTestCase):
    """The deadline, over a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.expired: list[float] = []
        self.patience = self.make(ExactClock(self.clock))

    def make(self, deadlines: Deadlines) -> Patience:
        """Return limits that note when the deadline passes."""
        settings = DialogueSettings(timeout=TIMEOUT)
        return Patience(settings, deadlines, lambda: self.expired.append(self.clock.seconds() - 1000))

    def until(self, moment: float) -> list[float]:
        """Return when the deadline passed, second by second until C{moment}."""
        while self.clock.seconds() < 1000 + moment:
            self.clock.advance(1)
        return self.expired

    def test_silence(self) -> None:
        """A silent client has the timeout of one command, once."""
        self.assertEqual(self.until(TIMEOUT - 1), [])
        self.assertEqual(self.until(3 * TIMEOUT), [TIMEOUT])

    def test_extend(self) -> None:
        """Activity restarts the timeout."""
        self.until(50)
        self.patience.extend()
        self.assertEqual(self.until(300), [110])

    def test_budget(self) -> None:
        """In total the client has no more than the budget, however active it is."""
        for second in range(1, 2 * BUDGET * int(TIMEOUT)):
            self.until(second)
            if not self.expired:
                self.patience.extend()
        self.assertEqual(self.expired, [BUDGET * TIMEOUT])

    def test_budgetIsOver(self) -> None:
        """Activity after the end of the budget gives no more time."""
        self.patience.allow(2 * BUDGET * TIMEOUT)
        self.until(BUDGET * TIMEOUT + 5)
        self.patience.extend()
        self.clock.advance(0)
        self.assertEqual(self.expired, [BUDGET * TIMEOUT + 5])

    def test_extendToEnd(self) -> None:
        """While the client waits for us it has the rest of the budget; afterwards the timeout of a command."""
        self.until(10)
        self.patience.extendToEnd()
        self.until(400)
        self.assertEqual(self.expired, [])
        self.patience.extend()
        self.assertEqual(self.until(1000), [460])

    def test_toTheEnd(self) -> None:
        """A client waits for us no longer than the budget."""
        self.until(10)
        self.patience.extendToEnd()
        self.assertEqual(self.until(1000), [BUDGET * TIMEOUT])

    def test_allow(self) -> None:
        """A wait for us may have a limit of its own."""
        self.patience.allow(100)
        self.assertEqual(self.until(300), [100])

    def test_giveBack(self) -> None:
        """Time that we needed is added to the budget."""
        self.patience.giveBack(30)
        self.patience.extendToEnd()
        self.assertEqual(self.until(1000), [BUDGET * TIMEOUT + 30])

    def test_stop(self) -> None:
        """After a stop the deadline never passes; after a restart it does."""
        self.patience.stop()
        self.patience.stop()
        self.assertEqual(self.until(100), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        again: list[float] = []
        self.patience.restart(lambda: again.append(self.clock.seconds() - 1000))
        self.until(1000)
        self.assertEqual((self.expired, again), ([], [100 + TIMEOUT]))

    def test_limit(self) -> None:
        """The limit of a session passes even with activity, unless it is moved or lifted."""
        self.patience.limit(1020)
        self.patience.limit(1030)
        self.patience.limit(None)
        self.patience.limit(1040)
        self.patience.extend()
        self.until(39)
        self.patience.extendToEnd()
        self.assertEqual(self.until(2000), [40])

    def test_limitIsOver(self) -> None:
        """A limit that has passed already ends the session at once, and not inside the call."""
        self.patience.limit(900)
        self.assertEqual(self.expired, [])
        self.clock.advance(0)
        self.assertEqual(self.expired, [0])

    def test_limitIsLifted(self) -> None:
        """Without its limit a session has the deadlines that it would have had. After a stop it has none."""
        self.patience.limit(1010)
        self.until(5)
        self.patience.extend()
        self.patience.limit(None)
        self.assertEqual(self.until(64), [])
        self.patience.limit(1070)
        self.patience.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.patience.restart(lambda: self.expired.append(0))
        self.assertEqual(self.until(64 + TIMEOUT - 1), [])
        self.assertEqual(self.until(500), [0])

    def test_later(self) -> None:
        """A deadline that moves later does nothing in the clock until its old time comes."""
        timer = self.clock.getDelayedCalls()
        for second in range(1, 50):
            self.until(second)
            self.patience.extend()
            self.patience.extendToEnd()
        self.assertEqual(self.clock.getDelayedCalls(), timer)

    def test_coarse(self) -> None:
        """In a coarse clock the deadline passes within the second after it, wherever it has been moved."""
        for moves in ("extend", "extendToEnd extend", "extendToEnd", "extend extendToEnd extend"):
            self.setUp()
            self.patience.stop()
            patience = self.make(CoarseClock(self.clock))
            self.clock.pump([0.25] * 45)
            for move in moves.split():
                getattr(patience, move)()
            due = BUDGET * TIMEOUT if moves.endswith("End") else 11.25 + TIMEOUT
            self.clock.pump([0.25] * 4 * BUDGET * int(TIMEOUT))
            self.assertEqual(len(self.expired), 1)
            self.assertTrue(due <= self.expired[0] <= due + 1, (moves, self.expired))
            self.assertEqual(self.clock.getDelayedCalls(), [])


class BudgetTests(SynchronousTestCase):
    """The counters."""

    def make(self, **limits: Any) -> Patience:
        return Patience(DialogueSettings(**limits), ExactClock(Clock()), lambda: None)

    def test_errors(self) -> None:
        """At C{max_errors} the client has made one error too many."""
        patience = self.make(maxErrors=3)
        self.assertEqual([patience.countError() for _ in range(4)], [True, True, False, False])

    def test_commands(self) -> None:
        """C{max_commands} commands are allowed; the next one is not."""
        patience = self.make(maxCommands=3)
        self.assertEqual([patience.countCommand() for _ in range(5)], [True, True, True, False, False])

    def test_failures(self) -> None:
        """At C{max_auth_failures} the connection must end. 0 and an unset value are no limit."""
        for limits, expected in (
            ({"maxAuthFailures": 2}, [False, False, True, True]),
            ({"maxAuthFailures": 0}, [False, False, False, False]),
            ({}, [False, False, False, False]),
        ):
            patience = self.make(**limits)
            results = []
            for failures in range(4):
                patience.failures = failures
                results.append(patience.hasFailedOften)
            self.assertEqual(results, expected, limits)
