# -*- test-case-name: mailgate.test.upstream.test_sticky -*-
"""
The directive C{sticky}: the sessions of a user stay at one backend, his place. And what chooses a backend for a user
without a place: rendezvous hashing, which needs no memory, so that all gateways choose the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2s
from operator import itemgetter
from typing import Any

from attrs import frozen

from mailgate.directives import longSeconds, nearest, text
from mailgate.limits.keys import canonical
from mailgate.upstream.peer import Peer

__all__ = ["Ranked", "Sticky", "agrees", "mailboxOf", "poolsOf", "ranked", "sticky"]

_SHORTEST = 60
"""Seconds that a place lasts at least. It is refreshed four times in that time."""

_LONGEST = 366 * 86_400

_BYTES = 8
_RANGE = 2.0 ** (8 * _BYTES)


@frozen
class Sticky:
    """
    C{sticky = user}.

    @ivar ttl: for how many seconds a place lasts without a login or a session.
    @ivar retain: for how many seconds it lasts after the last session has ended.
    """

    ttl: int = 86_400
    retain: int = 900


def _seconds(value: str) -> int:
    seconds = longSeconds(value, "")
    if not _SHORTEST <= seconds <= _LONGEST:
        raise ValueError(f"must be from {_SHORTEST}s to 366d")
    return seconds


def sticky(value: str, folder: str) -> Sticky | None:
    """
    Parse C{off}, or C{user} with C{ttl=TIME} and C{retain=TIME}.

    @param value: the text of the option.
    @param folder: not used.
    @return: L{None} for C{off}.
    @raise ValueError: C{value} is something else.
    """
    first, *parameters = text(value, folder).split()
    if first.lower() == "off" and not parameters:
        return None
    if first.lower() != "user":
        raise ValueError('must be "off", or "user" with ttl=24h and retain=15m')
    given: dict[str, int] = {}
    for each in parameters:
        name, assigned, written = each.partition("=")
        if name in given:
            raise ValueError(f'"{name}" is given twice')
        try:
            if not assigned or name not in ("ttl", "retain"):
                raise ValueError(f"is no known parameter{nearest(f'{name}{assigned}', ('ttl=', 'retain='))}")
            given[name] = _seconds(written)
        except ValueError as error:
            raise ValueError(f'"{each}": {error}') from None
    found = Sticky(**given)
    if found.retain > found.ttl:
        if "retain" in given:
            raise ValueError(f"retain={found.retain}s is longer than ttl={found.ttl}s")
        return Sticky(found.ttl, found.ttl)
    return found


def mailboxOf(user: bytes) -> bytes:
    """
    Return the name under which a user has a place: that of the limits, except that a master user who logs in as another
    one (C{joe*master}) goes to the mailbox of that one.

    @param user: the name that is logged in with at the backend.
    """
    return canonical(user.partition(b"*")[0].strip() or user)


def agrees(backend: str, place: str) -> bool:
    """
    Return whether a place is at the host of a backend: IMAP and POP3 have different ports there.

    @param backend: the address and port of the backend.
    @param place: those of the place.
    """
    return backend == place or _hostOf(place) == _hostOf(backend)


def _hostOf(address: str) -> str:
    return address if address.startswith("unix:") else address.rpartition(":")[0]


def _score(mac: Any, name: str, weight: int) -> float:
    mac = mac.copy()
    mac.update(name.encode("utf-8", "surrogateescape"))
    # Neither 0 nor 1.
    return -math.log((int.from_bytes(mac.digest(), "big") + 0.5) / _RANGE) / weight


def ranked(peers: Iterable[Peer], user: bytes) -> list[Peer]:
    """
    Return peers in the order in which a user is to try them: weighted rendezvous hashing. If one is removed, the users
    of the others stay. The host decides, and the port among the servers of one host, so that the groups of IMAP and of
    POP3 have the same order.

    @param peers: a set of peers of a group.
    @param user: the user, as L{mailboxOf} returns it.
    """
    key = blake2s(user, person=b"sticky").digest()
    # Copying it takes a part of the time of making one.
    mac = blake2s(key=key, digest_size=_BYTES)
    named = [(str(peer.backend), peer) for peer in peers]
    hosts = [_hostOf(name) for name, _ in named]
    areAlone = len(set(hosts)) == len(hosts)
    scores = [
        (_score(mac, host, peer.limits.weight), 0.0 if areAlone else _score(mac, name, peer.limits.weight), name, peer)
        for host, (name, peer) in zip(hosts, named, strict=True)
    ]
    return [peer for _, _, _, peer in sorted(scores, key=itemgetter(0, 1, 2))]


class Ranked:
    """A L{Method<mailgate.upstream.methods.Method>}: the first of an order that can be used."""

    def __init__(self, peers: Sequence[Peer]) -> None:
        """@param peers: one set of a group, in the order in which they are tried."""
        self._peers = peers

    def pick(self, now: int, eligible: Callable[[Peer], bool]) -> Peer | None:
        return next(filter(eligible, self._peers), None)


def poolsOf(groups: Sequence[Any]) -> dict[str, str]:
    """
    Return the pool of each sticky group: groups that have hosts in common are of one, in which a user has one place.
    A pool has the name of its first group.

    @param groups: the groups (L{mailgate.upstream.group.Upstream}), in the order of the configuration.
    @return: the names of pools by the names of groups, both in lower case.
    """
    pools: list[tuple[list[str], set[str]]] = []
    for group in groups:
        if group.settings.sticky is None:
            continue
        names, hosts = [group.name.lower()], {line.host.lower() for line in group.settings.servers}
        apart = []
        for pool in pools:
            if hosts.isdisjoint(pool[1]):
                apart.append(pool)
            else:
                # The earlier ones come first.
                names, hosts = [*pool[0], *names], hosts | pool[1]
        pools = [*apart, (names, hosts)]
    order = [group.name.lower() for group in groups]
    return {name: min(names, key=order.index) for names, _ in pools for name in names}
