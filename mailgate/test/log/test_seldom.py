"""
Tests for L{mailgate.log.seldom}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.seldom import PERIOD, Seldom


class SeldomTests(SynchronousTestCase):
    """Tests for L{Seldom}."""

    def test_first(self) -> None:
        """The first line is due at any time."""
        for now in (-5.0, 0.0, 1e9):
            self.assertTrue(Seldom().isDue(now))

    def test_period(self) -> None:
        """The next line is due a minute after the last one that was due."""
        seldom = Seldom()
        due = [now for now in range(0, int(3 * PERIOD)) if seldom.isDue(now)]
        self.assertEqual(due, [0, PERIOD, 2 * PERIOD])

    def test_postponed(self) -> None:
        """Nothing is due within a minute after postpone."""
        seldom = Seldom()
        self.assertTrue(seldom.isDue(0))
        seldom.postpone(PERIOD - 1)
        self.assertFalse(seldom.isDue(2 * PERIOD - 2))
        self.assertTrue(seldom.isDue(2 * PERIOD - 1))

    def test_clockSetBack(self) -> None:
        """A line is due if the clock was set back."""
        seldom = Seldom()
        self.assertTrue(seldom.isDue(1000))
        self.assertTrue(seldom.isDue(10))
        self.assertFalse(seldom.isDue(11))
