# -*- test-case-name: mailgate.test.limits.test_turns -*-
"""
Long work in turns of the event loop. A process that relays would stall its clients otherwise, and a keeper would miss
the moment until which it must have answered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall

__all__ = ["SLICE", "Repeating", "Turns"]

SLICE = 0.002
"""Seconds of a turn at most, and one piece more."""


class Turns:
    """
    Does a piece of work.

    @param work: does it, and yields after each short piece. It raises nothing.
    @param clock: the event loop.
    @param monotonic: returns the seconds since any moment. They never jump.
    @ivar isOver: whether it is done or stopped.
    @ivar spent: how many seconds it has taken, without the time between the turns.
    """

    def __init__(
        self, work: Generator[None, None, None], clock: IReactorTime, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._work = work
        self._clock = clock
        self._seconds = monotonic
        self._next: IDelayedCall | None = None
        self.isOver = False
        self.spent = 0.0

    def go(self) -> None:
        """Take a turn, at once, and further ones as soon as the event loop has seen to the others."""
        self._next = None
        began = self._seconds()
        for _ in self._work:
            if self._seconds() - began >= SLICE:
                self._next = self._clock.callLater(0, self.go)
                break
        else:
            self.isOver = True
        self.spent += self._seconds() - began

    def stop(self) -> None:
        """Leave the work as it is."""
        self.isOver = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._work.close()


class Repeating(Service):
    """
    Does a piece of work in turns, again and again, one at a time. When it stops, it leaves the work as it is.

    @param work: begins the work. It raises nothing, as for L{Turns}.
    @param interval: seconds between two beginnings.
    @param clock: the event loop.
    @param monotonic: returns the seconds since any moment. They never jump.
    @param rest: how many times as long as it has taken the work rests at least.
    """

    def __init__(
        self,
        work: Callable[[], Generator[None, None, None]],
        interval: float,
        clock: IReactorTime,
        monotonic: Callable[[], float] = time.monotonic,
        rest: float = 0.0,
    ) -> None:
        self._work = work
        self._interval = interval
        self._clock = clock
        self._seconds = monotonic
        self._rest = rest
        self._began = 0.0
        self._turns: Turns | None = None
        self._timer = LoopingCall(self.begin)
        self._timer.clock = clock

    def startService(self) -> None:
        super().startService()
        self._timer.start(self._interval, now=False)

    def stopService(self) -> None:
        super().stopService()
        if self._timer.running:
            self._timer.stop()
        if self._turns is not None:
            self._turns.stop()

    def begin(self) -> None:
        """Begin now, unless the last piece goes on, or rests."""
        turns = self._turns
        if turns is None or (turns.isOver and self._seconds() >= self._began + (self._rest + 1) * turns.spent):
            self._began = self._seconds()
            self._turns = Turns(self._work(), self._clock, self._seconds)
            self._turns.go()
