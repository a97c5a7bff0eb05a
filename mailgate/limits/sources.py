# -*- test-case-name: mailgate.test.limits.test_sources -*-
"""
The addresses of clients, as the limits for connections see them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from mailgate.limits.keys import addressOf, canonicalHost, networkOf
from mailgate.limits.policy import Access, Prefixes
from mailgate.log.connection import peerOf
from mailgate.net.networks import Network

__all__ = ["NOWHERE", "Source", "Sources"]

_REMEMBERED = 1024
"""So many addresses are remembered. A flood of others makes them be looked at anew."""

_WHOLE = 32
"""The bits of an IPv4 address."""


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
        self._exempt = tuple(exempt)
        self._access = tuple(access)
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
        address = addressOf(host)
        if address is None:
            return NOWHERE
        # A flood has many addresses: most are IPv4's, and networks take long to make.
        isShort = isinstance(address, IPv4Address) and self._prefixes.address4 == _WHOLE
        network = address if isShort else networkOf(address, self._prefixes, False).network_address
        key = network.packed

        def counted(kind: bytes) -> bytes:
            return b"%b %b %b" % (kind, self._server, key)

        return Source(
            str(address) if isShort else canonicalHost(host),
            key,
            counted(b"address"),
            counted(b"connection"),
            counted(b"handshake"),
            counted(b"idle"),
            self._allows(address),
            any(address in network for network in self._exempt),
        )

    def _allows(self, address: IPv4Address | IPv6Address) -> bool:
        """Return what the first line of C{access} with the address says. Without one it is allowed, as in nginx."""
        for line in self._access:
            if line.network is None or address in line.network:
                return line.isAllowed
        return True
