# -*- test-case-name: mailgate.test.upstream.test_methods -*-
"""
One address of a group of backends, with what sessions have learned about it.
"""

from __future__ import annotations

from enum import Enum

from attrs import define, field

from mailgate.log.outage import Outage
from mailgate.login import Backend
from mailgate.upstream.waves import Delay, Wave

__all__ = ["Peer", "PeerLimits", "PeerState"]


class PeerState(Enum):
    """What a peer does. Operators see the values."""

    UP = "up"
    """New sessions are sent there."""
    RESTING = "resting"
    """It failed C{max_fails} times; new sessions go elsewhere for C{fail_timeout}."""
    DRAINING = "drain"
    """An operator has ordered that new sessions go elsewhere."""
    DOWN = "down"
    """The configuration, an operator or a health check takes it out."""


@define(frozen=True)
class PeerLimits:
    """
    The parameters of a C{server} line of an C{[upstream NAME]} section (nginx's C{server}).

    @ivar weight: the share of sessions, at least 1.
    @ivar maxConnections: the most sessions at once; 0 is no limit.
    @ivar maxFails: after so many failures within C{failTimeout} the peer rests; 0 never counts failures.
    @ivar failTimeout: how long failures count, and how long the peer then rests, in whole seconds.
    @ivar slowStart: for so many seconds after a rest its weight grows from 0 to C{weight}.
    @ivar down: the peer is never used, but keeps its place in the arithmetic of hashes.
    """

    weight: int = 1
    maxConnections: int = 0
    maxFails: int = 1
    failTimeout: int = 10
    slowStart: int = 0
    down: bool = False


@define(eq=False)
class Peer:
    """
    An address that sessions can be sent to. Times are whole seconds of the group's clock, as in nginx.

    @ivar backend: the address.
    @ivar server: the host and port, or the path of a unix socket, as the C{server} line has them: several addresses
        of one name share it.
    @ivar limits: the parameters of the line.
    @ivar effective: the weight that counts now: failures lower it, and each look at the peer raises it by one again.
    @ivar current: what smooth weighted round robin has saved up for this peer.
    @ivar fails: failures since the last success.
    @ivar accessed: when the last failure was.
    @ivar checked: when the peer was last chosen after a rest, or failed.
    @ivar recovered: when it served again after its last rest.
    @ivar connections: sessions that use it.
    @ivar isProbed: whether a login tries it although it rests, as all of its group do.
    @ivar order: what an operator has ordered: C{drain}, C{down}, or nothing. New sessions go elsewhere.
    @ivar isFailing: whether a health check has found that it does not work.
    @ivar reason: why it is not used, or was not used the last time, in words for the operator.
    @ivar since: when C{order}, C{isFailing} or a rest changed last; 0 if none has.
    @ivar spread: over how many seconds its clients are let go when it fails; 0 lets all go at once.
    @ivar announced: when its rest was last logged.
    @ivar failingSince: the time in seconds of the first failure after the last success; 0 if there is none.
    @ivar outage: what the log has said of its failures.
    """

    backend: Backend
    server: tuple[str, int]
    limits: PeerLimits = PeerLimits()
    effective: int = field(init=False)
    current: float = field(init=False, default=0)
    fails: int = field(init=False, default=0)
    accessed: int = field(init=False, default=0)
    checked: int = field(init=False, default=0)
    recovered: int = field(init=False, default=0)
    connections: int = field(init=False, default=0)
    isProbed: bool = field(init=False, default=False)
    order: str = field(init=False, default="")
    isFailing: bool = field(init=False, default=False)
    reason: str = field(init=False, default="")
    since: int = field(init=False, default=0)
    spread: float = field(init=False, default=0.0)
    announced: int = field(init=False, default=0)
    _wave: Wave | None = field(init=False, default=None)
    failingSince: float = field(init=False, default=0.0)
    outage: Outage = field(init=False, factory=Outage, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        self.effective = self.limits.weight

    @property
    def at(self) -> Peer:
        """See L{mailgate.session.ICounted}."""
        return self

    @property
    def written(self) -> str:
        """The address as the configuration has it; without a port where SRV records have it."""
        host, port = self.server
        return str(Backend(host, port)) if port else host

    def isEligible(self, now: int, isLone: bool = False) -> bool:
        """
        Whether a session that has not tried it may be sent there at the time C{now}.

        @param isLone: whether it is the only one of its group, which never rests.
        """
        limits = self.limits
        if limits.down or self.order or self.isFailing:
            return False
        if limits.maxConnections and self.connections >= limits.maxConnections:
            return False
        return isLone or not self.isResting(now)

    def isResting(self, now: int) -> bool:
        """Whether failures keep sessions away at the time C{now}."""
        limits = self.limits
        return 0 < limits.maxFails <= self.fails and now - self.checked <= limits.failTimeout

    def isOfInterest(self, now: int) -> bool:
        """
        Whether a peer outside of groups is worth to be remembered: it has sessions, rests, or an operator has ordered
        something.

        @param now: the time in whole seconds.
        """
        return bool(self.connections or self.order or self.isResting(now))

    def state(self, now: int) -> PeerState:
        """
        What the peer does at the time C{now}.

        @param now: the time in whole seconds.
        """
        if self.order == "drain":
            return PeerState.DRAINING
        if self.order or self.limits.down or self.isFailing:
            return PeerState.DOWN
        return PeerState.RESTING if self.isResting(now) else PeerState.UP

    def share(self, now: int) -> float:
        """The part of its weight that it has at the time C{now}: less than 1 while it starts slowly."""
        slow = self.limits.slowStart
        if not slow or not self.recovered:
            return 1
        return min(1.0, (now - self.recovered + 1) / (slow + 1))

    def accumulate(self, now: int) -> float:
        """Take part in a round of smooth weighted round robin at the time C{now}; returns what it has put in."""
        added = self.effective * self.share(now)
        self.current += added
        if self.effective < self.limits.weight:
            self.effective += 1
        return added

    def chosen(self, now: int) -> None:
        """Count a session that is sent there at the time C{now}. After a rest it is the only one until it succeeds."""
        self.connections += 1
        if now - self.checked > self.limits.failTimeout:
            self.checked = now

    def explain(self, reason: str) -> None:
        """
        Keep the reason of a failure for the operator. The reason of an order, or of a health check, stays.

        @param reason: a phrase with the server as its subject, such as C{refused the connection}.
        """
        if not self.order and not self.isFailing:
            self.reason = reason

    def failed(self, now: int, reason: str = "") -> bool:
        """
        Count a failure. L{ended} must be called as well.

        @param now: the time in whole seconds.
        @param reason: as for L{explain}.
        @return: whether the peer now rests.
        """
        self.explain(reason)
        self.isProbed = False
        self.fails += 1
        self.accessed = self.checked = now
        most = self.limits.maxFails
        if not most:
            return False
        self.effective = max(0, self.effective - self.limits.weight // most)
        if self.fails == most and not self.order and not self.isFailing:
            self.since = now
        return self.fails >= most

    def announces(self, now: int, wasResting: bool) -> bool:
        """
        Return whether the log is to say that it rests. Many logins may fail at the same time, and if all servers rest
        one login after another tries this one. The log says it once in each C{fail_timeout}.

        @param now: the time in whole seconds.
        @param wasResting: whether it had failed often enough before this failure.
        """
        if wasResting and now - self.announced <= self.limits.failTimeout:
            return False
        self.announced = now
        return True

    @property
    def hasFailed(self) -> bool:
        """Whether it has failed often enough for a rest, which may be over, and has not succeeded since."""
        return 0 < self.limits.maxFails <= self.fails

    def succeeded(self, now: int) -> None:
        """Forget earlier failures: a session used it at the time C{now}, and began after the last failure."""
        self._wave = None
        isProbed, self.isProbed = self.isProbed, False
        if self.accessed < self.checked or isProbed:
            if 0 < self.limits.maxFails <= self.fails:
                self.recovered = now
                if not self.order and not self.isFailing:
                    self.since = now
            self.fails = 0

    def undecided(self, now: int) -> None:
        """
        A session that was sent there ended without a success and without a failure, as its client left. If it was the
        only one after a rest, the next session may be sent there at once.

        @param now: the time in whole seconds.
        """
        self.isProbed = False
        if 0 < self.limits.maxFails <= self.fails and self.accessed < self.checked:
            self.checked = now - self.limits.failTimeout - 1

    def ended(self) -> None:
        """A session that was sent there is over."""
        self.connections -= 1

    def lost(self, now: float) -> Delay | None:
        """
        The peer has closed the connection of a session, and its client has not said goodbye. L{ended} must be called as
        well, afterwards.

        @param now: the time in seconds.
        @return: how long the client waits, so that the clients of a peer that has failed do not return all at once;
            L{None} if it may go at once.
        """
        if not self.spread:
            return None
        if self._wave is None or self._wave.isOver(now):
            self._wave = Wave(now, self.spread)
        return self._wave.lost(now, self.connections - 1)

    @property
    def isTakenDown(self) -> bool:
        """Whether an operator or a health check takes it out."""
        return self.order == "down" or self.isFailing
