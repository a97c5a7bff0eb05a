# -*- test-case-name: mailgate.test.limits.test_defence -*-
"""
C{limit_req login}: how fast an address may log in, with nginx's leaky bucket, as the generic cell rate algorithm has it
(ITU-T I.371): one number for each address.
"""

from __future__ import annotations

from struct import Struct

from mailgate.limits.policy import Rate
from mailgate.limits.table import Shelf

__all__ = ["REFUSED", "LoginRate"]

REFUSED = -1.0
"""There were too many logins."""

_ARRIVAL = Struct("<d")
_ROUNDING = 1e-6


class LoginRate:
    """
    When the next login of each address is in time. An address has one bucket for all servers.

    @param memory: bytes for all rows.
    """

    def __init__(self, memory: int) -> None:
        self.shelf = Shelf(memory, _ARRIVAL.size)

    def delay(self, address: int, seconds: float, now: float) -> None:
        """
        Other gateways have had logins of an address: the next one is at least so early.

        @param address: the key of the address.
        @param seconds: by how many seconds.
        @param now: the time in seconds.
        """
        shelf = self.shelf
        place = shelf.find(address)
        if place < 0 or _ARRIVAL.unpack(shelf.row(place))[0] < now + seconds:
            shelf.put(address, int(now), _ARRIVAL.pack(now + seconds))

    def take(self, address: int, rate: Rate, allowance: int, now: float, isLook: bool = False) -> float:
        """
        Count a login, unless there were too many.

        @param address: the key of the address.
        @param rate: the limit for one user.
        @param allowance: by what rate and burst are multiplied.
        @param now: the time in seconds.
        @param isLook: whether nothing is counted.
        @return: after how many seconds it may pass; L{REFUSED} if there were too many, and then it is not counted.
        """
        shelf = self.shelf
        place = shelf.find(address)
        early = 0.0 if place < 0 else max(0.0, _ARRIVAL.unpack(shelf.row(place))[0] - now)
        interval = rate.interval / allowance
        if early > rate.burst * allowance * interval + _ROUNDING:
            return REFUSED
        if not isLook:
            shelf.put(address, int(now), _ARRIVAL.pack(now + early + interval), place)
        return early if rate.isDelayed else 0.0
