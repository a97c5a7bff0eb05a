"""How long a client may take, and how often it may be wrong."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.patience import Patience
from mailgate.frontend.protocol import BUDGET, DialogueSettings

TIMEOUT = 60.0


class DeadlineTests(SynchronousTestCase):
    """The deadline, over a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.expired: list[float] = []
        settings = DialogueSettings(timeout=TIMEOUT)
        self.patience = Patience(settings, self.clock, lambda: self.expired.append(self.clock.seconds() - 1000))

    def until(self, moment: float) -> list[float]:
        """When it was over, second by second until C{moment}."""
        while self.clock.seconds() < 1000 + moment:
            self.clock.advance(1)
        return self.expired

    def test_silence(self) -> None:
        """A client that does nothing has as long as for one command, once."""
        self.assertEqual(self.until(TIMEOUT - 1), [])
        self.assertEqual(self.until(3 * TIMEOUT), [TIMEOUT])

    def test_extend(self) -> None:
        """What it does gives it as long again."""
        self.until(50)
        self.patience.extend()
        self.assertEqual(self.until(300), [110])

    def test_budget(self) -> None:
        """All together it has no more than the budget, however busy it is."""
        for second in range(1, 2 * BUDGET * int(TIMEOUT)):
            self.until(second)
            if not self.expired:
                self.patience.extend()
        self.assertEqual(self.expired, [BUDGET * TIMEOUT])

    def test_budgetIsOver(self) -> None:
        """What it does behind the end of the budget gives it nothing."""
        self.patience.allow(2 * BUDGET * TIMEOUT)
        self.until(BUDGET * TIMEOUT + 5)
        self.patience.extend()
        self.clock.advance(0)
        self.assertEqual(self.expired, [BUDGET * TIMEOUT + 5])

    def test_extendToEnd(self) -> None:
        """While it waits for us it has all that is left; then again as long as for one command."""
        self.until(10)
        self.patience.extendToEnd()
        self.until(400)
        self.assertEqual(self.expired, [])
        self.patience.extend()
        self.assertEqual(self.until(1000), [460])

    def test_toTheEnd(self) -> None:
        """Nobody waits for us any longer than the budget."""
        self.until(10)
        self.patience.extendToEnd()
        self.assertEqual(self.until(1000), [BUDGET * TIMEOUT])

    def test_allow(self) -> None:
        """It may have to wait for us for a time that we name."""
        self.patience.allow(100)
        self.assertEqual(self.until(300), [100])

    def test_giveBack(self) -> None:
        """Time that was ours is not taken from its budget."""
        self.patience.giveBack(30)
        self.patience.extendToEnd()
        self.assertEqual(self.until(1000), [BUDGET * TIMEOUT + 30])

    def test_stop(self) -> None:
        """Stopped, it is never over; once more, it is."""
        self.patience.stop()
        self.patience.stop()
        self.assertEqual(self.until(100), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        again: list[float] = []
        self.patience.restart(lambda: again.append(self.clock.seconds() - 1000))
        self.until(1000)
        self.assertEqual((self.expired, again), ([], [100 + TIMEOUT]))


class BudgetTests(SynchronousTestCase):
    """What is counted."""

    def make(self, **limits: Any) -> Patience:
        return Patience(DialogueSettings(**limits), Clock(), lambda: None)

    def test_errors(self) -> None:
        """The last of so many errors is one too many."""
        patience = self.make(maxErrors=3)
        self.assertEqual([patience.countError() for _ in range(4)], [True, True, False, False])

    def test_commands(self) -> None:
        """So many commands are good, and the one behind them is not."""
        patience = self.make(maxCommands=3)
        self.assertEqual([patience.countCommand() for _ in range(5)], [True, True, True, False, False])

    def test_failures(self) -> None:
        """The last of so many refused logins is one too many; 0 is no limit, nor is what nothing says."""
        for limits, expected in (
            ({"maxAuthFailures": 2}, [False, False, True, True]),
            ({"maxAuthFailures": 0}, [False, False, False, False]),
            ({}, [False, False, False, False]),
        ):
            patience = self.make(**limits)
            told = []
            for failures in range(4):
                patience.failures = failures
                told.append(patience.hasFailedOften)
            self.assertEqual(told, expected, limits)
