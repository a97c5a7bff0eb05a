"""
Limits of a client before login: its time.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.patience import Patience
from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.lean.clock import CoarseClock, Deadlines, ExactClock
from mailgate.session import Phase
from mailgate.testing.fakes import makeSession

TIMEOUT = 60.0


class Waiting(Patience):
    """Notes in C{missed} when the deadline passes, and in C{aborted} when the time for the close does."""

    dialogue = DialogueSettings(timeout=TIMEOUT)

    def __init__(self, deadlines: Deadlines, moment: Callable[[], float]) -> None:
        self.factory = SimpleNamespace(deadlines=deadlines)
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.1:4242", deadlines.seconds(), phase=Phase.COMMAND)
        self.transport = SimpleNamespace(abortConnection=lambda: self.aborted.append(moment()))
        self.moment = moment
        self.missed: list[float] = []
        self.aborted: list[float] = []
        self.startWaiting(deadlines.seconds())

    def timedOut(self) -> None:
        self.missed.append(self.moment())


class DeadlineTests(SynchronousTestCase):
    """The deadline, over a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.patience = self.make(ExactClock(self.clock))

    def make(self, deadlines: Deadlines) -> Waiting:
        """Return a dialogue that notes when its deadline passes."""
        return Waiting(deadlines, lambda: self.clock.seconds() - 1000)

    def until(self, moment: float) -> list[float]:
        """Return when the deadline passed, second by second until C{moment}."""
        while self.clock.seconds() < 1000 + moment:
            self.clock.advance(1)
        return self.patience.missed

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
            if not self.patience.missed:
                self.patience.extend()
        self.assertEqual(self.patience.missed, [BUDGET * TIMEOUT])

    def test_budgetIsOver(self) -> None:
        """Activity after the end of the budget gives no more time."""
        self.patience.allow(2 * BUDGET * TIMEOUT)
        self.until(BUDGET * TIMEOUT + 5)
        self.patience.extend()
        self.clock.advance(0)
        self.assertEqual(self.patience.missed, [BUDGET * TIMEOUT + 5])

    def test_extendToEnd(self) -> None:
        """While the client waits for us it has the rest of the budget; afterwards the timeout of a command."""
        self.until(10)
        self.patience.extendToEnd()
        self.until(400)
        self.assertEqual(self.patience.missed, [])
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
        """After a stop the deadline never passes. A client that does not close then is cut off."""
        self.patience.stopWaiting()
        self.patience.stopWaiting()
        self.assertEqual(self.until(100), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.patience.session.end()
        self.patience.waitForClose()
        self.until(1000)
        self.assertEqual((self.patience.missed, self.patience.aborted), ([], [100 + TIMEOUT]))

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
        self.assertEqual(self.patience.missed, [])
        self.clock.advance(0)
        self.assertEqual(self.patience.missed, [0])

    def test_limitIsLifted(self) -> None:
        """Without its limit a session has the deadlines that it would have had. After a stop it has none."""
        self.patience.limit(1010)
        self.until(5)
        self.patience.extend()
        self.patience.limit(None)
        self.assertEqual(self.until(64), [])
        self.patience.limit(1070)
        self.patience.stopWaiting()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.patience.session.end()
        self.patience.waitForClose()
        self.until(64 + TIMEOUT - 1)
        self.assertEqual((self.patience.missed, self.patience.aborted), ([], []))
        self.until(500)
        self.assertEqual((self.patience.missed, self.patience.aborted), ([], [64 + TIMEOUT]))

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
            self.patience.stopWaiting()
            patience = self.patience = self.make(CoarseClock(self.clock))
            self.clock.pump([0.25] * 45)
            for move in moves.split():
                getattr(patience, move)()
            due = BUDGET * TIMEOUT if moves.endswith("End") else 11.25 + TIMEOUT
            self.clock.pump([0.25] * 4 * BUDGET * int(TIMEOUT))
            self.assertEqual(len(self.patience.missed), 1)
            self.assertTrue(due <= self.patience.missed[0] <= due + 1, (moves, self.patience.missed))
            self.assertEqual(self.clock.getDelayedCalls(), [])
