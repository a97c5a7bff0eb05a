# -*- test-case-name: mailgate.test.limits.test_keys -*-
"""
Under which keys the limits count users, addresses and networks. All spellings of one thing have one key.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2s
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, NamedTuple
from unicodedata import category, normalize

from mailgate.limits.policy import Prefixes
from mailgate.net.networks import Network, plainAddress

__all__ = [
    "KEY_BYTES",
    "UNIX",
    "Keys",
    "Place",
    "addressOf",
    "addressPart",
    "canonical",
    "canonicalHost",
    "networkOf",
    "packedOf",
    "partsOf",
    "shownAddress",
]

KEY_BYTES = 32
"""Bytes of the secret key of the hashes."""

UNIX = "unix:"
"""The host of clients at unix sockets."""

_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")
_6TO4_BITS = 48
"""RFC 3056, section 2: these bits belong to one IPv4 address."""

_6TO4_BYTES = b"\x20\x02"
_WITH_IPV4 = (bytes(10) + b"\xff\xff", b"\x00\x64\xff\x9b" + bytes(8))
"""What stands before the IPv4 address in mapped and NAT64 addresses."""

_CACHED = 4096
"""How many forms of addresses are remembered."""

_LONGEST = 64
"""Bytes of the longest name whose key is remembered."""

_MASK = (1 << 60) - 1
"""A key has 60 bits, which Python keeps in 32 bytes. Two of 100,000 things share one with a probability of 1e-8."""

_DIGEST = 16
"""Bytes of a hash, as of the digests of L{mailgate.store.keys.StoreKeys}. A key is the first bits of them."""


_PLAIN = b"abcdefghijklmnopqrstuvwxyz0123456789.@-_"
"""A name of these characters alone is its own canonical form."""


def _folded(user: bytes) -> bytes:
    """
    Return a name beyond ASCII without what services ignore when they compare names: case (a sharp s has two), the width
    and form of letters, accents (the default collations of MySQL and MariaDB), and letters that are not seen (RFC 4013,
    appendix B.1 of RFC 3454). Otherwise each of these spellings would have guesses of its own.
    """
    text = normalize("NFKD", user.decode("utf-8", "surrogateescape").casefold())
    seen = "".join(each for each in text if not "\u0300" <= each <= "\u036f" and not _isUnseen(each))
    return normalize("NFKC", seen).casefold().strip().lower().encode("utf-8", "surrogateescape")


def _isUnseen(letter: str) -> bool:
    return category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f" or letter in "\u034f\u1806"


def canonical(user: bytes) -> bytes:
    """
    Return the form of a user name under which limits count it: without white space around it, in lower case, and
    without what stands behind C{+} before the domain: RFC 5233 calls it the detail. C{joe*master}, Dovecot's way to log
    in as another user, is the master's name, whose password it is.

    @param user: the name as the client wrote it.
    """
    if not user.translate(None, _PLAIN):
        # Nearly always.
        return user
    user = user.strip().lower()
    if not user.isascii():
        user = _folded(user)
    if b"*" in user:
        user = user.rpartition(b"*")[2].strip() or user
    if b"+" in user:
        local, at, domain = user.rpartition(b"@")
        name = (local if at else domain).partition(b"+")[0]
        # A name that begins with the sign has no other part.
        if name:
            return name + at + domain if at else name
    return user


def addressOf(host: str) -> IPv4Address | IPv6Address | None:
    """
    Parse the address of a client.

    @param host: in the form of L{mailgate.login.Client}.
    @return: an IPv4 address where an IPv6 address is only another form of one, mapped or NAT64 (RFC 6052); L{None} for
        what is no address.
    """
    address = plainAddress(host)
    if isinstance(address, IPv6Address) and address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def networkOf(address: IPv4Address | IPv6Address, prefixes: Prefixes, isWide: bool) -> Network:
    """
    Return what counts as the same client, or as the same network.

    @param address: one address of it.
    @param prefixes: C{limit_prefix}.
    @param isWide: whether the network is asked for.
    """
    if isinstance(address, IPv4Address):
        bits = prefixes.network4 if isWide else prefixes.address4
        return IPv4Network((int(address) >> 32 - bits << 32 - bits, bits))
    bits = prefixes.network6 if isWide else prefixes.address6
    if address in _6TO4:
        bits = min(bits, _6TO4_BITS)
    return IPv6Network((int(address) >> 128 - bits << 128 - bits, bits))


def packedOf(host: str) -> bytes:
    """
    Return the bytes of the address of a client, those of an IPv4 address for IPv4-mapped and NAT64 addresses (RFC
    6052); empty for what is no address. It takes a tenth of the time of L{addressOf}: of a flood, each address is a new
    one.

    @param host: in the form of L{mailgate.login.Client}.
    """
    try:
        packed = inet_pton(AF_INET6, host.partition("%")[0]) if ":" in host else inet_pton(AF_INET, host)
    except (OSError, ValueError):
        return b""
    return packed[12:] if packed[:12] in _WITH_IPV4 else packed


def addressPart(packed: bytes, prefixes: Prefixes) -> bytes:
    """
    Return what counts as the same client, as L{networkOf} has it.

    @param packed: the result of L{packedOf}, which is not empty.
    @param prefixes: C{limit_prefix}.
    """
    return _part(packed, prefixes.address4, prefixes.address6)


def _part(packed: bytes, bits4: int, bits6: int) -> bytes:
    """Return an address whose last bits are 0. C{bits4} and C{bits6} are how many stay."""
    length, most = len(packed), _6TO4_BITS if packed[:2] == _6TO4_BYTES else 128
    spare = 32 - bits4 if length == 4 else 128 - min(most, bits6)
    return (int.from_bytes(packed, "big") >> spare << spare).to_bytes(length, "big") if spare else packed


def partsOf(host: str, prefixes: Prefixes) -> tuple[bytes, bytes]:
    """
    Return an address and a network as L{networkOf} has them, as bytes. Both are empty for what is no address.

    @param host: the address, in the form of L{mailgate.login.Client}.
    @param prefixes: C{limit_prefix}.
    """
    packed = packedOf(host)
    if not packed:
        return b"", b""
    return addressPart(packed, prefixes), _part(packed, prefixes.network4, prefixes.network6)


@lru_cache(_CACHED)
def canonicalHost(host: str) -> str:
    """
    Return the address of a client as limits name it: an IPv4 address for IPv4-mapped and NAT64 addresses (RFC 6052);
    L{UNIX} for what is no address.

    @param host: in the form of L{mailgate.login.Client}.
    """
    return shownAddress(packedOf(host))


def shownAddress(packed: bytes) -> str:
    """Return the address that L{canonicalHost} returns. C{packed} is the result of L{packedOf}."""
    if len(packed) == 4:
        return inet_ntop(AF_INET, packed)
    return str(IPv6Address(packed)) if packed else UNIX


class Place(NamedTuple):
    """
    Where a client is.

    @ivar address: the key of its address (C{limit_prefix}).
    @ivar network: the key of its network.
    @ivar hasAddress: whether it has an address: not at unix sockets.
    """

    address: int
    network: int
    hasAddress: bool


def _keyOf(state: Any, thing: bytes) -> int:
    """Return the key of a thing. C{state} is that of the hash, with its secret."""
    state = state.copy()
    state.update(thing)
    # 0 is that of an empty row in a shelf.
    return int.from_bytes(state.digest()[:8], "little") & _MASK or 1


class Keys:
    """
    Makes keys of 60 bits: keyed BLAKE2s (RFC 7693). Without the secret, no one can choose names whose keys collide, or
    find the names of keys. The keys of two things may be combined by exclusive or.

    @ivar secret: L{KEY_BYTES} bytes.
    @ivar prefixes: C{limit_prefix}.
    @param cached: how many keys of users, and of addresses, are remembered: some 300 bytes each.
    """

    def __init__(self, secret: bytes, prefixes: Prefixes, cached: int = 1024) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"the key has {len(secret)} bytes, not {KEY_BYTES}")
        self.secret = secret
        self.prefixes = prefixes
        self._cached = cached
        # To copy a state with the key takes half of the time of making one.
        self._ofUser, self._ofAddress, self._ofNetwork = (
            blake2s(key=secret, digest_size=_DIGEST, person=kind) for kind in (b"user", b"address", b"network")
        )
        self._places: dict[str, Place] = {}
        self._users: dict[bytes, int] = {}
        self.knownPlace: Callable[[str], Place | None] = self._places.get
        self.knownUser: Callable[[bytes], int | None] = self._users.get

    def of(self, user: bytes, host: str) -> tuple[int, Place]:
        """
        Return the keys of a login. Those that are remembered are found without a further call.

        @param user: as for L{user}.
        @param host: as for L{place}.
        """
        return self.knownUser(user) or self.user(user), self.knownPlace(host) or self.place(host)

    def user(self, user: bytes) -> int:
        """Return the key of a user. C{user} is the result of L{canonical}."""
        known = self._users.get(user)
        if known is None:
            known = _keyOf(self._ofUser, user)
            # Names are long at a stranger's will.
            if len(user) <= _LONGEST:
                if len(self._users) >= self._cached:
                    self._users.clear()
                self._users[user] = known
        return known

    def place(self, host: str) -> Place:
        """Return the keys of a client's address and network. C{host} is the address, in any form."""
        known = self._places.get(host)
        if known is None:
            address, network = partsOf(host, self.prefixes)
            known = Place(_keyOf(self._ofAddress, address), _keyOf(self._ofNetwork, network), bool(address))
            if len(self._places) >= self._cached:
                self._places.clear()
            self._places[host] = known
        return known

    def shown(self, host: str) -> str:
        """Return what counts as the address of C{host}, in words: an address, or a network with its bits."""
        address = addressOf(host)
        if address is None:
            return UNIX
        network = networkOf(address, self.prefixes, False)
        return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
