# -*- test-case-name: mailgate.test.keeper.test_limits -*-
"""
The limits of a process that has a link to the keeper: the keeper decides about logins, because it knows those of all
processes. If it is late or gone, this process decides, by a L{IDefence} of its own: the shadow.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.keeper.attempts import readVerdict, writeAttempt
from mailgate.keeper.conversation import Conversation
from mailgate.keeper.messages import Check, Judged, News, Record, WireError
from mailgate.limits.attempt import Attempt, Block, Result, Verdict
from mailgate.limits.interfaces import IDefence

__all__ = ["DEADLINE", "KEPT_FOR", "LOGGED_EVERY", "MARGIN", "MOST_RECORDS", "MOST_WAITING", "KeeperStore"]

DEADLINE = 0.05
"""Seconds until the keeper must have answered."""

MARGIN = 0.01
"""As many more than a keeper waits for the store that several gateways share."""

MOST_WAITING = 1000
"""Questions that wait for the keeper at the same time."""

MOST_RECORDS = 1000
"""Ends of logins that wait until a keeper reads. The earliest are dropped beyond that."""

KEPT_FOR = 60.0
"""Seconds for which they wait. The keeper takes the time of their arrival for that of the login."""

LOGGED_EVERY = 60.0
"""Seconds between two warnings that the keeper is late."""

_EPOCHS = 127

_log = Logger("mailgate")


@define(eq=False)
class _Question:
    """
    A login about which the keeper was asked.

    @ivar attempt: the login.
    @ivar answered: fires with the verdict; L{None} if the login does not wait for it any more.
    @ivar due: when the shadow decides instead, in monotonic seconds.
    @ivar isOverdue: whether that moment has passed.
    """

    attempt: Attempt
    answered: Deferred[Verdict] | None
    due: float
    isOverdue: bool = False


def _withTicket(verdict: Verdict, ticket: int) -> Verdict:
    return Verdict(
        verdict.action,
        ticket,
        verdict.seconds,
        verdict.rule,
        verdict.would,
        verdict.elsewhere,
        verdict.elsewhereAddress,
    )


class KeeperStore:
    """
    An L{ILimitStore<mailgate.limits.interfaces.ILimitStore>}.

    While an answer of the keeper is overdue, the shadow decides at once, so that a keeper that hangs delays no more
    than the first logins. As soon as the overdue answer arrives, the keeper decides again.

    The tickets of verdicts contain who has made them: those of the shadow are even, those of the keeper odd, with the
    number of the connection. So a ticket of an earlier keeper never reaches the next one, where it would be another
    login's.

    @param shadow: decides without the keeper. It gets all records and the news of the keeper.
    @param clock: the timers.
    @param monotonic: returns the seconds since any moment. They never jump.
    @param deadline: seconds until the keeper must have answered.
    """

    def __init__(
        self,
        shadow: IDefence,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
        deadline: float = DEADLINE,
    ) -> None:
        self.shadow = shadow
        self._clock = clock
        self._seconds = monotonic
        self._deadline = deadline
        self._conversation: Conversation | None = None
        self._epoch = 0
        self._numbers = count(1)
        self._questions: dict[int, _Question] = {}
        self._overdue = 0
        self._timer: IDelayedCall | None = None
        self._missed: deque[tuple[float, Attempt, Result]] = deque(maxlen=MOST_RECORDS)
        self._loggedAt: float | None = None
        self._hasLogged = False

    # ILimitStore.

    def check(self, attempt: Attempt, ticket: int = 0) -> Verdict | Deferred[Verdict]:
        """
        See L{ILimitStore.check<mailgate.limits.interfaces.ILimitStore.check>}.

        @param attempt: the login.
        @param ticket: that of its last verdict, or 0.
        """
        conversation = self._conversation
        if conversation is None or self._overdue or conversation.isFull or len(self._questions) >= MOST_WAITING:
            return self._decide(attempt, ticket)
        number = next(self._numbers)
        try:
            conversation.send(Check(number, self._atKeeper(ticket), writeAttempt(attempt)))
        except WireError:
            # The name of the user is too long.
            return self._decide(attempt, ticket)
        if ticket and not ticket & 1:
            # The shadow has held the login back, and the keeper knows more.
            self.shadow.record(attempt, ticket >> 1, Result.UNDECIDED)
        answered: Deferred[Verdict] = Deferred(lambda _: self._abandon(number))
        self._questions[number] = _Question(attempt, answered, self._seconds() + self._deadline)
        if self._timer is None:
            self._timer = self._clock.callLater(self._deadline, self._expire)
        return answered

    def record(self, attempt: Attempt, ticket: int, result: Result) -> None:
        """
        See L{ILimitStore.record<mailgate.limits.interfaces.ILimitStore.record>}.

        @param attempt: the login.
        @param ticket: that of its last verdict.
        @param result: how it ended.
        """
        self.shadow.record(attempt, 0 if ticket & 1 else ticket >> 1, result)
        conversation = self._conversation
        if conversation is None or conversation.isFull:
            if result is not Result.UNDECIDED:
                self._missed.append((self._seconds(), attempt, result))
        else:
            self._send(conversation, attempt, self._atKeeper(ticket), result)

    def allowance(self, host: str) -> int:
        """
        See L{ILimitStore.allowance<mailgate.limits.interfaces.ILimitStore.allowance>}.

        @param host: the address.
        """
        return self.shadow.allowance(host)

    def isKnown(self, host: str) -> bool:
        """
        See L{ILimitStore.isKnown<mailgate.limits.interfaces.ILimitStore.isKnown>}.

        @param host: the address.
        """
        return self.shadow.isKnown(host)

    def blockOf(self, host: str) -> Block | None:
        """
        See L{ILimitStore.blockOf<mailgate.limits.interfaces.ILimitStore.blockOf>}.

        @param host: the address.
        """
        return self.shadow.blockOf(host)

    def block(self, thing: str, seconds: float, reason: str, isHold: bool = False) -> Block:
        """
        Block in this process alone: operators reach the keeper. See
        L{ILimitStore.block<mailgate.limits.interfaces.ILimitStore.block>}.

        @param thing: what to block.
        @param seconds: for how long.
        @param reason: why.
        @param isHold: whether logins are held.
        """
        return self.shadow.block(thing, seconds, reason, isHold)

    def unblock(self, thing: str) -> Sequence[Block]:
        """
        End blocks in this process alone. See L{ILimitStore.unblock<mailgate.limits.interfaces.ILimitStore.unblock>}.

        @param thing: what is blocked.
        """
        return self.shadow.unblock(thing)

    def blocks(self) -> Sequence[Block]:
        """Return the blocks that hold in this process."""
        return self.shadow.blocks()

    def numbers(self) -> Mapping[str, Any]:
        """Return how full the tables of this process are."""
        return self.shadow.numbers()

    def look(self, user: bytes, host: str) -> Deferred[None]:
        """
        This process knows nothing more. See L{ILimitStore.look<mailgate.limits.interfaces.ILimitStore.look>}.

        @param user: the name.
        @param host: the address.
        """
        return succeed(None)

    def explain(self, user: bytes, host: str, protocol: str) -> Mapping[str, Any]:
        """
        Return what this process knows. See L{ILimitStore.explain<mailgate.limits.interfaces.ILimitStore.explain>}.

        @param user: the name.
        @param host: the address.
        @param protocol: the protocol.
        """
        return self.shadow.explain(user, host, protocol)

    # The link.

    def attached(self, conversation: Conversation) -> None:
        """
        A keeper judges logins from now on.

        @param conversation: the connection to it.
        """
        if self._conversation is not None:
            self.detached(self._conversation)
        self._conversation = conversation
        self._epoch = self._epoch % _EPOCHS + 1
        self._sendMissed(conversation)

    def detached(self, conversation: Conversation) -> None:
        """
        A keeper judges no more logins: it is gone, or has sent this process to another one.

        @param conversation: the connection to it.
        """
        if conversation is not self._conversation:
            return
        self._conversation = None
        questions, self._questions = self._questions, {}
        self._overdue = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for each in questions.values():
            # A login that was decided, or whose client has left, would never end a second ticket.
            if each.answered is not None:
                self._answer(each, self._decide(each.attempt))

    def drained(self, conversation: Conversation) -> None:
        """
        The keeper has read what was sent.

        @param conversation: the connection to it.
        """
        if conversation is self._conversation:
            self._sendMissed(conversation)

    def judged(self, conversation: Conversation, message: Judged) -> None:
        """
        The keeper has answered.

        @param conversation: the connection to it.
        @param message: its answer.
        @raise WireError: it is not valid.
        """
        if conversation is not self._conversation:
            return
        verdict = readVerdict(message.verdict)
        question = self._questions.pop(message.id, None)
        if question is None:
            return
        if question.answered is None and verdict.ticket:
            # The shadow has decided, or the client has left.
            self._send(conversation, question.attempt, verdict.ticket, Result.UNDECIDED)
        if question.isOverdue:
            self._overdue -= 1
            if not self._overdue:
                self._back()
        self._answer(question, self._ours(verdict))

    def news(self, message: News) -> None:
        """
        The keeper tells what must be known without asking.

        @param message: the news.
        """
        try:
            self.shadow.adopt(message.rows)
        except (ValueError, TypeError, KeyError):
            _log.failure("cannot use what the keeper tells about limits")

    # Who decides.

    def _decide(self, attempt: Attempt, ticket: int = 0) -> Verdict:
        """Let the shadow decide. C{ticket} may be one of the keeper."""
        atKeeper = self._atKeeper(ticket)
        if atKeeper and self._conversation is not None:
            # The login will end with a ticket of the shadow.
            self._send(self._conversation, attempt, atKeeper, Result.UNDECIDED)
        verdict = self.shadow.check(attempt, 0 if ticket & 1 else ticket >> 1)
        # It asks nobody.
        assert isinstance(verdict, Verdict)
        return _withTicket(verdict, verdict.ticket << 1)

    def _ours(self, verdict: Verdict) -> Verdict:
        """Return a verdict of the keeper with the ticket that this process uses."""
        if not verdict.ticket:
            return verdict
        return _withTicket(verdict, verdict.ticket << 8 | self._epoch << 1 | 1)

    def _atKeeper(self, ticket: int) -> int:
        """Return the keeper's number of a ticket; 0 if it is none of this keeper's."""
        return ticket >> 8 if ticket & 1 and ticket >> 1 & _EPOCHS == self._epoch else 0

    def _send(self, conversation: Conversation, attempt: Attempt, atKeeper: int, result: Result) -> None:
        if not atKeeper and result is Result.UNDECIDED:
            # Nothing counts, and there is no ticket to free.
            return
        try:
            conversation.send(Record(atKeeper, result.value, writeAttempt(attempt)))
        except WireError:
            # The name of the user is too long.
            return

    def _sendMissed(self, conversation: Conversation) -> None:
        since = self._seconds() - KEPT_FOR
        while self._missed and not conversation.isFull:
            at, attempt, result = self._missed.popleft()
            if at >= since:
                self._send(conversation, attempt, 0, result)

    # Questions.

    def _answer(self, question: _Question, verdict: Verdict) -> None:
        answered, question.answered = question.answered, None
        if answered is not None:
            answered.callback(verdict)

    def _abandon(self, number: int) -> None:
        """The login was cancelled. The keeper's answer must still free its ticket."""
        question = self._questions.get(number)
        if question is not None:
            question.answered = None

    def _expire(self) -> None:
        self._timer = None
        now = self._seconds()
        late = []
        for question in self._questions.values():
            if question.due > now:
                self._timer = self._clock.callLater(question.due - now, self._expire)
                break
            if not question.isOverdue:
                question.isOverdue = True
                late.append(question)
        if late and not self._overdue:
            self._late()
        self._overdue += len(late)
        for question in late:
            if question.answered is not None:
                self._answer(question, self._decide(question.attempt))

    def _late(self) -> None:
        now = self._seconds()
        if self._loggedAt is None or now - self._loggedAt >= LOGGED_EVERY:
            self._loggedAt, self._hasLogged = now, True
            _log.warn(
                "the keeper has not answered about limits within {milliseconds} ms; this process decides meanwhile",
                milliseconds=round(self._deadline * 1000),
            )

    def _back(self) -> None:
        if self._hasLogged:
            self._hasLogged = False
            _log.info("the keeper answers about limits again")
