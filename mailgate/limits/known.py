# -*- test-case-name: mailgate.test.limits.test_defence -*-
"""
Where users have succeeded: the networks that are known to each user, and how many users there are at an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct

from mailgate.limits.policy import LoginPolicy
from mailgate.limits.table import Shelf

__all__ = ["Goods", "Known"]

_USER = Struct("<HH")
"""Two bytes of the key of a user, and the hour of the last success, modulo 65,536."""

_LOW = 0xFFFF
_HOUR = 3600
_SLOTS = 9


class Known:
    """
    The networks where users have succeeded. A network is known to one user.

    @param memory: bytes for all rows.
    @param policy: the numbers.
    """

    def __init__(self, memory: int, policy: LoginPolicy) -> None:
        self.shelf = Shelf(memory)
        self.configure(policy)

    def configure(self, policy: LoginPolicy) -> None:
        """The numbers have changed to those of C{policy}."""
        self._seconds = policy.knownFor

    def has(self, key: int, now: float) -> bool:
        """
        Return whether a network is known to a user.

        @param key: the keys of the user and of the network, combined by exclusive or.
        @param now: the time in seconds.
        """
        shelf = self.shelf
        place = shelf.find(key)
        return place >= 0 and now - shelf.moment(place) < self._seconds

    def last(self, key: int) -> int | None:
        """Return when the user last succeeded there; L{None} for never. C{key} is that of L{has}."""
        place = self.shelf.find(key)
        return None if place < 0 else self.shelf.moment(place)

    def add(self, key: int, now: float) -> None:
        """The user has succeeded there. C{key} and C{now} as for L{has}."""
        self.shelf.put(key, int(now))


class Goods:
    """
    The users who have succeeded at an address, at most nine: they make its allowance.

    @param memory: bytes for all rows.
    @param policy: the numbers.
    @param cached: how many allowances are remembered: some 100 bytes each.
    @ivar knownAllowance: returns the allowance of an address if it is remembered. It is a shorter way to L{allowance}.
    """

    def __init__(self, memory: int, policy: LoginPolicy, cached: int) -> None:
        self._cached = cached
        self.shelf = Shelf(memory, _SLOTS * _USER.size)
        self._allowances: dict[int, int] = {}
        self.knownAllowance: Callable[[int], int | None] = self._allowances.get
        self.configure(policy)

    def configure(self, policy: LoginPolicy) -> None:
        """The numbers have changed to those of C{policy}."""
        self._hours = max(1, int(policy.goodFor) // _HOUR)
        self._most = max(1, policy.mostAllowance)
        self.forgetCached()

    def forgetCached(self) -> None:
        """Time has passed: some users may no longer count."""
        self._allowances.clear()

    def allowance(self, address: int, now: float) -> int:
        """
        Return 1 and the number of users who have succeeded at an address.

        @param address: its key.
        @param now: the time in seconds.
        """
        known = self._allowances.get(address)
        if known is None:
            if len(self._allowances) >= self._cached:
                self._allowances.clear()
            place = self.shelf.find(address)
            users = [] if place < 0 else self._usersOf(self.shelf.row(place), now)
            known = self._allowances[address] = min(self._most, 1 + len(users))
        return known

    def _usersOf(self, row: bytes, now: float) -> list[tuple[int, int]]:
        hour = int(now) // _HOUR
        return [
            (user, moment)
            for user, moment in _USER.iter_unpack(row)
            if (user or moment) and hour - moment & _LOW < self._hours
        ]

    def add(self, address: int, user: int, now: float) -> bytes | None:
        """
        A user has succeeded at an address.

        @param address: the key of the address.
        @param user: the key of the user.
        @param now: the time in seconds.
        @return: the new row, if it is another one than before.
        """
        place = self.shelf.find(address)
        old = b"" if place < 0 else self.shelf.row(place)
        news = _USER.pack(user & _LOW, int(now) // _HOUR & _LOW)
        at = old.find(news)
        if at >= 0 and not at % _USER.size:
            # Nearly always.
            return None
        row = self._merged(old, news, now) if old else news.ljust(self.shelf.width, b"\0")
        self._put(address, now, row, place)
        return row

    def join(self, address: int, users: Iterable[tuple[int, float]], now: float) -> bytes:
        """
        Users have succeeded at other gateways.

        @param address: the key of the address.
        @param users: the last two bytes of the key of each, and when.
        @param now: the time in seconds.
        @return: the new row.
        """
        news = b"".join([_USER.pack(user & _LOW, int(moment) // _HOUR & _LOW) for user, moment in users])
        place = self.shelf.find(address)
        row = self._merged(news, b"" if place < 0 else self.shelf.row(place), now)
        self._put(address, now, row, place)
        return row

    def _merged(self, old: bytes, news: bytes, now: float) -> bytes:
        users = dict(self._usersOf(old, now))
        for user, moment in self._usersOf(news, now):
            # The one that was seen last stands last.
            users.pop(user, None)
            users[user] = moment
        row = b"".join([_USER.pack(*each) for each in [*users.items()][-_SLOTS:]])
        return row.ljust(self.shelf.width, b"\0")

    def _put(self, address: int, now: float, row: bytes, place: int | None = None) -> None:
        self.shelf.put(address, int(now), row, place)
        self._allowances.pop(address, None)

    def adopt(self, address: int, row: bytes, now: float) -> None:
        """
        Another process has a row of this address.

        @param address: the key of the address.
        @param row: the row there.
        @param now: the time in seconds.
        @raise ValueError: the row has a wrong length.
        """
        if len(row) != self.shelf.width:
            raise ValueError("a row of an address has a wrong length")
        place = self.shelf.find(address)
        self._put(address, now, self._merged(b"" if place < 0 else self.shelf.row(place), row, now))
