# -*- test-case-name: mailgate.test.net.test_networks -*-
"""
Addresses and networks as directives write them, and how much of a client's address counts as one client.
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
"""Bits of an IPv6 address that are one client: a host is given a /64, and may use any address in it."""


def plainAddress(host: str) -> IPv4Address | IPv6Address | None:
    """
    The address C{host}, in the form of L{mailgate.login.Client}; the IPv4 one that is mapped into an IPv6 one.
    L{None} for a unix socket.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped or address


def unmapped(host: str) -> str:
    """
    The numeric address C{host} as the system writes it, or the IPv4 address that is mapped into it: so a socket for
    both families names its IPv4 clients (RFC 4291, section 2.5.5.2).
    """
    # Other addresses begin alike, but have no dots.
    return host[7:] if host[:7] == "::ffff:" and "." in host else host


def parseNetwork(item: str) -> Network:
    """
    nginx's C{ADDRESS} or C{ADDRESS/BITS}. A network of IPv4 addresses that are mapped into IPv6 is one of IPv4.

    @raise ValueError: it is another notation, such as a netmask, or none.
    """
    if not re.fullmatch("[^/]+(?:/[0-9]+)?", item):
        raise ValueError("must be an address, or an address and a number of bits")
    network = ip_network(item, strict=False)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return IPv4Network((int(mapped or 0), network.prefixlen - _MAPPED.prefixlen))
    return network


def parseNetworks(value: str, folder: str) -> tuple[Network, ...]:
    """The networks of a directive, parted by blanks or line ends."""
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
    """Whether the address C{host} lies in one of C{networks}; a unix socket's never does."""
    address = plainAddress(host)
    return address is not None and any(address in network for network in networks)


@lru_cache(1024)
def sourceOf(host: str) -> str:
    """
    What C{host} is counted as: an IPv4 address by itself, also one that is written as IPv6 (mapped, or by NAT64), an
    IPv6 address with its whole /64; C{unix:} is one client.
    """
    if ":" not in host:
        return host
    address = plainAddress(host)
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return str(IPv4Address(int(address) & 0xFFFFFFFF))
        return str(IPv6Network((int(address) >> _PREFIX << _PREFIX, _PREFIX)))
    return str(address or host)
