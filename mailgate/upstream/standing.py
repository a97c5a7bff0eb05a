# -*- test-case-name: mailgate.test.upstream.test_standing -*-
"""
The standing of backends beyond what logins find out: orders of operators and results of health checks. They hold in all
processes of a gateway, and for all generations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mailgate.log.journal import Journal
from mailgate.upstream.notices import Notices
from mailgate.upstream.peer import Peer, PeerState
from mailgate.upstream.upstreams import Upstreams

__all__ = ["ORDERS", "Row", "Standing"]

ORDERS = ("drain", "down", "resume", "up")
"""
What an operator can order for a server. C{drain}: new sessions go elsewhere, sessions there stay. C{down}: as if it had
failed. C{resume} ends both. C{up} ends both, and forgets its failures and what a health check has found.
"""


@frozen
class Row:
    """
    One server, as operators see it.

    @ivar group: the name of its group; C{-} outside of groups.
    @ivar address: its address: C{host:port} or C{unix:/path}.
    @ivar server: its host and port as the configuration has them, if that is another text.
    @ivar state: a value of L{PeerState}.
    @ivar reason: why it is in that state; may be empty.
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
    Applies orders and verdicts to the peers of one generation, and lists them.

    @param upstreams: the groups.
    @param notices: what the processes of the gateway tell each other.
    @param clock: the clock of the peers.
    @param journal: where the process that is first logs what changes.
    @ivar whenDown: called with each peer that an operator or a health check takes down.
    """

    def __init__(self, upstreams: Upstreams, notices: Notices, clock: IReactorTime, journal: Journal) -> None:
        self._upstreams = upstreams
        self._notices = notices
        self._clock = clock
        self._journal = journal
        self.whenDown: list[Callable[[Peer], object]] = []
        upstreams.whenMet = self._meet
        notices.subscribe("order", self._ordered)

    def close(self) -> None:
        """The gateway has no sessions left: follow no more notices."""
        self._notices.unsubscribe(self._ordered)

    @property
    def _now(self) -> int:
        return int(self._clock.seconds())

    def rows(self) -> Iterator[Row]:
        """Yield all servers that are known, in the order of the configuration."""
        now = self._now
        for group, peer in self._upstreams.everyPeer():
            state = peer.state(now)
            address, server = str(peer.backend), _written(peer)
            yield Row(
                group or "-",
                address,
                "" if server == address else server,
                state.value,
                "" if state is PeerState.UP else peer.reason,
                now - peer.since if peer.since else None,
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

    def _meet(self, group: str, peer: Peer) -> None:
        """Apply what holds for a C{peer} that was not known before."""
        for notice in self._notices.held("order"):
            if _isAt(peer, notice.key):
                self._obey(peer, notice.body["word"], self._notices.age(notice))

    def _ordered(self, address: str, body: Any, age: float) -> None:
        word = body["word"]
        for _, peer in self._upstreams.everyPeer():
            if _isAt(peer, address):
                self._obey(peer, word, age)

    def _obey(self, peer: Peer, word: str, age: float) -> None:
        wasDown = peer.order == "down"
        peer.order = word if word in ("drain", "down") else ""
        peer.reason = f"mailgate backend {word}" if peer.order else ""
        peer.since = int(self._clock.seconds() - age)
        if word == "up":
            peer.fails, peer.isFailing = 0, False
        if peer.order == "down" and not wasDown:
            for react in self.whenDown:
                react(peer)


def _written(peer: Peer) -> str:
    host, port = peer.server
    if not port:
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _isAt(peer: Peer, address: str) -> bool:
    return address in (str(peer.backend), _written(peer))
