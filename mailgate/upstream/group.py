# -*- test-case-name: mailgate.test.upstream.test_group -*-
"""
A group of backends at run time, and the peers that one login tries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from ipaddress import ip_address
from typing import Any

from mailgate.login import Backend
from mailgate.rules.facts import Facts
from mailgate.rules.rules import Rules
from mailgate.upstream.methods import Hash, IPHash, LeastConnections, Method, Random, Ring, RingHash, RoundRobin
from mailgate.upstream.peer import Peer
from mailgate.upstream.settings import ServerLine, UpstreamSettings
from mailgate.upstream.sticky import Ranked, agrees, mailboxOf, ranked

__all__ = ["Attempts", "Upstream"]


def _ignored(peer: Peer) -> None:
    """Does nothing."""


class Upstream:
    """
    One C{[upstream NAME]}.

    @ivar name: its name.
    @ivar settings: its section.
    @ivar pool: where users have places (L{mailgate.upstream.sticky.poolsOf}); L{None} if it is not sticky.
    @param rules: the tables for the variables of C{hash}.
    @param clock: an C{IReactorTime}.
    @param below: returns a random number from 0 to one less than its argument.
    """

    def __init__(
        self,
        name: str,
        settings: UpstreamSettings,
        rules: Rules,
        clock: Any,
        below: Callable[[int], int] = random.randrange,
    ) -> None:
        self.name = name
        self.settings = settings
        self.pool: str | None = None if settings.sticky is None else name.lower()
        self._rules = rules
        self._clock = clock
        self._below = below
        self.whenRecovered: Callable[[Peer], object] = _ignored
        """Called with each peer whose failures a login has made forgotten."""
        self.whenMet: Callable[[Peer], object] = _ignored
        """Called with each peer that the DNS adds."""
        self.whenRested: Callable[[Peer], object] = _ignored
        """Called with each peer that begins to rest, or rests on after a failed attempt."""
        self._ofLine: dict[ServerLine, tuple[list[Peer], ...]] = {line: _peers(line) for line in settings.servers}
        self._arrange()

    @property
    def now(self) -> int:
        """The clock's time in whole seconds, as nginx counts."""
        return int(self._clock.seconds())

    @property
    def peers(self) -> list[Peer]:
        """All of them, those of backups last."""
        return [*self._sets[0], *self._sets[1]]

    def attempts(self, facts: Facts, key: bytes | None = None) -> Attempts:
        """
        The peers that the login with C{facts} may try, one after another.

        @param facts: the variables of C{hash}.
        @param key: the key for C{hash} in place of the directive's; L{None} for the directive's.
        """
        if self.pool is not None:
            return self.attemptsOf(mailboxOf(facts.user.encode("utf-8", "surrogateescape")), "")
        return Attempts(self, [partial(self._method, peers, ring, facts, key) for peers, ring in self._used])

    def attemptsOf(self, user: bytes, place: str) -> Attempts:
        """
        The peers that a login to a sticky group may try, one after another: first the user's place, and then those of
        the order that is the same at all gateways.

        @param user: the user, as L{mailboxOf} returns him.
        @param place: his place, an address and port; empty if it is not known.
        """
        methods: list[Callable[[], Method]] = [partial(_ranked, peers, user) for peers, _ in self._used]
        if place:
            methods.insert(0, partial(_ranked, self.peersAt(place), user))
        return Attempts(self, methods)

    def peersAt(self, place: str) -> list[Peer]:
        """
        Return those at a place: its very server, or without one all of its host.

        @param place: the address and port of a server, which another group may have.
        """
        found = [peer for peer in self.peers if agrees(str(peer.backend), place)]
        exact = [peer for peer in found if str(peer.backend) == place]
        return exact or found

    def proposal(self, user: bytes, facts: Facts) -> str:
        """
        Return the address and port of the server where a user without a place is to go; empty if none can be used. It
        counts no session.

        @param user: the user, as L{mailboxOf} returns him.
        @param facts: the variables of the login.
        """
        now, isLone, settings = self.now, self.isLone, self.settings
        for peers, ring in self._used:
            if settings.leastConnections or settings.random is not None:
                method = self._method(peers, ring, facts, None)
            else:
                method = _ranked(peers, user)
            peer = method.pick(now, lambda each: each.isEligible(now, isLone))
            if peer is not None:
                return str(peer.backend)
        return ""

    @property
    def backups(self) -> list[Peer]:
        """Those that are used only where no other can be chosen."""
        return list(self._sets[1])

    def foreseen(self, facts: Facts) -> Iterator[Peer]:
        """
        Yield the peers that a login with C{facts} would try if it came now and each of them failed. It changes nothing:
        it chooses among copies, so that no turn moves on and no session counts. With C{random} each login draws anew,
        and nothing can be said.

        @param facts: the variables of C{hash}.
        """
        if self.settings.random is not None and self.pool is None:
            return
        copies = {peer: copy(peer) for peer in self.peers}
        originals = {duplicate: peer for peer, duplicate in copies.items()}
        shadow = copy(self)
        primaries, backups = ([copies[peer] for peer in peers] for peers in self._sets)
        shadow._sets = (primaries, backups)
        shadow._used = [([copies[peer] for peer in peers], ring) for peers, ring in self._used]
        attempts = shadow.attempts(facts)
        chosen = attempts.next()
        while chosen is not None:
            yield originals[chosen]
            chosen = attempts.next()

    def replace(self, line: ServerLine, primaries: Sequence[Peer], backups: Sequence[Peer] = ()) -> bool:
        """
        C{line} stands for C{primaries}, and C{backups}, from now on. Peers of the same address and weight that it has
        already stay, with what is known of them; sessions at others go on.

        @return: whether that changes anything.
        """
        before = self._ofLine[line]
        known = {(peer.backend, peer.limits): peer for peers in before for peer in peers}
        now = tuple([known.get((peer.backend, peer.limits), peer) for peer in peers] for peers in (primaries, backups))
        if now == before:
            return False
        self._ofLine[line] = now
        self._arrange()
        for peer in (*now[0], *now[1]):
            if (peer.backend, peer.limits) not in known:
                self.whenMet(peer)
        return True

    def goOnFrom(self, before: Upstream) -> None:
        """Take over the peers of C{before}, the same group of an earlier configuration, whose lines are unchanged."""
        for line in self._ofLine:
            peers = before._ofLine.get(line)
            if peers is not None:
                self._ofLine[line] = peers
        self._arrange()

    def failed(self, peer: Peer, reason: str = "") -> bool:
        """
        C{peer} could not be used.

        @param reason: why, as for L{Peer.explain}.
        @return: whether it rests because of that, and the log is to say so.
        """
        if self.isLone:
            # It may have had others when this login began, all of which rested.
            peer.isProbed = False
            peer.explain(reason)
            return False
        wasResting, now = peer.hasFailed, self.now
        rests = peer.failed(now, reason)
        if rests:
            self.whenRested(peer)
        return rests and peer.announces(now, wasResting)

    def succeeded(self, peer: Peer) -> None:
        """C{peer} could be used."""
        fails = peer.fails
        peer.succeeded(self.now)
        if fails and not peer.fails:
            self.whenRecovered(peer)

    def undecided(self, peer: Peer) -> None:
        """A session at C{peer} ended before it was known whether C{peer} could be used."""
        peer.undecided(self.now)

    def _arrange(self) -> None:
        primaries, backups = ([peer for peers in self._ofLine.values() for peer in peers[place]] for place in range(2))
        self._sets = (primaries, backups)
        for peer in (*primaries, *backups):
            peer.spread = self.settings.maxDisconnectDelay
        self.isLone = len(primaries) + len(backups) == 1
        """Whether it has one peer only, whose failures are then not counted."""
        isRing = self.settings.hashKey is not None and self.settings.hashKey.consistent
        self._used = [(peers, Ring(peers) if isRing else None) for peers in self._sets if peers]

    def _method(self, peers: Sequence[Peer], ring: Ring | None, facts: Facts, key: bytes | None) -> Method:
        settings = self.settings
        if settings.leastConnections:
            return LeastConnections(peers)
        if settings.ipHash:
            return IPHash(peers, _packed(facts.remoteAddress))
        if settings.hashKey is not None:
            if key is None:
                key = self._rules.expand(settings.hashKey.key, facts).encode("utf-8", "surrogateescape")
            return Hash(peers, key) if ring is None else RingHash(peers, ring, key)
        if settings.random is not None:
            return Random(peers, self._below, settings.random != "on")
        return RoundRobin(peers)


def _peers(line: ServerLine) -> tuple[list[Peer], ...]:
    """The servers that C{line} stands for as it is written, and its backups."""
    if line.service:
        return [], []
    peer = Peer(Backend(line.host, line.port, name=line.name), (line.host, line.port), line.limits)
    return ([], [peer]) if line.backup else ([peer], [])


def _ranked(peers: Sequence[Peer], user: bytes) -> Method:
    return Ranked(ranked(peers, user))


def _packed(host: str) -> bytes:
    try:
        return ip_address(host.partition("%")[0]).packed
    except ValueError:
        # A unix socket's.
        return b""


class Attempts:
    """
    The peers that one login tries: each at most once, the backups when no other can be chosen.

    @param group: whose peers they are.
    @param methods: for each set of peers what makes its method.
    """

    def __init__(self, group: Upstream, methods: Sequence[Callable[[], Method]]) -> None:
        self._group = group
        self._methods = list(methods)
        self._method: Method | None = None
        self._tried: set[Peer] = set()
        self._hasTried = False

    def next(self) -> Peer | None:
        """
        The next peer, which counts one more connection until L{Peer.ended}; L{None} where no peer is left.
        """
        now, isLone, tried = self._group.now, self._group.isLone, self._tried

        def eligible(peer: Peer) -> bool:
            return peer not in tried and peer.isEligible(now, isLone)

        while self._method is not None or self._methods:
            if self._method is None:
                self._method = self._methods.pop(0)()
            peer = self._method.pick(now, eligible)
            if peer is not None:
                self._tried.add(peer)
                self._hasTried = True
                peer.chosen(now)
                return peer
            self._method = None
        return None if self._hasTried else self._probe(now)

    def _probe(self, now: int) -> Peer | None:
        """
        Where all peers rest, the one whose rest ends first: one login at a time finds out whether it works again. nginx
        refuses all logins until then.
        """
        self._hasTried = True
        peers = [peer for peer in self._group.peers if not (peer.limits.down or peer.order or peer.isFailing)]
        if not peers or not all(peer.isResting(now) and not peer.isProbed for peer in peers):
            return None
        peer = min(peers, key=lambda each: each.checked + each.limits.failTimeout)
        if not peer.isEligible(now, True):
            return None
        peer.isProbed = True
        peer.chosen(now)
        return peer
