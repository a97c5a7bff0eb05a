# -*- test-case-name: mailgate.test.upstream.test_standing -*-
"""
The standing of backends beyond what the logins of one process find out: orders of operators, verdicts of health checks,
and rests after failures. They hold in all processes of a gateway, and for all generations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mailgate.log.journal import Journal
from mailgate.upstream.healthcheck import HealthCheck
from mailgate.upstream.notices import Notice, Notices, Subscriber
from mailgate.upstream.peer import Peer, PeerState
from mailgate.upstream.upstreams import Upstreams
from mailgate.upstream.verdicts import Rest, Verdict, keyOf, partsOf

__all__ = ["ORDERS", "Row", "Standing"]

ORDERS = ("drain", "down", "resume", "up")
"""
What an operator can order for a server. C{drain}: new sessions go elsewhere, sessions there stay. C{down}: as if it had
failed. C{resume} ends both. C{up} ends both, and forgets its failures and what a health check has found.
"""

_UNCHECKED = "has not passed a health check yet"


@frozen
class Row:
    """
    One server, as operators see it.

    @ivar group: the name of its group; C{-} outside of groups.
    @ivar address: its address: C{host:port} or C{unix:/path}.
    @ivar server: its host and port as the configuration has them, if that is another text.
    @ivar state: a value of L{PeerState}.
    @ivar reason: why it is in that state, or why logins have failed there since the last success; may be empty.
    @ivar seconds: how long it has been in that state; L{None} if that never changed.
    @ivar sessions: the sessions at it.
    @ivar weight: its share of sessions.
    """

    group: str
    address: str
    server: str
    state: str
    reason: str
    seconds: int | None
    sessions: int
    weight: int


class Standing:
    """
    Applies orders, verdicts and rests to the peers of one generation, and lists them.

    An operator's C{drain} and C{down} go before a verdict. C{up} makes all processes forget verdict and failures.

    @param upstreams: the groups.
    @param notices: what the processes of the gateway tell each other.
    @param clock: the clock of the peers.
    @param journal: where the process that is first logs what changes.
    @ivar whenDown: called with each peer that an operator or a health check takes down.
    @ivar whenMet: called with the name of the group and each peer that is added after the start.
    """

    def __init__(self, upstreams: Upstreams, notices: Notices, clock: IReactorTime, journal: Journal) -> None:
        self._upstreams = upstreams
        self._notices = notices
        self._clock = clock
        self._journal = journal
        self.whenDown: list[Callable[[Peer], object]] = []
        self.whenMet: list[Callable[[str, Peer], object]] = []
        self._groups = {group.name: group for group in upstreams.groups}
        self._down: WeakSet[Peer] = WeakSet()
        upstreams.whenMet = self._meet
        upstreams.whenRested = self._rested
        upstreams.whenRecovered = self._recovered
        for group, peer in upstreams.everyPeer():
            self._begin(group, peer)
        self.open()

    @property
    def _subscribers(self) -> Iterator[tuple[str, Subscriber]]:
        yield from (("order", self._ordered), ("verdict", self._judged), ("rest", self._restsToo))

    def open(self) -> None:
        """Follow notices, from the beginning or again after L{close}."""
        # What holds already has been applied.
        self._isBeginning = True
        for topic, subscriber in self._subscribers:
            self._notices.subscribe(topic, subscriber)
        self._isBeginning = False

    def close(self) -> None:
        """The gateway has no sessions left: follow no more notices."""
        for _, subscriber in self._subscribers:
            self._notices.unsubscribe(subscriber)

    def review(self) -> None:
        """
        The groups have taken over peers of an earlier configuration. Apply what holds, as far as this configuration has
        a use for it: a verdict has none without C{health_check}.
        """
        for group, peer in self._upstreams.everyPeer():
            self._settle(group, peer, isQuiet=True)

    @property
    def _now(self) -> int:
        return int(self._clock.seconds())

    def rows(self) -> Iterator[Row]:
        """Yield all servers that are known, in the order of the configuration."""
        now = self._now
        for group, peer in self._upstreams.everyPeer():
            state = peer.state(now)
            address, server = str(peer.backend), peer.written
            yield Row(
                group or "-",
                address,
                "" if server == address else server,
                state.value,
                peer.reason if state is not PeerState.UP or peer.fails or peer.failingSince else "",
                now - since if (since := _sinceOf(peer, state)) else None,
                peer.connections,
                peer.limits.weight,
            )

    def order(self, address: str, word: str) -> int:
        """
        Carry out an operator's order, in all processes.

        @param address: the address of a server as L{Row} has it, or its host and port as the configuration has them.
        @param word: one of L{ORDERS}.
        @return: the number of servers with this address in this process; 0 if it is unknown, and then nothing is done.
        """
        found = sum(_isAt(peer, address) for _, peer in self._upstreams.everyPeer())
        if found:
            self._notices.publish("order", address, {"word": word})
        return found

    def verdictOf(self, group: str, peer: Peer) -> Verdict | None:
        """
        Return what health checks have found, if anything.

        @param group: the name of the peer's group.
        @param peer: the server.
        """
        notice = self._notices.find("verdict", keyOf(group, peer.backend))
        return None if notice is None else Verdict.of(notice.body)

    # A peer.

    def _meet(self, group: str, peer: Peer) -> None:
        """Apply what holds for a C{peer} that was not known before."""
        self._begin(group, peer)
        for react in self.whenMet:
            react(group, peer)

    def _begin(self, group: str, peer: Peer) -> None:
        """This process knows nothing of C{peer} yet, except for notices."""
        check = self._checkOf(group)
        # With mandatory, until the first successful check.
        peer.isFailing = check is not None and check.mandatory
        self._settle(group, peer, isQuiet=True)
        held = self._notices.find("rest", keyOf(group, peer.backend))
        rest = None if held is None else Rest.of(held.body)
        if held is not None and rest is not None:
            self._rest(group, peer, rest, self._notices.age(held))

    def _settle(self, group: str, peer: Peer, isQuiet: bool = False) -> None:
        """
        Make C{peer} what the orders and the verdict that hold want it to be. The order goes before the verdict.

        @param isQuiet: whether nothing has changed, and only this generation learns of it.
        """
        wasOut = bool(peer.order or peer.isFailing)
        order, verdict = self._orderOf(peer), self._notices.find("verdict", keyOf(group, peer.backend))
        found = None if verdict is None else Verdict.of(verdict.body)
        peer.order = _wordOf(order) if _wordOf(order) in ("drain", "down") else ""
        check = self._checkOf(group)
        if check is None:
            peer.isFailing = False
        elif found is not None:
            peer.isFailing = found.failing
        elif not check.mandatory:
            peer.isFailing = False
        now = self._now
        if peer.order and order is not None:
            peer.reason, peer.since = f"mailgate backend {peer.order}", int(now - self._notices.age(order))
        elif peer.isFailing and verdict is not None and found is not None:
            peer.reason, peer.since = found.reason, int(now - self._notices.age(verdict))
        elif peer.isFailing:
            if peer.reason != _UNCHECKED:
                peer.reason, peer.since = _UNCHECKED, now
        elif wasOut:
            peer.reason, peer.since = "", now
        isDown = peer.order == "down" or (peer.isFailing and found is not None)
        if isDown and peer not in self._down:
            self._down.add(peer)
            if not isQuiet:
                for react in self.whenDown:
                    react(peer)
        elif not isDown and peer in self._down:
            self._down.discard(peer)
            # slow_start begins.
            peer.recovered = now

    def _checkOf(self, group: str) -> HealthCheck | None:
        found = self._groups.get(group)
        return None if found is None else found.settings.healthCheck

    def _orderOf(self, peer: Peer) -> Notice | None:
        """The latest order for C{peer}, by one of the two forms of its address."""
        orders = [self._notices.find("order", address) for address in {str(peer.backend), peer.written}]
        return max((order for order in orders if order is not None), key=lambda each: each.since, default=None)

    def _at(self, key: str) -> Iterator[tuple[str, Peer]]:
        """The peers that the key of a verdict or of a rest means, with the name of their group."""
        group, address = partsOf(key)
        for name, peer in list(self._upstreams.everyPeer()):
            if name == group and str(peer.backend) == address:
                yield name, peer

    # Notices.

    def _ordered(self, address: str, body: Any, age: float) -> None:
        if self._isBeginning:
            return
        word = body.get("word") if isinstance(body, dict) else ""
        for group, peer in list(self._upstreams.everyPeer()):
            if _isAt(peer, address):
                if word == "up":
                    self._forget(group, peer)
                self._settle(group, peer)
                if not peer.order and not peer.isFailing:
                    peer.since = int(self._now - age)

    def _forget(self, group: str, peer: Peer) -> None:
        """Forget failures and the verdict. All processes do that; what the first one says of it comes last."""
        peer.fails = 0
        key = keyOf(group, peer.backend)
        tell = self._notices.publish if self._notices.isFirst else self._notices.receive
        verdict = self.verdictOf(group, peer)
        # A later generation without health_check may share the peer, which does not fail then.
        if peer.isFailing or (verdict is not None and verdict.failing):
            tell("verdict", key, Verdict(False, check="" if verdict is None else verdict.check).body)
        if self._notices.find("rest", key) is not None:
            tell("rest", key, None)

    def _judged(self, key: str, body: Any, age: float) -> None:
        if not self._isBeginning:
            for group, peer in self._at(key):
                self._settle(group, peer)

    # Rests after failures.

    def _rested(self, group: str, peer: Peer) -> None:
        """A login of this process has found that C{peer} is to rest: the others need not find that out."""
        left = peer.limits.failTimeout - (self._now - peer.checked)
        key = keyOf(group, peer.backend)
        held = self._notices.find("rest", key)
        known = None if held is None else Rest.of(held.body)
        if left < 0 or (held is not None and known is not None and known.seconds - self._notices.age(held) > left - 1):
            # Many logins may fail at the same time.
            return
        self._notices.publish("rest", key, Rest(max(1, peer.fails), left, peer.reason).body)

    def _recovered(self, group: str, peer: Peer) -> None:
        key = keyOf(group, peer.backend)
        if self._notices.find("rest", key) is not None:
            self._notices.publish("rest", key, None)

    def _restsToo(self, key: str, body: Any, age: float) -> None:
        if self._isBeginning:
            return
        rest = Rest.of(body)
        for group, peer in self._at(key):
            if rest is not None:
                self._rest(group, peer, rest, age)
            elif 0 < peer.limits.maxFails <= peer.fails:
                peer.fails, peer.recovered = 0, self._now
                if not peer.order and not peer.isFailing:
                    peer.reason, peer.since = "", self._now

    def _rest(self, group: str, peer: Peer, rest: Rest, age: float) -> None:
        """Let C{peer} rest for what is left of a rest that began C{age} seconds ago."""
        limits, now = peer.limits, self._now
        left = min(rest.seconds, limits.failTimeout) - age
        found = self._groups.get(group)
        if left <= 0 or not limits.maxFails or (found is not None and found.isLone):
            return
        checked = int(now + left - limits.failTimeout)
        if peer.isResting(now) and peer.checked >= checked:
            return
        peer.fails = max(peer.fails, limits.maxFails, rest.fails)
        peer.accessed = peer.checked = checked
        # The process that has found it out has logged it.
        peer.announced = now
        if not peer.order and not peer.isFailing:
            peer.reason, peer.since = rest.reason, int(now - age)


def _sinceOf(peer: Peer, state: PeerState) -> int:
    """Since when C{peer} is in C{state}: nothing happens when a rest is over."""
    return peer.checked + peer.limits.failTimeout if state is PeerState.UP and peer.hasFailed else peer.since


def _wordOf(order: Notice | None) -> str:
    """The word of an order; empty if there is none, or if it is not known."""
    word = order.body.get("word") if order is not None and isinstance(order.body, dict) else ""
    return word if word in ORDERS else ""


def _isAt(peer: Peer, address: str) -> bool:
    return address in (str(peer.backend), peer.written)
