# -*- test-case-name: mailgate.test.keeper.test_answering -*-
"""
Answers the keeper's questions in a process that serves clients, and lets the clients wait for a few milliseconds at
most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.keeper.messages import ROWS_A_PART
from mailgate.log.journal import oneLine

__all__ = ["MOST_QUESTIONS", "WORK", "Answer", "Answering", "IView"]

MOST_QUESTIONS = 64
"""Questions that a process answers at the same time."""

WORK = 0.002
"""Seconds of work on answers before the process serves clients again."""

_LONGEST_FAILURE = 500

_log = Logger("mailgate")


class IView(Protocol):
    """What answers questions: L{mailgate.keeper.view.ProcessView}."""

    def answer(self, word: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        """
        Answer a question. See L{mailgate.keeper.view.ProcessView.answer}.

        @param word: its name.
        @param arguments: its arguments, by name.
        """


@define(eq=False)
class Answer:
    """
    An answer that has begun.

    @ivar rows: yields the rows that are left.
    @ivar send: called with the next rows, whether these are the last ones, and why the answer is incomplete, or C{""}.
    """

    rows: Iterator[Any]
    send: Callable[[list[Any], bool, str], object]


class Answering:
    """
    Answers questions, a part of one answer in each turn of the event loop.

    @param view: has the answers.
    @param clock: the time and timers.
    @ivar idle: called when no answer is left.
    """

    def __init__(self, view: IView, clock: IReactorTime) -> None:
        self._view = view
        self._clock = clock
        self._answers: deque[Answer] = deque()
        self._turn: IDelayedCall | None = None
        self._isPaused = False
        self.idle: Callable[[], object] = lambda: None

    @property
    def isIdle(self) -> bool:
        """Whether no answer is left."""
        return not self._answers

    def begin(
        self, word: str, arguments: Mapping[str, Any], send: Callable[[list[Any], bool, str], object]
    ) -> Answer | None:
        """
        Begin an answer. It is sent in later turns of the event loop.

        @param word: the question.
        @param arguments: its arguments.
        @param send: see L{Answer}.
        @return: the answer; L{None} if it has ended already.
        """
        if len(self._answers) >= MOST_QUESTIONS:
            send([], True, "it is asked too many questions")
            return None
        try:
            rows = iter(self._view.answer(word, arguments))
        except KeyError:
            send([], True, "it does not know the question")
            return None
        except Exception as error:
            send([], True, self._why(word, error))
            return None
        answer = Answer(rows, send)
        self._answers.append(answer)
        self._goOn()
        return answer

    def cancel(self, answer: Answer) -> None:
        """
        Stop an answer. Nothing more of it is sent.

        @param answer: the answer; it may have ended.
        """
        if answer in self._answers:
            self._end(answer)

    def pause(self) -> None:
        """Send nothing, until L{resume}."""
        self._isPaused = True
        self._cease()

    def resume(self) -> None:
        """Go on after L{pause}."""
        self._isPaused = False
        self._goOn()

    def stop(self) -> None:
        """Forget all answers."""
        self._answers.clear()
        self._cease()

    def _cease(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()

    def _goOn(self) -> None:
        if self._answers and self._turn is None and not self._isPaused:
            self._turn = self._clock.callLater(0, self._work)

    def _work(self) -> None:
        self._turn = None
        answer = self._answers[0]
        self._answers.rotate(-1)
        rows: list[Any] = []
        isLast, failure = False, ""
        end = self._clock.seconds() + WORK
        try:
            while len(rows) < ROWS_A_PART:
                rows.append(next(answer.rows))
                if self._clock.seconds() >= end:
                    break
        except StopIteration:
            isLast = True
        except Exception as error:
            isLast, failure = True, self._why("", error)
        # It may pause the answers.
        answer.send(rows, isLast, failure)
        if isLast and answer in self._answers:
            self._end(answer)
        self._goOn()

    def _end(self, answer: Answer) -> None:
        self._answers.remove(answer)
        if not self._answers:
            self._cease()
            self.idle()

    def _why(self, word: str, error: Exception) -> str:
        if isinstance(error, ValueError):
            # The arguments are not valid.
            return oneLine(str(error))[:_LONGEST_FAILURE]
        _log.failure("cannot answer a question of the keeper")
        return "it failed; its log has the reason"
