# -*- test-case-name: mailgate.test.keeper.test_whereabouts -*-
"""
Adds to the explanation of a login where the user's place is, if the login goes to a sticky group. Processes that
explain know the order of the hash alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mailgate.keeper.keeper import Keeper
from mailgate.keeper.whereabouts import NoPlaces, placesOf, stickyPools
from mailgate.upstream.peer import PeerState
from mailgate.upstream.sticky import agrees

__all__ = ["addPlaces"]


async def addPlaces(keeper: Keeper, explained: Mapping[str, Any]) -> None:
    """
    Change where a login would go, and why.

    @param keeper: the keeper.
    @param explained: the answer of L{mailgate.keeper.explain.explain}.
    """
    sticky = [
        goes
        for server in explained["would"]
        for goes in server["goes"]
        if goes["group"] is not None and str(goes["method"]).startswith("sticky")
    ]
    if not sticky:
        return
    try:
        places = await placesOf(keeper, explained["user"], await stickyPools(keeper))
    except NoPlaces as error:
        for goes in sticky:
            goes["why"] = f"{goes['why']}; {error}"
        return
    byGroup = {group: place["backend"] for place in places for group in place["groups"]}
    for goes in sticky:
        _add(goes, byGroup.get(goes["group"]))


def _add(goes: dict[str, Any], place: str | None) -> None:
    if place is None:
        return
    found = [row for row in goes["servers"] if agrees(row["address"], place)]
    exact = [row for row in found if row["address"] == place]
    usable = [row["address"] for row in exact or found if row["state"] == PeerState.UP.value]
    if not usable:
        goes["why"] = f"the place of the user, {place}, cannot be used; {goes['why']}"
        return
    goes["order"] = [usable[0], *(address for address in goes["order"] if address != usable[0])]
    goes["first"] = usable[:1]
    goes["why"] = "the place of the user"
