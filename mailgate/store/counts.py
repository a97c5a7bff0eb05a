# -*- test-case-name: mailgate.test.keeper.cluster.test_usercounts -*-
"""
How many sessions a user has at a gateway, by protocol and address, as a store keeps it and a keeper remembers it: in
few bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from struct import Struct

__all__ = ["ENTRY", "MOST_COUNT", "MOST_PARTS", "countsIn", "packedCounts"]

ENTRY = Struct("<6sH")
"""A protocol and an address (L{mailgate.store.keys.StoreKeys.part}), and how many sessions there are."""

MOST_COUNT = 0xFFFF
"""So many sessions of a protocol and an address are counted."""

MOST_PARTS = 64
"""
From so many addresses other gateways know the sessions of one user. Those from further ones, of which there are fewest,
count for the user alone.
"""

_PROTOCOL = 2
_OTHERS = b"\xff\xff\xff\xff"
"""Stands for further addresses."""


def countsIn(packed: bytes) -> Iterator[tuple[bytes, int]]:
    """
    Return protocols and addresses, and how many sessions there are.

    @param packed: what L{packedCounts} has returned.
    """
    return ENTRY.iter_unpack(packed)


def packedCounts(counts: Mapping[bytes, int] | Iterable[tuple[bytes, int]]) -> bytes:
    """
    Return counts in the form of a store. Of very many, the smaller ones are counted together.

    @param counts: how many sessions there are, by protocol and address.
    """
    rows = [(part, count) for part, count in dict(counts).items() if count > 0]
    if len(rows) > MOST_PARTS:
        rows.sort(key=lambda row: row[1], reverse=True)
        others: dict[bytes, int] = {}
        for part, count in rows[MOST_PARTS:]:
            further = part[:_PROTOCOL] + _OTHERS
            others[further] = others.get(further, 0) + count
        rows = [*rows[:MOST_PARTS], *islice(others.items(), MOST_PARTS)]
    return b"".join([ENTRY.pack(part, min(MOST_COUNT, count)) for part, count in rows])
