# -*- test-case-name: mailgate.test.auth.test_fairqueue -*-
"""
A limited number of places for work that clients cause, shared fairly: a client with many requests does not delay the
others.
"""

from __future__ import annotations

from collections import deque
from itertools import count

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

__all__ = ["MOST_OF_ONE", "MOST_WAITING", "PAUSE", "FairQueue", "Overloaded"]

MOST_WAITING = 1024
"""
Requests of all clients that may wait for a place. When as many wait, the next one is refused, or it displaces a request
of the client that has the most waiting.
"""

MOST_OF_ONE = 32
"""Requests of one client that may wait."""


PAUSE = 2.0
"""
Seconds to wait before the gateway answers a client whose request found no place. A client that gets the refusal at once
retries at once: 300 such connections keep the processor busy and delay all other clients.
"""


class Overloaded(Exception):
    """Too many requests wait for a place: of all clients, or of this one."""


class _Client:
    """
    The requests of one client.

    @ivar running: how many have a place.
    @ivar waiting: the Deferreds of those that wait.
    @ivar turn: orders the clients; the lowest comes first.
    """

    __slots__ = ("running", "turn", "waiting")

    def __init__(self, turn: int) -> None:
        self.running = 0
        self.turn = turn
        self.waiting: deque[Deferred[None]] = deque()

    def waits(self) -> int:
        """Return how many requests wait."""
        return len(self.waiting)


class FairQueue:
    """
    Hands out places for requests. Call L{take} for a place, and L{leave} exactly once when the request is done.

    A free place goes to the client that holds the fewest places. Among equals it goes to the client that has waited
    longest since its previous request ended, or since its first request if none has ended yet.

    @param places: how many places there are; 0 means no limit.
    @param clock: measures how long requests wait.
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
        """Return how many requests wait."""
        return self._waiting

    @property
    def taken(self) -> int:
        """How many places are taken; 0 if there is no limit."""
        return self._places - self._free

    def take(self, client: str, patience: float) -> Deferred[None] | None:
        """
        Take a place for a request.

        After a failure or a cancellation the request has no place: do not call L{leave}.

        @param client: names the client of the request, as L{mailgate.net.networks.sourceOf} does for an address.
        @param patience: how long the request may wait, in seconds.
        @return: L{None} if the request has a place now, or else a Deferred that fires with L{None} when it gets one.
            The Deferred fails with L{Overloaded} if too many requests wait, either at once or later, when a request of
            a client with fewer ones displaces it; and with C{twisted.internet.defer.TimeoutError} after C{patience}.
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
        """
        Give back a place.

        @param client: the client of the request, as it was given to L{take}.
        """
        if not self._places:
            return
        known = self._clients[client]
        known.running -= 1
        self._free += 1
        if known.running or known.waiting:
            known.turn = next(self._turns)
        else:
            del self._clients[client]
        # If a request that started here ends at once, the loop goes on. Recursion would need a stack frame for each.
        if self._waiting and not self._serving:
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
