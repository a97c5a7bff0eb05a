# -*- test-case-name: mailgate.test.keeper.test_sessions -*-
"""
Lists and counts the sessions of all processes of the gateway, and of the gateways that share a store with it.
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
from mailgate.keeper.gateways import ANSWERED_WITHIN, askEverywhere, gatewayRow, silence
from mailgate.keeper.interfaces import Heard
from mailgate.keeper.keeper import Collected, Keeper

__all__ = ["LIMIT", "ROWS_A_TURN", "countSessions", "findSession", "firstSessions", "isSession", "listSessions"]

LIMIT = 500
"""The rows of a list without a limit."""

ROWS_A_TURN = 200
"""Rows of answers that are checked in one turn of the event loop: less than a millisecond."""

_KEY = itemgetter(0)

MOST_RECORDS = 200_000
"""Records of the sessions of a gateway that does not answer."""

_LONGEST_CURSOR = 128

_TEXTS = ("id", "worker", "protocol", "server", "user", "phase", "since")
_MAYBE_TEXTS = ("backend", "method")
_NUMBERS = ("at", "age", "received", "sent")
_CHANGING = ("received", "sent")
_MOST_NUMBER = 2**63


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


def isRecord(row: Any) -> bool:
    """
    Return whether the row is that of a session as the store knows it: without the numbers that change all the time.

    @param row: the row, which may be anything.
    """
    return isinstance(row, dict) and isSession({**row, **dict.fromkeys(_CHANGING, 0)})


def listSessions(
    keeper: Keeper, filter: Filter | Mapping[str, Any], limit: int = LIMIT, cursor: str | None = None
) -> Deferred[dict[str, Any]]:
    """
    List sessions of all gateways in the order in which they began. Sessions that begin or end between two pages move no
    other session to another page.

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
    return Deferred.fromCoroutine(_page(keeper, Filter.of(filter), limit, after))


async def _page(keeper: Keeper, filter: Filter, limit: int, after: list[Any] | None) -> dict[str, Any]:
    arguments = {"filter": filter.asJSON(), "limit": limit + 1, "after": after}
    first = _First(keeper, limit + 1)
    mine, heard = await _askEverywhere(keeper, filter, "sessions", arguments)
    gateways = [gatewayRow(keeper.name, await first.take(keeper.name, mine))]
    for name, answer in heard.answers.items():
        gateways.append(gatewayRow(name, await first.take(name, answer)))
    for name, age in heard.silent.items():
        found = await _recorded(keeper, name, filter)
        rows = [row for row in found.rows if after is None or [row["at"], row["id"]] > after]
        collected = Collected(rows[: limit + 1], (silence(heard, age), *found.missing))
        taken = await first.take(name, collected, isRecord)
        gateways.append(gatewayRow(name, taken, age))
    rows = first.rows
    return {
        "sessions": [row for _, row in rows[:limit]],
        "next": _cursor(rows[limit - 1][0]) if len(rows) > limit else None,
        "gateways": gateways,
    }


async def _askEverywhere(
    keeper: Keeper, filter: Filter, word: str, arguments: Mapping[str, Any]
) -> tuple[Collected, Heard]:
    """Ask all gateways, or only this one if the id of a session says that it has it."""
    mine = keeper.ask(word, arguments)
    if filter.id is not None and filter.id.startswith(f"{keeper.name}."):
        return await mine, Heard()
    return await askEverywhere(keeper, mine, word, arguments)


async def _recorded(keeper: Keeper, name: str, filter: Filter) -> Collected:
    """What the store knows of the sessions of a gateway that is silent."""
    return Collected() if keeper.others is None else await keeper.others.records(name, filter, MOST_RECORDS)


class _First:
    """
    The first sessions of a list. A process may answer over an old and a new connection: each session is listed once.

    @ivar rows: the rows with their places, in order.
    """

    def __init__(self, keeper: Keeper, most: int) -> None:
        self.rows: list[tuple[Key, dict[str, Any]]] = []
        self._keeper = keeper
        self._most = most
        self._known: set[str] = set()

    async def take(self, gateway: str, collected: Collected, isValid: Callable[[Any], bool] = isSession) -> Collected:
        """Add the answer of a gateway, or its records. Return it without its rows."""
        return await _checked(self._keeper, collected, isValid, lambda rows: self._add(gateway, rows))

    def _add(self, gateway: str, rows: list[dict[str, Any]]) -> None:
        news = {row["id"]: row for row in rows if row["id"] not in self._known}
        self._known.update(news)
        for id, row in news.items():
            row["gateway"] = gateway
            self.rows.append(((row.pop("at"), id), row))
        # The sorted part takes little time to sort again.
        self.rows.sort(key=_KEY)
        del self.rows[self._most :]


async def firstSessions(keeper: Keeper, arguments: Mapping[str, Any]) -> Collected:
    """
    Return the first sessions of this gateway, for another one. Each row has C{at}.

    @param keeper: the keeper.
    @param arguments: those of the question to the processes.
    @raise ValueError: they are not valid.
    """
    limit = arguments.get("limit")
    if type(limit) is not int or not 1 <= limit <= MOST + 1:
        raise ValueError(f"limit must be from 1 to {MOST + 1}")
    first = _First(keeper, limit)
    collected = await first.take(keeper.name, await keeper.ask("sessions", arguments, ANSWERED_WITHIN))
    return Collected([{**row, "at": at} for (at, _), row in first.rows], collected.missing)


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
    return Deferred.fromCoroutine(_counted(keeper, Filter.of(filter), by, limit))


async def _counted(keeper: Keeper, filter: Filter, by: str, limit: int) -> dict[str, Any]:
    counter: Counter[str | None] = Counter()

    def add(rows: list[list[Any]]) -> None:
        for name, count in rows:
            counter[name] += count

    arguments = {"filter": filter.asJSON(), "by": by}
    mine, heard = await _askEverywhere(keeper, filter, "counts", arguments)
    gateways = [gatewayRow(keeper.name, await _checked(keeper, mine, _isCount, add))]
    for name, answer in heard.answers.items():
        gateways.append(gatewayRow(name, await _checked(keeper, answer, _isCount, add)))
    for name, age in heard.silent.items():
        found = await _recorded(keeper, name, filter)
        counter.update(_groupOf(row, by) for row in found.rows)
        gateways.append(gatewayRow(name, Collected((), (silence(heard, age), *found.missing)), age))
    ordered = sorted(counter.items(), key=lambda each: (-each[1], each[0] or ""))
    return {
        "by": by,
        "counts": [{by: name, "sessions": count} for name, count in ordered[:limit]],
        "groups": len(counter) - (None in counter),
        "sessions": sum(counter.values()),
        "gateways": gateways,
    }


def _groupOf(row: Mapping[str, Any], by: str) -> str | None:
    found = row["client"]["address"] if by == "address" else row.get(by)
    return found or None
