# -*- test-case-name: mailgate.test.frontend.test_patience -*-
"""
Limits the time that a client has before its login.
"""

from __future__ import annotations

from math import inf
from typing import Any

from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.session import Phase, Session

__all__ = ["Patience"]


class Patience:
    """
    The deadlines of one connection. A dialogue inherits it: the dialogue itself waits in the clock.

    Three deadlines hold: C{timeout} for the next command, L{BUDGET} times C{timeout} for everything before the login,
    and the limit of the session. The nearest one waits in the clock. It often moves later, which costs nothing: the
    entry in the clock stays where it is, and moves when its time comes.

    @ivar dialogue: the limits.
    @ivar factory: has the C{deadlines}, the clock in which the deadline waits.
    @ivar tick: its place in the clock.
    """

    dialogue: DialogueSettings
    factory: Any
    session: Session
    transport: Any
    tick: float = 0
    _due: float
    _end: float
    _expires: float
    """The time of the entry in the clock; 0 if no deadline holds."""

    def startWaiting(self, now: float) -> None:
        """
        Set the first deadlines.

        @param now: the clock's time in seconds.
        """
        timeout = self.dialogue.timeout
        self._end = now + BUDGET * timeout
        self._due = self._expires = due = now + timeout
        self.factory.deadlines.put(self, due)

    def extend(self) -> None:
        """Restart C{timeout} for the next command, within the total time."""
        due = self.factory.deadlines.seconds() + self.dialogue.timeout
        self._moveTo(due if due < self._end else self._end)

    def extendToEnd(self) -> None:
        """Let the client wait for the gateway until the total time expires."""
        self._moveTo(self._end)

    def allow(self, seconds: float) -> None:
        """Let the client wait for the gateway, for at most C{seconds}."""
        self._moveTo(self.factory.deadlines.seconds() + seconds)

    def giveBack(self, seconds: float) -> None:
        """Add C{seconds} to the total time: the gateway has caused a delay of that length."""
        self._end += seconds

    def limit(self, moment: float | None) -> None:
        """
        Limit the session. This replaces an earlier limit.

        @param moment: the clock's time in seconds at which the session expires; L{None} for no limit.
        """
        self.session.expires = moment
        if moment is not None and self.session.phase is not Phase.END:
            self._hasten(moment)

    def _moveTo(self, due: float) -> None:
        self._due = due
        if due < self._expires:
            self._hasten(due)

    def _hasten(self, moment: float) -> None:
        """Move the entry in the clock to C{moment} if that is earlier, unless no deadline holds."""
        if moment < self._expires:
            self.factory.deadlines.drop(self)
            self._wait(moment)

    def _wait(self, moment: float) -> None:
        self._expires = moment
        self.factory.deadlines.put(self, moment)

    def expired(self) -> None:
        """The time of the entry has come. The deadline may have moved meanwhile."""
        if self.session.phase is Phase.END:
            self.transport.abortConnection()
            return
        expires = self.session.expires
        nearest = min(self._due, inf if expires is None else expires)
        if nearest > self.factory.deadlines.seconds():
            self._wait(nearest)
        else:
            self.timedOut()

    def timedOut(self) -> None:
        """End the connection: the client has missed a deadline."""
        raise NotImplementedError

    def stopWaiting(self) -> None:
        """End all deadlines."""
        self._expires = 0.0
        self.factory.deadlines.drop(self)

    def waitForClose(self) -> None:
        """In the phase END, after L{stopWaiting}: abort the connection unless it is closed within C{timeout}."""
        self._wait(self.factory.deadlines.seconds() + self.dialogue.timeout)
