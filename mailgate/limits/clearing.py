# -*- test-case-name: mailgate.test.limits.test_operators -*-
"""
C{mailgate unblock}: ends blocks, and forgets failures so that no rule acts at once.
"""

from __future__ import annotations

from collections.abc import Collection

from mailgate.limits.attempt import Block, Rule
from mailgate.limits.ledger import Ledger
from mailgate.limits.operators import Thing, parsed
from mailgate.net.networks import Network

__all__ = ["clear", "clearRules"]

_LOW = 0xFFFFFFFF


def clear(ledger: Ledger, thing: str, now: float) -> list[Block]:
    """
    End the blocks of a thing.

    @param ledger: what is remembered.
    @param thing: the id of a block, or as for L{mailgate.limits.operators.parsed}.
    @param now: the time in seconds.
    @return: the blocks that have ended.
    @raise ValueError: C{thing} is none of these.
    """
    found = _endRules(ledger, (thing,), now)
    if found:
        return found
    ended = [block for block in ledger.operators.remove(thing) if block.until > now]
    if ended and ended[0].id == thing:
        return ended
    return ended + _clear(ledger, thing, now)


def clearRules(ledger: Ledger, thing: str, ids: Collection[str], now: float) -> None:
    """
    End blocks of rules as another gateway has done. Those of operators stay: their ids tell which have ended.

    @param ledger: what is remembered.
    @param thing: as for L{clear}; empty for none.
    @param ids: the ids of blocks.
    @param now: the time in seconds.
    @raise ValueError: C{thing} is not valid.
    """
    _endRules(ledger, ids, now)
    if thing:
        _clear(ledger, thing, now)


def _endRules(ledger: Ledger, ids: Collection[str], now: float) -> list[Block]:
    found = [(key, block) for key, block in ledger.blocks.items(now) if block.id in ids]
    for key, _ in found:
        ledger.blocks.drop(key)
        _forgetKey(ledger, key)
    return [block for _, block in found]


def _clear(ledger: Ledger, thing: str, now: float) -> list[Block]:
    user, network = parsed(thing)
    ended = _endOf(ledger, user, network, now)
    _forget(ledger, user, network)
    return ended


def _forgetKey(ledger: Ledger, key: int) -> None:
    """Forget the failures of what a rule has blocked, whatever that is."""
    ledger.pairs.forget(key)
    ledger.sources.addresses.drop(key)
    ledger.users.forget(key)


def _endOf(ledger: Ledger, user: bytes, network: Network | None, now: float) -> list[Block]:
    """End the blocks of rules that concern a thing, by their keys: after a restart, nothing else is known of them."""
    blocks, sought = ledger.blocks, _sought(ledger, user, network)
    found = [
        (key, block)
        for key, block in blocks.items(now)
        if _isOf(key, block, blocks.other(key), sought) or _isWithin(block, (user, network))
    ]
    for key, _ in found:
        blocks.drop(key)
        _forgetKey(ledger, key)
    return [block for _, block in found]


def _sought(ledger: Ledger, user: bytes, network: Network | None) -> tuple[int, int, int]:
    """The low halves of the keys of a user, an address and a network; 0 for each that is not given."""
    place = None if network is None else ledger.keys.place(str(network.network_address))
    isOne = network is not None and network.prefixlen == network.max_prefixlen
    return (
        ledger.keys.user(user) & _LOW if user else 0,
        place.address & _LOW if place is not None and isOne else 0,
        place.network & _LOW if place is not None and _isNetwork(ledger, network) else 0,
    )


def _isNetwork(ledger: Ledger, network: Network | None) -> bool:
    """Whether it is what C{limit_prefix} calls a network."""
    prefixes = ledger.keys.prefixes
    return network is not None and network.prefixlen == (
        prefixes.network4 if network.version == 4 else prefixes.network6
    )


def _isOf(key: int, block: Block, other: int, sought: tuple[int, int, int]) -> bool:
    user, address, network = sought
    if block.rule is Rule.ADDRESS_BLOCK:
        return not user and bool((address and key & _LOW == address) or (network and other == network))
    if block.rule is Rule.USER_REFUSE:
        return bool(user) and not address and not network and other == user
    isUser = not user or other == user
    return isUser and (not address or (key ^ other) & _LOW == address) and bool(user or address) and not network


def _isWithin(block: Block, thing: Thing) -> bool:
    """Whether the words of a block name something in C{thing}."""
    user, network = thing
    try:
        blockedUser, blocked = parsed(block.thing)
    except ValueError:
        return False
    if network is None or blocked is None or blocked.version != network.version or (user and user != blockedUser):
        return False
    return blocked.subnet_of(network)  # type: ignore[arg-type]


def _forget(ledger: Ledger, user: bytes, network: Network | None) -> None:
    keys = ledger.keys
    if network is None:
        ledger.pairs.forgetUser(keys.user(user))
        ledger.users.forget(keys.user(user))
        return
    place = keys.place(str(network.network_address))
    if user:
        ledger.pairs.forget(keys.user(user) ^ place.address)
    elif _isNetwork(ledger, network):
        addresses = ledger.sources.within(place.network)
        ledger.pairs.forgetAddresses(addresses)
        ledger.sources.forgetAddresses(addresses)
        ledger.sources.networks.drop(place.network)
    elif network.prefixlen == network.max_prefixlen:
        ledger.pairs.forgetAddresses(frozenset({place.address & _LOW}))
        ledger.sources.addresses.drop(place.address)
