# -*- test-case-name: mailgate.test.keeper.test_places -*-
"""
The places of users in sticky groups, in a process that serves clients: it asks the keeper. If the keeper is late or
gone, nothing is known, and the group chooses as all gateways do then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any, Protocol

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.keeper.placemessages import AGAIN, LEFT, STAYS, TOOK, Place, Placed, Seat
from mailgate.upstream.placing import Owner

__all__ = ["DEADLINE", "LOGGED_EVERY", "MOST_WAITING", "IListener", "ProcessPlaces", "nameOf"]

DEADLINE = 0.05
"""Seconds until the keeper must have answered."""

MOST_WAITING = 1000
"""Questions that wait for the keeper at the same time."""

LOGGED_EVERY = 60.0
"""Seconds between two warnings that the keeper is late."""

_log = Logger("mailgate")


class IListener(Protocol):
    """
    What hears the questions: a connection to the keeper, or the keeper in this process.

    @ivar isFull: whether it does not read what was sent.
    """

    isFull: bool

    def send(self, message: Any) -> None:
        """
        Send a message.

        @param message: a L{Place} or a L{Seat}.
        @raise Exception: the message is too long.
        """


def nameOf(user: bytes) -> str:
    """Return a user as messages have him. C{user} is as in L{Owner}."""
    return user.decode("utf-8", "surrogateescape")


@define(eq=False)
class _Question:
    """
    A place that the keeper was asked for.

    @ivar answered: fires with it; L{None} if nothing waits for it any more.
    @ivar due: when nothing waits for it any more, in monotonic seconds.
    @ivar isOverdue: whether that moment has passed.
    """

    answered: Deferred[str] | None
    due: float
    isOverdue: bool = False


@define(eq=False)
class _Sitting:
    """The sessions of a user in this process: their number, and the backend of the last one."""

    sessions: int = 0
    backend: str = ""


class ProcessPlaces:
    """
    An L{IPlacing<mailgate.upstream.placing.IPlacing>}.

    While an answer is overdue, nothing is asked, so that a keeper that hangs delays no more than the first logins.

    @param clock: the timers.
    @param monotonic: returns the seconds since any moment. They never jump.
    """

    def __init__(self, clock: IReactorTime, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = monotonic
        self._listener: IListener | None = None
        self._numbers = count(1)
        self._questions: dict[int, _Question] = {}
        self._overdue = 0
        self._timer: IDelayedCall | None = None
        self._sitting: dict[Owner, _Sitting] = {}
        self._loggedAt: float | None = None
        self._hasLogged = False

    # IPlacing.

    def ask(self, owner: Owner, proposal: str) -> Deferred[str]:
        """
        See L{IPlacing.ask<mailgate.upstream.placing.IPlacing.ask>}.

        @param owner: who.
        @param proposal: the backend that is his place if he has none.
        """
        listener = self._listener
        if listener is None or self._overdue or listener.isFull or len(self._questions) >= MOST_WAITING:
            return succeed("")
        number = next(self._numbers)
        answered: Deferred[str] = Deferred(lambda _: self._abandon(number))
        self._questions[number] = _Question(answered, self._seconds() + DEADLINE)
        try:
            listener.send(Place(number, owner.pool, nameOf(owner.user), proposal, owner.sticky.ttl))
        except Exception:
            # The name of the user is too long.
            self._questions.pop(number, None)
            return succeed("")
        if self._timer is None and number in self._questions:
            self._timer = self._clock.callLater(DEADLINE, self._expire)
        return answered

    def seated(self, owner: Owner, backend: str, instead: str, isNew: bool) -> None:
        """
        See L{IPlacing.seated<mailgate.upstream.placing.IPlacing.seated>}.

        @param owner: whose session it is.
        @param backend: where it is.
        @param instead: the place that could not be used; empty without one.
        @param isNew: whether the backend is to be the place.
        """
        sitting = self._sitting.get(owner)
        if sitting is None:
            sitting = self._sitting[owner] = _Sitting()
        sitting.sessions += 1
        sitting.backend = backend
        if isNew or sitting.sessions == 1:
            self._tell(owner, sitting, TOOK if isNew else STAYS, instead)

    def left(self, owner: Owner) -> None:
        """
        See L{IPlacing.left<mailgate.upstream.placing.IPlacing.left>}.

        @param owner: whose session has ended.
        """
        sitting = self._sitting[owner]
        sitting.sessions -= 1
        if not sitting.sessions:
            del self._sitting[owner]
            self._tell(owner, sitting, LEFT)

    def _tell(self, owner: Owner, sitting: _Sitting, what: str, instead: str = "") -> None:
        # What a keeper does not read is told again when the next one has come.
        if self._listener is None:
            return
        user, sticky = nameOf(owner.user), owner.sticky
        try:
            self._listener.send(Seat(owner.pool, user, sitting.backend, instead, what, sticky.ttl, sticky.retain))
        except Exception:
            # The name of the user is too long.
            return

    # The keeper.

    def attached(self, listener: IListener) -> None:
        """
        A keeper knows places from now on.

        @param listener: hears the questions.
        """
        if self._listener is not None:
            self.detached(self._listener)
        self._listener = listener
        for owner, sitting in [*self._sitting.items()]:
            self._tell(owner, sitting, AGAIN)

    def detached(self, listener: IListener) -> None:
        """
        A keeper knows no more places: it is gone, or has sent this process to another one.

        @param listener: that of L{attached}.
        """
        if listener is not self._listener:
            return
        self._listener = None
        questions, self._questions = self._questions, {}
        self._overdue = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for each in questions.values():
            self._answer(each, "")

    def placed(self, message: Placed) -> None:
        """
        The keeper has answered.

        @param message: its answer.
        """
        question = self._questions.pop(message.id, None)
        if question is None:
            return
        if question.isOverdue:
            self._overdue -= 1
            if not self._overdue:
                self._back()
        self._answer(question, message.backend)

    def _answer(self, question: _Question, place: str) -> None:
        answered, question.answered = question.answered, None
        if answered is not None:
            answered.callback(place)

    def _abandon(self, number: int) -> None:
        """The login was cancelled. An answer that is late still counts as that."""
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
            self._answer(question, "")

    def _late(self) -> None:
        now = self._seconds()
        if self._loggedAt is None or now - self._loggedAt >= LOGGED_EVERY:
            self._loggedAt, self._hasLogged = now, True
            _log.warn(
                "the keeper has not answered about places within {milliseconds} ms; sticky groups choose by the hash of"
                " the user meanwhile",
                milliseconds=round(DEADLINE * 1000),
            )

    def _back(self) -> None:
        if self._hasLogged:
            self._hasLogged = False
            _log.info("the keeper answers about places again")
