# -*- test-case-name: mailgate.test.keeper.answers.test_page -*-
"""
Answers in one go what the live page shows of a process: its backends, services and servers, how it is, and the logins
that take long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mailgate.frontend.kicking import Target
from mailgate.keeper.answers.sessions import row
from mailgate.keeper.answers.walk import began
from mailgate.keeper.filters import LOGIN_PHASES
from mailgate.keeper.view import ANSWERERS, ProcessView

__all__ = ["MOST_STUCK", "TABLES", "page"]

TABLES = ("backends", "services", "servers", "process")
"""The questions that this one contains."""

MOST_STUCK = 100
"""The most logins of one answer: those that have been under way for the longest time."""

_PIECE = 1000
"""Connections that are looked at in one step. Most of them are relays, which takes no time."""

_PHASES = frozenset(LOGIN_PHASES)


def page(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """
    Yield the rows of each of L{TABLES} with the name of their table as C{table}; then those of the logins that have
    been under way for longer than C{stuck} seconds: a session with C{table}, C{waiting} (seconds), and C{at} as in
    lists of sessions; if there are more, their number as C{more}. L{None} is a pause.

    @param view: the process.
    @param arguments: C{stuck}, or nothing for no logins.
    """
    for word in TABLES:
        for each in ANSWERERS[word](view, {}):
            yield {**each, "table": word}
    stuck = arguments.get("stuck")
    if isinstance(stuck, int | float) and not isinstance(stuck, bool):
        yield from _stuck(view, float(stuck))


def _stuck(view: ProcessView, least: float) -> Iterator[Any]:
    found: list[tuple[float, Target]] = []
    snapshot = [(factory, list(factory.connections)) for gateway in view.gateways() for factory in gateway.factories]
    for factory, connections in snapshot:
        for start in range(0, len(connections), _PIECE):
            now = factory.clock.seconds()
            for connection in connections[start : start + _PIECE]:
                if connection.session.phase in _PHASES and now - began(connection) >= least:
                    found.append((now - began(connection), (factory, connection)))
            yield None
    found.sort(key=lambda each: each[0], reverse=True)
    for waiting, (factory, connection) in found[:MOST_STUCK]:
        if connection in factory.connections and connection.session.phase in _PHASES:
            at = int(connection.session.started)
            yield {**row(view, factory, connection), "at": at, "waiting": round(waiting, 1), "table": "stuck"}
    if len(found) > MOST_STUCK:
        yield {"table": "more", "more": len(found) - MOST_STUCK}


ANSWERERS["page"] = page
