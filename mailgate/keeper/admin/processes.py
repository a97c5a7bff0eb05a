# -*- test-case-name: mailgate.test.keeper.admin.test_processes -*-
"""
The endpoints about backends, authentication services, servers and processes, and those about health: what each one
makes of the answers of all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime

from mailgate.keeper.admin.replies import jsonReply
from mailgate.keeper.admin.resources import Visit
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.upstream.listing import combined
from mailgate.upstream.peer import PeerState

__all__ = ["PROCESS_HANDLERS", "Readiness"]

_USED = (PeerState.UP.value, PeerState.RESTING.value)
"""States in which logins may be sent to a backend: one that rests is tried if all do."""

_WITHIN = 1.0
"""Seconds in which a process must answer whether it is ready."""

_MOST = 253402300800
"""Seconds from 1970 to the year 10000, which Python's dates do not reach."""
_REMEMBERED = 300.0
"""Seconds for which a service without an answer counts as failing: a process finds out by its next login only."""

_TRIED_AGAIN = 30.0
"""
The same for C{/readyz}, in seconds. A load balancer that sends no logins while the gateway is not ready would otherwise
keep it from finding out that the service answers again.
"""

_FRESH = 1.0
"""Seconds for which the answer whether the gateway is ready is good: everyone may ask."""


def _rows(found: Collected, **columns: type | tuple[type, ...]) -> list[dict[str, Any]]:
    """
    The rows that have C{columns} of these types. A process may be of another release, or taken over: it must not keep
    operators from an answer about the others.
    """
    return [
        row
        for row in found.rows
        if isinstance(row, dict) and all(isinstance(row.get(name), kind) for name, kind in columns.items())
    ]


def _ask(visit: Visit, word: str, make: Callable[[Collected], Any], name: str) -> Deferred[Any]:
    asked = visit.keeper.ask(word, {})
    return asked.addCallback(lambda found: {name: make(found), "missing": list(found.missing)})


def _backendRows(found: Collected) -> list[dict[str, Any]]:
    rows = _rows(found, current=bool, row=dict)
    ordered = sorted(rows, key=lambda each: not each["current"])
    return combined((each["current"], (each["row"],)) for each in ordered)


def _services(found: Collected, lately: float = _REMEMBERED) -> list[dict[str, Any]]:
    """
    The services of all processes. One fails if a process has had no answer C{lately} (in seconds), and none has found
    since that it answers again.
    """
    services: dict[str, dict[str, Any]] = {}
    failures: dict[str, float] = {}
    recoveries: dict[str, float] = {}
    for row in _rows(found, service=str, url=str, failing=bool, asking=int, waiting=int):
        url, seconds = row["url"], row.get("seconds")
        known = services.setdefault(
            url, {"service": row["service"], "url": url, "state": "up", "asking": 0, "waiting": 0}
        )
        if row["failing"]:
            failures[url] = min(failures.get(url, lately), seconds if isinstance(seconds, int | float) else 0)
        elif isinstance(seconds, int | float):
            recoveries[url] = min(recoveries.get(url, seconds), seconds)
        known["asking"] += row["asking"]
        known["waiting"] += row["waiting"]
    for url, seconds in failures.items():
        if seconds < recoveries.get(url, lately):
            services[url]["state"] = "failing"
    return list(services.values())


def _servers(found: Collected) -> list[dict[str, Any]]:
    servers: dict[str, dict[str, Any]] = {}
    rows = _rows(found, current=bool, name=str, protocol=str, listen=list, connections=int, certificates=list)
    for row in sorted(rows, key=lambda each: not each["current"]):
        known = servers.get(row["name"])
        if known is not None:
            known["connections"] += row["connections"]
        elif row["current"] or row["connections"]:
            servers[row["name"]] = {
                "name": row["name"],
                "protocol": row["protocol"],
                "listen": [str(each) for each in row["listen"]],
                "connections": row["connections"],
                "certificates": [_certificate(*each) for each in row["certificates"] if _isCertificate(each)],
            }
    return list(servers.values())


def _isCertificate(given: Any) -> bool:
    return (
        isinstance(given, list | tuple) and len(given) == 2 and type(given[1]) in (int, float) and 0 <= given[1] < _MOST
    )


def _certificate(name: Any, end: float) -> dict[str, Any]:
    return {"name": str(name), "not_after": f"{datetime.fromtimestamp(end, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"}


def _workers(found: Collected) -> list[dict[str, Any]]:
    rows = _rows(
        found,
        **{"worker": str, "pid": int, "accepts": bool, "generations": int, "sessions": int, "relayed": int},
        **{"cpu": (int, float), "memory": (int, type(None))},
    )
    names = ("worker", "pid", "accepts", "generations", "sessions", "relayed", "cpu", "memory")
    return [{name: row.get(name) for name in names} for row in rows]


PROCESS_HANDLERS: dict[tuple[str, str], Callable[[Visit], Any]] = {
    ("GET", "/api/1/backends"): lambda visit: _ask(visit, "backends", _backendRows, "backends"),
    ("GET", "/api/1/auth"): lambda visit: _ask(visit, "services", _services, "services"),
    ("GET", "/api/1/servers"): lambda visit: _ask(visit, "servers", _servers, "servers"),
    ("GET", "/api/1/workers"): lambda visit: _ask(visit, "process", _workers, "workers"),
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
        self._clock = clock
        self._waiting: list[Deferred[list[str]]] = []
        self._known: tuple[float, list[str]] | None = None

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
        return self._reasons().addCallback(_readiness)

    def _reasons(self) -> Deferred[list[str]]:
        """Why clients cannot log in."""
        answered: Deferred[list[str]] = Deferred(self._waiting.remove)
        if self._known is not None and 0 <= self._clock.seconds() - self._known[0] < _FRESH:
            answered.callback(self._known[1])
            return answered
        self._waiting.append(answered)
        if len(self._waiting) == 1:
            questions = [self._keeper.ask(word, {}, _WITHIN) for word in ("process", "services", "backends")]
            gatherResults(questions, consumeErrors=True).addCallback(_notReady).addBoth(self._found)
        return answered

    def _found(self, result: Any) -> None:
        waiting, self._waiting = self._waiting, []
        if isinstance(result, list):
            self._known = (self._clock.seconds(), result)
        for each in waiting:
            # A Failure errbacks.
            each.callback(result)


def _readiness(reasons: Iterable[str]) -> Any:
    found = list(reasons)
    if found:
        return jsonReply({"status": "not ready", "reasons": found}, 503)
    return {"status": "ready", "reasons": []}


def _notReady(found: list[Collected]) -> list[str]:
    processes, services, backends = found
    reasons = []
    if not any(row["accepts"] for row in _workers(processes)):
        reasons.append("no process accepts clients")
    known = _services(services, _TRIED_AGAIN)
    if known and all(each["state"] != "up" for each in known):
        reasons.append("no authentication service answers")
    rows = _backendRows(backends)
    if rows and not any(row["state"] in _USED for row in rows):
        reasons.append("no backend is used")
    return reasons
