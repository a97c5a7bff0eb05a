# -*- test-case-name: mailgate.test.frontend.test_patience -*-
"""
How long a client may take before it is logged in, and how often it may be wrong.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.frontend.protocol import BUDGET, DialogueSettings

__all__ = ["Patience"]


class Patience:
    """
    The deadline of one connection, and what it has used up of its budgets.

    @param settings: the limits.
    @param clock: the time, in seconds.
    @param expired: called once, when the client has let a deadline pass.
    @ivar failures: how many logins were refused.
    """

    __slots__ = ("_clock", "_commands", "_end", "_errors", "_settings", "_timer", "failures")

    def __init__(self, settings: DialogueSettings, clock: IReactorTime, expired: Callable[[], object]) -> None:
        self._settings = settings
        self._clock = clock
        self._end = clock.seconds() + BUDGET * settings.timeout
        self._timer: IDelayedCall = clock.callLater(settings.timeout, expired)
        self._errors = 0
        self._commands = 0
        self.failures = 0

    def extend(self) -> None:
        """The client has done something: it has C{timeout} for what comes next, but no more than is left of all."""
        self._timer.reset(max(0.0, min(self._settings.timeout, self._end - self._clock.seconds())))

    def extendToEnd(self) -> None:
        """The client waits for us, for as long as is left of all."""
        self._timer.reset(max(0.0, self._end - self._clock.seconds()))

    def allow(self, seconds: float) -> None:
        """The client waits for us, for as many C{seconds} at the most."""
        self._timer.reset(seconds)

    def giveBack(self, seconds: float) -> None:
        """C{seconds} of what has passed were not the client's."""
        self._end += seconds

    def stop(self) -> None:
        """Wait no longer."""
        if self._timer.active():
            self._timer.cancel()

    def restart(self, expired: Callable[[], object]) -> None:
        """Wait once more, after L{stop}, and call C{expired} after C{timeout}."""
        self._timer = self._clock.callLater(self._settings.timeout, expired)

    def countError(self) -> bool:
        """Count what was no command. Return whether one more is acceptable."""
        self._errors += 1
        return self._errors < self._settings.maxErrors

    def countCommand(self) -> bool:
        """Count a command, or a response. Return whether it is acceptable."""
        self._commands += 1
        return self._commands <= self._settings.maxCommands

    @property
    def hasFailedOften(self) -> bool:
        """Whether no other login is acceptable after this refused one."""
        return 0 < (self._settings.maxAuthFailures or 0) <= self.failures
