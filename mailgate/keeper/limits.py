# -*- test-case-name: mailgate.test.keeper.test_limits -*-
"""
The limits of a process that has a link to the keeper: the keeper decides about logins, because it knows those of all
processes. If it is late or gone, this process decides, by a L{IDefence} of its own: the shadow.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailgate.keeper.attempts import readVerdict, writeAttempt
from mailgate.keeper.conversation import Conversation
from mailgate.keeper.messages import Check, Judged, News, Record, WireError
from mailgate.keeper.questions import DEADLINE, Questions
from mailgate.limits.attempt import Attempt, Block, Result, Verdict
from mailgate.limits.interfaces import IDefence
from mailgate.limits.operators import Operators

__all__ = ["KEPT_FOR", "MOST_RECORDS", "KeeperStore"]

MOST_RECORDS = 1000
"""Ends of logins that wait until a keeper reads. The earliest are dropped beyond that."""

KEPT_FOR = 60.0
"""Seconds for which they wait. The keeper takes the time of their arrival for that of the login."""

_EPOCHS = 127

_log = Logger("mailgate")


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
        self._seconds = monotonic
        self._conversation: Conversation | None = None
        self._epoch = 0
        self._questions = Questions[Attempt, Verdict](clock, monotonic, deadline, self._decide, _late, _back)
        self._missed: deque[tuple[float, Attempt, Result]] = deque(maxlen=MOST_RECORDS)

    # ILimitStore.

    @property
    def operators(self) -> Operators:
        """The blocks of operators that this process knows."""
        return self.shadow.operators

    def passes(self, attempt: Attempt) -> None:
        """
        The keeper is asked about each login. See L{ILimitStore.passes<mailgate.limits.interfaces.ILimitStore.passes>}.

        @param attempt: the login.
        """

    def check(self, attempt: Attempt, ticket: int = 0) -> Verdict | Deferred[Verdict]:
        """
        See L{ILimitStore.check<mailgate.limits.interfaces.ILimitStore.check>}.

        @param attempt: the login.
        @param ticket: that of its last verdict, or 0.
        """
        conversation, questions = self._conversation, self._questions
        if conversation is None or questions.areTooMany or conversation.isFull:
            return self._decide(attempt, ticket)
        question = questions.begin(attempt)
        try:
            conversation.send(Check(question.number, self._atKeeper(ticket), writeAttempt(attempt)))
        except WireError:
            # The name of the user is too long.
            questions.drop(question)
            return self._decide(attempt, ticket)
        if ticket and not ticket & 1:
            # The shadow has held the login back, and the keeper knows more.
            self.shadow.record(attempt, ticket >> 1, Result.UNDECIDED)
        assert question.answered is not None
        return question.answered

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
        self._questions.end()

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
        question = self._questions.take(message.id)
        if question is None:
            return
        if question.answered is None and verdict.ticket:
            # The shadow has decided, or the client has left.
            self._send(conversation, question.about, verdict.ticket, Result.UNDECIDED)
        question.answer(self._ours(verdict))

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


def _late(milliseconds: int) -> None:
    _log.warn(
        "the keeper has not answered about limits within {milliseconds} ms; this process decides meanwhile",
        milliseconds=milliseconds,
    )


def _back() -> None:
    _log.info("the keeper answers about limits again")
