# -*- test-case-name: mailgate.test.auth.passwdfile.test_passwords -*-
"""
Hashes that are slow on purpose: those of crypt(3), and Argon2. The system computes the former, through
L{mailgate.auth.passwdfile.crypt3}. The libraries for Argon2, and for hashes that the system does not support, are
imported for the first such hash: sites without such hashes need not install them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from threading import Lock
from typing import Any

from attrs import frozen

from mailgate.auth.passwdfile.crypt3 import HashFailed, loadCrypt3

__all__ = ["UnusablePassword", "Verifier", "argon2Hash", "cryptHash", "expenseOf"]

Verifier = Callable[[bytes], bool]
"""Returns whether a password matches; may raise L{HashFailed}."""

_CRYPT_LONGEST = 511
"""Bytes of the longest password that libxcrypt accepts. The limit also bounds the time that long passwords take."""

_BCRYPT_LONGEST = 72
"""
Bytes of a password that bcrypt uses. crypt(3) ignores the rest; the bcrypt library raises an exception from 5.0 on.
"""

MOST_ROUNDS = 100_000
"""Rounds of SHA-crypt that take about a tenth of a second. The default of the schemes is 5,000."""

MOST_COST = 13
"""The cost of bcrypt that takes about a second. Each step doubles the time."""


class UnusablePassword(Exception):
    """
    A stored password that no client's password can match. The text completes "the password ..." for the operator, and
    quotes nothing but the name of the scheme.
    """


def _library(name: str, need: str = "needs", package: str = '"mailgate[passwdfile]"') -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UnusablePassword(f"{need} a library that is not installed: pip install {package}") from error


_ONE_AT_A_TIME = Lock()
"""Hashes in pure Python block all other threads. Several at a time would leave little time to the reactor."""


def _shaCrypt(name: str, stored: bytes) -> Verifier:
    need = "has a hash that this system's libcrypt does not support, and needs"
    algorithm, text = getattr(_library("passlib.hash", need, "libpass"), name), stored.decode("ascii")

    def verify(secret: bytes) -> bool:
        with _ONE_AT_A_TIME:
            return bool(algorithm.verify(secret, text))

    return verify


def _bcrypt(stored: bytes) -> Verifier:
    need = "has a hash that this system's libcrypt does not support, and needs"
    checkpw = _library("bcrypt", need).checkpw
    return lambda secret: bool(checkpw(secret[:_BCRYPT_LONGEST], stored))


def _shortEnough(verify: Verifier, secret: bytes) -> bool:
    return len(secret) <= _CRYPT_LONGEST and verify(secret)


@frozen
class _Kind:
    """
    A kind of hash of crypt(3). C{scheme} is its name, C{form} matches a complete hash with its prefix as the first
    group (crypt(5)), and C{library} computes it if crypt(3) cannot.
    """

    scheme: str
    form: re.Pattern[bytes]
    library: Callable[[bytes], Verifier] | None = None

    def verifier(self, stored: bytes, prefix: bytes) -> Verifier:
        """
        Return a function that compares a password with a hash.

        @param stored: the hash.
        @param prefix: its prefix.
        """
        crypt3 = loadCrypt3()
        if crypt3 is not None and crypt3.knows(prefix):
            return partial(crypt3.matches, stored)
        if self.library is None:
            raise UnusablePassword(f"is a {self.scheme} hash, which this system's libcrypt does not support")
        return self.library(stored)


_KINDS = (
    _Kind(
        "SHA256-CRYPT",
        re.compile(rb"(\$5\$)(rounds=[1-9][0-9]{3,8}\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{43}"),
        partial(_shaCrypt, "sha256_crypt"),
    ),
    _Kind(
        "SHA512-CRYPT",
        re.compile(rb"(\$6\$)(rounds=[1-9][0-9]{3,8}\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{86}"),
        partial(_shaCrypt, "sha512_crypt"),
    ),
    _Kind("BLF-CRYPT", re.compile(rb"(\$2[aby]\$)(0[4-9]|[12][0-9]|3[01])\$[./0-9A-Za-z]{53}"), _bcrypt),
    _Kind("yescrypt", re.compile(rb"(\$y\$)[./0-9A-Za-z]{1,32}\$[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}")),
    _Kind("gost-yescrypt", re.compile(rb"(\$gy\$)[./0-9A-Za-z]{1,32}\$[./0-9A-Za-z]{0,86}\$[./0-9A-Za-z]{43}")),
    _Kind("scrypt", re.compile(rb"(\$7\$)[./0-9A-Za-z]{11,97}\$[./0-9A-Za-z]{43}")),
)


def cryptHash(stored: bytes) -> tuple[str, Verifier]:
    """
    Parse a hash of crypt(3).

    @param stored: the hash.
    @return: the name of its scheme, and a function that compares a password with it.
    @raise UnusablePassword: the hash is invalid, or not supported on this system.
    """
    # Dovecot passes all these schemes to crypt(3), so the hash alone determines the kind.
    for kind in _KINDS:
        match = kind.form.fullmatch(stored)
        if match:
            return kind.scheme, partial(_shortEnough, kind.verifier(stored, match[1]))
    if stored.startswith(b"$argon2"):
        raise UnusablePassword("is an Argon2 hash and must start with {ARGON2ID} or {ARGON2I}")
    raise UnusablePassword(
        "is not a complete $5$, $6$, $7$, $y$, $gy$, $2a$, $2b$ or $2y$ hash; write a plain password as {PLAIN}PASSWORD"
    )


_ARGON2 = re.compile(
    rb"\$argon2(id|i)\$v=19\$m=[0-9]{1,10},t=[0-9]{1,10},p=[0-9]{1,8}\$[+/0-9A-Za-z]{11,}\$[+/0-9A-Za-z]{6,}"
)


def argon2Hash(stored: bytes) -> tuple[str, Verifier]:
    """
    Parse an Argon2 hash.

    @param stored: the hash.
    @return: the name of its scheme, and a function that compares a password with it, which may raise L{HashFailed}.
    @raise UnusablePassword: the hash is invalid, or the library is not installed.
    """
    form = _ARGON2.fullmatch(stored)
    if form is None:
        raise UnusablePassword("is not a complete Argon2 hash")
    argon2 = _library("argon2")
    verify, text = argon2.PasswordHasher().verify, stored.decode("ascii")

    def matches(secret: bytes) -> bool:
        try:
            return bool(verify(text, secret))
        except argon2.exceptions.VerifyMismatchError:
            return False
        except argon2.exceptions.VerificationError as error:
            raise HashFailed(str(error).lower()) from None

    return f"ARGON2{form[1].decode('ascii').upper()}", matches


_ROUNDS = re.compile(rb"\$[56]\$rounds=([0-9]{1,9})\$|\$2[aby]\$([0-9]{2})\$")


def expenseOf(stored: bytes) -> str:
    """
    Explain why a hash is unusually slow.

    @param stored: the hash.
    @return: a phrase that completes "the password ...", for the operator; empty if the hash is not unusually slow.
    """
    match = _ROUNDS.match(stored)
    if match is None:
        return ""
    rounds, cost = (int(number or 0) for number in match.groups())
    if rounds > MOST_ROUNDS:
        return f"takes {rounds} rounds, so that each login keeps a processor busy; use {MOST_ROUNDS} or fewer"
    if cost > MOST_COST:
        return f"has the cost {cost}, so that each login keeps a processor busy for seconds; use {MOST_COST} or less"
    return ""
