# -*- test-case-name: mailgate.test.keeper.test_limits,mailgate.test.keeper.test_places -*-
"""
What a process that serves clients asks the keeper while a login waits. Each answer has a deadline, after which the
process finds an answer itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.store.settings import StoreSettings

__all__ = ["DEADLINE", "LOGGED_EVERY", "MOST_WAITING", "Question", "Questions", "deadlineFor", "patienceFor"]

DEADLINE = 0.05
"""Seconds until the keeper must have answered."""

_MARGIN = 0.01
"""As many more than a keeper waits for the store that several gateways share."""

MOST_WAITING = 1000
"""Questions that wait for the keeper at the same time."""

LOGGED_EVERY = 60.0
"""Seconds between two warnings that the keeper is late."""

_About = TypeVar("_About")
_Answer = TypeVar("_Answer")


def deadlineFor(store: StoreSettings) -> float:
    """
    Return how many seconds a keeper may take to answer, which may have to ask a store.

    @param store: the directives of the store.
    """
    return DEADLINE if store.address is None else max(DEADLINE, store.timeout + _MARGIN)


def patienceFor(store: StoreSettings) -> float:
    """
    Return for how many seconds a login waits in all for what a keeper, and a store, know.

    @param store: the directives of the store.
    """
    return DEADLINE if store.address is None else store.timeout + _MARGIN


class Question(Generic[_About, _Answer]):
    """
    A question to the keeper.

    @ivar number: its number in messages.
    @ivar about: what it is about.
    @ivar due: when the process finds an answer itself, in monotonic seconds.
    @ivar answered: fires with the answer; L{None} if nothing waits for it any more.
    @ivar isOverdue: whether the keeper is too late.
    """

    __slots__ = ("about", "answered", "due", "isOverdue", "number")

    def __init__(self, number: int, about: _About, due: float) -> None:
        self.number = number
        self.about = about
        self.due = due
        self.answered: Deferred[_Answer] | None = Deferred(self._abandon)
        self.isOverdue = False

    def _abandon(self, _: object) -> None:
        # The login was cancelled. An answer that is late still counts as that.
        self.answered = None

    def answer(self, answer: _Answer) -> None:
        """
        Give an answer, unless nothing waits for it.

        @param answer: the answer.
        """
        answered, self.answered = self.answered, None
        if answered is not None:
            answered.callback(answer)


class Questions(Generic[_About, _Answer]):
    """
    The questions that wait.

    While an answer is overdue nothing more should be asked, so that a keeper that hangs delays no more than the first
    logins.

    @param clock: the timers.
    @param monotonic: returns the seconds since any moment. They never jump.
    @param deadline: seconds until the keeper must have answered.
    @param instead: called with what a question is about, finds an answer without the keeper.
    @param late: called with the deadline in milliseconds when the keeper is late, once in a while.
    @param back: called when it answers again, after C{late}.
    """

    def __init__(
        self,
        clock: IReactorTime,
        monotonic: Callable[[], float],
        deadline: float,
        instead: Callable[[_About], _Answer],
        late: Callable[[int], None],
        back: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._seconds = monotonic
        self._deadline = deadline
        self._instead = instead
        self._late = late
        self._back = back
        self._numbers = count(1)
        self._waiting: dict[int, Question[_About, _Answer]] = {}
        self._overdue = 0
        self._timer: IDelayedCall | None = None
        self._loggedAt: float | None = None
        self._hasLogged = False

    @property
    def areTooMany(self) -> bool:
        """Whether nothing more should be asked now."""
        return bool(self._overdue) or len(self._waiting) >= MOST_WAITING

    def begin(self, about: _About) -> Question[_About, _Answer]:
        """
        Return a question, which must be sent at once, or dropped.

        @param about: what it is about.
        """
        # An annotation: calling a subscripted class takes longer than all the rest.
        question: Question[_About, _Answer] = Question(next(self._numbers), about, self._seconds() + self._deadline)
        self._waiting[question.number] = question
        if self._timer is None:
            self._timer = self._clock.callLater(self._deadline, self._expire)
        return question

    def drop(self, question: Question[_About, _Answer]) -> None:
        """Forget a question that could not be sent. C{question} is that of L{begin}."""
        self._waiting.pop(question.number, None)

    def take(self, number: int) -> Question[_About, _Answer] | None:
        """
        Return the question that the keeper has answered; L{None} if there is none.

        @param number: the number in its answer.
        """
        question = self._waiting.pop(number, None)
        if question is not None and question.isOverdue:
            self._overdue -= 1
            if not self._overdue and self._hasLogged:
                self._hasLogged = False
                self._back()
        return question

    def end(self) -> None:
        """The keeper is gone: find all answers without it."""
        waiting, self._waiting = self._waiting, {}
        self._overdue = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._answer(waiting.values())

    def _answer(self, questions: Iterable[Question[_About, _Answer]]) -> None:
        for question in questions:
            # What was answered, or whose client has left, needs none.
            if question.answered is not None:
                question.answer(self._instead(question.about))

    def _expire(self) -> None:
        self._timer = None
        now = self._seconds()
        late = []
        for question in self._waiting.values():
            if question.due > now:
                self._timer = self._clock.callLater(question.due - now, self._expire)
                break
            if not question.isOverdue:
                question.isOverdue = True
                late.append(question)
        if late and not self._overdue and (self._loggedAt is None or now - self._loggedAt >= LOGGED_EVERY):
            self._loggedAt, self._hasLogged = now, True
            self._late(round(self._deadline * 1000))
        self._overdue += len(late)
        self._answer(late)
