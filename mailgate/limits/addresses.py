# -*- test-case-name: mailgate.test.limits.test_failures -*-
"""
Rules R3, R4 and R5: the failed logins of an address and of a network, over all users.
"""

from __future__ import annotations

from struct import Struct

from mailgate.limits.keys import Place
from mailgate.limits.policy import LoginPolicy
from mailgate.limits.table import Table
from mailgate.limits.windows import Window

__all__ = ["Addresses"]

_NETWORK = Struct("<I")
_USER = Struct("<II")
"""The low half of the key of a user who failed, and when."""

_NAMELESS = 1 << 16
"""Up to this number stand users in a row who are known to other gateways alone."""

_LOW = 0xFFFFFFFF
_COUNTS = _NETWORK.size
_USERS = _COUNTS + Window.size


class Addresses:
    """
    The failures of addresses and networks. The row of an address begins with the low half of the key of its network,
    so that the addresses of a network can be found, and ends with the users who failed last.

    @param addressMemory: bytes for all rows of addresses.
    @param networkMemory: bytes for all rows of networks.
    @param policy: the numbers.
    """

    def __init__(self, addressMemory: int, networkMemory: int, policy: LoginPolicy) -> None:
        self.addresses = Table(addressMemory)
        self.networks = Table(networkMemory)
        self.configure(policy)

    def configure(self, policy: LoginPolicy) -> None:
        """The numbers have changed to those of C{policy}."""
        self.policy = policy
        self._window = Window(policy.pairWindow)

    def add(self, place: Place, user: int, weight: int, now: float) -> None:
        """
        Count a failure.

        @param place: where.
        @param user: the key of the user.
        @param weight: what it weighs.
        @param now: the time in seconds.
        """
        rows = self.networks
        rows.put(place.network, self._window.add(rows.rows.get(place.network), weight, now))
        row = self.addresses.rows.get(place.address)
        counts = self._window.add(None if row is None else row[_COUNTS:_USERS], weight, now)
        low = user & _LOW
        users = [] if row is None else [each for each in self._usersOf(row, now) if each[0] != low]
        most = self._mostUsers
        text = b"".join([_USER.pack(*each) for each in [*users, (low, int(now))][-most:]])
        self.addresses.put(place.address, _NETWORK.pack(place.network & _LOW) + counts + text)

    def raiseTo(self, place: Place, weights: tuple[int, int], users: int, now: float) -> None:
        """
        Other gateways know of failures. Users who have failed there and are not known here are counted without a name
        until the next call.

        @param place: where.
        @param weights: what the failures of the address weigh, and those of the network.
        @param users: how many users have failed at the address.
        @param now: the time in seconds.
        """
        ofAddress, ofNetwork = weights
        counts = self._window.atLeast(self.networks.rows.get(place.network), ofNetwork, now)
        if counts is not None:
            self.networks.put(place.network, counts)
        row = self.addresses.rows.get(place.address)
        known = [] if row is None else self._usersOf(row, now)
        named = [each for each in known if each[0] > _NAMELESS]
        missing = min(_NAMELESS, users, self._mostUsers) - len(named)
        counts = self._window.atLeast(None if row is None else row[_COUNTS:_USERS], ofAddress, now)
        if counts is None and max(0, missing) == len(known) - len(named):
            return
        if counts is None:
            counts = self._window.add(None, 0, now) if row is None else row[_COUNTS:_USERS]
        nameless = [(number, int(now)) for number in range(1, missing + 1)]
        text = b"".join([_USER.pack(*each) for each in [*nameless, *named]])
        self.addresses.put(place.address, _NETWORK.pack(place.network & _LOW) + counts + text)

    @property
    def _mostUsers(self) -> int:
        return max(1, self.policy.addressUsers + 1)

    def _usersOf(self, row: bytes, now: float) -> list[tuple[int, int]]:
        window = self.policy.pairWindow
        return [(user, moment) for user, moment in _USER.iter_unpack(row[_USERS:]) if now - moment < window]

    def ofAddress(self, address: int, now: float) -> int:
        """
        Return how much the failures of an address weigh.

        @param address: its key.
        @param now: the time in seconds.
        """
        row = self.addresses.rows.get(address)
        return 0 if row is None else self._window.count(row[_COUNTS:_USERS], now)

    def usersOf(self, address: int, now: float) -> int:
        """Return how many distinct users have failed at an address. C{address} and C{now} as for
        L{ofAddress}."""
        row = self.addresses.rows.get(address)
        return 0 if row is None else len(self._usersOf(row, now))

    def ofNetwork(self, network: int, now: float) -> int:
        """
        Return how much the failures of a network weigh.

        @param network: its key.
        @param now: the time in seconds.
        """
        row = self.networks.rows.get(network)
        return 0 if row is None else self._window.count(row, now)

    def since(self, key: int, now: float) -> int | None:
        """
        Return since when failures count; L{None} without.

        @param key: that of an address or a network.
        @param now: the time in seconds.
        """
        row = self.addresses.rows.get(key)
        row = self.networks.rows.get(key) if row is None else row[_COUNTS:_USERS]
        return None if row is None or not self._window.count(row, now) else self._window.since(row, now)

    def within(self, network: int) -> frozenset[int]:
        """Return the low halves of the keys of the addresses in a network that have failed. C{network} is its key."""
        low = _NETWORK.pack(network & _LOW)
        return frozenset(key & _LOW for key, row in self.addresses.rows.items() if row.startswith(low))

    def forgetAddresses(self, addresses: frozenset[int]) -> None:
        """Forget the failures of C{addresses}: the low halves of their keys."""
        for key in [key for key in self.addresses.rows if key & _LOW in addresses]:
            self.addresses.drop(key)
