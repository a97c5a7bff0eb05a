"""Tests for L{mailgate.process.keeper.orders}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.answer import Answer
from mailgate.process.keeper.orders import (
    ALLOWED,
    ANSWERED_WITHIN,
    MOST_REQUESTS,
    Orders,
    RemoteOperator,
    carryOut,
)
from mailgate.process.keeper.talk import Request, Result
from mailgate.process.workers.messages import Message


class Operation:
    """Records the orders; C{answer} is its answer."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.answer: Deferred[Answer] = succeed(Answer(True))

    def reload(self) -> Deferred[Answer]:
        self.done.append("reload")
        return self.answer

    def stop(self) -> Deferred[Answer]:
        self.done.append("stop")
        return self.answer

    def orderBackend(self, word: str, address: str) -> Deferred[Answer]:
        self.done.append((word, address))
        return self.answer


class CarryOutTests(SynchronousTestCase):
    """Tests for L{carryOut}."""

    def order(self, command: str, **arguments: Any) -> Answer:
        self.operation = Operation()
        operation: Any = self.operation
        return self.successResultOf(carryOut(operation, command, arguments))

    def test_allowed(self) -> None:
        """Orders about backends and reloads are carried out."""
        self.assertTrue(self.order("reload").done)
        self.assertTrue(self.order("backend drain", address="a:1").done)
        self.assertEqual(self.operation.done, [("drain", "a:1")])

    def test_refused(self) -> None:
        """Commands that end the gateway, start a program or do not exist are refused."""
        for command in ("stop", "drain", "upgrade", "rm", ""):
            self.assertNotIn(command, ALLOWED)
            self.assertFalse(self.order(command).done)
            self.assertEqual(self.operation.done, [])

    def test_arguments(self) -> None:
        """Arguments that are not valid are refused."""
        for arguments in ({}, {"address": 5}, {"address": "a", "more": 1}, {"address": "a\nb"}):
            self.assertFalse(self.order("backend drain", **arguments).done)
            self.assertEqual(self.operation.done, [])

    def test_broke(self) -> None:
        """An order that fails unexpectedly is logged, and answered without its reason."""
        operation: Any = Operation()
        operation.answer = fail(RuntimeError("sesame"))
        answer = self.successResultOf(carryOut(operation, "reload", {}))
        self.assertFalse(answer.done)
        self.assertNotIn("sesame", str(answer))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class OrdersTests(SynchronousTestCase):
    """Tests for L{Orders}."""

    def setUp(self) -> None:
        self.sent: list[Message] = []
        self.orders = Orders(self.sent.append)

    def test_answered(self) -> None:
        """The answer goes to the keeper that has requested it."""
        self.orders.order = lambda command, arguments: succeed(Answer(True, rows=({"a": 1},)))
        self.orders.requested(Request(7, "backend list", {}, 2), 2)
        (result,) = self.sent
        assert isinstance(result, Result)
        self.assertEqual((result.id, result.slot, result.done), (7, 2, True))
        self.assertEqual(result.answer["rows"], ({"a": 1},))

    def test_flood(self) -> None:
        """A keeper that is taken over does not fill the memory of the master with orders."""
        waiting = [Deferred[Answer]() for _ in range(MOST_REQUESTS)]
        left = iter(waiting)
        self.orders.order = lambda command, arguments: next(left)
        for number in range(MOST_REQUESTS + 3):
            self.orders.requested(Request(number, "reload", {}, 2), 2)
        self.assertEqual([getattr(each, "done", None) for each in self.sent], 3 * [False])
        for each in waiting:
            each.callback(Answer(True))
        self.assertEqual(len(self.sent), MOST_REQUESTS + 3)
        left = iter([succeed(Answer(True))])
        self.orders.requested(Request(99, "reload", {}, 2), 2)
        self.assertTrue(getattr(self.sent[-1], "done", None))

    def test_early(self) -> None:
        """Before the process serves, an order is refused."""
        self.orders.requested(Request(7, "reload", {}, 2), 2)
        (result,) = self.sent
        assert isinstance(result, Result)
        self.assertFalse(result.done)

    def test_tooLong(self) -> None:
        """An answer that is too long for a message loses its rows."""
        self.orders.order = lambda command, arguments: succeed(Answer(True, rows=("x" * 1000,) * 1000))
        self.orders.requested(Request(7, "backend list", {}, 2), 2)
        (result,) = self.sent
        assert isinstance(result, Result)
        self.assertTrue(result.done)
        self.assertEqual(result.answer["rows"], ())


class RemoteOperatorTests(SynchronousTestCase):
    """Tests for L{RemoteOperator}."""

    def setUp(self) -> None:
        self.sent: list[Any] = []
        self.works = True
        self.clock = Clock()
        self.operator = RemoteOperator(self.send, self.clock)

    def send(self, message: Message) -> bool:
        self.sent.append(message)
        return self.works

    def test_answer(self) -> None:
        """Each order gets its own answer."""
        first = self.operator.order("reload", {})
        second = self.operator.order("backend drain", {"address": "a:1"})
        self.assertEqual([each.command for each in self.sent], ["reload", "backend drain"])
        one, two = self.sent
        answer = {"done": True, "reasons": [], "cut": 0, "pid": None, "isUnknown": False, "rows": [1]}
        self.operator.answered(Result(two.id, 0, True, answer))
        self.assertEqual(self.successResultOf(second), Answer(True, rows=(1,)))
        self.operator.answered(Result(one.id, 0, False, {**answer, "done": False, "reasons": ["why"]}))
        self.assertEqual(self.successResultOf(first).reasons, ("why",))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """An order without an answer ends at the deadline, and a late answer is ignored."""
        answered = self.operator.order("reload", {})
        self.clock.advance(ANSWERED_WITHIN)
        self.assertFalse(self.successResultOf(answered).done)
        self.operator.answered(Result(self.sent[0].id, 0, True, {"done": True}))

    def test_bounds(self) -> None:
        """Too many orders, one that cannot be written and one that is not received are refused."""
        self.assertFalse(self.successResultOf(self.operator.order("backend drain", {"address": "x" * 5000})).done)
        self.works = False
        self.assertFalse(self.successResultOf(self.operator.order("reload", {})).done)
        self.works = True
        waiting = [self.operator.order("reload", {}) for _ in range(MOST_REQUESTS)]
        self.assertFalse(self.successResultOf(self.operator.order("reload", {})).done)
        self.clock.advance(ANSWERED_WITHIN)
        for each in waiting:
            self.assertFalse(self.successResultOf(each).done)
