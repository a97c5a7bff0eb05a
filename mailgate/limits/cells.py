# -*- test-case-name: mailgate.test.limits.test_cells -*-
"""
The places of keys in tables of fixed size, which processes share.

A table has two rows. A key has one cell in each of them, which strangers may share: the smaller of its two numbers is
the better one (count-min sketch). The hash has a key of its own, so that no client can choose with which others it
shares cells.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s

__all__ = ["CELLS", "SALT_BYTES", "Cells"]

CELLS = 262144
"""Cells of a row. With 20,000 keys in the table, 0.5 % of keys read too much."""

SALT_BYTES = 16
"""The size of the key of the hash."""

_REMEMBERED = 4096
"""So many places are remembered. A flood of other keys makes them be computed anew."""


class Cells:
    """
    Says where keys are.

    @param salt: the key of the hash, the same in all processes that share a table: L{SALT_BYTES}.
    @ivar known: returns the places of a key if they are remembered. It is a shorter way to L{of}.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._known: dict[bytes, tuple[int, int]] = {}
        self.known: Callable[[bytes], tuple[int, int] | None] = self._known.get

    def of(self, key: bytes) -> tuple[int, int]:
        """
        Return the numbers of the two cells of a key: one below L{CELLS}, and one from L{CELLS} on, below twice that.

        @param key: any bytes.
        """
        known = self._known
        places = known.get(key)
        if places is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            number = int.from_bytes(blake2s(key, digest_size=8, key=self._salt).digest(), "little")
            places = known[key] = number % CELLS, CELLS + (number >> 32) % CELLS
        return places
