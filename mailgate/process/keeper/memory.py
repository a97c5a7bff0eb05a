# -*- test-case-name: mailgate.test.process.keeper.test_memory -*-
"""
Memory that a keeper shares with the keepers that follow it: what it has saved survives its death by C{kill -9}.
"""

from __future__ import annotations

import mmap
import struct
import zlib

__all__ = ["LARGEST", "Memory"]

LARGEST = 16 * 1024 * 1024
"""Bytes of a state. The system provides memory only for what is written."""

_HEADER = struct.Struct("=QLL")
"""The number of the save, the length of the state, and its CRC-32."""


class Memory:
    """
    Keeps the state that was saved last. A process that is killed while it saves leaves the earlier state.

    All processes that are forked after it was made share it. One process at a time may save.

    @param largest: bytes of the largest state.
    """

    def __init__(self, largest: int = LARGEST) -> None:
        self._largest = largest
        self._half = _HEADER.size + largest
        self._map = mmap.mmap(-1, 2 * self._half)

    def save(self, state: bytes) -> bool:
        """
        Save a state in place of the one before the last.

        @param state: the state.
        @return: whether it was saved; a state that is too large is not.
        """
        if len(state) > self._largest:
            return False
        latest = max(self._number(0), self._number(1))
        # The states alternate between both halves.
        start = (latest + 1) % 2 * self._half
        # No state until it is complete.
        self._map[start : start + _HEADER.size] = bytes(_HEADER.size)
        self._map[start + _HEADER.size : start + _HEADER.size + len(state)] = state
        self._map[start : start + _HEADER.size] = _HEADER.pack(latest + 1, len(state), zlib.crc32(state))
        return True

    def load(self) -> bytes | None:
        """Return the state that was saved last; L{None} if there is none."""
        for half in sorted((0, 1), key=self._number, reverse=True):
            number, length, checksum = _HEADER.unpack_from(self._map, half * self._half)
            start = half * self._half + _HEADER.size
            if number and length <= self._largest:
                state = self._map[start : start + length]
                if zlib.crc32(state) == checksum:
                    return state
        return None

    def _number(self, half: int) -> int:
        number: int = _HEADER.unpack_from(self._map, half * self._half)[0]
        return number
