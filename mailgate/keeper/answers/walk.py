# -*- test-case-name: mailgate.test.keeper.answers.test_walk -*-
"""
Walks the connections of a process in short steps, so that its clients are served in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mailgate.frontend.kicking import Target, hasMoved
from mailgate.interfaces import IConnection
from mailgate.keeper.filters import Filter
from mailgate.keeper.view import ProcessView

__all__ = ["PIECE", "began", "filterOf", "walk"]

PIECE = 200
"""Connections that are looked at in one step. That takes a millisecond in most cases."""

WORK = 0.003
"""
Seconds of a step. Clients that are not logged in choose names of thousands of characters, which may take a mask a
hundred times as long as others.
"""


def began(connection: IConnection) -> float:
    """
    Return the time at which the last login of a connection began, in seconds of the gateway's clock.

    @param connection: the connection.
    """
    moment: float = getattr(connection, "loginBegan", 0.0)
    return moment


def filterOf(arguments: Mapping[str, Any]) -> Filter:
    """
    Return the filter among the arguments of a question.

    @param arguments: the arguments.
    @raise ValueError: it is not valid.
    """
    given = arguments.get("filter", {})
    if not isinstance(given, dict):
        raise ValueError("filter must be an object")
    return Filter.fromJSON(given)


def walk(view: ProcessView, filter: Filter) -> Iterator[list[Target]]:
    """
    Find the sessions of a process that a filter means.

    @param view: the process.
    @param filter: the filter.
    @return: yields, after each step, the connections that were found in it. Between two steps connections may begin and
        end. A connection that was there at the start and does not end meanwhile is found exactly once.
    """
    if filter.member not in (None, view.member):
        return
    matches = filter.compiled()
    # All at once: a connection may move from one object to another meanwhile, but not to another factory.
    snapshot = [(factory, list(factory.connections)) for gateway in view.gateways() for factory in gateway.factories]
    for factory, connections in snapshot:
        server, seconds = factory.settings.name, factory.clock.seconds
        for start in range(0, len(connections), PIECE):
            now = seconds()
            found: list[Target] = []
            for connection in _current(factory, connections[start : start + PIECE]):
                if matches(connection.session, server, now, began(connection)):
                    found.append((factory, connection))
                if seconds() - now > WORK:
                    yield found
                    now, found = seconds(), []
            yield found


def _current(factory: Any, connections: Iterable[IConnection]) -> Iterator[IConnection]:
    """The objects that have C{connections} now. Those that have ended are left out."""
    byNumber: dict[int, IConnection] | None = None
    for connection in connections:
        if connection in factory.connections:
            yield connection
        elif hasMoved(connection):
            if byNumber is None:
                # One search for all of them: in a storm of logins they are many.
                byNumber = {each.session.number: each for each in factory.connections}
            current = byNumber.get(connection.session.number)
            if current is not None:
                yield current
