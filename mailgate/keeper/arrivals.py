# -*- test-case-name: mailgate.test.keeper.test_arrivals -*-
"""
What a new keeper waits for before it answers: the state of its predecessor, and the processes that were linked to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["PATIENCE", "Arrivals"]

PATIENCE = 2.0
"""Seconds for which a new keeper waits at most."""


class Arrivals:
    """
    Knows what is missing.

    @param clock: the timers.
    @ivar names: the processes that have not connected yet.
    @ivar isHandoverDue: whether the state of the predecessor is missing.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.names: set[str] = set()
        self.isHandoverDue = False
        self._isOver = False
        self._deadline: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def isComplete(self) -> bool:
        """Whether there is nothing to wait for, or no time left."""
        return self._deadline is None

    def whenComplete(self) -> Deferred[None]:
        """Return what fires as soon as there is nothing to wait for."""
        if self.isComplete:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def expectHandover(self) -> None:
        """A predecessor hands over its state."""
        if self._begin():
            self.isHandoverDue = True

    def handedOver(self) -> None:
        """The predecessor has done so."""
        self.isHandoverDue = False
        self._look()

    def expect(self, names: Iterable[str]) -> None:
        """
        Processes are going to connect.

        @param names: their names.
        """
        missing = set(names)
        if missing and self._begin():
            self.names |= missing

    def arrived(self, name: str) -> None:
        """
        A process has connected.

        @param name: its name.
        """
        self.names.discard(name)
        self._look()

    def _begin(self) -> bool:
        """Wait from now on, unless the wait is over. Return whether there is one."""
        if self._deadline is None and not self._isOver:
            self._deadline = self._clock.callLater(PATIENCE, self._expire)
        return self._deadline is not None

    def _look(self) -> None:
        if self._deadline is not None and not self.names and not self.isHandoverDue:
            self._deadline.cancel()
            self._expire()

    def _expire(self) -> None:
        self._isOver, self.isHandoverDue, self._deadline = True, False, None
        self.names.clear()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
