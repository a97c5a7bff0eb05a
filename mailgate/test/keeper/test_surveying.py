# -*- test-case-name: mailgate.test.keeper.test_surveying -*-
"""
Tests for L{mailgate.keeper.surveying}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.surveying import Surveying
from mailgate.test.keeper.processes import newView, turn


class SurveyingTests(SynchronousTestCase):
    """L{Surveying}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.view = newView()
        self.view.watcher.gauges = {"mailgate_backend_up": [[["a:143"], 1]]}
        self.surveying = Surveying(self.view, self.clock)
        self.found: list[Any] = []

    def turns(self, number: int) -> None:
        for _ in range(number):
            turn(self.clock)

    def logins(self) -> list[int]:
        return [each["mailgate_logins"][0][1] for each in self.found]

    def test_slices(self) -> None:
        """Each slice takes a turn of the event loop."""
        self.view.login()
        self.surveying.measure(self.found.append)
        self.turns(2)
        self.assertEqual(self.found, [])
        self.turns(1)
        (found,) = self.found
        self.assertEqual(found["mailgate_backend_up"], [[["a:143"], 1]])
        self.assertEqual(self.logins(), [1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_shared(self) -> None:
        """What is asked for at the same time is measured once; what is asked for later sees what has happened since."""
        self.view.login()
        self.surveying.measure(self.found.append)
        self.surveying.measure(self.found.append)
        self.turns(1)
        self.surveying.measure(self.found.append)
        self.turns(2)
        self.assertEqual(self.logins(), [1, 1])
        self.view.login()
        self.turns(3)
        self.assertEqual(self.logins(), [1, 1, 2])
        self.assertIs(self.found[0], self.found[1])

    def test_broken(self) -> None:
        """A failure is logged, and the next survey works."""
        self.view.watcher.gauges = None
        self.surveying.measure(self.found.append)
        self.turns(3)
        self.assertEqual(self.found, [None])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.view.watcher.gauges = {}
        self.view.login()
        self.surveying.measure(self.found.append)
        self.turns(3)
        self.assertEqual(self.found[1]["mailgate_logins"][0][1], 1)

    def test_stop(self) -> None:
        """Nothing happens after the end."""
        self.surveying.measure(self.found.append)
        self.turns(1)
        self.surveying.stop()
        self.surveying.stop()
        self.assertEqual((self.found, self.clock.getDelayedCalls()), ([], []))
