# -*- test-case-name: mailgate.test.keeper.test_whereabouts -*-
"""
Where a user is: his places in sticky groups, and the backends that have his sessions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from mailgate.keeper.filters import Filter, exactly
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.sessions import listSessions
from mailgate.session import Phase
from mailgate.store.interfaces import StoreUnavailable
from mailgate.upstream.sticky import mailboxOf

__all__ = [
    "MOST_SESSIONS",
    "NoPlaces",
    "Pool",
    "bytesOf",
    "masksOf",
    "placesOf",
    "relaysOf",
    "sessionsBy",
    "stickyPools",
]

MOST_SESSIONS = 10_000
"""Sessions of one user that are looked at."""

_AT_BACKENDS = frozenset((Phase.CONNECT.value, Phase.BACKEND_TLS.value, Phase.BACKEND_LOGIN.value, Phase.RELAY.value))
"""The phases of sessions that are at a backend, or on the way to it."""

_MOST_TTL = 10**9


class NoPlaces(Exception):
    """The places of users cannot be known now, or this gateway keeps none. The text is a sentence."""


@define
class Pool:
    """
    Sticky groups in which a user has one place.

    @ivar name: its name.
    @ivar ttl: for how many seconds a place lasts.
    @ivar groups: the addresses of the backends of each group, by its name.
    """

    name: str
    ttl: int
    groups: dict[str, list[str]] = field(factory=dict)

    @property
    def title(self) -> str:
        """Its groups in words, such as C{imap, pop3}."""
        return ", ".join(self.groups)


def bytesOf(user: str) -> bytes:
    """Return the name under which a user has places. C{user} is his name."""
    return mailboxOf(user.encode("utf-8", "surrogateescape"))


async def stickyPools(keeper: Keeper) -> list[Pool]:
    """
    Return the sticky groups of the gateway.

    @param keeper: the keeper.
    """
    pools: dict[str, Pool] = {}
    for row in (await keeper.ask("sticky", {})).rows:
        if not _isGroup(row):
            # A process that is taken over may send anything.
            continue
        pool = pools.setdefault(row["pool"], Pool(row["pool"], row["ttl"]))
        known = pool.groups.setdefault(row["group"], [])
        known += [address for address in row["backends"] if address not in known]
    return list(pools.values())


def _isGroup(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and isinstance(row.get("pool"), str)
        and isinstance(row.get("group"), str)
        and type(row.get("ttl")) is int
        and 0 < row["ttl"] < _MOST_TTL
        and isinstance(row.get("backends"), list)
        and all(isinstance(each, str) for each in row["backends"])
    )


async def placesOf(keeper: Keeper, user: str, pools: Iterable[Pool]) -> list[dict[str, Any]]:
    """
    Return the places of a user: objects with C{groups} (their names) and C{backend} (L{None} without a place).

    @param keeper: the keeper.
    @param user: the user name.
    @param pools: where he may have some.
    @raise NoPlaces: they cannot be known.
    """
    if keeper.placing is None:
        raise NoPlaces("this gateway keeps no places")
    found = []
    for pool in pools:
        try:
            backend = await keeper.placing.placeOf(pool.name, bytesOf(user))
        except StoreUnavailable as error:
            raise NoPlaces(f"the store does not answer: {error}") from None
        found.append({"groups": list(pool.groups), "backend": backend or None})
    return found


def sessionsBy(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """
    Count sessions: objects with C{gateway}, C{backend} and C{sessions}.

    @param rows: the rows of sessions. Those that are at no backend do not count.
    """
    counter = Counter((row.get("gateway", ""), row["backend"]) for row in rows if isAtBackend(row))
    return [
        {"gateway": gateway, "backend": backend, "sessions": number}
        for (gateway, backend), number in sorted(counter.items())
    ]


def isAtBackend(row: Mapping[str, Any]) -> bool:
    """Return whether a session is at a backend, or on the way to one. C{row} is that of the session."""
    return bool(row.get("backend")) and row.get("phase") in _AT_BACKENDS


def masksOf(user: str) -> Sequence[str]:
    """
    Return masks for all names under which a user logs in to his mailbox: with a detail (C{joe+lists}), and through a
    master user (C{joe*master}).

    @param user: the user name.
    """
    name = bytesOf(user).decode("utf-8", "replace")
    local, at, domain = name.rpartition("@")
    if not at:
        local, domain = domain, ""
    return exactly(name), f"{exactly(local)}+*{exactly(at + domain)}", f"{exactly(name)}[*]*"


async def relaysOf(keeper: Keeper, user: str) -> tuple[list[dict[str, Any]], list[str]]:
    """
    Return the rows of the sessions that a user has at backends, at all gateways; and a sentence for each gateway or
    process whose answer is missing.

    @param keeper: the keeper.
    @param user: the user name.
    """
    mailbox = bytesOf(user)
    rows: dict[str, dict[str, Any]] = {}
    missing: dict[str, None] = {}
    asked: list[Deferred[dict[str, Any]]] = [
        listSessions(keeper, Filter.fromJSON({"user": mask}), MOST_SESSIONS) for mask in masksOf(user)
    ]
    for each in asked:
        page = await each
        for row in page["sessions"]:
            if isAtBackend(row) and bytesOf(row["user"]) == mailbox:
                rows[row["id"]] = row
        for gateway in page["gateways"]:
            if not gateway["complete"]:
                text = "; ".join(gateway.get("missing") or ()) or "it has not answered"
                missing[f"gateway {gateway['name']}: {text}" if gateway["name"] else text] = None
    return list(rows.values()), list(missing)
