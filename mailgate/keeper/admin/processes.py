# -*- test-case-name: mailgate.test.keeper.admin.test_processes -*-
"""
The endpoints about backends, authentication services, servers and processes, and those about health: what each one
makes of the answers of all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from mailgate.keeper.admin.replies import jsonReply
from mailgate.keeper.admin.resources import Visit
from mailgate.keeper.fresh import Fresh
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.keeper.rows import backendRows, notReady, serverRows, serviceRows, workerRows

__all__ = ["PROCESS_HANDLERS", "Readiness"]

_WITHIN = 1.0
"""Seconds in which a process must answer whether it is ready."""

_FRESH = 1.0
"""Seconds for which the answer whether the gateway is ready is good: everyone may ask."""


def _ask(visit: Visit, word: str, make: Callable[[Collected], Any], name: str) -> Deferred[Any]:
    asked = visit.keeper.ask(word, {})
    return asked.addCallback(lambda found: {name: make(found), "missing": list(found.missing)})


PROCESS_HANDLERS: dict[tuple[str, str], Callable[[Visit], Any]] = {
    ("GET", "/api/1/backends"): lambda visit: _ask(visit, "backends", backendRows, "backends"),
    ("GET", "/api/1/auth"): lambda visit: _ask(visit, "services", serviceRows, "services"),
    ("GET", "/api/1/servers"): lambda visit: _ask(visit, "servers", serverRows, "servers"),
    ("GET", "/api/1/workers"): lambda visit: _ask(visit, "process", workerRows, "workers"),
}
"""What carries out each endpoint, by method and path."""


class Readiness:
    """
    Answers C{/healthz} and C{/readyz}. Everyone may ask, so the answer names no address, and the processes are asked
    once a second at most.

    @param keeper: the keeper.
    @param clock: the time in seconds.
    """

    def __init__(self, keeper: Keeper, clock: IReactorTime) -> None:
        self._keeper = keeper
        self._fresh = Fresh(self._find, clock.seconds, _FRESH)

    def health(self, visit: Visit) -> Any:
        """
        Answer that this process works.

        @param visit: the request.
        """
        return {"status": "ok"}

    def ready(self, visit: Visit) -> Deferred[Any]:
        """
        Answer whether clients can log in.

        @param visit: the request.
        """
        return self._fresh.collect().addCallback(_readiness)

    def _find(self) -> Deferred[list[str]]:
        """Why clients cannot log in."""
        questions = [self._keeper.ask(word, {}, _WITHIN) for word in ("process", "services", "backends")]
        return gatherResults(questions, consumeErrors=True).addCallback(lambda found: list(notReady(*found)))


def _readiness(reasons: Iterable[str]) -> Any:
    found = list(reasons)
    if found:
        return jsonReply({"status": "not ready", "reasons": found}, 503)
    return {"status": "ready", "reasons": []}
