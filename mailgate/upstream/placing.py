# -*- test-case-name: mailgate.test.backend.test_sticky -*-
"""
Places of users in sticky groups, as the processes that serve clients ask for them.
"""

from __future__ import annotations

from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

from mailgate.upstream.peer import Peer
from mailgate.upstream.sticky import Sticky

__all__ = ["IPlacing", "Owner", "Seat"]


@frozen
class Owner:
    """
    Who has a place.

    @ivar pool: where: L{mailgate.upstream.sticky.poolsOf}.
    @ivar user: the user, as L{mailgate.upstream.sticky.mailboxOf} returns him.
    @ivar sticky: how long the place lasts.
    """

    pool: str
    user: bytes = field(repr=False)
    sticky: Sticky = field(default=Sticky(), eq=False)


class IPlacing(Protocol):
    """Knows places: L{mailgate.keeper.places.ProcessPlaces}."""

    def ask(self, owner: Owner, proposal: str, waited: float = 0.0) -> Deferred[str]:
        """
        Ask for a place.

        @param owner: who.
        @param proposal: the backend that is his place if he has none.
        @param waited: for how many seconds his login has waited for the keeper before. All its waits have one bound.
        @return: fires with his place, an address and port; empty if that is not known, or not in time.
        """

    def seated(self, owner: Owner, backend: str, instead: str, isNew: bool) -> None:
        """
        A session has begun.

        @param owner: whose.
        @param backend: the address and port where it is.
        @param instead: the place that could not be used, and that he must not have any more; empty without one.
        @param isNew: whether the backend is to be his place, unless he has another one.
        """

    def left(self, owner: Owner) -> None:
        """A session has ended. C{owner} is as for L{seated}."""


@define(eq=False)
class Seat:
    """
    A session in a sticky group: an L{ICounted<mailgate.session.ICounted>}.

    @ivar at: the server.
    @ivar owner: whose session it is.
    """

    at: Peer
    owner: Owner
    _placing: IPlacing

    def ended(self) -> None:
        """The session is over."""
        self.at.ended()
        self._placing.left(self.owner)

    def lost(self, now: float) -> Any:
        """
        See L{ICounted.lost<mailgate.session.ICounted.lost>}.

        @param now: the time.
        """
        return self.at.lost(now)
