"""
Tests of L{mailgate.store.redis.breaker}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.interfaces import StoreUnavailable
from mailgate.store.redis.breaker import FIRST_PAUSE, LONGEST_PAUSE, MOST_FAILURES, Breaker


class BreakerTests(SynchronousTestCase):
    """When the store is asked."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.trials: list[Deferred[Any]] = []
        self.told: list[str] = []
        self.breaker = Breaker(self.clock, self.attempt, self.told.append)

    def attempt(self) -> Deferred[Any]:
        self.trials.append(Deferred())
        return self.trials[-1]

    def up(self) -> None:
        self.breaker.start()
        self.trials[-1].callback(None)

    def fails(self, times: int = MOST_FAILURES) -> None:
        for _ in range(times):
            self.breaker.failed("is slow")

    def test_start(self) -> None:
        """It is asked after a trial."""
        self.assertEqual((self.breaker.isUp, bool(self.breaker.reason)), (False, True))
        self.breaker.start()
        self.assertFalse(self.breaker.isUp)
        self.trials[0].callback(None)
        self.assertEqual((self.breaker.isUp, self.breaker.reason, self.told), (True, "", [""]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_inARow(self) -> None:
        """Three failures in a row are too many; with a success between them they are not."""
        self.up()
        self.fails(2)
        self.breaker.succeeded()
        self.fails(2)
        self.assertTrue(self.breaker.isUp)
        self.fails(1)
        self.assertEqual((self.breaker.isUp, self.breaker.reason), (False, "is slow"))
        self.assertEqual(self.told, ["", "is slow"])

    def test_pauses(self) -> None:
        """The pause doubles up to a minute, and each change is reported once."""
        self.up()
        self.fails()
        for pause in (5, 10, 20, 40, 60, 60):
            count = len(self.trials)
            self.clock.advance(pause - 0.5)
            self.assertEqual(len(self.trials), count)
            self.clock.advance(0.5)
            self.assertEqual(len(self.trials), count + 1)
            self.trials[-1].errback(StoreUnavailable("is gone"))
        self.assertEqual((self.told, self.breaker.reason), (["", "is slow"], "is gone"))
        self.clock.advance(LONGEST_PAUSE)
        self.trials[-1].callback(None)
        self.assertEqual((self.breaker.isUp, self.told), (True, ["", "is slow", ""]))

    def test_relapse(self) -> None:
        """A store that fails soon after it has come back is left alone for longer; one that has worked, is not."""
        self.up()
        self.clock.advance(LONGEST_PAUSE)
        self.fails()
        self.clock.advance(FIRST_PAUSE)
        self.trials[-1].callback(None)
        self.fails()
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(len(self.trials), 2)
        self.clock.advance(FIRST_PAUSE)
        self.trials[-1].callback(None)
        self.clock.advance(LONGEST_PAUSE)
        self.fails()
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual(len(self.trials), 4)

    def test_late(self) -> None:
        """Failures of calls from before do not lengthen the pause."""
        self.up()
        self.fails(20)
        self.clock.advance(FIRST_PAUSE)
        self.assertEqual((len(self.trials), self.told), (2, ["", "is slow"]))

    def test_neverUp(self) -> None:
        """A store that is away at the start is reported, too, once."""
        self.breaker.start()
        self.trials[0].errback(StoreUnavailable("is gone"))
        self.clock.advance(FIRST_PAUSE)
        self.trials[1].errback(StoreUnavailable("is gone"))
        self.assertEqual(self.told, ["is gone"])

    def test_stop(self) -> None:
        """Neither a trial nor a pause outlives it, and nothing is reported."""
        self.breaker.start()
        cancelled: list[Any] = []
        self.trials[0].addErrback(lambda failure: cancelled.append(failure.trap(CancelledError)))
        self.breaker.stop()
        self.assertEqual((self.told, self.clock.getDelayedCalls()), ([], []))
        self.breaker.start()
        self.trials[1].callback(None)
        self.fails()
        self.breaker.stop()
        self.assertEqual((self.breaker.isUp, self.clock.getDelayedCalls()), (False, []))
