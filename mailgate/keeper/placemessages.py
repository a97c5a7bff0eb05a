# -*- test-case-name: mailgate.test.keeper.test_placing -*-
"""
The messages about places of users in sticky groups. They follow only if the member has answered the question L{PLACES},
as those of limits do.
"""

from __future__ import annotations

from attrs import frozen

from mailgate.system.fields import number, text, word

__all__ = ["AGAIN", "LEFT", "PLACES", "PLACES_VERSION", "STAYS", "TOOK", "Place", "Placed", "Seat"]

PLACES = "places"
"""The question with which a keeper offers to know places."""

PLACES_VERSION = 1
"""The version of these messages. A member answers L{PLACES} with it, or with a failure."""

TOOK, STAYS, AGAIN, LEFT = "took", "stays", "again", "left"

_LONGEST_USER = 1024
LONGEST_BACKEND = 320
_LONGEST_POOL = 64


@frozen
class Place:
    """
    Member to keeper: where is the place of a user?

    @ivar id: the number of the question.
    @ivar pool: see L{mailgate.upstream.placing.Owner}.
    @ivar user: see there.
    @ivar backend: the backend that is his place if he has none.
    @ivar ttl: for how many seconds it lasts from now.
    """

    id: int = number()
    pool: str = text(_LONGEST_POOL)
    user: str = text(_LONGEST_USER)
    backend: str = text(LONGEST_BACKEND)
    ttl: int = number(1)


@frozen
class Seat:
    """
    Member to keeper: how a user stays at a backend.

    @ivar pool: see L{mailgate.upstream.placing.Owner}.
    @ivar user: see there.
    @ivar backend: the backend that has his sessions.
    @ivar instead: the place that he must not have any more; empty without one.
    @ivar what: L{TOOK}: the backend is to be the place, unless he has another one; L{STAYS}: it is known that he has
        one; L{AGAIN}: a new keeper hears what an earlier one knew; L{LEFT}: his last session in this process has ended.
    @ivar ttl: for how many seconds a place lasts.
    @ivar retain: for how many seconds it lasts after the last session.
    """

    pool: str = text(_LONGEST_POOL)
    user: str = text(_LONGEST_USER)
    backend: str = text(LONGEST_BACKEND)
    instead: str = text(LONGEST_BACKEND)
    what: str = word("|".join((TOOK, STAYS, AGAIN, LEFT)))
    ttl: int = number(1)
    retain: int = number(1)


@frozen
class Placed:
    """
    Keeper to member: the answer to a L{Place}.

    @ivar id: the number of the question.
    @ivar backend: the place; empty if it is not known.
    """

    id: int = number()
    backend: str = text(LONGEST_BACKEND)
