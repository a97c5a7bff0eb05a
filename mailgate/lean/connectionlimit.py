# -*- test-case-name: mailgate.test.lean.test_connectionlimit -*-
"""
How many clients may be connected to one process: C{worker_connections}.

Each connection takes a descriptor. A process that spent all of them on clients would have none for the backends, and
for the services that judge logins: clients that say nothing would keep out those that log in. So it accepts no more
clients than it can also find backends for. Those beyond that wait in the system's queue of the listening socket, or are
accepted by another worker.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mailgate.directives import Problem, directive, number
from mailgate.log.journal import Journal

__all__ = ["KEPT_BACK", "ConnectionLimit", "ConnectionSettings", "Places", "carried"]

KEPT_BACK = 64
"""Descriptors for what is no client's, backend's or service's: listening sockets, logs, pipes, look-ups of names."""

QUIET = 60.0
"""Seconds after which the limit is worth another line in the log, if it has not been reached meanwhile."""


def _connections(value: str, folder: str) -> int:
    limit = number(value, folder)
    if not limit:
        raise ValueError("must be more than 0")
    return limit


@frozen
class ConnectionSettings:
    """nginx's C{worker_connections}, of its C{events}. There it counts the connections to backends as well."""

    most: int | None = directive("worker_connections", _connections, None)


def carried(descriptors: int, questions: int) -> int:
    """
    How many clients a process with C{descriptors} can serve, so that each finds one more for its backend, C{questions}
    can be asked meanwhile, and L{KEPT_BACK} are left. Where there are few descriptors half of them is kept back.
    """
    keptBack = min(KEPT_BACK + questions, descriptors // 2)
    return max(1, (descriptors - keptBack) // 2)


def _needed(clients: int, questions: int) -> int:
    """The fewest descriptors with which L{carried} gives C{clients}."""
    return min(2 * clients + KEPT_BACK + questions, 4 * clients)


@frozen
class ConnectionLimit:
    """
    What C{worker_connections} comes to in a process.

    @ivar most: how many clients may be connected.
    @ivar remedy: what an operator does to have more, for the log.
    @ivar warning: what is wrong with the number that was written.
    """

    most: int
    remedy: str
    warning: Problem | None = None

    @classmethod
    def of(cls, settings: ConnectionSettings, questions: int, descriptors: int, file: str) -> ConnectionLimit:
        """
        That of a process that may have C{descriptors} open, C{questions} of them at once for services, and whose
        configuration is the ini C{file}.
        """
        most, wanted = carried(descriptors, questions), settings.most
        if wanted is not None and wanted <= most:
            return cls(wanted, f"raise worker_connections, which may be up to {most} with {descriptors} open files")
        remedy = f"raise worker_rlimit_nofile, or the system's limit of open files, which is {descriptors}"
        if wanted is None:
            return cls(most, remedy)
        reason = (
            f"is more than {descriptors} open files are enough for: each client takes one and its backend another,"
            f" and {KEPT_BACK + questions} are for everything else; {most} is used,"
            f" and worker_rlimit_nofile = {_needed(wanted, questions)} would do"
        )
        return cls(most, remedy, Problem(file, reason, "mailgate", "worker_connections", str(wanted)))


class Places:
    """
    The client connections of a process, of all its generations, and the ports that wait for one of them to end. There
    is no limit before L{limit}.

    @ivar taken: how many connections there are.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.taken = 0
        self._most = sys.maxsize
        self._remedy = ""
        self._clock = clock
        self._journal = Journal()
        self._waiting: dict[Callable[[], object], None] = {}
        self._fullUntil = -inf

    def limit(self, limit: ConnectionLimit, journal: Journal) -> None:
        """Have C{limit} from now on, and tell C{journal} when it is reached."""
        self._most, self._remedy, self._journal = limit.most, limit.remedy, journal
        self._admit()

    def room(self, wake: Callable[[], object]) -> int:
        """How many connections may begin now. If there is none, C{wake} is called, once, when there is one again."""
        free = self._most - self.taken
        if free > 0:
            return free
        if not self._waiting and self._clock.seconds() - self._fullUntil >= QUIET:
            self._journal.error(
                "worker_connections is reached: {taken} client connections are open, and others wait until one of them"
                " ends; {remedy}",
                taken=self.taken,
                remedy=self._remedy,
            )
        self._waiting[wake] = None
        return 0

    def forget(self, wake: Callable[[], object]) -> None:
        """Do not call C{wake}: its port is closed."""
        if self._waiting.pop(wake, self) is None and not self._waiting:
            self._fullUntil = self._clock.seconds()

    def leave(self) -> None:
        """A connection has ended."""
        self.taken -= 1
        if self._waiting:
            self._admit()

    def _admit(self) -> None:
        if self._waiting and self.taken < self._most:
            self._fullUntil = self._clock.seconds()
            waiting, self._waiting = self._waiting, {}
            for wake in waiting:
                wake()
