# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
Asks all processes of a gateway at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed

from mailgate.keeper.collecting import collect
from mailgate.keeper.interfaces import Collected, IMember

__all__ = ["MOST_QUESTIONS", "MOST_ROWS", "Asking"]

MOST_QUESTIONS = 64
"""Questions that wait for answers at the same time."""

MOST_ROWS = 200_000
"""Rows of an answer."""


class Asking:
    """
    Asks.

    @param members: returns the processes.
    @param whenComplete: returns what fires when all processes are known.
    """

    def __init__(self, members: Callable[[], Sequence[IMember]], whenComplete: Callable[[], Deferred[None]]) -> None:
        self._members = members
        self._whenComplete = whenComplete
        self._questions = 0

    def ask(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask all processes, unless L{MOST_QUESTIONS} wait for answers. See L{mailgate.keeper.keeper.Keeper.ask}.

        @param word: the name of the question.
        @param arguments: its arguments.
        @param within: seconds until a process must have answered.
        """
        if self._questions >= MOST_QUESTIONS:
            return succeed(Collected((), ("too many questions wait for answers of the processes",)))
        self._questions += 1
        return self.askAll(word, arguments, within).addBoth(self._answered)

    def _answered(self, result: Any) -> Any:
        self._questions -= 1
        return result

    def askAll(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask all processes, however many questions wait.

        @param word: the name of the question.
        @param arguments: its arguments.
        @param within: seconds until a process must have answered.
        """
        return self._whenComplete().addCallback(lambda _: self._askAll(word, arguments, within))

    def _askAll(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        members = self._members()
        asked = DeferredList([maybeDeferred(each.ask, word, arguments, within) for each in members], consumeErrors=True)
        return asked.addCallback(lambda results: collect(results, members, MOST_ROWS))
