# -*- test-case-name: mailgate.test.keeper.test_limited -*-
"""
What the limits would do with a login, and why, as values of JSON; and what they know about a user.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import DeferredList

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.moments import moment
from mailgate.limits.attempt import Rule
from mailgate.limits.interfaces import ILimitStore
from mailgate.limits.keys import canonical, canonicalHost
from mailgate.log.journal import oneLine

__all__ = ["holdsOf", "isSlowed", "learn", "limitsOf", "userLimits"]

MOST_NETWORKS = 10
"""Addresses of a user that are looked up."""

_TIMES = frozenset(("lastSuccess", "since", "until"))
_NAMES = {"lastSuccess": "last_success"}


async def learn(keeper: Keeper, user: str, addresses: Iterable[str]) -> None:
    """
    Learn what other gateways know about the logins of a user, before these are explained.

    @param keeper: the keeper.
    @param user: the user name.
    @param addresses: the addresses of the client; empty for one that is not known.
    """
    store = keeper.limits
    if store is not None:
        await DeferredList([store.look(*_named(user, address)) for address in addresses], consumeErrors=True)


def _named(user: str, address: str) -> tuple[bytes, str]:
    """The canonical forms."""
    name = canonical(user.encode("utf-8", "surrogateescape")) if user else b""
    return name, address if not address or address.startswith("unix:") else canonicalHost(address)


def limitsOf(keeper: Keeper, user: str, address: str | None, protocol: str | None) -> dict[str, Any] | None:
    """
    Return which rule would act on a login, and its counters. Nothing is counted.

    @param keeper: the keeper.
    @param user: the user name.
    @param address: the address of the client; L{None} if it is not known.
    @param protocol: the protocol; L{None} if it is not known.
    @return: what L{ILimitStore.explain} returns, with times as RFC 3339 and names as the API has them; L{None} without
        limits.
    """
    if keeper.limits is None:
        return None
    return _explained(keeper.limits, user, address or "", protocol or "")


def _explained(store: ILimitStore, user: str, address: str, protocol: str) -> dict[str, Any]:
    name, host = _named(user, address)
    found: dict[str, Any] = _shown(store.explain(name, host, protocol))
    return {**found, "blocks": [_row(each) for each in found["blocks"]]}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A block as the rows of lists are."""
    return {"count": 1, **row, **{name: oneLine(str(row[name])) for name in ("thing", "reason")}}


def _shown(value: Any) -> Any:
    """A value of the limits as the API has it."""
    if isinstance(value, Mapping):
        return {
            _NAMES.get(name, name): moment(each) if name in _TIMES and isinstance(each, int | float) else _shown(each)
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_shown(each) for each in value]
    return value


async def userLimits(
    keeper: Keeper, user: str, sessions: Iterable[Mapping[str, Any]], recent: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """
    Return what the limits know about a user. They know networks as keyed hashes alone, so it is looked up whether they
    know those from which the user was seen lately.

    @param keeper: the keeper.
    @param user: the user name.
    @param sessions: the sessions of the user.
    @param recent: the latest stories of the user.
    @return: an object with C{failures} (those from unknown networks: C{failures}, C{limit}, C{since}; L{None} without
        limits), C{networks} (objects with C{address}, C{known}, C{last_success} and C{pair}), C{blocks} (those that
        concern the user from any of these addresses) and C{holds}.
    """
    if keeper.limits is None:
        return {"failures": None, "networks": [], "blocks": [], "holds": []}
    store, addresses = keeper.limits, _addresses((*sessions, *recent))
    await learn(keeper, user, addresses or [""])
    about = _explained(store, user, "", "")
    blocks = {row["id"]: row for row in _blocks(about)}
    networks = []
    for address in addresses:
        found = _explained(store, user, address, "")
        networks.append({"address": address, **{name: found.get(name) for name in ("known", "last_success", "pair")}})
        blocks.update((row["id"], row) for row in _blocks(found))
    return {
        "failures": about.get("user"),
        "networks": networks,
        "blocks": [row for row in blocks.values() if row["rule"] != Rule.HOLD.value],
        "holds": [row for row in blocks.values() if row["rule"] == Rule.HOLD.value],
    }


def isSlowed(keeper: Keeper, user: str) -> bool:
    """
    Return whether a user has so many failures from unknown networks that his logins from there are slowed down (R6).

    @param keeper: the keeper.
    @param user: the user name.
    """
    found = (limitsOf(keeper, user, None, None) or {}).get("user") or {}
    limit = found.get("limit") or 0
    return bool(limit and found.get("failures", 0) >= limit)


def holdsOf(keeper: Keeper, user: str) -> Sequence[str]:
    """
    Return the ids of the holds of a user.

    @param keeper: the keeper.
    @param user: the user.
    """
    found = limitsOf(keeper, user, None, None)
    return [row["id"] for row in _blocks(found or {}) if row["rule"] == Rule.HOLD.value]


def _blocks(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    rows: Sequence[Mapping[str, Any]] = found.get("blocks") or ()
    return rows


def _addresses(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The addresses of the clients, each once, without those of unix sockets."""
    found: dict[str, None] = {}
    for row in rows:
        client = row.get("client")
        address = client.get("address") if isinstance(client, Mapping) else None
        if isinstance(address, str) and address and not address.startswith("unix:"):
            found[address] = None
    return list(found)[:MOST_NETWORKS]
