# -*- test-case-name: mailgate.test.keeper.test_sessions -*-
"""
Lists and counts the sessions of all processes of the gateway.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from twisted.internet.defer import Deferred

from mailgate.keeper.answers.sessions import GROUPS, MOST, Key
from mailgate.keeper.filters import Filter, nearest
from mailgate.keeper.keeper import Collected, Keeper

__all__ = ["LIMIT", "ROWS_A_TURN", "countSessions", "findSession", "gatewaysOf", "isSession", "listSessions"]

LIMIT = 500
"""The rows of a list without a limit."""

ROWS_A_TURN = 200
"""Rows of answers that are checked in one turn of the event loop: less than a millisecond."""

_KEY = itemgetter(0)

_LONGEST_CURSOR = 128

_TEXTS = ("id", "worker", "protocol", "server", "user", "phase", "since")
_MAYBE_TEXTS = ("backend", "method")
_NUMBERS = ("at", "age", "received", "sent")
_MOST_NUMBER = 2**63


def listSessions(
    keeper: Keeper, filter: Filter | Mapping[str, Any], limit: int = LIMIT, cursor: str | None = None
) -> Deferred[dict[str, Any]]:
    """
    List sessions in the order in which they began. Sessions that begin or end between two pages move no other session
    to another page.

    @param keeper: the keeper.
    @param filter: which sessions: a filter, or its object of JSON.
    @param limit: the most rows, from 1 to 10,000.
    @param cursor: the C{next} of the page before; L{None} for the first page.
    @return: fires with an object with C{sessions}, C{next} (L{None} after the last page) and C{gateways}, as the API
        answers.
    @raise ValueError: an argument is not valid.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
        raise ValueError(f"limit must be from 1 to {MOST}")
    after = None if cursor is None else _placeIn(cursor)
    arguments = {"filter": Filter.of(filter).asJSON(), "limit": limit + 1, "after": after}
    return Deferred.fromCoroutine(_page(keeper, keeper.ask("sessions", arguments), limit))


async def _page(keeper: Keeper, asked: Deferred[Collected], limit: int) -> dict[str, Any]:
    """
    A process may answer over an old and a new connection: each session is listed once.
    """
    first: list[tuple[Key, dict[str, Any]]] = []
    known: set[str] = set()

    def add(rows: list[dict[str, Any]]) -> None:
        news = {row["id"]: row for row in rows if row["id"] not in known}
        known.update(news)
        for id, row in news.items():
            row["gateway"] = keeper.name
            first.append(((row.pop("at"), id), row))
        # The sorted part takes little time to sort again.
        first.sort(key=_KEY)
        del first[limit + 1 :]

    collected = await _checked(keeper, await asked, isSession, add)
    return {
        "sessions": [row for _, row in first[:limit]],
        "next": _cursor(first[limit - 1][0]) if len(first) > limit else None,
        "gateways": gatewaysOf(keeper, collected),
    }


async def _checked(
    keeper: Keeper, collected: Collected, isValid: Callable[[Any], bool], take: Callable[[list[Any]], object]
) -> Collected:
    """
    Pass on the rows that are valid, some in each turn of the event loop. A row that is None is a pause of a process. A
    process that is taken over must not keep operators from an answer about the others.

    @param take: called with the rows.
    @return: what is missing.
    """
    isWhole = True
    for start in range(0, len(collected.rows), ROWS_A_TURN):
        if start:
            await keeper.turn()
        given = [row for row in collected.rows[start : start + ROWS_A_TURN] if row is not None]
        valid = [row for row in given if isValid(row)]
        isWhole = isWhole and len(valid) == len(given)
        take(valid)
    return Collected((), (*collected.missing, *(() if isWhole else ("a process has sent rows that are not valid",))))


def isSession(row: Any) -> bool:
    """
    Return whether the row of a process is that of a session.

    @param row: the row, which may be anything.
    """
    if not isinstance(row, dict) or not all(isinstance(row.get(name), str) for name in _TEXTS):
        return False
    if not row["id"].endswith(f"{row['worker']}.{row['id'].rpartition('.')[2]}"):
        # It could take the place of a session of another process.
        return False
    client = row.get("client")
    idle = row.get("idle", "")
    numbers: list[Any] = [0 if idle is None else idle, *(row.get(name) for name in _NUMBERS)]
    if not isinstance(client, dict) or not isinstance(client.get("address"), str):
        return False
    return (
        isinstance(client.get("port", ""), int | None)
        and isinstance(row.get("tls", ""), dict | None)
        and all(isinstance(row.get(name, 0), str | None) for name in _MAYBE_TEXTS)
        # Python converts no whole number of hundreds of digits.
        and all(type(number) in (int, float) and abs(number) < _MOST_NUMBER for number in numbers)
    )


def _isCount(row: Any) -> bool:
    return isinstance(row, list) and len(row) == 2 and isinstance(row[0], str | None) and type(row[1]) is int


def _cursor(key: Key) -> str:
    return urlsafe_b64encode(json.dumps(key).encode("ascii")).decode("ascii").rstrip("=")


def _placeIn(cursor: str) -> list[Any]:
    if len(cursor) <= _LONGEST_CURSOR and cursor.isascii():
        try:
            place = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        except (ValueError, RecursionError):
            place = None
        if isinstance(place, list) and [type(each) for each in place] == [int, str]:
            return place
    raise ValueError("cursor must be the value of next of an answer")


def gatewaysOf(keeper: Keeper, collected: Collected) -> list[dict[str, Any]]:
    """
    Return which gateways an answer is about. This is one of them until gateways share a store.

    @param keeper: the keeper.
    @param collected: the answers of the processes.
    """
    return [
        {
            "name": keeper.name,
            "age": 0.0,
            "complete": not collected.missing,
            "missing": list(collected.missing),
        }
    ]


def findSession(keeper: Keeper, id: str) -> Deferred[dict[str, Any] | None]:
    """
    Find one session.

    @param keeper: the keeper.
    @param id: its id.
    @return: fires with its row; L{None} if there is no such session.
    @raise ValueError: C{id} is not of the form of an id.
    """
    found = listSessions(keeper, Filter.fromJSON({"id": id}), 1)
    return found.addCallback(lambda page: page["sessions"][0] if page["sessions"] else None)


def countSessions(
    keeper: Keeper, filter: Filter | Mapping[str, Any], by: str, limit: int = LIMIT
) -> Deferred[dict[str, Any]]:
    """
    Count sessions in groups.

    @param keeper: the keeper.
    @param filter: which sessions: a filter, or its object of JSON.
    @param by: by what: C{user}, C{backend}, C{address} or C{protocol}.
    @param limit: the most groups: those with most sessions.
    @return: fires with an object with C{by}, C{counts} (objects with the word C{by}, whose value is null for sessions
        without one, and C{sessions}; the largest first), C{groups} (the number of all groups), C{sessions} (of all
        sessions) and C{gateways}.
    @raise ValueError: an argument is not valid.
    """
    if by not in GROUPS:
        raise ValueError(nearest(str(by), GROUPS, "group"))
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST:
        raise ValueError(f"limit must be from 1 to {MOST}")
    asked = keeper.ask("counts", {"filter": Filter.of(filter).asJSON(), "by": by})
    return Deferred.fromCoroutine(_counted(keeper, asked, by, limit))


async def _counted(keeper: Keeper, asked: Deferred[Collected], by: str, limit: int) -> dict[str, Any]:
    counter: Counter[str | None] = Counter()

    def add(rows: list[list[Any]]) -> None:
        for name, count in rows:
            counter[name] += count

    collected = await _checked(keeper, await asked, _isCount, add)
    ordered = sorted(counter.items(), key=lambda each: (-each[1], each[0] or ""))
    return {
        "by": by,
        "counts": [{by: name, "sessions": count} for name, count in ordered[:limit]],
        "groups": len(counter) - (None in counter),
        "sessions": sum(counter.values()),
        "gateways": gatewaysOf(keeper, collected),
    }
