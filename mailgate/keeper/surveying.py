# -*- test-case-name: mailgate.test.keeper.test_surveying -*-
"""
Measures a process for a scrape or a question, a slice in each turn of the event loop, so that its clients wait for a
few milliseconds at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailgate.keeper.view import ProcessView
from mailgate.watch.tally import Totals

__all__ = ["Surveying"]

_log = Logger("mailgate")


class Surveying:
    """
    Measures one process.

    @param view: the process.
    @param clock: the timers.
    """

    def __init__(self, view: ProcessView, clock: IReactorTime) -> None:
        self._view = view
        self._clock = clock
        self._waiting: list[Callable[[Totals | None], object]] = []
        self._current: list[Callable[[Totals | None], object]] = []
        self._survey: Any = None
        self._steps: Iterator[None] = iter(())
        self._turn: IDelayedCall | None = None

    def measure(self, done: Callable[[Totals | None], object]) -> None:
        """
        Measure what the process counts from now on. Those who wait at the same time share one survey.

        @param done: called in a later turn of the event loop with all metrics; with L{None} if they cannot be found.
        """
        self._waiting.append(done)
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._work)

    def stop(self) -> None:
        """Forget those who wait."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()
        self._waiting, self._current, self._survey = [], [], None

    def _work(self) -> None:
        self._turn = None
        try:
            if self._survey is None:
                # What is asked for during a survey needs a later one, which sees all that has happened before.
                self._current, self._waiting = self._waiting, []
                self._survey = self._view.watcher.survey(self._view.gateways())
                self._steps = iter(self._survey)
            next(self._steps)
        except StopIteration:
            self._end(self._survey.totals)
        except Exception:
            _log.failure("cannot report to the keeper")
            self._end(None)
        if self._turn is None and (self._survey is not None or self._waiting):
            self._turn = self._clock.callLater(0, self._work)

    def _end(self, totals: Totals | None) -> None:
        self._survey = None
        current, self._current = self._current, []
        for done in current:
            done(totals)
