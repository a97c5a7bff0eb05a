# -*- test-case-name: mailgate.test.frontend.test_kicking -*-
"""
Ends sessions for an operator, at once or spread over a time, whatever phase they are in.

A relay closes both its connections, and nothing is written into the stream. A dialogue says goodbye. A connection that
does not close in time, because its peer takes no bytes, is reset.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailgate.interfaces import IConnection
from mailgate.login import Trouble
from mailgate.relay.base import BaseRelay
from mailgate.session import Outcome, Phase
from mailgate.upstream.waves import offset

__all__ = ["GRACE", "Kicks", "Target", "currentOf", "hasMoved"]

GRACE = 0.5
"""Seconds that a connection has to send its last bytes. Then it is reset."""

LOOK = 0.5
"""
Seconds between two looks at logins that may turn out to be those of a kicked user, besides that at once when the
authenticator has named one.
"""

MOST_SPREADS = 16
"""Kicks at the same time that are spread over a time. Each keeps its sessions in memory until it is over."""

WORK = 0.004
"""Seconds for which connections are ended before the process serves others."""

Target: TypeAlias = tuple[Any, IConnection]
"""A connection and its L{mailgate.frontend.factory.ProxyServerFactory}."""


class Kicks:
    """
    The sessions of one process that operators end. What has begun goes on if the keeper exits.

    @param clock: the time in seconds, and timers, which are exact.
    @param shuffle: puts a list in random order.
    """

    def __init__(self, clock: IReactorTime, shuffle: Callable[[list[Any]], object] = random.shuffle) -> None:
        self._clock = clock
        self._shuffle = shuffle
        self._due: dict[_Round, IDelayedCall] = {}
        self._hurry: IDelayedCall | None = None

    @property
    def isFull(self) -> bool:
        """Whether no further kick can be spread over a time."""
        return sum(isinstance(each, _Spread) for each in self._due) >= MOST_SPREADS

    def end(self, targets: Sequence[Target], reason: str, over: float = 0.0) -> None:
        """
        End sessions, in random order.

        @param targets: the sessions.
        @param reason: why, in the operator's words, for the log: one printable line.
        @param over: seconds over which the ends are spread.
        """
        if targets:
            left = list(targets)
            self._shuffle(left)
            self._wait(_Spread(self, left, reason, self._clock.seconds(), over), 0.0)

    def endLater(self, targets: Sequence[Target], reason: str, matches: Callable[[Target], bool]) -> None:
        """
        End those sessions whose login, which is under way, turns out to be one of the kicked user: the authenticator
        may still change the user name.

        @param targets: the sessions, in phase AUTH.
        @param reason: see L{end}.
        @param matches: returns whether a session is to end.
        """
        if targets:
            dialogue: Any
            for _, dialogue in targets:
                dialogue.named = self._look
            self._wait(_Pursuit(self, targets, reason, matches), LOOK)

    def _look(self) -> None:
        """
        An authenticator has named a user. Look before the event loop can hear a backend: so no kicked login reaches the
        relay. Not in this call, which the login makes.
        """
        if self._hurry is None:
            self._hurry = self._clock.callLater(0, self._lookNow)

    def _lookNow(self) -> None:
        self._hurry = None
        for each, call in list(self._due.items()):
            if isinstance(each, _Pursuit):
                call.cancel()
                self._go(each)

    def forget(self, factories: Sequence[Any]) -> None:
        """
        The gateway of these factories has stopped, and has no sessions left.

        @param factories: the factories.
        """
        for each in list(self._due):
            each.drop(factories)
            if each.isOver:
                self._due.pop(each).cancel()

    def _wait(self, each: _Round, delay: float) -> None:
        self._due[each] = self._clock.callLater(delay, self._go, each)

    def _go(self, each: _Round) -> None:
        del self._due[each]
        delay = each.go(self._clock.seconds())
        if delay is not None:
            self._wait(each, delay)

    # What the rounds use.

    def isLate(self, since: float) -> bool:
        """Return whether the work that began at the time C{since} must pause, so that other clients are served."""
        return self._clock.seconds() - since > WORK

    def strike(self, targets: Sequence[Target], reason: str) -> None:
        """
        End sessions now.

        @param targets: the sessions.
        @param reason: see L{end}.
        """
        struck = []
        for factory, connection in targets:
            current = currentOf(factory, connection)
            if current is not None:
                _dismiss(factory, current, reason)
                struck.append((factory, current))
        left = [target for target in struck if target[1] in target[0].connections]
        if left:
            self._wait(_Reset(self, left), GRACE)


def currentOf(factory: Any, connection: IConnection) -> IConnection | None:
    """
    Return the object that has a connection now; L{None} if it has ended. A reader of PROXY headers hands it over to a
    dialogue, and a dialogue to a relay.

    @param factory: its factory.
    @param connection: the object that had it before.
    """
    if connection in factory.connections:
        return connection
    if not hasMoved(connection):
        return None
    wanted = connection.session.number
    return next((each for each in factory.connections if each.session.number == wanted), None)


def hasMoved(connection: IConnection) -> bool:
    """
    Return whether another object may have a connection now.

    @param connection: the object that had it before, and has it no longer.
    """
    return connection.session.phase is not Phase.END and connection.session.outcome is None


def _dismiss(factory: Any, connection: IConnection, reason: str) -> None:
    session = connection.session
    if isinstance(connection, BaseRelay) and not connection.closing:
        # One side has ended already, but the other one could go on for hours.
        session.ending = None
    session.conclude(Outcome.KICKED, reason)
    try:
        connection.dismiss(Outcome.KICKED, Trouble.STOPPING)
    except Exception:
        # The others must end as well.
        factory.journal.failure("closing a connection failed")


class _Round:
    """
    Sessions of one kick.

    @ivar isOver: whether none is left.
    """

    def __init__(self, owner: Kicks, targets: Sequence[Target]) -> None:
        self._owner = owner
        self._left = deque(targets)

    @property
    def isOver(self) -> bool:
        return not self._left

    def drop(self, factories: Sequence[Any]) -> None:
        """Forget the sessions of C{factories}."""
        self._left = deque(target for target in self._left if target[0] not in factories)

    def go(self, now: float) -> float | None:
        """Do what is due at the time C{now}. Return the seconds until the next time; L{None} if there is none."""
        raise NotImplementedError


class _Spread(_Round):
    """Sessions in the order in which they end, from C{start} on, over C{over} seconds."""

    def __init__(self, owner: Kicks, targets: Sequence[Target], reason: str, start: float, over: float) -> None:
        super().__init__(owner, targets)
        self._reason = reason
        self._start = start
        self._over = over
        self._total = len(targets)

    def go(self, now: float) -> float | None:
        struck: list[Target] = []
        try:
            while self._left:
                place = self._total - len(self._left) + 1
                rest = self._start + offset(place, self._total, self._over) - now
                if rest > 0:
                    return rest
                struck.append(self._left.popleft())
                if len(struck) == 10:
                    self._owner.strike(struck, self._reason)
                    struck = []
                    if self._owner.isLate(now):
                        return 0.0 if self._left else None
            return None
        finally:
            self._owner.strike(struck, self._reason)


class _Reset(_Round):
    """Connections that had time to close."""

    def go(self, now: float) -> float | None:
        while self._left:
            factory, connection = self._left.popleft()
            if connection in factory.connections:
                try:
                    connection.stop()
                except Exception:
                    factory.journal.failure("closing a connection failed")
            if self._owner.isLate(now):
                return 0.0 if self._left else None
        return None


def _loginOf(connection: IConnection) -> tuple[int, bytes]:
    return connection.session.attempts, connection.session.user


class _Pursuit(_Round):
    """Logins whose user the authenticator is about to name."""

    def __init__(self, owner: Kicks, targets: Sequence[Target], reason: str, matches: Callable[[Target], bool]) -> None:
        super().__init__(owner, targets)
        self._reason = reason
        self._matches = matches
        self._logins = {connection.session.number: _loginOf(connection) for _, connection in targets}

    def go(self, now: float) -> float | None:
        struck: list[Target] = []
        left: deque[Target] = deque()
        for factory, connection in self._left:
            current = currentOf(factory, connection)
            if current is None:
                continue
            before, after = self._logins[current.session.number], _loginOf(current)
            isAsked = current.session.phase is Phase.AUTH
            if before == after and isAsked:
                # The most frequent case, and the cheapest.
                left.append((factory, current))
            elif before[0] != after[0]:
                continue
            elif self._matches((factory, current)):
                struck.append((factory, current))
            elif isAsked:
                left.append((factory, current))
        self._left = left
        self._owner.strike(struck, self._reason)
        return LOOK if left else None
