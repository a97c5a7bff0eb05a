# -*- test-case-name: mailgate.test.process.test_backends -*-
"""
Lists of the backends of a gateway, made of the rows of all its processes and generations.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from attrs import asdict

from mailgate.upstream.peer import PeerState
from mailgate.upstream.standing import Standing
from mailgate.upstream.upstreams import Upstreams

__all__ = ["combined", "rowsOf"]

_LONGEST_REASON = 300
"""Characters of a reason. It may contain a backend's own words."""

_SEVERITY = [PeerState.UP.value, PeerState.RESTING.value, PeerState.DRAINING.value, PeerState.DOWN.value]

_TEXTS = frozenset(("group", "address", "server", "state", "reason", "peer"))
_COLUMNS = _TEXTS | {"sessions", "weight", "seconds"}
_MOST = 10**10
"""Sessions, weights and seconds of rows are below this."""


def rowsOf(standing: Standing, upstreams: Upstreams) -> Iterator[dict[str, Any]]:
    """
    Yield the rows of one generation of this process, values of JSON: those of L{mailgate.upstream.standing.Row}, and
    C{peer}, which is the same text in all generations of a process that share a backend.

    @param standing: which backends are used.
    @param upstreams: the groups.
    """
    pid = os.getpid()
    for row, (_, peer) in zip(standing.rows(), upstreams.everyPeer(), strict=True):
        # Generations of one process share the peers whose lines are unchanged.
        yield {**asdict(row), "reason": row.reason[:_LONGEST_REASON], "peer": f"{pid}.{id(peer)}"}


def combined(parts: Iterable[tuple[bool, Sequence[Any]]]) -> list[dict[str, Any]]:
    """
    Make one list of the rows of all processes and generations. A server has the sum of the sessions, and the most
    severe of the states. Servers that only older configurations have are at the end, if sessions are there.

    @param parts: for each generation of each process whether it is the current one, and its rows as L{rowsOf} yields
        them. Those of the current generation are first.
    @return: the rows, with the keys of L{mailgate.upstream.standing.Row}.
    """
    seen: set[str] = set()
    current: dict[tuple[str, str, str], dict[str, Any]] = {}
    older: dict[tuple[str, str, str], dict[str, Any]] = {}
    for isCurrent, given in parts:
        for each in given:
            if not _isRow(each):
                # A worker that is taken over must not keep operators from listing backends and giving orders.
                continue
            row = dict(each)
            peer = row.pop("peer")
            if peer in seen:
                # An older generation of the same process shares it, with the sessions of both.
                continue
            seen.add(peer)
            key = row["group"], row["address"], row["server"]
            rows = current if isCurrent or key in current else older
            rows[key] = _joined(rows[key], row) if key in rows else row
    for row in older.values():
        if row["group"] != "-":
            row["reason"] = "; ".join(filter(None, ("not in the current configuration", row["reason"])))
    return [*current.values(), *(row for row in older.values() if row["sessions"])]


def _isRow(given: Any) -> bool:
    """Check one row of a worker, which may contain anything."""
    if not isinstance(given, dict) or given.keys() != _COLUMNS:
        return False
    if not all(isinstance(given[name], str) for name in _TEXTS) or given["state"] not in _SEVERITY:
        return False
    numbers = [given["sessions"], given["weight"], *([] if given["seconds"] is None else [given["seconds"]])]
    return all(type(number) is int and abs(number) < _MOST for number in numbers)


def _joined(row: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    def severity(each: Mapping[str, Any]) -> tuple[int, float, bool]:
        # Logins of one process only may have failed at a server that is up.
        return _SEVERITY.index(each["state"]), each["seconds"] or 0, bool(each["reason"])

    worst = max(row, other, key=severity)
    return {**worst, "sessions": row["sessions"] + other["sessions"]}
