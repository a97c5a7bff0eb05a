# -*- test-case-name: mailgate.test.store.test_keys -*-
"""
Names of people and addresses never reach the store: their keyed hashes do. Without the secret, which all gateways share
(C{store_secret_file}), nobody can tell whose key it is.
"""

from __future__ import annotations

from hashlib import blake2s

__all__ = ["DIGEST", "NO_ADDRESS", "StoreKeys"]

DIGEST = 16
"""Bytes of a digest."""

_PROTOCOL = 2
_ADDRESS = 4

NO_ADDRESS = bytes(_ADDRESS)
"""Stands for the address of a client without one."""


class StoreKeys:
    """
    Makes digests: keyed BLAKE2s (RFC 7693).

    @param secret: the content of C{store_secret_file}, of any length.
    @ivar secret: the key of the digests, of 32 bytes.
    @ivar mark: eight characters by which two gateways see whether they have the same secret.
    """

    def __init__(self, secret: bytes) -> None:
        self.secret = blake2s(secret, person=b"store").digest()
        self.mark = self.derived(b"mark").hex()[:8]

    def derived(self, purpose: bytes) -> bytes:
        """Return a secret of 32 bytes for another purpose. C{purpose} names it, in at most 8 bytes."""
        return blake2s(b"", key=self.secret, person=purpose).digest()

    def digest(self, kind: bytes, thing: bytes) -> bytes:
        """
        Return the digest of something.

        @param kind: C{user}, C{address}, C{network}, or another word of at most 8 bytes.
        @param thing: in its canonical form.
        """
        return blake2s(thing, key=self.secret, digest_size=DIGEST, person=kind).digest()

    @staticmethod
    def both(one: bytes, other: bytes) -> bytes:
        """Return the digest of a pair: the exclusive or of those of its parts, C{one} and C{other}."""
        return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(DIGEST, "big")

    def protocol(self, name: str) -> bytes:
        """Return what stands for a protocol in counts of sessions: two bytes. C{name} is its name, such as C{imap}."""
        return self.digest(b"protocol", name.encode())[:_PROTOCOL]

    @staticmethod
    def part(protocol: bytes, address: bytes) -> bytes:
        """
        Return under what the sessions of a user are counted: six bytes. A user has sessions from few addresses, so that
        so few tell them apart.

        @param protocol: what L{protocol} has returned.
        @param address: the digest of the client's address; empty without one.
        """
        return protocol + (address[:_ADDRESS] or NO_ADDRESS)
