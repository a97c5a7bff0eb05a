# -*- test-case-name: mailgate.test.auth.passwdfile.test_passwords -*-
"""
Hashes that are slow on purpose: those of crypt(3), and Argon2. The system computes the former
(L{mailgate.auth.passwdfile.crypt3}). The library for Argon2, and those for what the system does not know, are imported
when the first such hash is met, so that sites without them need not install anything.
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
"""Says whether a password is the right one; it may raise L{HashFailed}."""

_CRYPT_LONGEST = 511
"""libxcrypt refuses what is longer, which also bounds the time that a password of many kilobytes would take."""

_BCRYPT_LONGEST = 72
"""bcrypt looks no further. crypt(3) drops the rest in silence, the bcrypt library from 5.0 on raises."""

MOST_ROUNDS = 100_000
"""Rounds of SHA-crypt that take about a tenth of a second. The schemes' own default is 5,000."""

MOST_COST = 13
"""bcrypt's cost that takes about a second. Each more doubles it."""


class UnusablePassword(Exception):
    """
    A stored password that no client can ever give. The message completes "the password ..." for the operator, and
    quotes nothing of it but the name of its scheme.
    """


def _library(name: str, need: str = "needs", package: str = '"mailgate[passwdfile]"') -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise UnusablePassword(f"{need} a library that is not installed: pip install {package}") from error


_ONE_AT_A_TIME = Lock()
"""Hashes in Python hold up all other threads in turn; several at once would leave the reactor little time."""


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
    A kind of crypt(3)'s hashes: the name of its C{scheme}, the C{form} of a whole one (crypt(5)), its prefix being the
    first group, and the C{library} that computes it where crypt(3) does not.
    """

    scheme: str
    form: re.Pattern[bytes]
    library: Callable[[bytes], Verifier] | None = None

    def verifier(self, stored: bytes, prefix: bytes) -> Verifier:
        """What compares a password with the hash C{stored}."""
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
    The scheme of the hash C{stored} of crypt(3), and what compares a password with it.

    @raise UnusablePassword: it is none, or is not known here.
    """
    # Dovecot hands every scheme of crypt(3) to it, and so the hash alone says which one it is.
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
    The scheme of the Argon2 hash C{stored}, and what compares a password with it.

    @raise UnusablePassword: it is none, or the library is missing.
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
    """What makes the hash C{stored} unusually slow, for the operator: "the password ..."; empty where nothing does."""
    match = _ROUNDS.match(stored)
    if match is None:
        return ""
    rounds, cost = (int(number or 0) for number in match.groups())
    if rounds > MOST_ROUNDS:
        return f"takes {rounds} rounds, so that each login keeps a processor busy; use {MOST_ROUNDS} or fewer"
    if cost > MOST_COST:
        return f"has the cost {cost}, so that each login keeps a processor busy for seconds; use {MOST_COST} or less"
    return ""
