# -*- test-case-name: mailgate.test.lean.test_clock -*-
"""
Timers for thousands of deadlines that are rarely reached.

In a Twisted reactor, each cancelled or postponed timer stays in a heap. Here, all timers that are due in the same
second share one set, and the reactor has one timer for the next second. New timers are sorted in when a second is
over: by then, most of a login's are cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf
from typing import Any, Protocol

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["FINEST", "CoarseClock", "Deadlines", "Entry", "ExactClock", "deadlinesOf"]

FINEST = 4.0
"""Timers with a shorter delay in seconds are the reactor's, which are exact. The others may be up to a second late."""


class Entry(Protocol):
    """
    What can wait in a L{CoarseClock} or an L{ExactClock}.

    @ivar tick: its place in the clock: it expires within the second after this time. 0 if it does not wait.
    """

    tick: float

    def expired(self) -> None:
        """The entry is due."""


class Deadlines(Protocol):
    """
    A clock in which L{Entry}s wait.

    @ivar seconds: returns the time.
    """

    seconds: Callable[[], float]

    def put(self, entry: Entry, due: float) -> None:
        """Make C{entry} expire at the time C{due}. It must not wait already."""

    def drop(self, entry: Entry) -> None:
        """Remove C{entry}, if it waits."""


@implementer(IDelayedCall)
class _Timer:
    """A call that is due at C{due}, and is made within the second after it."""

    __slots__ = ("_call", "_cancelled", "_clock", "due", "tick")

    def __init__(self, clock: CoarseClock, due: float, call: Callable[[], object]) -> None:
        self._clock = clock
        self._call: Callable[[], object] | None = call
        self._cancelled = False
        self.due = due
        self.tick: float = 0

    def expired(self) -> None:
        """Call, unless the timer has been postponed."""
        if self.due > self._clock.seconds():
            self._clock.put(self, self.due)
            return
        call, self._call = self._call, None
        if call is not None:
            call()

    def cancel(self) -> None:
        if self._call is None:
            self._refuse()
        self._call = None
        self._cancelled = True
        self._clock.drop(self)

    def reset(self, secondsFromNow: float) -> None:
        self._moveTo(self._clock.seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        self._moveTo(self.due + secondsLater)

    def active(self) -> bool:
        return self._call is not None

    def getTime(self) -> float:
        return self.due

    def _refuse(self) -> None:
        raise AlreadyCancelled() if self._cancelled else AlreadyCalled()

    def _moveTo(self, due: float) -> None:
        if self._call is None:
            self._refuse()
        # Usually the timer is postponed. Then it moves when its old time comes, and costs nothing until then.
        if due < self.due:
            self._clock.drop(self)
            self._clock.put(self, due)
        self.due = due


class _Second(set[Entry]):
    """
    The entries that expire at the same second.

    @ivar tick: the second. Thousands of idle sessions share the number, which needs as much memory as a small object.
    """

    __slots__ = ("tick",)

    def __init__(self, tick: int) -> None:
        self.tick = tick


@implementer(IReactorTime)
class CoarseClock:
    """
    The time of a reactor, with timers that are exact to one second if their delay is at least L{FINEST}.

    @ivar log: logs exceptions.
    """

    log: Any = Logger()

    def __init__(self, reactor: IReactorTime) -> None:
        """@param reactor: provides the time and the exact timers."""
        self._reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self._ticks: dict[float, _Second] = {}
        """The entries by the whole second at which they expire."""
        self._new: set[Entry] = set()
        """The entries that are not in C{_ticks} yet."""
        self._now: float = inf
        """The second until which entries have expired. While no entry waits, any time is before it."""
        self._next: IDelayedCall | None = None

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> IDelayedCall:
        """
        Like the reactor's C{callLater}.

        @param delay: the delay in seconds. The call is made within the second after it.
        @param callable: the function to call.
        """
        if delay < FINEST:
            exact: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
            return exact
        call = callable
        if args or kwargs:
            given = callable

            def call() -> object:
                return given(*args, **kwargs)

        timer = _Timer(self, self.seconds() + delay, call)
        self.put(timer, timer.due)
        return timer

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """All timers that are still waiting, the reactor's included."""
        sets = (*self._ticks.values(), self._new)
        waiting = [timer for entries in sets for timer in entries if isinstance(timer, _Timer)]
        return [*self._reactor.getDelayedCalls(), *waiting]

    def put(self, entry: Entry, due: float) -> None:
        """
        Make C{entry} expire within the second after the time C{due}.

        @param entry: the entry, which must not wait already.
        @param due: a time after 0, which marks entries that do not wait.
        """
        if due < self._now:
            self._begin()
        entry.tick = due
        self._new.add(entry)

    def drop(self, entry: Entry) -> None:
        """Remove C{entry}, if it waits."""
        try:
            self._new.remove(entry)
        except KeyError:
            if not entry.tick:
                return
            self._takeOut(entry)
        entry.tick = 0
        if not self._new:
            self._rest()

    def _takeOut(self, entry: Entry) -> None:
        """Remove C{entry} from C{_ticks}."""
        entries = self._ticks[entry.tick]
        entries.remove(entry)
        if not entries:
            del self._ticks[entry.tick]

    def _sortIn(self, first: int) -> None:
        """Move the new entries to C{_ticks}, those that are overdue to C{first}."""
        new, self._new = self._new, set()
        for entry in new:
            second = max(int(entry.tick) + 1, first)
            entries = self._ticks.get(second)
            if entries is None:
                entries = self._ticks[second] = _Second(second)
            entry.tick = entries.tick
            entries.add(entry)

    def _begin(self) -> None:
        """Wait for the next second. No entry has waited so far, or the clock may have been set back."""
        if self._next is not None:
            self._next.cancel()
        # Entries that are due by now may not have expired yet.
        self._now = min(int(self.seconds()), self._now)
        self._wait()

    def _wait(self) -> None:
        self._next = self._reactor.callLater(1 - self.seconds() % 1, self._second)

    def _rest(self) -> None:
        if not (self._ticks or self._new) and self._next is not None:
            self._next.cancel()
            self._next = None
            self._now = inf

    def _second(self) -> None:
        """At least one second has passed, or the clock has been set back."""
        last, now = int(self._now), int(self.seconds())
        self._now = now
        # First of all, because expired() may take seconds, and add entries.
        self._wait()
        self._sortIn(min(last, now) + 1)
        # The clock may have been set forward, by years.
        ticks = range(last + 1, now + 1) if now - last < 60 else sorted(self._ticks)
        for tick in ticks:
            if tick > now:
                break
            self._expire(tick)
        self._rest()

    def _expire(self, tick: float) -> None:
        entries = self._ticks.get(tick)
        while entries:
            # One at a time: an entry may drop others, or add itself again.
            entry = entries.pop()
            entry.tick = 0
            try:
                entry.expired()
            except Exception:
                self.log.failure("unhandled exception in a timer", Failure())
        self._ticks.pop(tick, None)


class ExactClock:
    """
    The time of any clock, with entries that expire exactly when they are due. Each waiting entry has a timer of the
    clock.

    @ivar seconds: the C{seconds} of the clock.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """@param clock: provides the time and the timers."""
        self._clock = clock
        self.seconds: Callable[[], float] = clock.seconds
        self._timers: dict[Entry, IDelayedCall] = {}

    def put(self, entry: Entry, due: float) -> None:
        """Make C{entry} expire at the time C{due}. It must not wait already."""
        entry.tick = ceil(due)
        self._timers[entry] = self._clock.callLater(max(0.0, due - self.seconds()), self._expire, entry)

    def drop(self, entry: Entry) -> None:
        """Remove C{entry}, if it waits."""
        timer = self._timers.pop(entry, None)
        if timer is not None:
            entry.tick = 0
            timer.cancel()

    def _expire(self, entry: Entry) -> None:
        del self._timers[entry]
        entry.tick = 0
        entry.expired()


def deadlinesOf(clock: IReactorTime, shortest: float) -> Deadlines:
    """
    Return where deadlines wait.

    @param clock: the clock of the gateway, or its reactor.
    @param shortest: the seconds of the shortest deadline. Below L{FINEST} a L{CoarseClock} is not exact enough.
    """
    coarse = getattr(clock, "clock", clock)
    return coarse if isinstance(coarse, CoarseClock) and shortest >= FINEST else ExactClock(clock)
