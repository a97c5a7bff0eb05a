# -*- test-case-name: mailgate.test.keeper.test_reporting -*-
"""
Measures what a process reports to the keeper. The counters are always those of the moment. The connections are looked
at from time to time, and when the keeper asks: with thousands of them that takes some milliseconds, so clients are
served in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.keeper.view import ProcessView
from mailgate.watch.census import Survey
from mailgate.watch.tally import Totals

__all__ = ["LONGEST", "PART", "WORK", "Reporter"]

WORK = 0.0005
"""Seconds of looking at connections before the process serves clients again."""

PART = 1000
"""Looking at connections takes at most this part of the time, if the keeper does not ask for more."""

LONGEST = 10.0
"""The longest time between two looks, in seconds."""

_log = Logger("mailgate")


class Reporter:
    """
    Measures one process.

    @param view: the process.
    @param clock: the time and timers.
    """

    def __init__(self, view: ProcessView, clock: IReactorTime) -> None:
        self._view = view
        self._clock = clock
        self._looked: Totals = {}
        self._survey: Survey | None = None
        self._steps: Iterator[None] = iter(())
        self._turn: IDelayedCall | None = None
        self._spent = 0.0
        self._due = 0.0
        self._done: list[Callable[[], object]] = []

    def totals(self) -> Totals:
        """Return the counters of now, and what the last look at the connections has found."""
        return {**self._view.watcher.totals(), **self._looked}

    def regular(self) -> Totals:
        """Return L{totals}. Look at the connections if it is time for that."""
        now = self._clock.seconds()
        # The system's clock may be set back.
        if self._survey is None and not 0 < self._due - now < LONGEST:
            self._begin(now)
        return self.totals()

    def look(self, done: Callable[[], object]) -> None:
        """
        Look at the connections.

        @param done: called when L{totals} has the result. With few connections that is at once.
        """
        self._done.append(done)
        if self._survey is None:
            self._begin(self._clock.seconds())

    def finish(self) -> None:
        """Look at the connections without a pause, because the process stops."""
        if self._survey is None:
            self._survey = self._view.watcher.survey(self._view.gateways())
            self._steps = iter(self._survey)
        self._stopTurn()
        self._goOn(float("inf"))

    def _begin(self, now: float) -> None:
        self._survey = self._view.watcher.survey(self._view.gateways())
        self._steps = iter(self._survey)
        self._spent = 0.0
        self._due = now
        self._work()

    def _stopTurn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None and turn.active():
            turn.cancel()

    def _work(self) -> None:
        self._turn = None
        began = self._clock.seconds()
        isDone = self._goOn(began + WORK)
        now = self._clock.seconds()
        self._spent += max(0.0, now - began)
        if isDone:
            self._due = now + min(LONGEST, PART * self._spent)
        else:
            self._turn = self._clock.callLater(0, self._work)

    def _goOn(self, end: float) -> bool:
        """Look at further connections until the time C{end}. Return whether all are done."""
        try:
            for _ in self._steps:
                if self._clock.seconds() >= end:
                    return False
            if self._survey is not None:
                self._looked = self._survey.looked
        except Exception:
            # The process reports its counters all the same.
            _log.failure("cannot look at the connections")
        self._survey = None
        done, self._done = self._done, []
        for each in done:
            each()
        return True
