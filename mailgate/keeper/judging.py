# -*- test-case-name: mailgate.test.keeper.test_judging -*-
"""
The keeper's side of limits: it decides about the logins of all processes, and tells them what they must know at once
when a client connects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailgate.keeper.attempts import readAttempt, readResult, writeVerdict
from mailgate.keeper.interfaces import Collected
from mailgate.keeper.messages import LIMITS, LIMITS_VERSION, ROWS_A_PART, Check, Judged, News, Record, WireError, encode
from mailgate.limits.attempt import GO, Attempt, Result, Verdict
from mailgate.limits.interfaces import IDefence

__all__ = ["MOST_LATER", "OFFERED_WITHIN", "IJudged", "Judging"]

OFFERED_WITHIN = 10.0
"""Seconds until a process must have accepted the offer. Later ones decide alone until they link again."""

MOST_LATER = 5000
"""Rows that wait until a process reads. Beyond that it gets all rows anew."""

_log = Logger("mailgate")


class IJudged(Protocol):
    """
    A process whose logins the keeper may judge: L{mailgate.keeper.members.LinkedMember}.

    @ivar name: its name.
    @ivar isFull: whether it does not read what was sent.
    """

    name: str

    @property
    def isFull(self) -> bool: ...

    def ask(self, word: str, arguments: dict[str, Any], within: float) -> Deferred[Collected]:
        """
        Ask a question. See L{mailgate.keeper.interfaces.IMember.ask}.

        @param word: its name.
        @param arguments: its arguments.
        @param within: seconds until it must have answered.
        """

    def tell(self, line: bytes) -> None:
        """
        Send a message.

        @param line: the message, as L{encode} has written it.
        """


@define(eq=False)
class _Judged:
    """
    What the keeper knows of such a process.

    @ivar owner: names its tickets. Each connection has another one.
    @ivar isAsked: whether it has got the offer.
    @ivar isWilling: whether it has accepted the offer.
    @ivar all: yields the rows that it has not got yet, of those at the time of its offer.
    @ivar later: further rows.
    """

    owner: str
    isAsked: bool = False
    isWilling: bool = False
    all: Iterator[Any] = iter(())
    later: list[Any] = field(factory=list)


class Judging:
    """
    Judges logins for the processes that have a link to the keeper.

    @param defence: decides.
    @param clock: the timers.
    @param isReady: returns whether the tables are those of the gateway. Before, processes decide alone: they know more.
    @ivar defence: as the argument.
    """

    def __init__(self, defence: IDefence, clock: IReactorTime, isReady: Callable[[], bool] = lambda: True) -> None:
        self.defence = defence
        self._clock = clock
        self._isReady = isReady
        self._numbers = count(1)
        self._members: dict[IJudged, _Judged] = {}
        self._changed: list[Any] = []
        self._flushing: IDelayedCall | None = None
        defence.changed = self._heard

    # Processes.

    def joined(self, member: IJudged) -> None:
        """
        Offer a process to judge its logins.

        @param member: the process.
        """
        judged = self._members[member] = _Judged(f"{member.name} {next(self._numbers)}")
        self._offer(member, judged)

    def _offer(self, member: IJudged, judged: _Judged) -> None:
        if judged.isAsked or not self._isReady():
            return
        judged.isAsked = True
        answered = member.ask(LIMITS, {"version": LIMITS_VERSION}, OFFERED_WITHIN)
        answered.addCallback(self._accepted, member, judged)

    def _accepted(self, answer: Collected, member: IJudged, judged: _Judged) -> None:
        if list(answer.rows) == [LIMITS_VERSION] and self._members.get(member) is judged:
            judged.isWilling = True
            self._tellAll(member, judged)

    def left(self, member: IJudged) -> None:
        """
        A process has ended or lost its link: its undecided logins are none any more.

        @param member: the process.
        """
        judged = self._members.pop(member, None)
        if judged is not None:
            self.defence.forget(judged.owner)

    # Logins.

    def check(self, member: IJudged, message: Check) -> Judged | Deferred[Judged]:
        """
        Judge a login.

        @param member: the process.
        @param message: its question.
        @return: the answer, or what fires with it, if other gateways must be asked.
        @raise WireError: the login is not valid.
        """
        attempt, owner = readAttempt(message.attempt), self._ownerOf(member)
        try:
            verdict = self.defence.check(attempt, message.ticket, owner)
        except Exception:
            _log.failure("the keeper cannot judge a login")
            verdict = GO
        if isinstance(verdict, Deferred):
            asked = member, attempt, owner, message.id
            return verdict.addCallbacks(self._judged, self._failed, asked, errbackArgs=(message.id,))
        return Judged(message.id, writeVerdict(verdict))

    def _judged(self, verdict: Verdict, member: IJudged, attempt: Attempt, owner: str, id: int) -> Judged:
        if verdict.ticket and self._ownerOf(member) != owner:
            # The process has left meanwhile.
            self.defence.record(attempt, verdict.ticket, Result.UNDECIDED, owner)
        return Judged(id, writeVerdict(verdict))

    def _failed(self, failure: Failure, id: int) -> Judged:
        _log.failure("the keeper cannot judge a login", failure)
        return Judged(id, writeVerdict(GO))

    def record(self, member: IJudged, message: Record) -> None:
        """
        A login has ended.

        @param member: the process.
        @param message: what it has told.
        @raise WireError: the login is not valid.
        """
        attempt, result = readAttempt(message.attempt), readResult(message.result)
        try:
            self.defence.record(attempt, message.ticket, result, self._ownerOf(member))
        except Exception:
            _log.failure("the keeper cannot count a login")

    def _ownerOf(self, member: IJudged) -> str:
        judged = self._members.get(member)
        return "" if judged is None else judged.owner

    # News.

    def drained(self, member: IJudged) -> None:
        """
        A process has read what was sent.

        @param member: the process.
        """
        judged = self._members.get(member)
        if judged is not None and judged.isWilling:
            self._tell(member, judged)

    def refresh(self) -> None:
        """The tables are others now: all processes get all rows anew, and those without an offer get that."""
        for member, judged in [*self._members.items()]:
            if judged.isWilling:
                self._tellAll(member, judged)
            else:
                self._offer(member, judged)

    def _tellAll(self, member: IJudged, judged: _Judged) -> None:
        judged.later.clear()
        # A list: the tables change while they are sent.
        judged.all = iter(list(self.defence.news()))
        self._tell(member, judged)

    def _tell(self, member: IJudged, judged: _Judged) -> None:
        while not member.isFull:
            rows = list(islice(judged.all, ROWS_A_PART))
            if not rows:
                rows, judged.later = judged.later[:ROWS_A_PART], judged.later[ROWS_A_PART:]
            if not rows:
                return
            for line in _lines(rows):
                member.tell(line)

    def _heard(self, row: Any) -> None:
        """A row has changed. All changes of one turn of the event loop are sent together."""
        self._changed.append(row)
        if self._flushing is None:
            self._flushing = self._clock.callLater(0, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        rows, self._changed = self._changed, []
        for member, judged in [*self._members.items()]:
            if not judged.isWilling:
                continue
            judged.later += rows
            if len(judged.later) > MOST_LATER:
                self._tellAll(member, judged)
            else:
                self._tell(member, judged)


def _lines(rows: list[Any]) -> Iterator[bytes]:
    """Yield messages with C{rows}, as many as are needed."""
    try:
        yield encode(News(rows))
    except (WireError, ValueError, TypeError):
        half = len(rows) // 2
        for part in (rows[:half], rows[half:]) if half else ():
            yield from _lines(part)
