# -*- test-case-name: mailgate.test.keeper.test_arrivals -*-
"""
What a new keeper waits for before it answers: the state of its predecessor, and the processes that were linked to it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["PATIENCE", "Arrivals", "isRunning"]

PATIENCE = 2.0
"""Seconds for which a new keeper waits at most."""

_LOOKED = 0.05
"""Seconds between looks at the processes that are expected."""


def isRunning(pid: int) -> bool:
    """
    Return whether a process runs.

    @param pid: its process id; 0 if it is not known, so that it may run.
    """
    if pid <= 0:
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


class Arrivals:
    """
    Knows what is missing.

    @param clock: the timers.
    @param late: called when the predecessor has not handed over in time.
    @param runs: returns whether the process with an id runs. One that has ended is not waited for.
    @ivar isHandoverDue: whether the state of the predecessor is missing.
    @ivar settled: called when it is not missing any more, or when it is late.
    """

    def __init__(
        self,
        clock: IReactorTime,
        late: Callable[[], object] = lambda: None,
        runs: Callable[[int], bool] = lambda pid: True,
    ) -> None:
        self._clock = clock
        self._late = late
        self._runs = runs
        self._pids: dict[str, int] = {}
        self.isHandoverDue = False
        self.settled: Callable[[], object] = lambda: None
        self._isOver = False
        self._deadline: IDelayedCall | None = None
        self._next: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    @property
    def names(self) -> set[str]:
        """The processes that have not connected yet."""
        return set(self._pids)

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
        else:
            self.settled()

    def handedOver(self) -> None:
        """The predecessor has done so, or it is gone."""
        self._settle()
        self._look()

    def _settle(self) -> None:
        if self.isHandoverDue:
            self.isHandoverDue = False
            self.settled()

    def expect(self, processes: Mapping[str, int]) -> None:
        """
        Processes are going to connect.

        @param processes: their process ids by their names.
        """
        if processes and self._begin():
            self._pids.update(processes)
            self._watch()

    def arrived(self, name: str) -> None:
        """
        A process has connected.

        @param name: its name.
        """
        self._pids.pop(name, None)
        self._look()

    def _watch(self) -> None:
        """Do not wait for processes that have ended."""
        self._stopWatching()
        self._pids = {name: pid for name, pid in self._pids.items() if self._runs(pid)}
        if self._pids:
            self._next = self._clock.callLater(_LOOKED, self._watch)
        self._look()

    def _stopWatching(self) -> None:
        following, self._next = self._next, None
        if following is not None and following.active():
            following.cancel()

    def _begin(self) -> bool:
        """Wait from now on, unless the wait is over. Return whether there is one."""
        if self._deadline is None and not self._isOver:
            self._deadline = self._clock.callLater(PATIENCE, self._expire)
        return self._deadline is not None

    def _look(self) -> None:
        if self._deadline is not None and not self._pids and not self.isHandoverDue:
            self._deadline.cancel()
            self._expire()

    def _expire(self) -> None:
        self._isOver, self._deadline = True, None
        if self.isHandoverDue:
            self._late()
            self._settle()
        self._pids.clear()
        self._stopWatching()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
