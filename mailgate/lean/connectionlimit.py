# -*- test-case-name: mailgate.test.lean.test_connectionlimit -*-
"""
Limits the number of clients that one process serves: C{worker_connections}.

Each connection takes a descriptor. If idle clients took all of them, none would be left for backends and authentication
services, and no other client could log in. So a process accepts only as many clients as it can connect to backends. The
others wait in the listening socket's queue, or another worker accepts them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mailgate.directives import Problem, directive, number
from mailgate.log.journal import Journal
from mailgate.log.seldom import Seldom

__all__ = ["KEPT_BACK", "ConnectionLimit", "ConnectionSettings", "Places", "carried"]

KEPT_BACK = 64
"""
The descriptors that are reserved for everything except clients, backends and services: listening sockets, logs, pipes,
DNS queries.
"""


def _connections(value: str, folder: str) -> int:
    limit = number(value, folder)
    if not limit:
        raise ValueError("must be more than 0")
    return limit


@frozen
class ConnectionSettings:
    """nginx's C{worker_connections}. nginx counts the connections to backends as well."""

    most: int | None = directive("worker_connections", _connections, None)


def carried(descriptors: int, questions: int) -> int:
    """
    The number of clients that a process can serve. Each needs one descriptor for itself and one for its backend. At
    most half of the descriptors are reserved.

    @param descriptors: how many descriptors the process may open.
    @param questions: how many of them the connections to services may take at once.
    """
    keptBack = min(KEPT_BACK + questions, descriptors // 2)
    return max(1, (descriptors - keptBack) // 2)


def _needed(clients: int, questions: int) -> int:
    """The fewest descriptors with which L{carried} returns C{clients}."""
    return min(2 * clients + KEPT_BACK + questions, 4 * clients)


@frozen
class ConnectionLimit:
    """
    The limit of one process.

    @ivar most: how many clients may be connected.
    @ivar remedy: how the operator raises the limit, for the log.
    @ivar warning: why the configured number is not used, or L{None}.
    """

    most: int
    remedy: str
    warning: Problem | None = None

    @classmethod
    def of(cls, settings: ConnectionSettings, questions: int, descriptors: int, file: str) -> ConnectionLimit:
        """
        Compute the limit of a process.

        @param settings: the value of C{worker_connections}.
        @param questions: how many descriptors the connections to services may take at once.
        @param descriptors: how many descriptors the process may open.
        @param file: the configuration file, for the warning.
        """
        most, wanted = carried(descriptors, questions), settings.most
        if wanted is not None and wanted <= most:
            return cls(wanted, f"raise worker_connections (at most {most} with {descriptors} open files)")
        remedy = f"raise worker_rlimit_nofile, or the system's limit on open files ({descriptors})"
        if wanted is None:
            return cls(most, remedy)
        reason = (
            f"exceeds the limit of {descriptors} open files: each client needs one and its backend another,"
            f" and {KEPT_BACK + questions} are reserved; the gateway uses {most};"
            f" set worker_rlimit_nofile = {_needed(wanted, questions)} to allow this value"
        )
        return cls(most, remedy, Problem(file, reason, "mailgate", "worker_connections", str(wanted)))


class Places:
    """
    Counts the client connections of a process, over all its generations, and makes listeners wait when the limit is
    reached. There is no limit until L{limit} is called.

    @ivar taken: the number of client connections.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """@param clock: the clock for messages that are not repeated often."""
        self.taken = 0
        self._most = sys.maxsize
        self._remedy = ""
        self._clock = clock
        self._journal = Journal()
        self._waiting: dict[Callable[[], object], None] = {}
        self._saysFull = Seldom()

    def limit(self, limit: ConnectionLimit, journal: Journal) -> None:
        """
        Set a limit.

        @param limit: the new limit.
        @param journal: logs when the limit is reached.
        """
        self._most, self._remedy, self._journal = limit.most, limit.remedy, journal
        self._admit()

    def room(self, wake: Callable[[], object]) -> int:
        """
        The number of connections that may start now.

        @param wake: called once, when there is room again, if there is none now.
        """
        free = self._most - self.taken
        if free > 0:
            return free
        if not self._waiting and self._saysFull.isDue(self._clock.seconds()):
            self._journal.error(
                "worker_connections are not enough: {taken} client connections are open, and new clients wait until one"
                " closes; {remedy}",
                taken=self.taken,
                remedy=self._remedy,
            )
        self._waiting[wake] = None
        return 0

    def forget(self, wake: Callable[[], object]) -> None:
        """Do not call C{wake} any more: its listener is closed."""
        if self._waiting.pop(wake, self) is None and not self._waiting:
            self._saysFull.postpone(self._clock.seconds())

    def leave(self) -> None:
        """Count a connection as closed."""
        self.taken -= 1
        if self._waiting:
            self._admit()

    def _admit(self) -> None:
        if self._waiting and self.taken < self._most:
            self._saysFull.postpone(self._clock.seconds())
            waiting, self._waiting = self._waiting, {}
            for wake in waiting:
                wake()
