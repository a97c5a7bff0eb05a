# -*- test-case-name: mailgate.test.keeper.test_link -*-
"""
The worker's end of a connection to a keeper: it answers questions, and passes on what else the keeper says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from mailgate.keeper.answering import Answer, Answering
from mailgate.keeper.conversation import Conversation
from mailgate.keeper.members import REPORT
from mailgate.keeper.messages import (
    FROM_KEEPERS,
    LIMITS,
    LIMITS_VERSION,
    LONGEST_ORDER,
    REGISTRY,
    REGISTRY_VERSION,
    Ask,
    Enough,
    Judged,
    Move,
    Moved,
    News,
    Part,
    Refused,
    Welcome,
    WireError,
)
from mailgate.keeper.placemessages import PLACES, PLACES_VERSION, Placed

if TYPE_CHECKING:
    from mailgate.keeper.link import KeeperLink

__all__ = ["WorkerEnd"]

_VERSIONS = {REGISTRY: REGISTRY_VERSION, LIMITS: LIMITS_VERSION, PLACES: PLACES_VERSION}
"""What a keeper must offer so that it is accepted."""

_log = Logger("mailgate")


class WorkerEnd(Conversation):
    """
    The worker's end of a connection to a keeper.

    @ivar isParting: whether the process goes to the successor of this keeper.
    """

    kinds = FROM_KEEPERS
    MAX_LENGTH = LONGEST_ORDER

    def __init__(self, link: KeeperLink, answering: Answering) -> None:
        """
        @param link: the link that has made the connection.
        @param answering: answers the questions of the keeper.
        """
        self._link = link
        self._answering = answering
        self._answers: dict[int, Answer] = {}
        self._owed: list[int] = []
        self._isLooking = False
        self.isParting = False
        answering.idle = self._maybeLeave

    def began(self) -> None:
        self._link.opened(self)

    def received(self, message: Any) -> None:
        if isinstance(message, Judged | News):
            self._hearOfLimits(message)
        elif isinstance(message, Placed) and self._link.places is not None:
            self._link.places.placed(message)
        elif isinstance(message, Ask):
            self._ask(message)
        elif isinstance(message, Enough):
            answer = self._answers.pop(message.id, None)
            if answer is not None:
                self._answering.cancel(answer)
        elif isinstance(message, Welcome):
            self._link.welcomed(self)
        elif isinstance(message, Move):
            self._move()
        elif isinstance(message, Refused):
            self._link.refused(message.reason)
            self.close()

    def _hearOfLimits(self, message: Judged | News) -> None:
        store = self._link.limits
        if store is None:
            return
        if isinstance(message, News):
            store.news(message)
            return
        try:
            store.judged(self, message)
        except WireError as error:
            self.invalid(error)

    def invalid(self, error: WireError) -> None:
        _log.error("received an invalid message from the keeper: {error}", error=str(error))
        self.abort()

    def _ask(self, ask: Ask) -> None:
        if ask.word == REPORT:
            self._owed.append(ask.id)
            self._pay()
            return
        follower = self._link.followers.get(ask.word)
        if follower is not None and ask.arguments == {"version": _VERSIONS[ask.word]}:
            self.send(Part(ask.id, [_VERSIONS[ask.word]], True, ""))
            if not self.isParting:
                follower.attached(self)
            return
        answer = self._answering.begin(ask.word, ask.arguments, lambda *part: self._answer(ask.id, *part))
        if answer is not None:
            self._answers[ask.id] = answer

    def _pay(self) -> None:
        """Make the report that the keeper has asked for."""
        if self._owed and not self.isFull and not self._isLooking:
            self._isLooking = True
            self._link.reporter.look(self._looked)

    def _looked(self) -> None:
        self._isLooking = False
        if self.isFull:
            # It looks again when the keeper reads.
            return
        owed, self._owed = self._owed, []
        self._link.report(self)
        for number in owed:
            self.send(Part(number, [], True, ""))
        self._maybeLeave()

    def _answer(self, number: int, rows: list[Any], isLast: bool, failure: str) -> None:
        """Send a part of an answer, in several messages if it is too long for one."""
        if isLast:
            self._answers.pop(number, None)
        try:
            self.send(Part(number, rows, isLast, failure))
        except (WireError, ValueError, TypeError):
            half = len(rows) // 2
            if half:
                self._answer(number, rows[:half], False, "")
                self._answer(number, rows[half:], isLast, failure)
            else:
                self.send(Part(number, [], isLast, failure or "a row is too long"))

    def _move(self) -> None:
        """Leave for the successor. The answers that have begun end here."""
        if not self.isParting:
            self._link.report(self)
            self.send(Moved())
            self.isParting = True
            for follower in self._link.followers.values():
                follower.detached(self)
            self._link.moved(self)
            self._maybeLeave()

    def _maybeLeave(self) -> None:
        if self.isParting and self._answering.isIdle and not self._owed:
            self.close()

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self._answering.pause()

    def drained(self) -> None:
        self._pay()
        self._link.feed.drained(self)
        if self._link.limits is not None:
            self._link.limits.drained(self)
        self._link.drained(self)
        self._answering.resume()

    def ended(self) -> None:
        self._answering.stop()
        for follower in self._link.followers.values():
            follower.detached(self)
        self._link.closed(self)
