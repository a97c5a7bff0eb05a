"""
Tests of L{mailgate.auth.http.deadlines}.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.deadlines import Deadlines


class Asked:
    """A request that notes that it was cancelled."""

    due = 0.0
    isExpired = False

    def __init__(self, patience: float, cancelled: Callable[[], object]) -> None:
        self.patience = patience
        self.cancel = cancelled


class DeadlinesTests(SynchronousTestCase):
    """One timer for many requests."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000.5)
        self.deadlines = Deadlines(self.clock, 60)
        self.late: list[str] = []

    def add(self, name: str, patience: float = 60) -> Asked:
        """Give a request C{patience} seconds; when it is cancelled, it ends and is named in C{late}."""
        asked = Asked(patience, lambda: None)
        asked.cancel = partial(self.expired, name, asked)
        self.deadlines.add(asked)
        return asked

    def expired(self, name: str, asked: Asked) -> None:
        """Note the end of a request."""
        self.late.append(name)
        self.deadlines.remove(asked)

    def advance(self, seconds: float) -> list[str]:
        """Let time pass, and return which requests were cancelled."""
        self.clock.advance(seconds)
        late, self.late = self.late, []
        return late

    def test_each(self) -> None:
        """Each request has its own time, also a shorter one that comes later, and one timer serves all."""
        requests = [self.add("a"), self.add("b", 50), self.add("c", 0.5)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertEqual(self.advance(0.25), [])
        self.assertEqual(self.advance(0.25), ["c"])
        self.assertEqual([each.isExpired for each in requests], [False, False, True])
        self.assertEqual(self.advance(49.5), ["b"])
        self.assertEqual(self.advance(9.5), [])
        self.assertEqual(self.advance(0.5), ["a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_ended(self) -> None:
        """A request that has ended is not cancelled, and after the last one no timer waits."""
        first, second = self.add("a"), self.add("b")
        self.deadlines.remove(first)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertEqual(self.advance(59), [])
        third = self.add("c")
        self.assertEqual(self.advance(2), ["b"])
        self.deadlines.remove(second)
        self.deadlines.remove(third)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.advance(600), [])

    def test_again(self) -> None:
        """A request that is sent again has its whole time again."""
        asked = self.add("a")
        self.assertEqual(self.advance(60), ["a"])
        self.deadlines.add(asked)
        self.assertFalse(asked.isExpired)
        self.assertEqual(self.advance(59), [])
        self.assertEqual(self.advance(2), ["a"])

    def test_oneEndsAnother(self) -> None:
        """A request that ends because of another one's deadline is not cancelled; a new one gets its time."""
        first, second = self.add("a"), self.add("b")
        third = Asked(5, lambda: self.late.append("c"))
        for asked, other in ((first, second), (second, first)):

            def cancel(other: Asked = other) -> None:
                self.late.append("one")
                self.deadlines.remove(other)
                self.deadlines.add(third)

            asked.cancel = cancel
        self.assertEqual(self.advance(60), ["one"])
        self.assertEqual(self.advance(4), [])
        self.assertEqual(self.advance(1), ["c"])

    def test_setBack(self) -> None:
        """If the clock is set back, a request waits at most its whole time once more."""
        self.add("a", 30)
        self.add("b")
        self.clock.rightNow -= 900
        self.assertEqual(self.advance(930), ["a"])
        self.clock.rightNow -= 900
        self.assertEqual(self.advance(930), ["b"])
