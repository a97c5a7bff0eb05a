# -*- test-case-name: mailgate.test.keeper.test_fresh -*-
"""
An answer that is found out once for all who ask at about the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred, succeed

__all__ = ["Fresh"]

T = TypeVar("T")


class Fresh(Generic[T]):
    """
    Finds out an answer at most once in some seconds, however many ask.

    @param find: finds out the answer.
    @param now: returns the time in seconds.
    @param seconds: for how long an answer is good.
    """

    def __init__(self, find: Callable[[], Deferred[T]], now: Callable[[], float], seconds: float) -> None:
        self._find = find
        self._now = now
        self._seconds = seconds
        self._waiting: list[Deferred[T]] = []
        self._isAsking = False
        self._known: tuple[float, T] | None = None

    def collect(self) -> Deferred[T]:
        """
        Return the answer, which is shared: do not change it.

        @return: fires with the answer, or with the failure of C{find}, which is not kept.
        """
        if self._known is not None and 0 <= self._now() - self._known[0] < self._seconds:
            return succeed(self._known[1])
        answered: Deferred[T] = Deferred(self._left)
        self._waiting.append(answered)
        # Callers that leave at once, again and again, must not have it found out each time.
        if not self._isAsking:
            self._isAsking = True
            maybeDeferred(self._find).addCallback(self._keep).addBoth(self._found)
        return answered

    def _left(self, answered: Deferred[T]) -> None:
        """A caller has left."""
        if answered in self._waiting:
            self._waiting.remove(answered)

    def _keep(self, answer: T) -> T:
        self._known = (self._now(), answer)
        return answer

    def _found(self, result: Any) -> None:
        waiting, self._waiting, self._isAsking = self._waiting, [], False
        for each in waiting:
            # A Failure errbacks.
            each.callback(result)
