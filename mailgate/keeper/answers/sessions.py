# -*- test-case-name: mailgate.test.keeper.answers.test_sessions -*-
"""
Lists and counts the sessions of one process.

The order of a list is that of C{since}, in whole seconds, and then that of the ids. It does not depend on which
sessions begin or end, so a list can be continued behind any of its rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, TypeAlias

from mailgate.frontend.kicking import Target, currentOf
from mailgate.keeper.answers.walk import filterOf, walk
from mailgate.keeper.moments import moment
from mailgate.keeper.view import ANSWERERS, ProcessView
from mailgate.log.connection import peerOf
from mailgate.login import TLSState
from mailgate.relay.base import BaseRelay
from mailgate.session import Session

__all__ = ["GROUPS", "MOST", "Key", "keyOf", "row", "textOf"]

MOST = 10_000
"""The most sessions of one list."""

_LONGEST_USER = 512
"""The most characters of a user name in an answer. The longest valid address has 320."""

_LONGEST_NAME = 255

Key: TypeAlias = tuple[int, str]
"""The place of a session in a list: when it began, in whole seconds since 1970, and its id."""


def keyOf(session: Session) -> Key:
    """
    Return the place of a session in a list.

    @param session: the session.
    """
    return int(session.started), session.id


def textOf(octets: bytes) -> str:
    """
    Return a user name for an answer in JSON: as UTF-8, with U+FFFD for what is not valid there, and no longer than 512
    characters.

    @param octets: the user name.
    """
    text = octets[: 4 * _LONGEST_USER].decode("utf-8", "replace")
    return text if len(text) <= _LONGEST_USER else f"{text[: _LONGEST_USER - 1]}…"


def row(view: ProcessView, factory: Any, connection: Any) -> dict[str, Any]:
    """
    Return a session as the answers to operators have it.

    @param view: its process.
    @param factory: the L{mailgate.frontend.factory.ProxyServerFactory} of its connection.
    @param connection: its connection.
    """
    session: Session = connection.session
    idle = None
    received, sent = session.received, session.sent
    if isinstance(connection, BaseRelay):
        received, sent = connection.traffic
        idle = round(connection.idle(), 3)
    address, port = peerOf(session.client)
    return {
        "id": session.id,
        "worker": view.member,
        "protocol": session.protocol,
        "server": factory.settings.name,
        "client": {"address": address, "port": port},
        "user": textOf(session.user),
        "backend": session.backend or None,
        "tls": _tls(session.tls),
        "method": session.method._value_ if session.method is not None else None,
        "phase": session.phase._value_,
        "since": moment(session.started),
        "age": round(max(0.0, factory.clock.seconds() - session.started), 3),
        "idle": idle,
        "received": received,
        "sent": sent,
    }


def _tls(tls: TLSState | None) -> dict[str, Any] | None:
    if tls is None:
        return None
    return {"version": tls.protocol, "cipher": tls.cipher, "name": tls.name[:_LONGEST_NAME] or None}


def _sessions(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """
    List sessions in their order. The arguments are C{filter}, C{limit} (the most rows) and C{after} (a L{Key} as a
    list; L{None} for the beginning). Each row also has C{at}, the number of its L{Key}. Yields L{None} for a pause.
    """
    limit = arguments.get("limit", MOST)
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= MOST + 1:
        raise ValueError(f"limit must be from 1 to {MOST}")
    after = _keyIn(arguments.get("after"))
    return _listed(view, walk(view, filterOf(arguments)), limit, after)


def _keyIn(value: Any) -> Key | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or [type(each) for each in value] != [int, str]:
        raise ValueError("after must be a number and an id")
    return value[0], value[1]


_KEY = itemgetter(0)


def _listed(view: ProcessView, steps: Iterator[list[Target]], limit: int, after: Key | None) -> Iterator[Any]:
    first: list[tuple[Key, Target]] = []
    for found in steps:
        more = [(keyOf(connection.session), (factory, connection)) for factory, connection in found]
        if after is not None:
            more = [each for each in more if each[0] > after]
        if len(first) == limit:
            last = first[-1][0]
            more = [each for each in more if each[0] < last]
        if more:
            # The sorted part takes little time to sort again.
            first.extend(more)
            first.sort(key=_KEY)
            del first[limit:]
        yield None
    for _, (factory, connection) in first:
        current = currentOf(factory, connection)
        # One that has ended meanwhile needs no row, but takes its time.
        yield None if current is None else {**row(view, factory, current), "at": int(current.session.started)}


GROUPS: Mapping[str, Callable[[Session], str]] = {
    "user": lambda session: textOf(session.user),
    "backend": lambda session: session.backend,
    "address": lambda session: session.host,
    "protocol": lambda session: session.protocol,
}
"""By what sessions are counted, and how a session's group is called. An empty name is no group."""


def _counts(view: ProcessView, arguments: Mapping[str, Any]) -> Iterator[Any]:
    """
    Count sessions. The arguments are C{filter} and C{by}, a word of L{GROUPS}. Yields pairs of a name and a number, the
    name L{None} for sessions that have none; and L{None} for a pause.
    """
    by = str(arguments.get("by"))
    if by not in GROUPS:
        raise ValueError(f"by must be one of {', '.join(GROUPS)}")
    return _counted(walk(view, filterOf(arguments)), GROUPS[by])


def _counted(steps: Iterator[list[Target]], nameOf: Callable[[Session], str]) -> Iterator[Any]:
    counter: Counter[str] = Counter()
    for found in steps:
        counter.update(nameOf(connection.session) for _, connection in found)
        yield None
    for name, count in counter.items():
        yield [name or None, count]


ANSWERERS.update(sessions=_sessions, counts=_counts)
