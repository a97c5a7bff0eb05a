# -*- test-case-name: mailgate.test.auth.http.test_keptconnections -*-
"""
Holds idle connections, and decides when one may be used again.

Some servers send more bytes than their response is long. These bytes would answer the next request on the connection.
Usually they come at once: after a moment of silence, none are in transit any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Generic, Protocol, TypeVar

__all__ = ["IdleConnection", "KeptConnections"]


class IdleConnection(Protocol):
    """
    A connection that can be kept.

    @ivar idleSince: the time since which it has been silent, in seconds.
    """

    idleSince: float


_Connection = TypeVar("_Connection", bound=IdleConnection)


class KeptConnections(Generic[_Connection]):
    """
    Idle connections. Each can be used again after C{pause} seconds of silence. The one that was used last comes first,
    so that surplus connections grow old and are closed.

    @param pause: the seconds.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        # Both are sorted by idleSince.
        self._cooling: deque[_Connection] = deque()
        self._cooled: deque[_Connection] = deque()

    def __len__(self) -> int:
        return len(self._cooling) + len(self._cooled)

    def keep(self, connection: _Connection, now: float) -> None:
        """
        Add a connection.

        @param connection: the connection.
        @param now: the time in seconds, at which its silence begins.
        """
        connection.idleSince = now
        self._cooling.append(connection)

    def take(self, now: float) -> _Connection | None:
        """
        Remove a connection that has been silent long enough, for a request.

        @param now: the time in seconds.
        @return: the connection, or L{None} if there is none.
        """
        cooling, cooled = self._cooling, self._cooled
        if cooling and cooling[-1].idleSince > now:
            self._turnBack(now)
        while cooling and now - cooling[0].idleSince >= self._pause:
            cooled.append(cooling.popleft())
        return cooled.pop() if cooled else None

    def readyAt(self, number: int) -> float:
        """
        Say how soon there are enough usable connections.

        @param number: how many; at least 1.
        @return: the time in seconds from which so many can be used, if no more byte arrives; infinity if there are
            fewer.
        """
        missing = number - len(self._cooled)
        if missing <= 0:
            return 0.0
        return self._cooling[missing - 1].idleSince + self._pause if missing <= len(self._cooling) else inf

    def evict(self) -> _Connection | None:
        """
        Remove the connection that is needed least: the one that would be usable last.

        @return: the connection, or L{None} if there is none.
        """
        if self._cooling:
            return self._cooling.pop()
        return self._cooled.popleft() if self._cooled else None

    def remove(self, connection: _Connection) -> None:
        """
        Remove a connection if it is here.

        @param connection: the connection.
        """
        for kept in (self._cooling, self._cooled):
            if connection in kept:
                kept.remove(connection)

    def outdated(self, limit: float, now: float) -> Iterator[_Connection]:
        """
        Remove the connections that have been silent for too long.

        @param limit: the latest time, in seconds, at which their silence began.
        @param now: the time in seconds.
        @return: an iterator over the removed connections.
        """
        self._turnBack(now)
        for kept in (self._cooled, self._cooling):
            while kept and kept[0].idleSince <= limit:
                yield kept.popleft()

    @property
    def oldest(self) -> _Connection | None:
        """The connection that has been silent longest, or L{None} if there is none."""
        if self._cooled:
            return self._cooled[0]
        return self._cooling[0] if self._cooling else None

    def clear(self) -> Iterator[_Connection]:
        """
        Remove all connections.

        @return: an iterator over them.
        """
        while (connection := self.evict()) is not None:
            yield connection

    def _turnBack(self, now: float) -> None:
        """If the clock was set back, let the silence begin again at the latest now."""
        for connection in self._cooling:
            connection.idleSince = min(connection.idleSince, now)
