# -*- test-case-name: mailgate.test.test_passwords -*-
"""
Stored passwords as Dovecot writes them, C{{SCHEME}hash}, and whether a client's password is one of them.

U{Dovecot's password schemes<https://doc.dovecot.org/2.3/configuration_manual/authentication/password_schemes/>} that a
passwd-file of today holds: PLAIN, salted SHA-2, the hashes of crypt(3), and Argon2. What crypt(3) and Argon2 need is
imported when the first such hash is met, so that nobody else has to install it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from typing import Any

from attrs import field, frozen

from mailgate.directives import nearest
from mailgate.login import Method

__all__ = ["Password", "UnusablePassword", "commonest", "parsePassword"]

Verifier = Callable[[bytes], bool]

_SCHEME = re.compile(rb"\{([A-Za-z0-9.-]{1,32})\}(.*)", re.DOTALL)

_LOCKED = (b"*", b"!")
"""shadow(5): a hash that starts with one of these is nobody's; C{passwd -l} and C{useradd} write them."""

_CRYPT_LONGEST = 511
"""libxcrypt refuses what is longer, which also bounds the time that a password of many kilobytes would take."""

_BCRYPT_LONGEST = 72
"""bcrypt looks no further. crypt(3) drops the rest in silence, the bcrypt library from 5.0 on raises."""


class UnusablePassword(Exception):
    """
    A stored password that no client can ever give. The message completes "the password ..." for the operator, and
    quotes nothing of it but the name of its scheme.
    """


@frozen(eq=False)
class Password:
    """
    A stored password of Dovecot's C{scheme}.

    C{plain} is the password itself, where the scheme keeps it. C{slow} says that L{matches} takes milliseconds and
    more: it belongs in a thread.
    """

    scheme: str
    _verify: Verifier = field(repr=False)
    plain: bytes | None = field(default=None, repr=False)
    slow: bool = False

    def matches(self, secret: bytes) -> bool:
        """Whether C{secret} is the password. An empty one, or one that no C string can hold, never is."""
        return bool(secret) and b"\0" not in secret and self._verify(secret)

    def answers(self, method: Method, challenge: bytes, digest: bytes) -> bool:
        """
        Whether C{digest}, hexadecimal in any case, is what CRAM-MD5 (RFC 2195), or else APOP (RFC 1939), makes of
        C{challenge} and this password. Never, where it is not C{plain}.
        """
        plain = self.plain or b""
        if method is Method.CRAM_MD5:
            expected = hmac.new(plain, challenge, "md5").hexdigest()
        else:
            expected = hashlib.md5(challenge + plain, usedforsecurity=False).hexdigest()
        return hmac.compare_digest(expected.encode("ascii"), digest.lower()) and bool(plain)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        message = 'needs a library that is not installed: pip install "mailgate[passwdfile]"'
        raise UnusablePassword(message) from error


def _plain(stored: bytes) -> Password:
    return Password("PLAIN", partial(hmac.compare_digest, stored), plain=stored)


def _salted(scheme: str, algorithm: str, stored: bytes) -> Password:
    size = hashlib.new(algorithm).digest_size
    if len(stored) <= size:
        raise UnusablePassword(f"is too short: {scheme} is a digest of {size} bytes and a salt")
    digest, salt = stored[:size], stored[size:]

    def verify(secret: bytes) -> bool:
        return hmac.compare_digest(hashlib.new(algorithm, secret + salt).digest(), digest)

    return Password(scheme, verify)


def _shaCrypt(name: str, stored: bytes) -> Verifier:
    algorithm, text = getattr(_library("passlib.hash"), name), stored.decode("ascii")
    return lambda secret: bool(algorithm.verify(secret, text))


def _bcrypt(stored: bytes) -> Verifier:
    checkpw = _library("bcrypt").checkpw
    return lambda secret: bool(checkpw(secret[:_BCRYPT_LONGEST], stored))


def _shortEnough(verify: Verifier, secret: bytes) -> bool:
    return len(secret) <= _CRYPT_LONGEST and verify(secret)


_CRYPT: tuple[tuple[str, re.Pattern[bytes], Callable[[bytes], Verifier]], ...] = (
    (
        "SHA256-CRYPT",
        re.compile(rb"\$5\$(rounds=[1-9][0-9]{3,8}\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{43}"),
        partial(_shaCrypt, "sha256_crypt"),
    ),
    (
        "SHA512-CRYPT",
        re.compile(rb"\$6\$(rounds=[1-9][0-9]{3,8}\$)?[./0-9A-Za-z]{0,16}\$[./0-9A-Za-z]{86}"),
        partial(_shaCrypt, "sha512_crypt"),
    ),
    ("BLF-CRYPT", re.compile(rb"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./0-9A-Za-z]{53}"), _bcrypt),
)


def _crypt(stored: bytes) -> Password:
    # Dovecot hands every scheme of crypt(3) to it, and so the hash alone says which one it is.
    for scheme, form, verifier in _CRYPT:
        if form.fullmatch(stored):
            return Password(scheme, partial(_shortEnough, verifier(stored)), slow=True)
    if stored.startswith(b"$argon2"):
        raise UnusablePassword("is an Argon2 hash, and needs {ARGON2ID} or {ARGON2I} before it")
    raise UnusablePassword("is no whole hash of the kinds $5$, $6$, $2a$, $2b$ and $2y$; a plain one needs {PLAIN}")


_ARGON2 = re.compile(
    rb"\$argon2(id|i)\$v=19\$m=[0-9]{1,10},t=[0-9]{1,10},p=[0-9]{1,8}\$[+/0-9A-Za-z]{11,}\$[+/0-9A-Za-z]{6,}"
)


def _argon2(stored: bytes) -> Password:
    form = _ARGON2.fullmatch(stored)
    if form is None:
        raise UnusablePassword("is no whole Argon2 hash")
    argon2 = _library("argon2")
    verify, text = argon2.PasswordHasher().verify, stored.decode("ascii")

    def matches(secret: bytes) -> bool:
        try:
            return bool(verify(text, secret))
        except argon2.exceptions.VerifyMismatchError:
            return False

    return Password(f"ARGON2{form[1].decode('ascii').upper()}", matches, slow=True)


@frozen
class _Scheme:
    """How the text of a scheme is C{encoded} where no suffix says, and what makes a password of the decoded bytes."""

    parse: Callable[[bytes], Password]
    encoded: str = ""


_SCHEMES = {
    "PLAIN": _Scheme(_plain),
    "CLEARTEXT": _Scheme(_plain),
    "CLEAR": _Scheme(_plain),
    "SSHA256": _Scheme(partial(_salted, "SSHA256", "sha256"), "B64"),
    "SSHA512": _Scheme(partial(_salted, "SSHA512", "sha512"), "B64"),
    "CRYPT": _Scheme(_crypt),
    "SHA256-CRYPT": _Scheme(_crypt),
    "SHA512-CRYPT": _Scheme(_crypt),
    "BLF-CRYPT": _Scheme(_crypt),
    "ARGON2ID": _Scheme(_argon2),
    "ARGON2I": _Scheme(_argon2),
}

_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "B64": partial(base64.b64decode, validate=True),
    "BASE64": partial(base64.b64decode, validate=True),
    "HEX": binascii.unhexlify,
}


def parsePassword(text: bytes) -> Password | None:
    """
    The password that a passwd-file writes as C{text}; one without C{{SCHEME}} is CRYPT. L{None} where it is locked.

    @raise UnusablePassword: no client can ever give it, the empty one among them.
    """
    word, stored = _split(text)
    name, _, encoding = word.partition(".")
    scheme = _SCHEMES.get(name.upper())
    if scheme is None:
        raise UnusablePassword(f"has the unknown scheme {name}{nearest(name.upper(), list(_SCHEMES))}")
    decode = _DECODERS.get(encoding.upper() or scheme.encoded)
    if decode is None:
        raise UnusablePassword(f"has the unknown encoding .{encoding}{nearest(encoding.upper(), ['B64', 'HEX'])}")
    if scheme.parse is not _plain and stored.startswith(_LOCKED):
        return None
    try:
        decoded = decode(stored)
    except ValueError:
        # The exception is dropped from the chain: its message may quote what it could not decode.
        raise UnusablePassword(f"is not in the encoding of {word.upper()}") from None
    if not decoded:
        raise UnusablePassword("is empty, which lets nobody in; to lock an account, write *")
    return scheme.parse(decoded)


def _split(text: bytes) -> tuple[str, bytes]:
    if not text.startswith(b"{"):
        return "CRYPT", text
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise UnusablePassword("starts with {, but a scheme's name and } do not follow")
    return match[1].decode("ascii"), match[2]


def commonest(texts: Iterable[bytes]) -> Password | None:
    """The first password of the scheme that most of C{texts} have; L{None} where none can be used."""
    count: Counter[str] = Counter()
    passwords: dict[str, Password] = {}
    for text in texts:
        try:
            password = parsePassword(text)
        except UnusablePassword:
            continue
        if password is not None:
            count[password.scheme] += 1
            passwords.setdefault(password.scheme, password)
    return passwords[count.most_common(1)[0][0]] if count else None
