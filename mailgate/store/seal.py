# -*- test-case-name: mailgate.test.store.test_seal -*-
"""
Seals what gateways put into the store, so that those who can read the store cannot read names, and those who can write
to it cannot give orders: AES-256-GCM (NIST SP 800-38D) with a key of the secret that all gateways share.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["Seal", "SealBroken"]

_NONCE = 12


class SealBroken(ValueError):
    """The value was sealed with another secret or for another place, or was changed."""


class Seal:
    """
    Seals and opens values.

    @param key: 32 bytes.
    @param randomness: returns as many random bytes as its argument says.
    """

    def __init__(self, key: bytes, randomness: Callable[[int], bytes] = os.urandom) -> None:
        self._cipher = AESGCM(key)
        self._randomness = randomness

    def close(self, value: bytes, place: bytes) -> bytes:
        """
        Seal a value.

        @param value: the value.
        @param place: where it is kept, or over which channel it is sent: it can be opened only there.
        """
        nonce = self._randomness(_NONCE)
        return nonce + self._cipher.encrypt(nonce, value, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """
        Return the value that was sealed.

        @param sealed: what L{close} has returned, or anything else.
        @param place: that of L{close}.
        @raise SealBroken: it cannot be opened.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], place)
        except (InvalidTag, ValueError):
            raise SealBroken(
                "a value in the store is damaged, or sealed with another secret than that of store_secret_file here"
            ) from None
