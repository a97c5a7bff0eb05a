# -*- test-case-name: mailgate.test.scram.test_secrets -*-
"""
Makes and reads the secrets of SCRAM, and computes with their keys (RFC 5802, section 3).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import b64decode, b64encode

from attrs import evolve

from mailgate.login import Method, ScramSecret
from mailgate.scram.preparing import prepared

__all__ = [
    "LEAST_ITERATIONS",
    "MOST_ITERATIONS",
    "SALT_BYTES",
    "BadSecret",
    "derivedSecret",
    "fakeSecret",
    "parseSecret",
    "proofOf",
    "saltFor",
    "signatureOf",
    "unlocked",
    "written",
]

LEAST_ITERATIONS = 4096
"""The fewest iterations of PBKDF2 (RFC 5802, section 5.1; RFC 7677, section 4)."""

MOST_ITERATIONS = 2_000_000
"""The most iterations. They take one or two seconds of a processor."""

SALT_BYTES = 16
"""Bytes of a salt that the gateway makes, as those of Dovecot."""

_LONGEST_SALT = 1024
_ALGORITHMS = {Method.SCRAM_SHA_256: "sha256", Method.SCRAM_SHA_1: "sha1"}
_SECRET = re.compile(rb"([1-9][0-9]{0,8}),([A-Za-z0-9+/]+={0,2}),([A-Za-z0-9+/]+={0,2}),([A-Za-z0-9+/]+={0,2})")


class BadSecret(Exception):
    """A text is no secret. The message completes "the secret ..." for the operator, and quotes nothing."""


def _mac(method: Method, key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, _ALGORITHMS[method])


def _hashed(method: Method, octets: bytes) -> bytes:
    return hashlib.new(_ALGORITHMS[method], octets).digest()


def derivedSecret(method: Method, password: bytes, salt: bytes, iterations: int) -> ScramSecret:
    """
    Derive the secret of a password, with the client's key. This takes a millisecond for each 3,000 iterations.

    @param method: the login method.
    @param password: the password as its user writes it; it is prepared here.
    @param salt: the salt.
    @param iterations: the number of iterations.
    """
    salted = hashlib.pbkdf2_hmac(_ALGORITHMS[method], prepared(password), salt, iterations)
    clientKey = _mac(method, salted, b"Client Key")
    serverKey = _mac(method, salted, b"Server Key")
    return ScramSecret(method, iterations, salt, _hashed(method, clientKey), serverKey, clientKey)


def parseSecret(method: Method, text: bytes) -> ScramSecret:
    """
    Read a secret in Dovecot's form C{iterations,salt,storedKey,serverKey}, all but the first in base64.

    @param method: the login method.
    @param text: the secret.
    @raise BadSecret: it is invalid.
    """
    match = _SECRET.fullmatch(text)
    try:
        salt, stored, server = (b64decode(part, validate=True) for part in match.groups()[1:]) if match else (b"",) * 3
    except ValueError:
        salt = stored = server = b""
    size = hashlib.new(_ALGORITHMS[method]).digest_size
    if match is None or not (len(stored) == len(server) == size and 0 < len(salt) <= _LONGEST_SALT):
        raise BadSecret(f"must be ITERATIONS,SALT,STOREDKEY,SERVERKEY with base64, and keys of {size} bytes")
    iterations = int(match[1])
    if not LEAST_ITERATIONS <= iterations <= MOST_ITERATIONS:
        raise BadSecret(f"must have {LEAST_ITERATIONS} to {MOST_ITERATIONS} iterations")
    return ScramSecret(method, iterations, salt, stored, server)


def written(secret: ScramSecret) -> bytes:
    """
    Return a secret in the form that L{parseSecret} reads.

    @param secret: the secret.
    """
    parts = (secret.salt, secret.storedKey, secret.serverKey)
    return b",".join((b"%d" % secret.iterations, *map(b64encode, parts)))


def saltFor(key: bytes, method: Method, user: bytes, size: int = SALT_BYTES) -> bytes:
    """
    Return the salt of a user who has none of their own: for each C{key} always the same one.

    @param key: a secret of the gateway.
    @param method: the login method.
    @param user: the user name as the client gives it. The case of ASCII letters does not matter.
    @param size: the length in bytes; at most 64.
    """
    return hmac.digest(key, b"salt\0" + method.value.encode("ascii") + b"\0" + user.lower(), "sha512")[:size]


def fakeSecret(
    key: bytes, method: Method, user: bytes, iterations: int = LEAST_ITERATIONS, size: int = SALT_BYTES
) -> ScramSecret:
    """
    Return a secret that no password has, for a user who does not exist or may not log in (RFC 5802, section 5.1): the
    client gets the same salt each time, as that of any other user.

    @param key: a secret of the gateway.
    @param method: the login method.
    @param user: the user name as the client gives it.
    @param iterations: the number of iterations.
    @param size: the length of the salt in bytes; at most 64.
    """
    keys = hmac.digest(key, b"keys\0" + method.value.encode("ascii") + b"\0" + user.lower(), "sha512")
    stored, server = _hashed(method, keys[:32]), _hashed(method, keys[32:])
    return ScramSecret(method, iterations, saltFor(key, method, user, size), stored, server)


def proofOf(secret: ScramSecret, message: bytes) -> bytes:
    """
    Return a client's proof that it knows the password.

    @param secret: the secret with the client's key.
    @param message: the C{AuthMessage} of RFC 5802, section 3.
    @raise RuntimeError: the client's key is not known.
    """
    if secret.clientKey is None:
        raise RuntimeError("the client's key is not known")
    return _xor(secret.clientKey, _mac(secret.method, secret.storedKey, message))


def signatureOf(secret: ScramSecret, message: bytes) -> bytes:
    """
    Return the server's proof that it knows the secret (C{ServerSignature}).

    @param secret: the secret.
    @param message: the C{AuthMessage} of RFC 5802, section 3.
    """
    return _mac(secret.method, secret.serverKey, message)


def unlocked(secret: ScramSecret, proof: bytes, message: bytes) -> ScramSecret | None:
    """
    Check a client's proof, in a time that does not depend on it.

    @param secret: the secret.
    @param proof: the proof.
    @param message: the C{AuthMessage} of RFC 5802, section 3.
    @return: the secret with the client's key; L{None} if the proof is wrong.
    """
    signature = _mac(secret.method, secret.storedKey, message)
    if len(proof) != len(signature):
        return None
    clientKey = _xor(proof, signature)
    isRight = hmac.compare_digest(_hashed(secret.method, clientKey), secret.storedKey)
    return evolve(secret, clientKey=clientKey) if isRight else None


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(map(int.__xor__, one, other))
