# -*- test-case-name: mailgate.test.test_session -*-
"""
The ids of connections, and what all connections to one listening address have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import chain, count

from attrs import field, frozen

__all__ = ["GatewayIds", "Listener", "SessionIds", "sessionIds"]

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_LOW = tuple(high + low for high in _DIGITS for low in _DIGITS)
"""The numbers below 1,024 as two digits of base 32."""


def _inBase32(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 32)
        text = _DIGITS[digit] + text
    return text


class SessionIds:
    """
    Makes the ids of one process's connections, unique over processes and restarts: C{5g0qa.7k}, or C{g1.5g0qa.7k} with
    the name of the gateway. All gateways of a process share it. An id has at most 24 bytes.

    @ivar member: the name of the process, with which its ids begin: five random digits of base 32.
    """

    def __init__(self, randomness: Callable[[int], bytes]) -> None:
        """@param randomness: called with a number, returns that many random bytes."""
        self.member = "".join(_DIGITS[byte % 32] for byte in randomness(5))
        self._thousands = count()

    def of(self, gateway: str = "") -> GatewayIds:
        """
        Return the ids for the connections of one gateway.

        @param gateway: the name of the gateway (C{gateway_name}), at most 10 characters; empty without one.
        """
        return GatewayIds(f"{gateway}.{self.member}" if gateway else self.member, self._thousands)


class GatewayIds:
    """
    The ids of one gateway's connections. A session keeps the number alone, which takes half the memory of the text.

    @ivar numbers: yields the numbers of new connections. It never ends.
    """

    def __init__(self, start: str, thousands: Iterator[int]) -> None:
        """
        @param start: how all ids begin.
        @param thousands: yields what no other gateway of the process gets.
        """
        # Each gateway takes 1,024 numbers at once: an old and a new configuration use different ones.
        self.numbers: Iterator[int] = chain.from_iterable(range(each << 10, each + 1 << 10) for each in thousands)
        # Most texts that are needed at one time are those of new connections.
        self._beginning = lru_cache(64)(lambda thousand: f"{start}.{_inBase32(thousand)}")

    def textOf(self, number: int) -> str:
        """
        Return the id as text.

        @param number: one of C{numbers}.
        """
        return self._beginning(number >> 10) + _LOW[number & 1023]

    def new(self) -> str:
        """Return the text of a new id."""
        return self.textOf(next(self.numbers))


def sessionIds(randomness: Callable[[int], bytes]) -> GatewayIds:
    """
    Return the ids of L{SessionIds} for a process with one gateway without a name.

    @param randomness: called with a number, returns that many random bytes.
    """
    return SessionIds(randomness).of()


@frozen
class Listener:
    """
    What all connections to one listening address have in common.

    @ivar protocol: the name of the protocol: C{imap}, C{pop3}, C{smtp} or C{sieve}.
    @ivar server: the address, such as C{0.0.0.0:993}.
    @ivar ids: the ids of its gateway.
    """

    protocol: str
    server: str
    ids: GatewayIds = field(repr=False)
