# -*- test-case-name: mailgate.test.frontend.test_patience -*-
"""
Limits a client before its login: time, commands, errors and failed logins.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.frontend.settings import BUDGET, DialogueSettings

__all__ = ["Patience"]


class Patience:
    """
    The deadlines and counters of one connection.

    Two deadlines hold: C{timeout} for the next command, and L{BUDGET} times C{timeout} for everything before the login.

    @param settings: the limits.
    @param clock: the time in seconds, and timers.
    @param expired: called once, when the client misses a deadline.
    @ivar failures: how many logins were refused.
    """

    __slots__ = ("_clock", "_commands", "_end", "_errors", "_limit", "_settings", "_timer", "failures")

    def __init__(self, settings: DialogueSettings, clock: IReactorTime, expired: Callable[[], object]) -> None:
        self._settings = settings
        self._clock = clock
        self._end = clock.seconds() + BUDGET * settings.timeout
        self._timer: IDelayedCall = clock.callLater(settings.timeout, expired)
        self._limit: IDelayedCall | None = None
        self._errors = 0
        self._commands = 0
        self.failures = 0

    def extend(self) -> None:
        """Restart C{timeout} for the next command, within the total time."""
        self._timer.reset(max(0.0, min(self._settings.timeout, self._end - self._clock.seconds())))

    def extendToEnd(self) -> None:
        """Let the client wait for the gateway until the total time expires."""
        self._timer.reset(max(0.0, self._end - self._clock.seconds()))

    def allow(self, seconds: float) -> None:
        """Let the client wait for the gateway, for at most C{seconds}."""
        self._timer.reset(seconds)

    def giveBack(self, seconds: float) -> None:
        """Add C{seconds} to the total time: the gateway has caused a delay of that length."""
        self._end += seconds

    def limit(self, moment: float | None, outlived: Callable[[], object]) -> None:
        """
        Limit the session. This replaces an earlier limit.

        @param moment: the clock's time in seconds at which the session expires; L{None} for no limit.
        @param outlived: called at C{moment}.
        """
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()
        if moment is not None:
            self._limit = self._clock.callLater(max(0.0, moment - self._clock.seconds()), outlived)

    def stop(self) -> None:
        """Cancel all deadlines."""
        if self._timer.active():
            self._timer.cancel()
        if self._limit is not None and self._limit.active():
            self._limit.cancel()

    def restart(self, expired: Callable[[], object]) -> None:
        """After L{stop}: set one new deadline and call C{expired} after C{timeout}."""
        self._timer = self._clock.callLater(self._settings.timeout, expired)

    def countError(self) -> bool:
        """Count invalid input. Return whether the client may send more of it (C{max_errors})."""
        self._errors += 1
        return self._errors < self._settings.maxErrors

    def countCommand(self) -> bool:
        """Count a command or a response. Return whether it may be obeyed (C{max_commands})."""
        self._commands += 1
        return self._commands <= self._settings.maxCommands

    @property
    def hasFailedOften(self) -> bool:
        """Whether so many logins were refused that the connection must end (C{max_auth_failures})."""
        return 0 < (self._settings.maxAuthFailures or 0) <= self.failures
