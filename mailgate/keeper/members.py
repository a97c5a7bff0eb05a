# -*- test-case-name: mailgate.test.keeper.test_members -*-
"""
The processes that serve clients, as the keeper asks them: this one, and those that have connected.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.keeper.answering import MOST_QUESTIONS, Answer, Answering
from mailgate.keeper.conversation import Conversation
from mailgate.keeper.feed import Feed
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.keeper.messages import REGISTRY, REGISTRY_VERSION, Ask, Enough, Hello, Part, Sessions, WireError
from mailgate.keeper.reporting import Reporter
from mailgate.keeper.sums import changes
from mailgate.keeper.view import ProcessView
from mailgate.log.journal import oneLine
from mailgate.watch.tally import Totals

__all__ = ["MOST_ROWS", "REPORT", "LinkedMember", "LocalMember"]

MOST_ROWS = 200_000
"""Rows of one process's answer."""

MOST_BYTES = 32 * 1024 * 1024
"""Bytes of one process's answer. Ten thousand sessions take eight million."""

REPORT = "report"
"""The question for a report, which precedes the answer."""


@define(eq=False)
class _Question:
    """
    A question to one process.

    @ivar answered: fires with the answer.
    @ivar deadline: ends it.
    @ivar rows: what has arrived.
    @ivar size: its bytes.
    """

    answered: Deferred[Collected]
    deadline: IDelayedCall | None = None
    rows: list[Any] = field(factory=list)
    size: int = 0

    def met(self) -> None:
        """All has arrived: the deadline is met."""
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()

    def end(self, failure: str = "") -> None:
        """Answer with what has arrived."""
        self.met()
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
    @ivar isFull: whether the keeper does not read what was sent: never.
    """

    slot = 0
    isFull = False

    def __init__(self, view: ProcessView, keeper: Keeper, clock: IReactorTime, pid: int) -> None:
        self.name = view.member
        self.pid = pid
        self.isRetiring = False
        self._view = view
        self._keeper = keeper
        self._clock = clock
        self._answering = Answering(view, clock)
        self._reporter = Reporter(view, clock)
        self._feed = Feed(view, clock)
        self._last: Totals = {}

    def report(self) -> None:
        """Report to the keeper."""
        self._send(self._reporter.regular())

    def reportAll(self) -> None:
        """Report to the keeper for the last time."""
        self._reporter.finish()
        self._send(self._reporter.totals())

    def _send(self, totals: Totals) -> None:
        changed = changes(self._last, totals)
        self._keeper.reported(self, changed, self._view.watcher.takeStories(), isOwn=True)
        self._last = totals

    def _looked(self, answered: Deferred[Collected]) -> None:
        self._send(self._reporter.totals())
        answered.callback(Collected())

    def ask(self, word: str, arguments: Mapping[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask a question. See L{mailgate.keeper.keeper.IMember.ask}.

        @param word: its name.
        @param arguments: its arguments, by name.
        @param within: seconds until the answer must be there.
        """
        answered: Deferred[Collected] = Deferred()
        if word == REPORT:
            self._reporter.look(lambda: self._looked(answered))
            return answered
        if word == REGISTRY:
            self._feed.attached(self)
            return succeed(Collected([REGISTRY_VERSION]))
        question = _Question(answered)

        def receive(rows: list[Any], isLast: bool, failure: str) -> None:
            question.rows += rows
            if len(question.rows) > MOST_ROWS:
                del question.rows[MOST_ROWS:]
                isLast, failure = True, f"it has more than {MOST_ROWS} rows"
                if answer is not None:
                    self._answering.cancel(answer)
            if isLast:
                question.met()
                why = f"process {self.pid} has not answered completely: {failure}" if failure else ""
                # Putting the answer together takes some milliseconds: the clients are served before.
                self._clock.callLater(0, question.end, why)

        answer: Answer | None = None
        answer = self._answering.begin(word, arguments, receive)
        if answer is not None:
            question.deadline = self._clock.callLater(within, self._expire, question, answer, within)
        return answered

    def _expire(self, question: _Question, answer: Answer, within: float) -> None:
        self._answering.cancel(answer)
        question.end(f"process {self.pid} has not answered completely within {within:g} s")

    def send(self, message: Sessions) -> None:
        """
        Tell the keeper of sessions.

        @param message: the news.
        """
        if self._keeper.registry is not None:
            self._keeper.registry.told(self, message)

    def stop(self) -> None:
        """Stop answering: what is asked now is answered at its deadline."""
        self._answering.pause()
        self._feed.detached(self)
        # After another start it reports all.
        self._last = {}


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

    @property
    def isFull(self) -> bool:
        """Whether it does not read what was sent."""
        return self._conversation.isFull

    def tell(self, line: bytes) -> None:
        """
        Send a message that L{mailgate.keeper.messages.encode} has written.

        @param line: the message.
        """
        self._conversation.sendEncoded(line)

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
        question.size += self._conversation.size
        failure = part.failure
        if question.size > MOST_BYTES:
            failure = f"it has more than {MOST_BYTES // 1024**2} MiB"
            self._conversation.send(Enough(part.id))
        elif len(question.rows) > MOST_ROWS:
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
