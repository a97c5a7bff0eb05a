# -*- test-case-name: mailgate.test.net.test_networks -*-
"""
Addresses and networks in directives, and the part of an address that counts as one client.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["Network", "isWithin", "parseNetwork", "parseNetworks", "plainAddress", "sourceOf", "unmapped"]

Network = IPv4Network | IPv6Network

_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_PREFIX = 64
"""The bits of an IPv6 address that identify one client. A host gets a /64 and can use any address in it."""


def plainAddress(host: str) -> IPv4Address | IPv6Address | None:
    """
    Parse the address of a client.

    @param host: in the form of L{mailgate.login.Client}.
    @return: the address; for an IPv4-mapped IPv6 address the IPv4 address; L{None} for a unix socket.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped or address


def unmapped(host: str) -> str:
    """
    Return the IPv4 address of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2), which is how a socket for both
    families names IPv4 clients. Other addresses are returned unchanged.

    @param host: an address in the system's spelling.
    """
    # Other addresses may begin the same way, but have no dots.
    return host[7:] if host[:7] == "::ffff:" and "." in host else host


def parseNetwork(item: str) -> Network:
    """
    Parse nginx's C{ADDRESS} or C{ADDRESS/BITS}. A network of IPv4-mapped IPv6 addresses becomes an IPv4 network.

    @param item: the text.
    @raise ValueError: the form is another one, such as a netmask.
    """
    if not re.fullmatch("[^/]+(?:/[0-9]+)?", item):
        raise ValueError("must be an address, or an address and a number of bits")
    network = ip_network(item, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network((int(mapped or 0), network.prefixlen - _MAPPED.prefixlen))
    return network


def parseNetworks(value: str, folder: str) -> tuple[Network, ...]:
    """
    Parse the networks of a directive.

    @param value: addresses and networks, separated by spaces or line ends.
    @param folder: the folder of the ini file.
    @raise ValueError: one is malformed, or there are none.
    """
    networks = []
    for item in value.split():
        try:
            networks.append(parseNetwork(item))
        except ValueError:
            raise ValueError(f'"{item}" is neither an address nor a network such as 10.0.0.0/8') from None
    if not networks:
        raise ValueError("a value is missing")
    return tuple(networks)


def isWithin(host: str, networks: Iterable[Network]) -> bool:
    """Return whether the address C{host} is in one of C{networks}; false for a unix socket."""
    address = plainAddress(host)
    return address is not None and any(address in network for network in networks)


@lru_cache(1024)
def sourceOf(host: str) -> str:
    """
    Return the key under which limits count the client at C{host}: an IPv4 address as it is, even if it is written as an
    IPv6 address (mapped or NAT64); the /64 of an IPv6 address; C{unix:} for unix sockets.
    """
    if ":" not in host:
        return host
    address = plainAddress(host)
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return str(IPv4Address(int(address) & 0xFFFFFFFF))
        return str(IPv6Network((int(address) >> _PREFIX << _PREFIX, _PREFIX)))
    return str(address or host)
