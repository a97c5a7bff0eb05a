# -*- test-case-name: mailgate.test.keeper.admin.test_processes -*-
"""
The rows of the tables about backends, authentication services, servers and processes: what the keeper makes of the
answers of all processes.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from mailgate.keeper.keeper import Collected
from mailgate.keeper.moments import isMoment
from mailgate.upstream.listing import combined
from mailgate.upstream.peer import PeerState

__all__ = [
    "NO_BACKEND",
    "NO_PROCESS",
    "NO_SERVICE",
    "REMEMBERED",
    "backendRows",
    "notReady",
    "serverRows",
    "serviceRows",
    "workerRows",
]

REMEMBERED = 300.0
"""Seconds for which a service without an answer counts as failing: a process finds out by its next login only."""


_USED = (PeerState.UP.value, PeerState.RESTING.value)
"""States in which logins may be sent to a backend: one that rests is tried if all do."""

_TRIED_AGAIN = 30.0
"""
As L{REMEMBERED}, for whether the gateway is ready. A load balancer that sends no logins while it is not would otherwise
keep it from finding out that the service answers again.
"""

NO_PROCESS = "no process accepts clients"
NO_SERVICE = "no authentication service answers"
NO_BACKEND = "no backend is used"


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


def backendRows(found: Collected) -> list[dict[str, Any]]:
    """
    Return the backends of all processes.

    @param found: the answers to the question C{backends}.
    """
    rows = _rows(found, current=bool, row=dict)
    ordered = sorted(rows, key=lambda each: not each["current"])
    return combined((each["current"], (each["row"],)) for each in ordered)


def serviceRows(found: Collected, lately: float = REMEMBERED) -> list[dict[str, Any]]:
    """
    Return the services of all processes. One fails if a process has had no answer lately, and none has found since that
    it answers again.

    @param found: the answers to the question C{services}.
    @param lately: how many seconds are lately.
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


def serverRows(found: Collected) -> list[dict[str, Any]]:
    """
    Return the servers of all processes.

    @param found: the answers to the question C{servers}.
    """
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
    return isinstance(given, list | tuple) and len(given) == 2 and isMoment(given[1])


def _certificate(name: Any, end: float) -> dict[str, Any]:
    return {"name": str(name), "not_after": f"{datetime.fromtimestamp(end, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"}


def workerRows(found: Collected) -> list[dict[str, Any]]:
    """
    Return a row for each process.

    @param found: the answers to the question C{process}.
    """
    rows = _rows(
        found,
        **{"worker": str, "pid": int, "accepts": bool, "generations": int, "sessions": int, "relayed": int},
        **{"cpu": (int, float), "memory": (int, type(None))},
    )
    names = ("worker", "pid", "accepts", "generations", "sessions", "relayed", "cpu", "memory")
    return [{name: row.get(name) for name in names} for row in rows]


def notReady(processes: Collected, services: Collected, backends: Collected) -> list[str]:
    """
    Return why clients cannot log in; nothing if they can.

    @param processes: the answers to the question C{process}.
    @param services: those to C{services}.
    @param backends: those to C{backends}.
    """
    reasons = []
    if not any(row["accepts"] for row in workerRows(processes)):
        reasons.append(NO_PROCESS)
    known = serviceRows(services, _TRIED_AGAIN)
    if known and all(each["state"] != "up" for each in known):
        reasons.append(NO_SERVICE)
    rows = backendRows(backends)
    if rows and not any(row["state"] in _USED for row in rows):
        reasons.append(NO_BACKEND)
    return reasons
