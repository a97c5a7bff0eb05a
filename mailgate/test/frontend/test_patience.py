"""
Limits of a client before login: time and errors.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.patience import Patience
from mailgate.frontend.settings import BUDGET, DialogueSettings

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
        ends: list[float] = []

        def outlived() -> None:
            ends.append(self.clock.seconds() - 1000)

        self.patience.limit(1020, outlived)
        self.patience.limit(1030, outlived)
        self.patience.limit(None, outlived)
        self.patience.limit(1040, outlived)
        self.patience.extend()
        self.until(50)
        self.assertEqual((ends, self.expired), ([40], []))
        self.patience.limit(1010, outlived)
        self.clock.advance(0)
        self.assertEqual(ends, [40, 50])
        self.patience.limit(1060, outlived)
        self.patience.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BudgetTests(SynchronousTestCase):
    """The counters."""

    def make(self, **limits: Any) -> Patience:
        return Patience(DialogueSettings(**limits), Clock(), lambda: None)

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
