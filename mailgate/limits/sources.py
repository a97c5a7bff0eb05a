# -*- test-case-name: mailgate.test.limits.test_sources -*-
"""
The addresses of clients, as the limits for connections see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from mailgate.limits.interfaces import IBucket
from mailgate.limits.keys import addressPart, packedOf, shownAddress
from mailgate.limits.policy import Access, Prefixes
from mailgate.log.connection import peerOf
from mailgate.net.networks import Network

__all__ = ["Source", "Sources"]

_REMEMBERED = 1024
"""So many addresses are remembered. A flood of others makes them be looked at anew."""


class Source:
    """
    An address from which clients connect to a server.

    @ivar host: the address, canonical; empty for unix sockets, which no limit by address concerns.
    @ivar key: the part of it that is one client (C{limit_prefix}), as bytes.
    @ivar address: under which its connections are counted that have not logged in.
    @ivar isAllowed: whether its clients may connect (C{access}).
    @ivar isExempt: whether the limits by address leave it alone (C{limit_exempt}).
    @ivar asked: when the store was asked for an exempt address, in monotonic seconds.
    @ivar until: until when the numbers below hold, in monotonic seconds. L{mailgate.limits.admission.Admission} finds
        them out: they depend on its allowance. They never hold for one that is not allowed, or exempt.
    @ivar room: how many connections it may have that have not logged in.
    @ivar pace: the leaky bucket of its connections.
    @ivar interval: seconds between two connections at the rate.
    @ivar early: by how many seconds a connection may come too early.
    @ivar isIdle: whether it had many connections that have ended without a login.
    @ivar crowd: how many connections without a login, of all addresses, may have it dropped early.
    """

    __slots__ = (
        *("address", "asked", "crowd", "early", "host", "interval", "isAllowed", "isExempt", "isIdle"),
        *("key", "pace", "room", "until"),
    )

    room: float
    pace: IBucket
    interval: float
    early: float
    isIdle: bool
    crowd: float

    def __init__(self, host: str, key: bytes, address: bytes, isAllowed: bool, isExempt: bool) -> None:
        self.host = host
        self.key = key
        self.address = address
        self.isAllowed = isAllowed
        self.isExempt = isExempt
        self.asked = self.until = -inf


class Sources:
    """
    The addresses from which clients connect to one server. Those of lately are remembered: to look at one takes longer
    than all that the limits do at a connection.

    @param server: the name of the server. Its counts are its own.
    @param prefixes: how much of an address is one client.
    @param exempt: the networks of C{limit_exempt}.
    @param access: the lines of C{access}.
    @ivar nowhere: the source of clients of unix sockets.
    @ivar known: returns what is remembered of an address. It is a shorter way to L{at}.
    """

    def __init__(
        self, server: str, prefixes: Prefixes, exempt: Iterable[Network] = (), access: Iterable[Access] = ()
    ) -> None:
        self._server = server.encode()
        self._prefixes = prefixes
        self._exempt = [*map(_spanOf, exempt)]
        self._access = [(line.isAllowed, None if line.network is None else _spanOf(line.network)) for line in access]
        self._known: dict[str, Source] = {}
        self.nowhere = Source("", b"", b"", True, True)
        self.known: Callable[[str], Source | None] = self._known.get

    def of(self, client: str) -> Source:
        """
        Return the source of a client.

        @param client: its address and port, as C{client} of L{mailgate.session.Session}.
        """
        return self.at(peerOf(client)[0])

    def at(self, host: str) -> Source:
        """
        Return the source at an address.

        @param host: the address, in the form of L{mailgate.login.Client}.
        """
        source = self._known.get(host)
        if source is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            source = self._known[host] = self._made(host)
        return source

    def _made(self, host: str) -> Source:
        packed = packedOf(host)
        if not packed:
            return self.nowhere
        key = addressPart(packed, self._prefixes)
        number, length = int.from_bytes(packed, "big"), len(packed)
        return Source(
            shownAddress(packed),
            key,
            b"%b %b" % (self._server, key),
            self._allows(length, number),
            any(_holds(each, length, number) for each in self._exempt),
        )

    def _allows(self, length: int, number: int) -> bool:
        """Return what the first line of C{access} with the address says. Without one it is allowed, as in nginx."""
        for isAllowed, span in self._access:
            if span is None or _holds(span, length, number):
                return isAllowed
        return True


_Span = tuple[int, int, int]
"""A network: the bytes of its addresses, the bits in which they differ, and the number of the others."""


def _spanOf(network: Network) -> _Span:
    spare = network.max_prefixlen - network.prefixlen
    return network.max_prefixlen // 8, spare, int(network.network_address) >> spare


def _holds(span: _Span, length: int, number: int) -> bool:
    """Return whether an address is in a network. Objects of L{ipaddress} take ten times as long."""
    bytes, spare, first = span
    return bytes == length and number >> spare == first
