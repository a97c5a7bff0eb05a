# -*- test-case-name: mailgate.test.keeper.test_users -*-
"""
What the gateways know about one user.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from mailgate.keeper.filters import Filter, exactly
from mailgate.keeper.gateways import askEverywhere, together
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.limited import userLimits
from mailgate.keeper.sessions import LIMIT, listSessions
from mailgate.keeper.whereabouts import NoPlaces, placesOf, relaysOf, sessionsBy, stickyPools

__all__ = ["showUser"]


def showUser(keeper: Keeper, user: str, limit: int = LIMIT) -> Deferred[dict[str, Any]]:
    """
    Return the sessions of a user at all gateways, and what has happened to his connections and logins lately.

    @param keeper: the keeper.
    @param user: the user name, without wildcards.
    @param limit: the most sessions.
    @return: fires with an object with C{user}, C{sessions}, C{next} and C{gateways} (as
        L{mailgate.keeper.sessions.listSessions}), C{backends} (where the sessions are; without one, where the last one
        was), C{failures}, C{networks}, C{blocks} and C{holds} (as L{userLimits}), C{recent} (stories, the latest
        first) and C{where}: C{places} (as L{placesOf}; L{None} if they cannot be known) and C{sessions} (as
        L{sessionsBy}, with those under names with a detail).
    @raise ValueError: C{user} is empty or too long.
    """
    listed = listSessions(keeper, Filter.fromJSON({"user": exactly(user)}), limit)
    return Deferred.fromCoroutine(_shown(keeper, user, listed))


async def _where(keeper: Keeper, user: str) -> dict[str, Any]:
    """His places, and how many sessions he has at each gateway and backend."""
    places: list[dict[str, Any]] | None
    try:
        places = await placesOf(keeper, user, await stickyPools(keeper))
    except NoPlaces:
        places = None
    rows, _ = await relaysOf(keeper, user)
    return {"places": places, "sessions": sessionsBy(rows)}


async def _shown(keeper: Keeper, user: str, listed: Deferred[dict[str, Any]]) -> dict[str, Any]:
    page, heard = await askEverywhere(keeper, listed, "stories", {"user": user})
    recent = together(keeper.recent(user), heard)
    # The order of the sessions, without repetitions.
    backends = list(dict.fromkeys(row["backend"] for row in page["sessions"] if row["backend"]))
    if not backends:
        backends = [story["backend"] for story in recent if story.get("backend")][:1]
    limits = await userLimits(keeper, user, page["sessions"], recent)
    where = await _where(keeper, user)
    return {"user": user, **page, "backends": backends, **limits, "recent": recent, "where": where}
