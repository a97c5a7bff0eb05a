"""
Tests for L{mailgate.keeper.admin.replies}.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.admin.replies import ROWS_A_TURN, Reply, jsonReply, replyInTurns


class Turns(Clock):
    """
    Counts the turns of the event loop that are waited for.

    @ivar turns: how many.
    """

    turns = 0

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> IDelayedCall:
        """Count one."""
        self.turns += 1
        return super().callLater(delay, callable, *args, **kw)


class TurnsTests(SynchronousTestCase):
    """Tests for L{replyInTurns}."""

    def test_short(self) -> None:
        """A value without a long list is written at once."""
        values: tuple[Any, ...] = ({"sessions": [{}] * ROWS_A_TURN, "next": None}, [1] * 2 * ROWS_A_TURN, {}, 1)
        for value in values:
            self.assertEqual(replyInTurns(value, Clock()), jsonReply(value))

    def test_long(self) -> None:
        """A long list takes a turn for each part, and the answer is the same as in one piece."""
        for number in (ROWS_A_TURN + 1, 2 * ROWS_A_TURN, 5 * ROWS_A_TURN - 1):
            rows = [{"id": f"é\u202e{row}", "numbers": [row, None, 0.5]} for row in range(number)]
            value: dict[str, Any] = {"first\n": 1, "sessions": rows, "none": [], "more": rows, "next": None}
            clock = Turns()
            replied = replyInTurns(value, clock)
            assert isinstance(replied, Deferred)
            clock.advance(0)
            reply: Reply = self.successResultOf(replied)
            self.assertEqual(clock.turns, 2 * -(-number // ROWS_A_TURN))
            self.assertEqual(reply, jsonReply(value))
            self.assertEqual(json.loads(reply.body), value)

    def test_notANumber(self) -> None:
        """What JSON cannot hold is an error, also in a long list."""
        clock = Clock()
        replied = replyInTurns({"rows": [0.0] * ROWS_A_TURN + [float("nan")]}, clock)
        assert isinstance(replied, Deferred)
        clock.advance(0)
        self.failureResultOf(replied, ValueError)

    def test_cancelled(self) -> None:
        """Nothing more is written for a client that has left."""
        clock = Clock()
        replied = replyInTurns({"rows": [0] * 3 * ROWS_A_TURN}, clock)
        assert isinstance(replied, Deferred)
        replied.cancel()
        self.failureResultOf(replied, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])
