# -*- test-case-name: mailgate.test.store.test_keys -*-
"""
Names of people and addresses never reach the store: their keyed hashes do. Without the secret, which all gateways share
(C{store_secret_file}), a key cannot be traced to a person.
"""

from __future__ import annotations

from hashlib import blake2s

__all__ = ["DIGEST", "StoreKeys"]

DIGEST = 16
"""Bytes of a digest."""


class StoreKeys:
    """
    Makes digests: keyed BLAKE2s (RFC 7693).

    @param secret: the content of C{store_secret_file}, of any length.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = blake2s(secret, person=b"store").digest()

    def derived(self, purpose: bytes) -> bytes:
        """Return a secret of 32 bytes for another purpose. C{purpose} names it, in at most 8 bytes."""
        return blake2s(b"", key=self._secret, person=purpose).digest()

    def digest(self, kind: bytes, thing: bytes) -> bytes:
        """
        Return the digest of something.

        @param kind: C{user}, C{address}, C{network}, or another word of at most 8 bytes.
        @param thing: in its canonical form.
        """
        return blake2s(thing, key=self._secret, digest_size=DIGEST, person=kind).digest()

    @staticmethod
    def both(one: bytes, other: bytes) -> bytes:
        """Return the digest of a pair: that of one thing and that of another combined by exclusive or."""
        return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(DIGEST, "big")
