# -*- test-case-name: mailgate.test.keeper.test_answering -*-
"""
Tests for L{mailgate.keeper.answering}.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.answering import MOST_QUESTIONS, WORK, Answering
from mailgate.test.keeper.processes import newView, turn


class AnsweringTests(SynchronousTestCase):
    """L{Answering}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.view = newView()
        self.answering = Answering(self.view, self.clock)
        self.parts: list[Any] = []

    def begin(self, word: str, **arguments: Any) -> Any:
        return self.answering.begin(word, arguments, lambda *part: self.parts.append((word, *part)))

    def test_parts(self) -> None:
        """A turn of the event loop has 200 rows, and nothing is sent before the next turn."""
        self.begin("many", many=450, long=1)
        self.assertEqual(self.parts, [])
        for numbers, isLast in (((0, 200), False), ((200, 400), False), ((400, 450), True)):
            turn(self.clock)
            word, rows, isEnd, failure = self.parts.pop()
            self.assertEqual([each["number"] for each in rows], list(range(*numbers)))
            self.assertEqual((word, isEnd, failure), ("many", isLast, ""))
        self.assertTrue(self.answering.isIdle)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_slowRows(self) -> None:
        """A turn takes a few milliseconds, however long a row takes."""

        def slow(word: str, arguments: Any) -> Iterator[Any]:
            for number in range(10):
                self.clock.rightNow += 0.6 * WORK
                yield number

        self.view.answer = slow
        self.begin("sessions")
        for _ in range(5):
            turn(self.clock)
            self.assertLessEqual(len(self.parts.pop()[1]), 2)

    def test_turns(self) -> None:
        """Several answers go on side by side: a long one does not delay a short one."""
        self.begin("endless")
        self.begin("sessions")
        turn(self.clock)
        turn(self.clock)
        self.assertEqual(
            [(word, isLast) for word, _, isLast, _ in self.parts], [("endless", False), ("sessions", True)]
        )
        self.assertFalse(self.answering.isIdle)

    def test_failures(self) -> None:
        """An unknown question, bad arguments and a failure are answered in words; only a failure is logged."""
        self.begin("nothing")
        self.begin("bad")
        self.assertEqual(self.flushLoggedErrors(), [])
        self.begin("broken")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(
            self.parts,
            [
                ("nothing", [], True, "it does not know the question"),
                ("bad", [], True, "the address is not valid"),
                ("broken", [], True, "it failed; its log has the reason"),
            ],
        )
        self.assertTrue(self.answering.isIdle)

    def test_laterFailure(self) -> None:
        """The rows before a failure are sent."""

        def broken(word: str, arguments: Any) -> Iterator[Any]:
            yield 1
            raise RuntimeError

        self.view.answer = broken
        self.begin("sessions")
        turn(self.clock)
        self.assertEqual(self.parts, [("sessions", [1], True, "it failed; its log has the reason")])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_most(self) -> None:
        """Questions are refused beyond a bound."""
        for _ in range(MOST_QUESTIONS):
            self.begin("endless")
        self.assertIsNone(self.begin("sessions"))
        self.assertEqual(self.parts, [("sessions", [], True, "it is asked too many questions")])

    def test_pause(self) -> None:
        """While the keeper does not read, no row is made."""
        self.begin("endless")
        turn(self.clock)
        self.answering.pause()
        self.begin("endless")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.answering.resume()
        self.answering.resume()
        turn(self.clock)
        self.assertEqual(len(self.parts), 2)

    def test_cancel(self) -> None:
        """A question that is taken back is not answered any more."""
        idle: list[int] = []
        self.answering.idle = lambda: idle.append(1)
        answer = self.begin("endless")
        turn(self.clock)
        for _ in range(2):
            self.answering.cancel(answer)
        self.assertEqual((len(self.parts), idle), (1, [1]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """At the end of the connection all is forgotten."""
        self.begin("endless")
        self.answering.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertTrue(self.answering.isIdle)
