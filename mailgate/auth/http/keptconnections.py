# -*- test-case-name: mailgate.test.auth.http.test_keptconnections -*-
"""
Connections between two requests, and when the next request may have one.

A server that sends more than its response is long gives the surplus to whatever is asked next over that connection. As
a rule the surplus comes at once: a connection that has been silent for a moment has none on its way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["IdleConnection", "KeptConnections"]


class IdleConnection(Protocol):
    """A connection; C{idleSince} is the time, in seconds, from which on it has been silent."""

    idleSince: float


_Connection = TypeVar("_Connection", bound=IdleConnection)


class KeptConnections(Generic[_Connection]):
    """
    Connections that are kept, each of which is used again once it has been silent for C{pause} seconds: the one first
    that was used last, so that those that are not needed grow old.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        # Both in the order of idleSince.
        self._cooling: deque[_Connection] = deque()
        self._cooled: deque[_Connection] = deque()

    def __len__(self) -> int:
        return len(self._cooling) + len(self._cooled)

    def keep(self, connection: _Connection, now: float) -> None:
        """Keep C{connection}, whose silence begins C{now}."""
        connection.idleSince = now
        self._cooling.append(connection)

    def take(self, now: float) -> _Connection | None:
        """One that has been silent for long enough: it is no longer kept. L{None} if there is none."""
        self._advance(now)
        return self._cooled.pop() if self._cooled else None

    def evict(self) -> _Connection | None:
        """One that will be missed least: the last that could be used again. It is no longer kept."""
        if self._cooling:
            return self._cooling.pop()
        return self._cooled.popleft() if self._cooled else None

    def remove(self, connection: _Connection) -> None:
        """Keep C{connection} no longer, if it is kept."""
        for kept in (self._cooling, self._cooled):
            if connection in kept:
                kept.remove(connection)

    def outdated(self, limit: float, now: float) -> Iterator[_Connection]:
        """Those that have been silent since C{limit} or longer: they are no longer kept."""
        self._advance(now)
        while self._cooled and self._cooled[0].idleSince <= limit:
            yield self._cooled.popleft()

    @property
    def oldest(self) -> _Connection | None:
        """The one that has been silent for the longest time."""
        if self._cooled:
            return self._cooled[0]
        return self._cooling[0] if self._cooling else None

    def clear(self) -> Iterator[_Connection]:
        """All of them: they are no longer kept."""
        while (connection := self.evict()) is not None:
            yield connection

    def _advance(self, now: float) -> None:
        cooling = self._cooling
        if cooling and cooling[-1].idleSince > now:
            # The clock has been set back: the silence begins anew, at worst.
            for connection in cooling:
                connection.idleSince = min(connection.idleSince, now)
        while cooling and now - cooling[0].idleSince >= self._pause:
            self._cooled.append(cooling.popleft())
