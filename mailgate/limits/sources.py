# -*- test-case-name: mailgate.test.limits.test_sources -*-
"""
The addresses of clients, as the limits for connections see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from mailgate.limits.keys import addressPart, packedOf, shownAddress
from mailgate.limits.policy import Access, Prefixes
from mailgate.log.connection import peerOf
from mailgate.net.networks import Network

__all__ = ["NOWHERE", "Source", "Sources"]

_REMEMBERED = 1024
"""So many addresses are remembered. A flood of others makes them be looked at anew."""


class Source(NamedTuple):
    """
    An address from which clients connect to a server. A tuple is made in a third of the time of other objects.

    @ivar host: the address, canonical; empty for unix sockets, which no limit by address concerns.
    @ivar key: the part of it that is one client (C{limit_prefix}), as bytes.
    @ivar address: under which its connections are counted that have not logged in.
    @ivar connection: under which the rate of its connections is counted.
    @ivar handshake: under which the rate of its TLS handshakes is counted.
    @ivar idle: under which its connections are counted that have ended without a login.
    @ivar isAllowed: whether its clients may connect (C{access}).
    @ivar isExempt: whether the limits by address leave it alone (C{limit_exempt}).
    """

    host: str
    key: bytes = b""
    address: bytes = b""
    connection: bytes = b""
    handshake: bytes = b""
    idle: bytes = b""
    isAllowed: bool = True
    isExempt: bool = False


NOWHERE = Source("", isExempt=True)
"""The source of clients of unix sockets."""


class Sources:
    """
    The addresses from which clients connect to one server. Those of lately are remembered: to look at one takes longer
    than all that the limits do at a connection.

    @param server: the name of the server. Its counts are its own.
    @param prefixes: how much of an address is one client.
    @param exempt: the networks of C{limit_exempt}.
    @param access: the lines of C{access}.
    @ivar known: returns what is remembered of the address of a client with a port: its name up to the last colon. It is
        a shorter way to L{of}.
    """

    def __init__(
        self, server: str, prefixes: Prefixes, exempt: Iterable[Network] = (), access: Iterable[Access] = ()
    ) -> None:
        self._server = server.encode()
        self._prefixes = prefixes
        self._exempt = [*map(_spanOf, exempt)]
        self._access = [(line.isAllowed, None if line.network is None else _spanOf(line.network)) for line in access]
        self._known: dict[str, Source] = {}
        self.known: Callable[[str], Source | None] = self._known.get

    def of(self, client: str) -> Source:
        """
        Return the source of a client.

        @param client: its address and port, as C{client} of L{mailgate.session.Session}.
        """
        host, port = peerOf(client)
        # No address with a port begins like this.
        name = client.rpartition(":")[0] if port else f"\0{host}"
        source = self._known.get(name)
        if source is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            source = self._known[name] = self.at(host)
        return source

    def at(self, host: str) -> Source:
        """
        Return the source at an address.

        @param host: the address, in the form of L{mailgate.login.Client}.
        """
        packed = packedOf(host)
        if not packed:
            return NOWHERE
        key = addressPart(packed, self._prefixes)
        number, length = int.from_bytes(packed, "big"), len(packed)

        def counted(kind: bytes) -> bytes:
            return b"%b %b %b" % (kind, self._server, key)

        return Source(
            shownAddress(packed),
            key,
            counted(b"address"),
            counted(b"connection"),
            counted(b"handshake"),
            counted(b"idle"),
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
