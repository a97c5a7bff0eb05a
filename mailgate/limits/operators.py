# -*- test-case-name: mailgate.test.limits.test_operators -*-
"""
The blocks and holds of operators: C{mailgate block}, C{mailgate hold}, C{mailgate kick --block}.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from mailgate.limits.attempt import Block, Rule
from mailgate.limits.keys import UNIX, canonical, canonicalHost
from mailgate.net.networks import Network, parseNetwork

__all__ = ["MOST_BLOCKS", "Operators", "Thing", "parsed", "rowOf"]

MOST_BLOCKS = 10000
"""How many blocks operators can have at the same time."""

_LONGEST_THING = 120
_LONGEST_REASON = 80

_LIKE_NETWORK = re.compile(
    r"[0-9]+(\.[0-9]+){3}(/.*)?|[0-9.]+/[0-9.]*|[0-9a-f.]*:[0-9a-f.]*:[0-9a-f:.]*(/.*)?", re.IGNORECASE
)
"""What was meant as an address or a network."""

Thing = tuple[bytes, Network | None]
"""A user, empty for all users, and a network, L{None} for everywhere."""


def parsed(thing: str) -> Thing:
    """
    Parse what an operator blocks.

    @param thing: a user, an address, a network in CIDR form, or C{USER ADDRESS}.
    @raise ValueError: it is none of these.
    """
    words = thing.split()
    if not 0 < len(words) < 3 or len(thing) > _LONGEST_THING or not thing.isprintable():
        raise ValueError("must be a user, an address, a network such as 10.0.0.0/8, or a user and an address")
    try:
        network: Network | None = parseNetwork(words[-1])
    except ValueError:
        if len(words) > 1:
            raise ValueError(f'"{words[1]}" is neither an address nor a network such as 10.0.0.0/8') from None
        if _LIKE_NETWORK.fullmatch(words[0]):
            # A user of that name would be blocked, and the network would not be.
            reason = "is no address, no network such as 10.0.0.0/8, and no name of a user"
            raise ValueError(f'"{words[0]}" {reason}') from None
        network = None
    if network is not None and network.prefixlen == network.max_prefixlen:
        # Clients are looked up under this form.
        network = parseNetwork(canonicalHost(str(network.network_address)))
    user = words[0].encode() if len(words) > 1 or network is None else b""
    return canonical(user), network


def _shown(thing: Thing) -> str:
    user, network = thing
    words = [user.decode("utf-8", "replace")] if user else []
    if network is not None:
        isOne = network.prefixlen == network.max_prefixlen
        words.append(str(network.network_address) if isOne else str(network))
    return " ".join(words)


class Operators:
    """
    The blocks of operators, by what they block. To find one costs a look-up for each length of prefix in use.

    @ivar isEmpty: whether there is none; those that have ended may count.
    @ivar gateway: what the ids of blocks begin with: the name of the gateway and a full stop, if several share a store.
    """

    def __init__(self) -> None:
        self._blocks: dict[Thing, Block] = {}
        self._lengths: set[tuple[int, int]] = set()
        self._last = 0
        self.isEmpty = True
        self.gateway = ""

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks.values())

    def add(self, thing: str, rule: Rule, now: float, seconds: float, reason: str) -> Block:
        """
        Block, in the place of an earlier block of the same thing.

        @param thing: as for L{parsed}.
        @param rule: C{Rule.BLOCK} or C{Rule.HOLD}.
        @param now: the time in seconds.
        @param seconds: for how long.
        @param reason: one printable line; may be empty.
        @raise ValueError: C{thing} is none of these, C{seconds} is no time, or there are too many blocks.
        """
        key = parsed(thing)
        if not 0 < seconds <= 366 * 86400:
            raise ValueError("a block must last more than 0 seconds and at most 366 days")
        if len(self._blocks) >= MOST_BLOCKS:
            self.end(now)
        if len(self._blocks) >= MOST_BLOCKS and key not in self._blocks:
            raise ValueError(f"there are {MOST_BLOCKS} blocks already")
        self._last += 1
        words = "".join(each for each in reason if each.isprintable())[:_LONGEST_REASON]
        block = Block(f"{self.gateway}b{self._last}", _shown(key), rule, now, now + seconds, words)
        self._put(key, block)
        return block

    def _put(self, key: Thing, block: Block) -> None:
        self._blocks.pop(key, None)
        self._blocks[key] = block
        self.isEmpty = False
        if key[1] is not None:
            self._lengths.add((key[1].version, key[1].prefixlen))

    def _index(self) -> None:
        self.isEmpty = not self._blocks
        self._lengths = {(each.version, each.prefixlen) for _, each in self._blocks if each is not None}

    def find(self, user: bytes, host: str, now: float) -> Block | None:
        """
        Return the block that holds for a login.

        @param user: the user's canonical name; empty: only blocks of the address count.
        @param host: the address, in any form.
        @param now: the time in seconds.
        """
        found = [self._blocks.get((user, None))] if user else []
        if self._lengths and host and (address := canonicalHost(host)) != UNIX:
            parts = ip_address(address)
            for version, length in self._lengths:
                if version == parts.version:
                    network = parseNetwork(f"{address}/{length}")
                    found += [self._blocks.get((b"", network)), self._blocks.get((user, network)) if user else None]
        holding = [block for block in found if block is not None and block.until > now]
        # A block is stronger than a hold.
        return min(holding, key=lambda block: block.rule is Rule.HOLD, default=None)

    def end(self, now: float) -> None:
        """Forget blocks that have ended. C{now} is the time in seconds."""
        ended = [key for key, block in self._blocks.items() if block.until <= now]
        for key in ended:
            del self._blocks[key]
        if ended:
            self._index()

    def remove(self, thing: str) -> list[Block]:
        """
        End blocks.

        @param thing: the id of a block, or as for L{parsed}. For a user, those of pairs with this user end, too, and
            for a network those within it.
        @raise ValueError: it is none of these.
        """
        keys = [key for key, block in self._blocks.items() if block.id == thing]
        if not keys:
            user, network = parsed(thing)
            keys = [key for key in self._blocks if _isOf(key, user, network)]
        removed = [self._blocks.pop(key) for key in keys]
        self._index()
        return removed

    def like(self, thing: str) -> Block | None:
        """
        Return the block of a thing; L{None} without.

        @param thing: as for L{parsed}.
        @raise ValueError: it is none of these.
        """
        return self._blocks.get(parsed(thing))

    def removeIds(self, ids: Collection[str]) -> list[Block]:
        """End some blocks, and return them. C{ids} names them; some may not be there."""
        ended = {key: block for key, block in self._blocks.items() if block.id in ids}
        for key in ended:
            del self._blocks[key]
        self._index()
        return [*ended.values()]

    def removeId(self, id: str) -> None:
        """End a block, if it is there. C{id} names it."""
        self.removeIds((id,))

    def adopt(self, row: Mapping[str, Any]) -> None:
        """
        Take over a block of another process.

        @param row: the result of L{rowOf}.
        @raise ValueError: it is damaged.
        """
        try:
            block = Block(
                str(row["id"]),
                str(row["thing"]),
                Rule(row["rule"]),
                float(row["since"]),
                float(row["until"]),
                str(row["reason"]),
            )
        except (KeyError, TypeError, ValueError):
            raise ValueError("a block of an operator is damaged") from None
        if block.rule not in (Rule.BLOCK, Rule.HOLD) or len(self._blocks) >= MOST_BLOCKS:
            raise ValueError("a block of an operator is damaged")
        number = block.id.removeprefix(self.gateway)[1:]
        if number.isdecimal():
            self._last = max(self._last, int(number))
        self._put(parsed(block.thing), block)

    def clear(self) -> None:
        """End all blocks."""
        self._blocks.clear()
        self._index()


def _isOf(key: Thing, user: bytes, network: Network | None) -> bool:
    if user and key[0] != user:
        return False
    if network is None:
        return True
    other = key[1]
    return other is not None and other.version == network.version and other.subnet_of(network)  # type: ignore[arg-type]


def rowOf(block: Block) -> dict[str, Any]:
    """Return C{block} as values of JSON."""
    return {
        "id": block.id,
        "thing": block.thing,
        "rule": block.rule.value,
        "since": block.since,
        "until": block.until,
        "reason": block.reason,
    }
