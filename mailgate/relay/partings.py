# -*- test-case-name: mailgate.test.relay.test_partings -*-
"""Lets the clients go whose backends have closed the connection, each at its moment."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.session import IDelay

__all__ = ["Partings", "Waiting"]

_LONGEST_SLEEP = 1.0
"""The most seconds of one timer: the clock of the lean reactor is exact for short ones alone."""


class Waiting(Protocol):
    """A session whose client waits."""

    def close(self) -> None:
        """Let the client go. It calls L{Partings.forget}."""


class Partings:
    """
    The sessions of a process whose clients wait.

    @param clock: the time in seconds, and timers.
    @ivar delays: the sessions that wait, and how long.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.delays: dict[object, IDelay] = {}
        self._queue: list[tuple[float, int, Waiting]] = []
        self._numbers = count()
        self._timer: IDelayedCall | None = None

    def put(self, session: Waiting, delay: IDelay) -> None:
        """
        Close C{session} when C{delay} is over. L{forget} must be called when it does not wait any more.

        @param session: the session.
        @param delay: how long it waits.
        """
        self.delays[session] = delay
        isFirst = not self._queue or delay.moment < self._queue[0][0]
        # Sessions cannot be compared, so a number comes before them.
        heappush(self._queue, (delay.moment, next(self._numbers), session))
        if isFirst:
            self._sleep()

    def forget(self, session: object) -> None:
        """
        A session does not wait any more.

        @param session: the session; nothing happens if it did not wait.
        """
        delay = self.delays.pop(session, None)
        if delay is not None:
            delay.over()
            if not self.delays:
                self.close()

    def close(self) -> None:
        """Wait for nothing any more."""
        self._queue.clear()
        self._cancel()

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _sleep(self) -> None:
        self._cancel()
        rest = self._queue[0][0] - self._clock.seconds()
        self._timer = self._clock.callLater(max(0.0, min(rest, _LONGEST_SLEEP)), self._wake)

    def _wake(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        try:
            while self._queue and self._queue[0][0] <= now:
                session = heappop(self._queue)[2]
                if session in self.delays:
                    session.close()
        finally:
            if self._queue:
                self._sleep()
