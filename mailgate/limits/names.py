# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
What blocks of rules are of, in words, as the store has it: sealed.
"""

from __future__ import annotations

from mailgate.store.interfaces import Mark
from mailgate.store.seal import Seal, SealBroken

__all__ = ["Names"]


class Names:
    """
    Seals and opens the words.

    @param seal: the seal.
    """

    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    def close(self, thing: str, digest: bytes) -> bytes:
        """
        Return words sealed.

        @param thing: what is blocked.
        @param digest: the digest of it.
        """
        return self._seal.close(thing.encode("utf-8", "replace"), b"b:" + digest)

    def open(self, mark: Mark) -> str:
        """Return the words of a block; empty if it has none that can be opened. C{mark} is the block."""
        try:
            return self._seal.open(mark.name, b"b:" + mark.thing).decode("utf-8", "replace")
        except SealBroken:
            return ""
