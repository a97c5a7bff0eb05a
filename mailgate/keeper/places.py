# -*- test-case-name: mailgate.test.keeper.test_places -*-
"""
The places of users in sticky groups, in a process that serves clients: it asks the keeper. If the keeper is late or
gone, nothing is known, and the group chooses as all gateways do then.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailgate.keeper.messages import WireError
from mailgate.keeper.placemessages import AGAIN, LEFT, STAYS, TOOK, Place, Placed, Seat
from mailgate.keeper.questions import DEADLINE, Questions, deadlineFor, patienceFor
from mailgate.store.settings import StoreSettings
from mailgate.upstream.placing import Owner

__all__ = ["IListener", "ProcessPlaces", "nameOf"]

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
        @raise WireError: the message is too long.
        """


def nameOf(user: bytes) -> str:
    """Return a user as messages have him. C{user} is as in L{Owner}."""
    return user.decode("utf-8", "surrogateescape")


def _isTold(listener: IListener, kind: type[Place | Seat], *fields: Any) -> bool:
    """Send a message, and return whether that was possible. The login goes on in any case."""
    try:
        message = kind(*fields)
    except ValueError:
        # The name of the user is too long.
        return False
    try:
        listener.send(message)
    except WireError:
        # The name of the user is too long.
        return False
    except Exception:
        _log.failure("cannot tell the keeper about the place of a user")
        return False
    return True


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
    @param deadline: seconds until the keeper must have answered.
    @param patience: for how many seconds a login waits in all for what the keeper knows: in its limits, and here.
    """

    def __init__(
        self,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
        deadline: float = DEADLINE,
        patience: float = DEADLINE,
    ) -> None:
        self._clock = clock
        self._patience = patience
        self._listener: IListener | None = None
        self._questions = Questions[Owner, str](clock, monotonic, deadline, _unknown, _late, _back)
        self._sitting: dict[Owner, _Sitting] = {}

    @classmethod
    def of(cls, store: StoreSettings, clock: IReactorTime) -> ProcessPlaces:
        """
        Return one whose logins wait no longer than the directives say.

        @param store: the directives of the store.
        @param clock: the timers.
        """
        return cls(clock, deadline=deadlineFor(store), patience=patienceFor(store))

    # IPlacing.

    def ask(self, owner: Owner, proposal: str, waited: float = 0.0) -> Deferred[str]:
        """
        See L{IPlacing.ask<mailgate.upstream.placing.IPlacing.ask>}.

        @param owner: who.
        @param proposal: the backend that is his place if he has none.
        @param waited: for how many seconds his login has waited for the keeper before.
        """
        listener, questions = self._listener, self._questions
        left = self._patience - waited
        if listener is None or left <= 0 or questions.areTooMany or listener.isFull:
            return succeed("")
        question = questions.begin(owner)
        answered = question.answered
        assert answered is not None
        # A keeper in this process may answer at once.
        if not _isTold(listener, Place, question.number, owner.pool, nameOf(owner.user), proposal, owner.sticky.ttl):
            questions.drop(question)
            return succeed("")
        if waited and not answered.called:
            answered.addTimeout(left, self._clock, _tooLate)
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
        _isTold(self._listener, Seat, owner.pool, user, sitting.backend, instead, what, sticky.ttl, sticky.retain)

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
        self._questions.end()

    def placed(self, message: Placed) -> None:
        """
        The keeper has answered.

        @param message: its answer.
        """
        question = self._questions.take(message.id)
        if question is not None:
            question.answer(message.backend)


def _unknown(owner: Owner) -> str:
    return ""


def _late(milliseconds: int) -> None:
    _log.warn(
        "the keeper has not answered about places within {milliseconds} ms; sticky groups choose by the hash of"
        " the user meanwhile",
        milliseconds=milliseconds,
    )


def _back() -> None:
    _log.info("the keeper answers about places again")


def _tooLate(_: object, seconds: float) -> str:
    # An answer that the keeper gives in its own time is not late.
    return ""
