# -*- test-case-name: mailgate.test.cli.test_status -*-
"""
C{mailgate status}: how a running gateway is, on one screen, and by the exit status for scripts.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailgate.cli.adminclient import AdminClient, NoAnswer
from mailgate.cli.asking import addCommand, printJSON
from mailgate.cli.columns import Column, amount, shown, table, terminalWidth
from mailgate.cli.stats import numbers, readStats, title
from mailgate.process.tables import duration
from mailgate.store.interfaces import DEAD, whyUnused
from mailgate.system.exitstatus import NOT_RUNNING, REFUSED

__all__ = ["addStatus", "concerns"]

_DEGRADED = 1

_MOST = 20
"""Lines of each table: a screen."""

_ORDERED = "mailgate backend"
"""The reason of a state that an operator has ordered begins so."""

_BACKENDS = (
    Column("GROUP", isFlexible=True),
    Column("BACKEND", isFlexible=True),
    Column("STATE"),
    Column("SINCE"),
    Column("SESSIONS", isNumber=True),
    Column("REASON", isFlexible=True),
)
_SERVICES = (
    Column("AUTH SERVICE", isFlexible=True),
    Column("STATE"),
    Column("ASKING", isNumber=True),
    Column("WAITING", isNumber=True),
)
_WORKERS = (
    Column("WORKER"),
    Column("PID", isNumber=True),
    Column("CLIENTS"),
    Column("SESSIONS", isNumber=True),
    Column("RELAYED", isNumber=True),
    Column("CPU"),
    Column("MEMORY", isNumber=True),
)


def _list(client: AdminClient, path: str, name: str) -> tuple[list[Mapping[str, Any]], list[str]]:
    found = client.get(path)
    rows = found.get(name) if isinstance(found, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NoAnswer(f"{client.place} is not an admin server of mailgate", REFUSED)
    return rows, [str(each) for each in found.get("missing") or []]


def concerns(found: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield why a gateway is not in a good state.

    @param found: C{ready}: the reasons of C{/readyz}; C{missing}: processes that have not answered; C{stats}; and the
        rows C{backends} and C{services}.
    """
    yield from found["ready"]
    yield from found["missing"]
    store = found["stats"].get("store") or {}
    if store and not store.get("up"):
        yield whyUnused(store.get("reason") or "")
    for row in store.get("gateways") or () if store.get("up") else ():
        if isinstance(row, dict) and isinstance(row.get("age"), int | float) and row["age"] >= DEAD:
            yield f"the gateway {row.get('name')} was last heard of {duration(row['age'])} ago"
    for row in found["services"]:
        if row.get("state") != "up":
            yield f"the authentication service {row.get('url')} is {row.get('state')}"
    for row in found["backends"]:
        reason = str(row.get("reason") or "")
        # What an operator has ordered, or written into the configuration, is as it should be.
        if row.get("state") in ("down", "resting") and reason and not reason.startswith(_ORDERED):
            group = "" if row.get("group") in (None, "-") else f" of upstream {row['group']}"
            yield f"the backend {row.get('address')}{group} is {row.get('state')}: {reason}"


def _collected(client: AdminClient) -> dict[str, Any]:
    stats = readStats(client)
    ready = client.get("/readyz", isBusyGood=True)
    backends, first = _list(client, "/api/1/backends", "backends")
    services, second = _list(client, "/api/1/auth", "services")
    workers, third = _list(client, "/api/1/workers", "workers")
    reasons = ready.get("reasons") if isinstance(ready, dict) else None
    found = {
        "ready": [str(each) for each in reasons or []],
        "missing": list(dict.fromkeys([*first, *second, *third])),
        "stats": stats,
        "backends": backends,
        "services": services,
        "workers": workers,
    }
    reasons = list(dict.fromkeys(concerns(found)))
    return {"status": "degraded" if reasons else "good", "reasons": reasons, **found}


def _lines(found: Mapping[str, Any], most: int | None) -> Iterator[str]:
    yield f"{title(found['stats'])}: {found['status']}"
    for reason in found["reasons"]:
        yield f"  {shown(reason)}"
    yield ""
    yield from numbers(found["stats"])
    for columns, rows in (
        (_BACKENDS, [_backend(row) for row in found["backends"]]),
        (_SERVICES, [_service(row) for row in found["services"]]),
        (_WORKERS, [_worker(row) for row in found["workers"]]),
    ):
        if rows:
            yield ""
            yield table(columns, rows[:_MOST], most)
            if len(rows) > _MOST:
                yield f"and {len(rows) - _MOST} more"


def _backend(row: Mapping[str, Any]) -> Sequence[Any]:
    group = None if row.get("group") == "-" else row.get("group")
    since = duration(row.get("seconds"))
    return group, row.get("address"), row.get("state"), since, row.get("sessions"), row.get("reason")


def _service(row: Mapping[str, Any]) -> Sequence[Any]:
    return row.get("url"), row.get("state"), row.get("asking"), row.get("waiting")


def _worker(row: Mapping[str, Any]) -> Sequence[Any]:
    clients = "accepts" if row.get("accepts") else "drains"
    cpu, memory = duration(row.get("cpu")), amount(row.get("memory"))
    return row.get("worker"), row.get("pid"), clients, row.get("sessions"), row.get("relayed"), cpu, memory


def _run(client: AdminClient, arguments: argparse.Namespace) -> int:
    found = _collected(client)
    if arguments.json:
        printJSON(found)
    else:
        print("\n".join(_lines(found, terminalWidth())))
    return _DEGRADED if found["reasons"] else 0


def addStatus(commands: Any) -> None:
    """
    Add the command.

    @param commands: the object that argparse's C{add_subparsers} returns.
    """
    addCommand(
        commands,
        "status",
        "say whether the gateway works, with its numbers, backends and workers",
        "Print whether the running gateway works and what is wrong with it, its numbers, and its backends,"
        " authentication services and workers. The exit status is for scripts and monitoring.",
        _run,
        {
            0: "all is well",
            _DEGRADED: "something is wrong: clients cannot log in, a backend or an authentication service fails, or a"
            " process does not answer; or the gateway refused",
            NOT_RUNNING: "no gateway is running",
            2: "",
        },
    )
