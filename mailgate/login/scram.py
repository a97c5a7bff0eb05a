# -*- test-case-name: mailgate.test.scram.test_secrets -*-
"""
What a server keeps of a password for SCRAM (RFC 5802, section 3).
"""

from __future__ import annotations

from attrs import field, frozen

from mailgate.login.request import Method

__all__ = ["ScramSecret"]


@frozen
class ScramSecret:
    """
    The verifier of a user's password for SCRAM. It checks the proof of a client, but a client cannot log in with it.

    @ivar method: L{Method.SCRAM_SHA_256} or L{Method.SCRAM_SHA_1}.
    @ivar iterations: the number of iterations of PBKDF2.
    @ivar salt: the salt, as bytes.
    @ivar storedKey: the hash of the client's key, as bytes: it checks proofs of clients.
    @ivar serverKey: the key, as bytes, by which the server proves that it knows the secret.
    @ivar clientKey: the client's key, as bytes, which a right proof has revealed; L{None} if it is not known. It is as
        good as the password at every server with the same secret, so it is kept for one login only.
    """

    method: Method
    iterations: int
    salt: bytes = field(repr=False)
    storedKey: bytes = field(repr=False)
    serverKey: bytes = field(repr=False)
    clientKey: bytes | None = field(default=None, repr=False)
