# -*- test-case-name: mailgate.test.keeper.test_members -*-
"""
The processes that serve clients, as the keeper asks them: this one, and those that have connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.keeper.answering import MOST_QUESTIONS, Answer, Answering
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.keeper.messages import Ask, Conversation, Enough, Hello, Part, WireError
from mailgate.keeper.surveying import Surveying
from mailgate.keeper.view import ProcessView
from mailgate.log.journal import oneLine
from mailgate.watch.tally import Totals

__all__ = ["MOST_ROWS", "REPORT", "LinkedMember", "LocalMember"]

MOST_ROWS = 200_000
"""Rows of one process's answer."""

REPORT = "report"
"""The question for a report, which precedes the answer."""


@define(eq=False)
class _Question:
    """
    A question to one process.

    @ivar answered: fires with the answer.
    @ivar deadline: ends it.
    @ivar rows: what has arrived.
    """

    answered: Deferred[Collected]
    deadline: IDelayedCall | None = None
    rows: list[Any] = field(factory=list)

    def end(self, failure: str = "") -> None:
        """Answer with what has arrived."""
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        self.answered.callback(Collected(self.rows, (failure,) if failure else ()))


class LocalMember:
    """
    The process of the keeper, if it serves clients itself.

    @param view: the process.
    @param keeper: gets its reports.
    @param clock: the time and timers.
    @param pid: the process id.
    @ivar name: see L{mailgate.keeper.keeper.IMember}.
    @ivar pid: see L{mailgate.keeper.keeper.IMember}.
    @ivar slot: its number among the workers.
    @ivar isRetiring: see L{mailgate.keeper.keeper.IMember}.
    """

    slot = 0

    def __init__(self, view: ProcessView, keeper: Keeper, clock: IReactorTime, pid: int) -> None:
        self.name = view.member
        self.pid = pid
        self.isRetiring = False
        self._view = view
        self._keeper = keeper
        self._clock = clock
        self._answering = Answering(view, clock)
        self._surveying = Surveying(view, clock)

    def report(self) -> None:
        """Report what the process has counted to the keeper."""
        self._keeper.reported(self, self._view.watcher.totals(), self._view.watcher.takeStories())

    def ask(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask a question. See L{mailgate.keeper.keeper.IMember.ask}.

        @param word: its name.
        @param arguments: its arguments, by name.
        @param within: seconds until the answer must be there.
        """
        question = _Question(Deferred())
        if word == REPORT:
            question.deadline = self._clock.callLater(within, self._expire, question, None, within)
            self._surveying.measure(partial(self._measured, question))
            return question.answered
        answered = question.answered

        def receive(rows: list[Any], isLast: bool, failure: str) -> None:
            question.rows += rows
            if len(question.rows) > MOST_ROWS:
                del question.rows[MOST_ROWS:]
                isLast, failure = True, f"it has more than {MOST_ROWS} rows"
                if answer is not None:
                    self._answering.cancel(answer)
            if isLast:
                question.end(f"process {self.pid} has not answered completely: {failure}" if failure else "")

        answer: Answer | None = None
        answer = self._answering.begin(word, arguments, receive)
        if answer is not None:
            question.deadline = self._clock.callLater(within, self._expire, question, answer, within)
        return answered

    def _measured(self, question: _Question, totals: Totals | None) -> None:
        if totals is not None:
            self._keeper.reported(self, totals, self._view.watcher.takeStories())
        if not question.answered.called:
            question.end("" if totals is not None else f"process {self.pid} could not be measured")

    def _expire(self, question: _Question, answer: Answer | None, within: float) -> None:
        if answer is not None:
            self._answering.cancel(answer)
        question.end(f"process {self.pid} has not answered completely within {within:g} s")

    def stop(self) -> None:
        """Stop answering: what is asked now is answered at its deadline."""
        self._answering.pause()
        self._surveying.stop()


class LinkedMember:
    """
    A process that has connected to the keeper.

    @param hello: its first message.
    @param conversation: the connection to it.
    @param clock: the timers.
    @ivar name: see L{mailgate.keeper.keeper.IMember}.
    @ivar pid: see L{mailgate.keeper.keeper.IMember}.
    @ivar slot: its number among the workers.
    @ivar release: its release of mailgate.
    @ivar isRetiring: see L{mailgate.keeper.keeper.IMember}.
    @ivar hasMoved: whether it reports to another keeper now.
    """

    def __init__(self, hello: Hello, conversation: Conversation, clock: IReactorTime) -> None:
        self.name, self.pid, self.slot, self.release = hello.member, hello.pid, hello.slot, hello.release
        self.isRetiring = False
        self.hasMoved = False
        self._conversation = conversation
        self._clock = clock
        self._numbers = count(1)
        self._questions: dict[int, _Question] = {}

    def ask(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask a question. See L{mailgate.keeper.keeper.IMember.ask}.

        @param word: its name.
        @param arguments: its arguments, by name.
        @param within: seconds until the answer must be there.
        """
        why = self._whyNot()
        number = next(self._numbers)
        try:
            message = Ask(number, word, dict(arguments))
        except (ValueError, TypeError):
            why = "the question is too long"
        if why:
            return succeed(Collected((), (f"worker {self.pid} was not asked: {why}",)))
        question = _Question(Deferred(), self._clock.callLater(within, self._expire, number, within))
        self._questions[number] = question
        answered = question.answered
        try:
            self._conversation.send(message)
        except WireError:
            self._end(number, f"worker {self.pid} was not asked: the question is too long")
        return answered

    def _whyNot(self) -> str:
        if self.hasMoved:
            return "it answers to another keeper"
        if self._conversation.isFull:
            return "it does not read earlier questions"
        return "it is asked too many questions" if len(self._questions) >= MOST_QUESTIONS else ""

    def heard(self, part: Part) -> None:
        """
        The process has answered.

        @param part: its answer, or a part of it.
        """
        question = self._questions.get(part.id)
        if question is None:
            # It came too late.
            return
        question.rows += part.rows
        failure = part.failure
        if len(question.rows) > MOST_ROWS:
            del question.rows[MOST_ROWS:]
            failure = f"it has more than {MOST_ROWS} rows"
            self._conversation.send(Enough(part.id))
        elif not part.isLast:
            return
        self._end(part.id, f"worker {self.pid} has not answered completely: {oneLine(failure)}" if failure else "")

    def _expire(self, number: int, within: float) -> None:
        self._conversation.send(Enough(number))
        self._end(number, f"worker {self.pid} has not answered completely within {within:g} s")

    def _end(self, number: int, failure: str) -> None:
        self._questions.pop(number).end(failure)

    def ended(self) -> None:
        """The connection has ended."""
        for number in list(self._questions):
            self._end(number, f"worker {self.pid} has closed its link before it answered completely")
