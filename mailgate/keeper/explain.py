# -*- test-case-name: mailgate.test.keeper.test_explain -*-
"""
Explains the logins of a user: what happened to the last ones, and what the next one would do. The processes that serve
clients each answer for themselves (L{mailgate.keeper.answers.explain}); this module makes one answer of theirs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from mailgate.keeper.cluster.elsewhere import addElsewhere
from mailgate.keeper.explainedplaces import addPlaces
from mailgate.keeper.filters import Filter
from mailgate.keeper.gateways import askEverywhere, silence, together
from mailgate.keeper.keeper import Collected, Keeper
from mailgate.keeper.limited import learn, limitsOf
from mailgate.net.networks import plainAddress
from mailgate.upstream.peer import PeerState

__all__ = ["explain"]

_MOST_RECENT = 10
"""Logins and connections of the past that an explanation has."""

_SEVERITY = (PeerState.UP.value, PeerState.RESTING.value, PeerState.DRAINING.value, PeerState.DOWN.value)


def explain(keeper: Keeper, user: str, address: str | None, protocol: str | None) -> Deferred[dict[str, Any]]:
    """
    Explain the logins of a user. No login is counted, no question is sent, and no turn moves on.

    @param keeper: the keeper.
    @param user: the user name.
    @param address: the address of the client; L{None} for any.
    @param protocol: C{imap}, C{pop3}, C{smtp} or C{sieve}; L{None} for all servers.
    @raise ValueError: C{address} is no address of a client, or C{protocol} is not known.
    @return: fires with values of JSON: C{user}, C{address}, C{protocol}; C{limits}: what
        L{mailgate.keeper.limited.limitsOf} returns; C{would}: a value for each server; C{recent}:
        the latest stories of the user at all gateways; C{missing}: why the answer is not complete.
    """
    # What no login has would have an explanation that looks like one.
    if address is not None and plainAddress(address) is None and not address.startswith("unix:"):
        raise ValueError("address must be the address of a client, such as 192.0.2.7")
    protocol = Filter.fromJSON({"protocol": protocol}).protocol
    arguments = {"user": user, "address": address, "protocol": protocol}
    return Deferred.fromCoroutine(_explain(keeper, arguments))


async def _explain(keeper: Keeper, arguments: Mapping[str, Any]) -> dict[str, Any]:
    user, address, protocol = arguments["user"], arguments["address"], arguments["protocol"]
    await learn(keeper, user, [address or ""])
    limits = limitsOf(keeper, user, address, protocol)
    found, heard = await askEverywhere(keeper, keeper.ask("explain", arguments), "stories", {"user": user})
    stories = together(keeper.recent(user), heard)
    recent = [dict(story) for story in stories if protocol in (None, story.get("protocol"))]
    silent = [f"gateway {name}: {silence(heard, age)}" for name, age in heard.silent.items()]
    explained = _explained(arguments, limits, recent[:_MOST_RECENT], found)
    explained["missing"] += silent
    await addPlaces(keeper, explained)
    return explained if keeper.registry is None else await addElsewhere(explained, keeper.registry)


def _explained(
    arguments: Mapping[str, Any],
    limits: Mapping[str, Any] | None,
    recent: Sequence[Mapping[str, Any]],
    found: Collected,
) -> dict[str, Any]:
    byServer: dict[str, list[dict[str, Any]]] = {}
    for row in found.rows:
        # A process that is taken over must not keep operators from an explanation.
        if isinstance(row, dict) and isinstance(row.get("server"), str):
            byServer.setdefault(row["server"], []).append(row)
    would = []
    missing = list(found.missing)
    for server, rows in byServer.items():
        try:
            would.append(_joined(rows))
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            missing.append(f"an answer about server {server} was not valid")
    return {**arguments, "limits": limits, "would": would, "recent": list(recent), "missing": missing}


def _joined(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make one answer of those of all processes about one server."""
    first = rows[0]
    # During a reload some processes may have another configuration.
    alike = [row for row in rows if _shape(row) == _shape(first)]
    return {
        "server": first["server"],
        "protocol": first["protocol"],
        "by": first["by"],
        "named": bool(first["named"]),
        "processes": len(rows),
        "limits": _counted([row["limits"] for row in rows if row.get("limits") is not None]),
        "asks": [_asks(each) for each in zip(*(row["asks"] for row in alike), strict=True)],
        "goes": [_goes(each) for each in zip(*(row["goes"] for row in alike), strict=True)],
    }


def _counted(several: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]] | None:
    """The connections that C{limit_conn} counts. Workers share the counts; without workers there is one process."""
    if not several:
        return None
    return {
        name: {word: max(int(one[name][word]) for one in several) for word in ("count", "limit")} for name in several[0]
    }


def _shape(row: Mapping[str, Any]) -> tuple[Any, ...]:
    asks = [(each["kind"], [service["url"] for service in each.get("services", ())]) for each in row["asks"]]
    return asks, [(each["group"], each["method"]) for each in row["goes"]]


def _asks(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = dict(each[0])
    if first["kind"] == "auth_http":
        services = zip(*(one["services"] for one in each), strict=True)
        first["services"] = [_service(service) for service in services]
        if first["cache"] is not None:
            held = [one["cache"]["held"] for one in each if one["cache"]["held"] is not None]
            first["cache"] = {"ttl": float(first["cache"]["ttl"]), "held": sum(held) if held else None}
    return first


def _service(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "url": each[0]["url"],
        "rests": max(float(one["rests"]) for one in each),
        "resting": sum(one["rests"] > 0 for one in each),
        "failing": any(one["failing"] for one in each),
        "waiting": sum(one["waiting"] for one in each),
    }


def _goes(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = dict(each[0])
    firsts = Counter(one["order"][0] for one in each if one["order"])
    isCommon = all(one["order"] == first["order"] for one in each)
    whys = dict.fromkeys(one["why"] for one in each)
    first["servers"] = _servers(row for one in each for row in one["servers"])
    # The turns of round robin differ from process to process.
    first["first"] = [address for address, _ in firsts.most_common()]
    first["order"] = first["order"] if isCommon else []
    first["why"] = "; ".join(whys)
    return first


def _servers(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each backend: the sessions of all processes, and the most severe of the states."""
    servers: dict[str, dict[str, Any]] = {}
    for row in rows:
        row = {**row, "weight": int(row["weight"]), "backup": bool(row["backup"])}
        known = servers.setdefault(row["address"], {**row, "sessions": 0})
        sessions = known["sessions"] + int(row["sessions"])
        if _SEVERITY.index(row["state"]) > _SEVERITY.index(known["state"]):
            known.update(row)
        known["sessions"] = sessions
    return list(servers.values())
