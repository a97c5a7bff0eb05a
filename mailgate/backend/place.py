# -*- test-case-name: mailgate.test.backend.test_places mailgate.test.backend.test_marks -*-
"""
One backend for a login, with what it takes to connect there and what its logins find out about it.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from mailgate.backend.retry import RetrySettings
from mailgate.login import Backend
from mailgate.net.endpoints import Begin
from mailgate.tls.backendcontexts import IBackendContexts
from mailgate.upstream.group import Upstream
from mailgate.upstream.peer import Peer, PeerState
from mailgate.upstream.placing import IPlacing, Owner, Seat
from mailgate.upstream.upstreams import Upstreams

__all__ = ["NoBackend", "Place", "Staying"]


@define(eq=False)
class Place:
    """
    A backend, and how to connect to it.

    @ivar name: how the log names it.
    @ivar backend: with all that directives say of it.
    @ivar begin: connects to it.
    @ivar contexts: of its TLS.
    @ivar group: the group that it was chosen from, if it was.
    @ivar peer: what is known of it: by the group, or outside of groups.
    @ivar retry: how long it may take, and after which failures a login goes on.
    @ivar upstreams: the groups, and what is known of servers outside of groups.
    @ivar wholeLogin: as in C{retry}.
    @ivar attempt: as in C{retry}.
    """

    name: str
    backend: Backend
    begin: Begin
    contexts: IBackendContexts | None
    group: Upstream | None = None
    peer: Peer | None = None
    retry: RetrySettings = RetrySettings()
    upstreams: Upstreams | None = None
    wholeLogin: float = field(init=False)
    attempt: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Each login needs them.
        self.wholeLogin = self.retry.wholeLogin
        self.attempt = self.retry.attempt

    def succeeded(self) -> bool:
        """
        A login got an answer there.

        @return: whether the log has said that it fails, and is to say that it works again.
        """
        peer = self.peer
        if peer is None:
            return False
        peer.failingSince = 0.0
        if self.group is not None:
            self.group.succeeded(peer)
        elif peer.fails and self.upstreams is not None:
            self.upstreams.succeeded(peer)
        return peer.outage.isOn

    def failed(self, reason: str, isAlone: bool) -> bool:
        """
        A login could not use it.

        @param reason: why, as for L{Peer.explain}.
        @param isAlone: whether the route names nothing else. A server outside of groups then does not rest.
        @return: whether it rests because of that, and the log is to say so.
        """
        peer = self.peer
        if peer is None:
            return False
        if self.group is not None:
            return self.group.failed(peer, reason)
        if isAlone or self.upstreams is None:
            peer.explain(reason)
            return False
        return self.upstreams.failed(peer, reason)

    def undecided(self) -> None:
        """A login ended there, and showed neither that the backend works nor that it fails."""
        if self.peer is not None:
            if self.group is not None:
                self.group.undecided(self.peer)
            elif self.peer.fails and self.upstreams is not None:
                self.peer.undecided(self.upstreams.now)

    def again(self) -> bool:
        """
        Count a session that is sent there once more.

        @return: whether that is allowed. An operator may have taken the server out, or it is full.
        """
        if self.peer is not None:
            # The time does not matter for a server that is alone.
            if not self.peer.isEligible(0, True):
                return False
            self.peer.connections += 1
        return True

    def ended(self) -> None:
        """A session that went there is over."""
        if self.peer is not None:
            self.peer.ended()


@define
class NoBackend:
    """
    A group has no backend for a login.

    @ivar group: its text in the configuration.
    @ivar reason: why, for a log, with the group as its subject.
    @ivar text: a client's own text that says more, or empty.
    @ivar isKnown: whether the log has said already that all its backends fail.
    @ivar staying: the user's place, which must be asked for before the group is asked for a backend; L{None} if there
        is really no backend.
    """

    group: str
    reason: str
    text: str = ""
    isKnown: bool = False
    staying: Staying | None = None


@define(eq=False)
class Staying:
    """
    A login of a user who stays where he is, as his group is sticky.

    @ivar group: the group.
    @ivar owner: the user.
    @ivar proposal: the backend that is his place if he has none.
    @ivar place: his place, as soon as it is known; empty before, and if it is not known in time.
    """

    group: Upstream
    owner: Owner
    proposal: str
    _placing: IPlacing
    place: str = ""

    async def find(self, waited: float = 0.0) -> None:
        """
        Ask for the place.

        @param waited: for how many seconds the login has waited for the keeper before.
        """
        asked: Deferred[str] = self._placing.ask(self.owner, self.proposal, waited)
        self.place = await asked

    def taken(self, peer: Peer) -> tuple[Seat, str]:
        """
        A backend has taken the login.

        @param peer: the backend.
        @return: what counts the session, and the backend where the user has no place any more, because it could not be
            used; empty if he stays.
        """
        now, place = str(peer.backend), self.place
        isThere = not place or peer in self.group.peersAt(place)
        instead = "" if isThere or self._isFull(place) else place
        self._placing.seated(self.owner, now, instead, not place or instead != "")
        # The place may have the port of another protocol.
        mine = self.group.peersAt(instead) if instead else []
        return Seat(peer, self.owner, self._placing), str(mine[0].backend) if mine else instead

    def _isFull(self, place: str) -> bool:
        """Whether the place has too many sessions now: the user comes back when it has fewer."""
        now = self.group.now
        for peer in self.group.peersAt(place):
            if peer.limits.maxConnections <= peer.connections and peer.state(now) is PeerState.UP:
                return peer.limits.maxConnections > 0
        return False
