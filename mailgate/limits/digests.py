# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
The digests under which a store knows users, addresses and networks, remembered: each login needs them.
"""

from __future__ import annotations

from typing import NamedTuple

from mailgate.limits.attempt import Rule
from mailgate.limits.keys import partsOf
from mailgate.limits.operators import Thing
from mailgate.limits.policy import Prefixes
from mailgate.store.keys import StoreKeys

__all__ = ["Digests", "Spot"]

_MOST = 16384
"""How many users, and how many addresses, are remembered: some 300 bytes each."""

_LONGEST = 64
"""Bytes of the longest name that is remembered."""


class Spot(NamedTuple):
    """
    Where a client is.

    @ivar address: the digest of its address (C{limit_prefix}).
    @ivar number: the same as a number.
    @ivar network: the digest of its network.
    @ivar hasAddress: whether it has an address: not at unix sockets.
    """

    address: bytes
    number: int
    network: bytes
    hasAddress: bool


class Digests:
    """
    Makes digests.

    @param keys: the keys of the store.
    @param prefixes: C{limit_prefix}.
    """

    def __init__(self, keys: StoreKeys, prefixes: Prefixes) -> None:
        self._keys = keys
        self._prefixes = prefixes
        self._users: dict[bytes, bytes] = {}
        self._spots: dict[str, Spot] = {}
        self._protocols: dict[str, bytes] = {}

    def user(self, user: bytes) -> bytes:
        """Return the digest of a user. C{user} is the result of L{mailgate.limits.keys.canonical}."""
        known = self._users.get(user)
        if known is None:
            known = self._keys.digest(b"user", user)
            # Names are long at a stranger's will.
            if len(user) <= _LONGEST:
                if len(self._users) >= _MOST:
                    self._users.clear()
                self._users[user] = known
        return known

    def spot(self, host: str) -> Spot:
        """Return the digests of a client's address and network. C{host} is the address, in any form."""
        known = self._spots.get(host)
        if known is None:
            address, network = partsOf(host, self._prefixes)
            digest = self._keys.digest(b"address", address)
            number = int.from_bytes(digest, "big")
            known = Spot(digest, number, self._keys.digest(b"network", network), bool(address))
            if len(self._spots) >= _MOST:
                self._spots.clear()
            self._spots[host] = known
        return known

    def protocol(self, protocol: str) -> bytes:
        """
        Return the two bytes of a protocol with which sessions are counted (L{mailgate.store.interfaces.Beat}).

        @param protocol: its name.
        """
        known = self._protocols.get(protocol)
        if known is None:
            known = self._keys.digest(b"protocol", protocol.encode())[:2]
            if len(self._protocols) < _LONGEST:
                self._protocols[protocol] = known
        return known

    def pair(self, user: bytes, spot: Spot) -> bytes:
        """
        Return the digest of a user at an address.

        @param user: the digest of the user.
        @param spot: where.
        """
        return (int.from_bytes(user, "big") ^ spot.number).to_bytes(len(user), "big")

    def thing(self, thing: Thing) -> list[bytes]:
        """
        Return the digests of what an operator names.

        @param thing: the result of L{mailgate.limits.operators.parsed}.
        """
        name, network = thing
        user = self.user(name) if name else b""
        if network is None:
            return [user]
        prefixes = self._prefixes
        isFour = network.version == 4
        spot = self.spot(str(network.network_address))
        isNarrow = network.prefixlen >= (prefixes.address4 if isFour else prefixes.address6)
        if user:
            return [self.pair(user, spot)] if isNarrow else []
        isWide = network.prefixlen == (prefixes.network4 if isFour else prefixes.network6)
        return [spot.address] * isNarrow + [spot.network] * isWide

    def blocked(self, rule: Rule, user: bytes, host: str) -> tuple[bytes, tuple[bytes, ...]]:
        """
        Return the digest of what a rule blocks, and those of what it belongs to.

        @param rule: R2, R4 or R7.
        @param user: the name of the user, canonical.
        @param host: the address of the client.
        """
        spot, digest = self.spot(host), self.user(user)
        if rule is Rule.PAIR_BLOCK:
            return self.pair(digest, spot), (digest, spot.address, spot.network)
        return (spot.address, (spot.network,)) if rule is Rule.ADDRESS_BLOCK else (digest, ())
