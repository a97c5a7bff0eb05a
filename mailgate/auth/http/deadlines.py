# -*- test-case-name: mailgate.test.auth.http.test_deadlines -*-
"""
Deadlines of requests that nearly always end long before. One timer serves all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Deadlines", "Request"]


class Request(Protocol):
    """
    A request with a deadline. It must be hashable.

    @ivar patience: the seconds that it may take.
    @ivar due: set to the time of its deadline.
    @ivar isExpired: set to whether the deadline has passed.
    @ivar cancel: called without arguments when the deadline has passed.
    """

    patience: float
    due: float
    isExpired: bool
    cancel: Callable[[], object]


class Deadlines:
    """
    Cancels requests that take too long. The timer waits for the nearest deadline that was known when it was set, and is
    set again while there are requests. So a request that ends in time costs no timer while there are others.

    @param clock: the reactor, or a clock.
    @param longest: the longest patience of a request, in seconds.
    """

    def __init__(self, clock: IReactorTime, longest: float) -> None:
        self._clock = clock
        self._longest = longest
        self._requests: set[Request] = set()
        self._next = inf
        self._timer: IDelayedCall | None = None

    def add(self, request: Request) -> None:
        """
        Give a request its time.

        @param request: the request, which must be removed when it has ended.
        """
        request.isExpired = False
        request.due = due = self._clock.seconds() + request.patience
        self._requests.add(request)
        if due < self._next:
            self._wait(due)

    def remove(self, request: Request) -> None:
        """
        Forget a request, because it has ended.

        @param request: the request.
        """
        self._requests.discard(request)
        if not self._requests and self._timer is not None:
            self._stop()

    def _stop(self) -> None:
        self._next = inf
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _wait(self, due: float) -> None:
        self._stop()
        self._next = due
        self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._expire)

    def _expire(self) -> None:
        now = self._clock.seconds()
        due, self._next, self._timer = max(now, self._next), inf, None
        for request in self._requests:
            # If the clock was set back, no deadline moves away.
            request.due = min(request.due, now + self._longest)
        for request in [each for each in self._requests if each.due <= due]:
            # The end of one request may have ended another one.
            if request in self._requests:
                self._requests.discard(request)
                request.isExpired = True
                request.cancel()
        if self._requests:
            self._wait(min(request.due for request in self._requests))
