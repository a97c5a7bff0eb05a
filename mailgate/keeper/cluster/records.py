# -*- test-case-name: mailgate.test.keeper.cluster.test_others -*-
"""
What the store knows of the sessions of a gateway that does not answer: records of those that are relayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from attrs import frozen
from twisted.internet.defer import Deferred

from mailgate.keeper.filters import Filter, Matcher
from mailgate.keeper.interfaces import Collected
from mailgate.session import Phase, Session
from mailgate.store.interfaces import IStore

__all__ = ["ROWS_A_TURN", "ReadRecord", "recorded"]

ROWS_A_TURN = 200
"""Records that are read in one turn of the event loop: some milliseconds."""

ReadRecord: TypeAlias = Callable[[str, str, bytes], "dict[str, Any] | None"]
"""
Reads a record: called with the name of the gateway, the id of the session and the sealed record, returns a row of the
list of sessions, with C{at}; L{None} if it is damaged.
"""


@frozen
class _Recorded:
    """A session of another gateway, as filters see it."""

    id: str
    protocol: str
    server: str
    backend: str
    user: bytes
    client: str
    started: float
    phase: Phase = Phase.RELAY

    @property
    def host(self) -> str:
        return self.client


async def recorded(
    store: IStore, gateway: str, read: ReadRecord, filter: Filter, most: int, turn: Callable[[], Deferred[None]]
) -> Collected:
    """
    Read the records of a gateway.

    @param store: the store.
    @param gateway: the name of the gateway.
    @param read: reads one.
    @param filter: which are wanted.
    @param most: the most records.
    @param turn: returns what fires in the next turn of the event loop.
    @return: the rows, in their order.
    @raise mailgate.store.interfaces.StoreUnavailable: the store cannot be used.
    """
    matches = filter.compiled()
    rows: list[dict[str, Any]] = []
    damaged = 0
    for place, (id, sealed) in enumerate((await store.sessionsAt(gateway, most)).items()):
        if place and place % ROWS_A_TURN == 0:
            await turn()
        row = read(gateway, id, sealed)
        if row is None:
            damaged += 1
        elif _isMeant(row, matches):
            rows.append(row)
    rows.sort(key=lambda row: (row["at"], row["id"]))
    missing = (f"records of sessions that are damaged, or sealed with another secret: {damaged}",) if damaged else ()
    return Collected(rows, missing)


def _isMeant(row: Mapping[str, Any], matches: Matcher) -> bool:
    began, age = float(row["at"]), float(row["age"])
    found = _Recorded(
        id=str(row["id"]),
        protocol=str(row["protocol"]),
        server=str(row["server"]),
        backend=str(row["backend"] or ""),
        user=str(row["user"]).encode("utf-8", "replace"),
        client=str(row["client"]["address"]),
        started=began,
    )
    return matches(cast(Session, found), found.server, began + age, began)
