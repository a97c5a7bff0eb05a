# -*- test-case-name: mailgate.test.frontend.test_patience -*-
"""
Limits a client before its login: time, commands, errors and failed logins.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.lean.clock import Deadlines

__all__ = ["Patience"]


class Patience:
    """
    The deadlines and counters of one connection.

    Three deadlines hold: C{timeout} for the next command, L{BUDGET} times C{timeout} for everything before the login,
    and the limit of the session. The nearest one waits in the clock. It often moves later, which costs nothing: the
    entry in the clock stays where it is, and moves when its time comes.

    @param settings: the limits.
    @param clock: the clock in which the deadline waits.
    @param missed: called once, when the client misses a deadline.
    @ivar failures: how many logins were refused.
    @ivar tick: its place in the clock.
    """

    failures = 0
    tick: float = 0
    _errors = 0
    _commands = 0
    _limit = inf

    def __init__(self, settings: DialogueSettings, clock: Deadlines, missed: Callable[[], object]) -> None:
        self._settings = settings
        self._clock = clock
        self._missed: Callable[[], object] | None = missed
        now = clock.seconds()
        self._end = now + BUDGET * settings.timeout
        self._due = self._expires = due = now + settings.timeout
        clock.put(self, due)

    def extend(self) -> None:
        """Restart C{timeout} for the next command, within the total time."""
        due = self._clock.seconds() + self._settings.timeout
        self._moveTo(due if due < self._end else self._end)

    def extendToEnd(self) -> None:
        """Let the client wait for the gateway until the total time expires."""
        self._moveTo(self._end)

    def allow(self, seconds: float) -> None:
        """Let the client wait for the gateway, for at most C{seconds}."""
        self._moveTo(self._clock.seconds() + seconds)

    def giveBack(self, seconds: float) -> None:
        """Add C{seconds} to the total time: the gateway has caused a delay of that length."""
        self._end += seconds

    def limit(self, moment: float | None) -> None:
        """
        Limit the session. This replaces an earlier limit.

        @param moment: the clock's time in seconds at which the session expires; L{None} for no limit.
        """
        self._limit = limit = inf if moment is None else moment
        self._hasten(limit)

    def _moveTo(self, due: float) -> None:
        self._due = due
        self._hasten(due)

    def _hasten(self, moment: float) -> None:
        """Move the entry in the clock to C{moment} if that is earlier, unless no deadline holds."""
        if moment < self._expires and self._missed is not None:
            self._clock.drop(self)
            self._wait(moment)

    def _wait(self, moment: float) -> None:
        self._expires = moment
        self._clock.put(self, moment)

    def expired(self) -> None:
        """The time of the entry has come. The deadline may have moved meanwhile."""
        nearest = min(self._due, self._limit)
        if nearest > self._clock.seconds():
            self._wait(nearest)
        elif self._missed is not None:
            missed, self._missed = self._missed, None
            missed()

    def stop(self) -> None:
        """End all deadlines."""
        # It may be a method of the dialogue, which must be freed.
        self._missed = None
        self._clock.drop(self)

    def restart(self, missed: Callable[[], object]) -> None:
        """After L{stop}: set one new deadline and call C{missed} after C{timeout}."""
        self._missed = missed
        self._limit = inf
        self._due = self._clock.seconds() + self._settings.timeout
        self._wait(self._due)

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
