# -*- test-case-name: mailgate.test.auth.passwdfile.test_passwords -*-
"""
Stored passwords in Dovecot's notation, C{{SCHEME}hash}, and the comparison with a client's password.

The supported U{schemes<https://doc.dovecot.org/2.3/configuration_manual/authentication/password_schemes/>} are those of
current passwd-files: PLAIN, salted SHA-2, the hashes of crypt(3), Argon2, and the secrets of SCRAM.
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

from attrs import field, frozen

from mailgate.auth.digests import answersChallenge
from mailgate.auth.passwdfile.slowhashes import UnusablePassword, Verifier, argon2Hash, cryptHash, expenseOf
from mailgate.directives import nearest
from mailgate.login import Method, ScramSecret
from mailgate.scram.secrets import BadSecret, derivedSecret, parseSecret

__all__ = ["Password", "commonest", "expense", "parsePassword"]

_SCHEME = re.compile(rb"\{([A-Za-z0-9.-]{1,32})\}(.*)", re.DOTALL)

_LOCKED = (b"*", b"!")
"""A hash with this prefix matches no password (shadow(5)). C{passwd -l} and C{useradd} write it."""


@frozen(eq=False)
class Password:
    """
    A stored password.

    @ivar scheme: Dovecot's name of the scheme.
    @ivar plain: the password itself, if the scheme stores it.
    @ivar slow: whether L{matches} takes milliseconds or longer and must run in a thread.
    @ivar stored: if it is slow, the whole hash with parameters and salt.
    @ivar scram: the secret, if the scheme is one of SCRAM.
    """

    scheme: str
    _verify: Verifier = field(repr=False)
    plain: bytes | None = field(default=None, repr=False)
    slow: bool = False
    stored: bytes = field(default=b"", repr=False)
    scram: ScramSecret | None = None

    def matches(self, secret: bytes) -> bool:
        """
        Check a client's password. An empty one, or one with a NUL, never matches.

        @param secret: the password that the client sent.
        @raise HashFailed: the hash cannot be computed.
        """
        return bool(secret) and b"\0" not in secret and self._verify(secret)

    def answers(self, method: Method, challenge: bytes, digest: bytes) -> bool:
        """
        Check a client's answer to a challenge. Without C{plain} it never matches.

        @param method: L{Method.CRAM_MD5} (RFC 2195); any other value means APOP (RFC 1939).
        @param challenge: the challenge that the client got.
        @param digest: the client's answer, hexadecimal in upper or lower case.
        """
        return answersChallenge(method, self.plain or b"", challenge, digest)


def _slow(parse: Callable[[bytes], tuple[str, Verifier]], stored: bytes) -> Password:
    scheme, verify = parse(stored)
    return Password(scheme, verify, slow=True, stored=stored)


def _plain(stored: bytes) -> Password:
    return Password("PLAIN", partial(hmac.compare_digest, stored), plain=stored)


def _salted(scheme: str, algorithm: str, stored: bytes) -> Password:
    size = hashlib.new(algorithm).digest_size
    if len(stored) <= size:
        raise UnusablePassword(f"is too short: {scheme} needs a digest of {size} bytes and a salt")
    digest, salt = stored[:size], stored[size:]

    def verify(secret: bytes) -> bool:
        return hmac.compare_digest(hashlib.new(algorithm, secret + salt).digest(), digest)

    return Password(scheme, verify)


def _scram(method: Method, stored: bytes) -> Password:
    try:
        secret = parseSecret(method, stored)
    except BadSecret as error:
        raise UnusablePassword(str(error)) from None

    def verify(password: bytes) -> bool:
        derived = derivedSecret(method, password, secret.salt, secret.iterations)
        return hmac.compare_digest(derived.storedKey, secret.storedKey)

    return Password(method.value.upper(), verify, slow=True, stored=stored, scram=secret)


@frozen
class _Scheme:
    """A scheme. C{parse} makes a password of the decoded bytes, C{encoded} is its default encoding."""

    parse: Callable[[bytes], Password]
    encoded: str = ""


_SCHEMES = {
    "PLAIN": _Scheme(_plain),
    "CLEARTEXT": _Scheme(_plain),
    "CLEAR": _Scheme(_plain),
    "SSHA256": _Scheme(partial(_salted, "SSHA256", "sha256"), "B64"),
    "SSHA512": _Scheme(partial(_salted, "SSHA512", "sha512"), "B64"),
    "CRYPT": _Scheme(partial(_slow, cryptHash)),
    "SHA256-CRYPT": _Scheme(partial(_slow, cryptHash)),
    "SHA512-CRYPT": _Scheme(partial(_slow, cryptHash)),
    "BLF-CRYPT": _Scheme(partial(_slow, cryptHash)),
    "ARGON2ID": _Scheme(partial(_slow, argon2Hash)),
    "ARGON2I": _Scheme(partial(_slow, argon2Hash)),
    "SCRAM-SHA-256": _Scheme(partial(_scram, Method.SCRAM_SHA_256)),
    "SCRAM-SHA-1": _Scheme(partial(_scram, Method.SCRAM_SHA_1)),
}

_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "B64": partial(base64.b64decode, validate=True),
    "BASE64": partial(base64.b64decode, validate=True),
    "HEX": binascii.unhexlify,
}


def parsePassword(text: bytes) -> Password | None:
    """
    Parse a password of a passwd-file.

    @param text: the password; without C{{SCHEME}} it is a CRYPT hash.
    @return: the password, or L{None} if the account is locked.
    @raise UnusablePassword: no password of a client can match, for example because the password is empty.
    """
    scheme, stored = _decoded(text)
    if stored is None:
        return None
    if not stored:
        raise UnusablePassword("is empty, which never matches; to lock the account, write *")
    return scheme.parse(stored)


def expense(text: bytes) -> str:
    """
    Explain why checking a password is unusually slow.

    @param text: the password of a passwd-file.
    @return: a phrase that completes "the password ...", for the operator; empty if it is not slow, or invalid.
    """
    try:
        return expenseOf(_decoded(text)[1] or b"")
    except UnusablePassword:
        return ""


def _decoded(text: bytes) -> tuple[_Scheme, bytes | None]:
    """Return the scheme of a password and its decoded bytes, which are L{None} if the account is locked."""
    prefix, stored = _split(text)
    name, _, encoding = prefix.partition(".")
    scheme = _SCHEMES.get(name.upper())
    if scheme is None:
        hint = nearest(name.upper(), list(_SCHEMES))
        raise UnusablePassword(f"has the unknown scheme {name}{hint}")
    decode = _DECODERS.get(encoding.upper() or scheme.encoded)
    if decode is None:
        hint = nearest(encoding.upper(), ["B64", "HEX"])
        raise UnusablePassword(f"has the unknown encoding .{encoding}{hint}")
    if scheme.parse is not _plain and stored.startswith(_LOCKED):
        return scheme, None
    try:
        return scheme, decode(stored)
    except ValueError:
        # "from None", because the message of the exception may quote the password.
        raise UnusablePassword(f"is not encoded as {prefix} requires") from None


def _split(text: bytes) -> tuple[str, bytes]:
    if not text.startswith(b"{"):
        return "CRYPT", text
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise UnusablePassword("starts with { but not with {SCHEME}")
    return match[1].decode("ascii"), match[2]


def commonest(texts: Iterable[bytes]) -> Password | None:
    """
    Find the most frequent scheme.

    @param texts: passwords of a passwd-file.
    @return: a password with this scheme, or L{None} if none is usable. If it is one of SCRAM, its iterations and the
        length of its salt are the most frequent ones: clients see both.
    """
    count: Counter[str] = Counter()
    forms: dict[str, Counter[tuple[int, int]]] = {}
    passwords: dict[tuple[str, tuple[int, int]], Password] = {}
    for text in texts:
        try:
            password = parsePassword(text)
        except UnusablePassword:
            continue
        if password is not None:
            scheme, scram = password.scheme, password.scram
            form = (0, 0) if scram is None else (scram.iterations, len(scram.salt))
            count[scheme] += 1
            forms.setdefault(scheme, Counter())[form] += 1
            passwords.setdefault((scheme, form), password)
    if not count:
        return None
    scheme = count.most_common(1)[0][0]
    return passwords[scheme, forms[scheme].most_common(1)[0][0]]
