# -*- test-case-name: mailgate.test.store.test_breaker -*-
"""
Decides when the store is left alone: after three failures in a row, for a time that doubles while it does not recover.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "MOST_FAILURES", "Breaker"]

MOST_FAILURES = 3
"""So many failures in a row, and the store is left alone."""

FIRST_PAUSE = 5.0
"""Seconds until it is tried again."""

LONGEST_PAUSE = 60.0
"""The pause doubles up to so many seconds. A store that has worked for that long begins again with the shortest."""


class Breaker:
    """
    Knows whether the store is asked.

    It begins with a trial, and tries again after each pause, so that no login pays for a trial.

    @param clock: the time and timers.
    @param attempt: tries the store. Its Deferred fails if the store does not work. It is cancelled by L{stop}.
    @param changed: called when the store is asked from now on, with an empty text, or is left alone, with the reason.
    @ivar isUp: whether the store is asked.
    @ivar failures: how many failures in a row there were.
    @ivar reason: why the store is not asked, in words after "the store"; empty while it is.
    """

    def __init__(self, clock: Any, attempt: Callable[[], Deferred[Any]], changed: Callable[[str], object]) -> None:
        self.isUp = False
        self.failures = 0
        self.reason = "has not been reached yet"
        self._clock = clock
        self._attempt = attempt
        self._changed = changed
        self._pause = FIRST_PAUSE
        self._since = 0.0
        self._timer: Any = None
        self._trial: Deferred[Any] | None = None
        self._isStopped = True
        self._isKnown = False

    def start(self) -> None:
        """Try the store."""
        self._isStopped = False
        self._try()

    def stop(self) -> None:
        """Try no more. Nothing is reported any more."""
        self._isStopped, self.isUp = True, False
        self.reason = "is not asked any more: the gateway stops"
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        trial, self._trial = self._trial, None
        if trial is not None:
            trial.cancel()

    def succeeded(self) -> None:
        """The store has answered."""
        self.failures = 0

    def failed(self, reason: str) -> None:
        """
        A call has failed.

        @param reason: why, in words after "the store".
        """
        if not self.isUp:
            return
        self.failures += 1
        if self.failures >= MOST_FAILURES:
            if self._clock.seconds() - self._since >= LONGEST_PAUSE:
                self._pause = FIRST_PAUSE
            self._rest(reason)

    def _rest(self, reason: str) -> None:
        isNew = self.isUp or not self._isKnown
        self.isUp, self.reason, self.failures, self._isKnown = False, reason, 0, True
        self._timer = self._clock.callLater(self._pause, self._try)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        if isNew:
            self._changed(reason)

    def _try(self) -> None:
        self._timer = None
        self._trial = self._attempt()
        self._trial.addCallbacks(self._works, self._worksNot)

    def _works(self, _: object) -> None:
        self._trial = None
        if self._isStopped:
            return
        self.isUp, self.reason, self.failures, self._isKnown = True, "", 0, True
        self._since = self._clock.seconds()
        self._changed("")

    def _worksNot(self, failure: Failure) -> None:
        self._trial = None
        if not self._isStopped:
            self._rest(failure.getErrorMessage())
