# -*- test-case-name: mailgate.test.upstream.test_methods -*-
"""
nginx's ways to choose a backend of a group, to the pick: smooth weighted round robin, C{least_conn}, C{ip_hash},
C{hash}, C{hash … consistent}, C{random} and C{random two}.

A method is made for each session and each set of peers (the group's own, then its backups), and is asked again after
each failure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Protocol
from zlib import crc32

from mailgate.upstream.peer import Peer

__all__ = ["Hash", "IPHash", "LeastConnections", "Method", "Random", "Ring", "RingHash", "RoundRobin"]

_MOST_MISSES = 20
"""After so many peers that cannot be used, the methods with a key or chance fall back to round robin."""

_POINTS = 160
"""Points of the ring for each unit of weight."""

_MOST_POINTS = 1 << 18
"""Points of a ring. Weights may come from the DNS; so many points take some tenths of a second."""


class Method(Protocol):
    """The choice of one session among one set of peers."""

    def pick(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        """
        The next peer to try.

        @param now: the time in whole seconds.
        @param eligible: whether a peer can be chosen: it has not been tried by this session, and is not resting.
        @return: L{None} where no peer can be chosen.
        """


def heaviest(peers: Iterable[Peer], now: int) -> Peer | None:
    """One round of smooth weighted round robin among C{peers} at the time C{now}: of equal ones the first."""
    total: float = 0
    best: Peer | None = None
    for peer in peers:
        total += peer.accumulate(now)
        if best is None or peer.current > best.current:
            best = peer
    if best is not None:
        best.current -= total
    return best


class RoundRobin:
    """nginx's default: by turns, in the proportion of the weights."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        """@param peers: one set of a group."""
        self._peers = peers

    def pick(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        return heaviest(filter(eligible, self._peers), now)


class LeastConnections:
    """C{least_conn}: the fewest sessions for its weight; of several such peers by turns."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        """@param peers: one set of a group."""
        self._peers = peers

    def pick(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        best: list[Peer] = []
        for peer in filter(eligible, self._peers):
            difference = _load(peer, best[0], now) if best else -1
            if difference < 0:
                best = [peer]
            elif difference == 0:
                best.append(peer)
        return heaviest(best, now) if len(best) > 1 else best[0] if best else None


def _load(peer: Peer, other: Peer, now: int) -> float:
    """Less than 0 where C{peer} has fewer sessions for its weight than the C{other}, 0 where as many."""
    mine, others = (each.limits.weight * each.share(now) for each in (peer, other))
    return peer.connections * others - other.connections * mine


def _at(peers: Sequence[Peer], position: int) -> Peer:
    """The peer at C{position} where each takes as much room as its weight, the whole repeating."""
    ends = list(accumulate(peer.limits.weight for peer in peers))
    # A weight of 2 has the positions 0 and 1, and ends at 2.
    return peers[bisect_left(ends, position % ends[-1] + 1)]


class _Missing:
    """What the methods with a key or chance share: they give up after some misses, and go on by turns."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        self._peers = peers
        self._misses = 0
        self._turns = RoundRobin(peers)

    def pick(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        while self._misses <= _MOST_MISSES:
            peer = self._draw(now, eligible)
            if peer is not None:
                return peer
            self._misses += 1
        return self._turns.pick(now, eligible)

    def _draw(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        raise NotImplementedError


class IPHash(_Missing):
    """C{ip_hash} of nginx's http module: clients of one IPv4 network of 24 bits, or one IPv6 address, stay together."""

    def __init__(self, peers: Sequence[Peer], address: bytes) -> None:
        """
        @param peers: one set of a group.
        @param address: the client's address, packed: 4 or 16 bytes; or empty, for one without an address.
        """
        super().__init__(peers)
        self._bytes = address[:3] if len(address) == 4 else address or bytes(3)
        self._hash = 89

    def _draw(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        for byte in self._bytes:
            self._hash = (self._hash * 113 + byte) % 6271
        peer = _at(self._peers, self._hash)
        return peer if eligible(peer) else None


class Hash(_Missing):
    """C{hash KEY}: the arithmetic of Cache::Memcached, as nginx has it."""

    def __init__(self, peers: Sequence[Peer], key: bytes) -> None:
        """
        @param peers: one set of a group.
        @param key: what the directive's variables stand for in this session.
        """
        super().__init__(peers)
        self._key = key
        self._sum = 0
        self._attempt = 0
        if len(peers) < 2 or not key:
            self._misses = _MOST_MISSES + 1

    def _draw(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        again = b"%d" % self._attempt if self._attempt else b""
        self._sum += crc32(again + self._key) >> 16 & 0x7FFF
        self._attempt += 1
        peer = _at(self._peers, self._sum)
        return peer if eligible(peer) else None


class Ring:
    """
    The points of C{hash KEY consistent} (ketama): when a server is added or removed, few keys move. It is made once
    for a set of peers. Beyond L{_MOST_POINTS} weights count by their proportion alone, and not as in nginx.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        """@param peers: one set of a group."""
        points: dict[int, tuple[str, int]] = {}
        total = sum(peer.limits.weight for peer in peers) * _POINTS
        for peer in peers:
            count = peer.limits.weight * _POINTS
            if total > _MOST_POINTS:
                count = max(1, count * _MOST_POINTS // total)
            for point in _points(peer.server, count):
                points.setdefault(point, peer.server)
        self.points = sorted(points)
        self._servers = [points[point] for point in self.points]

    def find(self, key: bytes) -> int:
        """The index of the point where C{key} belongs; as many as there are points stands for the first."""
        return bisect_left(self.points, crc32(key))

    def server(self, index: int) -> tuple[str, int]:
        """The server of the point C{index}, which may go on counting behind the last one."""
        return self._servers[index % len(self._servers)]


def _points(server: tuple[str, int], count: int) -> Iterable[int]:
    host, port = server
    if host.startswith("unix:"):
        begun = crc32(b"\0", crc32(host.removeprefix("unix:").encode()))
    else:
        begun = crc32(b"\0%d" % port, crc32(host.encode()))
    point = 0
    for _ in range(count):
        point = crc32(point.to_bytes(4, "little"), begun)
        yield point


class RingHash(_Missing):
    """C{hash KEY consistent}: the addresses of the server at the key's point by turns, else those of the next point."""

    def __init__(self, peers: Sequence[Peer], ring: Ring, key: bytes) -> None:
        """
        @param peers: one set of a group.
        @param ring: the points of that set.
        @param key: what the directive's variables stand for in this session.
        """
        super().__init__(peers)
        self._ring = ring
        self._index = ring.find(key)
        if len(peers) < 2 or not key:
            self._misses = _MOST_MISSES + 1

    def _draw(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        server = self._ring.server(self._index)
        peer = heaviest((peer for peer in self._peers if peer.server == server and eligible(peer)), now)
        if peer is None:
            self._index += 1
        return peer


class Random(_Missing):
    """C{random}, and C{random two}: of two peers drawn the one with fewer sessions for its weight."""

    def __init__(self, peers: Sequence[Peer], below: Callable[[int], int], two: bool = False) -> None:
        """
        @param peers: one set of a group.
        @param below: returns a random number from 0 to one less than its argument.
        @param two: whether two peers are drawn.
        """
        super().__init__(peers)
        self._below = below
        self._two = two
        self._total = sum(peer.limits.weight for peer in peers)
        self._first: Peer | None = None

    def pick(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        self._first = None
        return super().pick(now, eligible)

    def _draw(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        peer = _at(self._peers, self._below(self._total))
        if peer is self._first or not eligible(peer):
            return None
        if not self._two:
            return peer
        if self._first is None:
            self._first = peer
            return self._draw(now, eligible)
        return self._first if _load(peer, self._first, now) > 0 else peer
