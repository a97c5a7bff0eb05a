# -*- test-case-name: mailgate.test.auth.test_fairqueue -*-
"""
A bounded number of places for work that clients cause, shared fairly: one client that asks often does not keep the
others waiting.
"""

from __future__ import annotations

from collections import deque
from itertools import count

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

__all__ = ["MOST_OF_ONE", "MOST_WAITING", "PAUSE", "FairQueue", "Overloaded"]

MOST_WAITING = 1024
"""
Clients' questions that wait for a place. The next one is refused, or takes the place of another of the client that has
the most of them.
"""

MOST_OF_ONE = 32
"""Of these, questions of one client."""


PAUSE = 2.0
"""
Seconds after which a client should hear that there was no room for its question. Told at once it asks again at once:
300 connections then keep the processor busy, and all other clients waiting.
"""


class Overloaded(Exception):
    """Too many wait for a place already, or too many of the same client."""


class _Client:
    """The questions of one client: how many have a C{running} place, and those that wait. C{turn} orders clients."""

    __slots__ = ("running", "turn", "waiting")

    def __init__(self, turn: int) -> None:
        self.running = 0
        self.turn = turn
        self.waiting: deque[Deferred[None]] = deque()

    def waits(self) -> int:
        """How many wait."""
        return len(self.waiting)


class FairQueue:
    """
    C{places} for questions, each of which says whose it is by C{client}, a text such as
    L{mailgate.net.networks.sourceOf} makes of an address. A place that is given back goes to the client that holds the
    fewest; among these to the one whose last question ended, or whose first one came, the longest ago. C{places} of 0
    are as many as are asked for.

    L{take} a place, and L{leave} it exactly once.
    """

    def __init__(self, places: int, clock: IReactorTime) -> None:
        self._places = places
        self._clock = clock
        self._free = places
        self._waiting = 0
        self._serving = False
        self._turns = count()
        self._clients: dict[str, _Client] = {}

    def __len__(self) -> int:
        """How many questions wait."""
        return self._waiting

    def take(self, client: str, patience: float) -> Deferred[None] | None:
        """
        A place for a question of C{client}: L{None} where it has one now, else a Deferred that fires when it has. That
        fails with L{Overloaded} where too many wait, which may be later: when one of another client comes that has
        fewer; and with C{twisted.internet.defer.TimeoutError} after C{patience} seconds. After a cancellation, or a
        failure, there is no place to leave.
        """
        if not self._places:
            return None
        known = self._clients.get(client)
        if self._free and not self._waiting:
            if known is None:
                known = self._clients[client] = _Client(next(self._turns))
            self._free -= 1
            known.running += 1
            return None
        own = 0 if known is None else len(known.waiting)
        if own >= MOST_OF_ONE:
            return fail(Overloaded())
        displaced = None
        if self._waiting >= MOST_WAITING:
            greediest = max(self._clients.values(), key=_Client.waits)
            if greediest.waits() <= own + 1:
                return fail(Overloaded())
            displaced = greediest.waiting.pop()
            self._waiting -= 1
        if known is None:
            known = self._clients[client] = _Client(next(self._turns))
        place: Deferred[None] = Deferred(lambda given: self._forsake(client, given))
        known.waiting.append(place)
        self._waiting += 1
        place.addTimeout(patience, self._clock)
        if displaced is not None:
            displaced.errback(Overloaded())
        return place

    def leave(self, client: str) -> None:
        """Give back a place that C{client} has: its question has been answered, or given up."""
        if not self._places:
            return
        known = self._clients[client]
        known.running -= 1
        self._free += 1
        if known.running or known.waiting:
            known.turn = next(self._turns)
        else:
            del self._clients[client]
        if self._serving or not self._waiting:
            # The question that has just begun has ended at once. A thousand of these would be as many frames.
            return
        self._serving = True
        while self._free and self._waiting:
            self._serveNext()
        self._serving = False

    def _serveNext(self) -> None:
        _, _, following = min((known.running, known.turn, known) for known in self._clients.values() if known.waiting)
        place = following.waiting.popleft()
        following.running += 1
        self._waiting -= 1
        self._free -= 1
        place.callback(None)

    def _forsake(self, client: str, place: Deferred[None]) -> None:
        known = self._clients[client]
        known.waiting.remove(place)
        self._waiting -= 1
        self._drop(client, known)

    def _drop(self, client: str, known: _Client) -> None:
        if not known.running and not known.waiting:
            del self._clients[client]
