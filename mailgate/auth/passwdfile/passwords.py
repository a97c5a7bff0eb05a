# -*- test-case-name: mailgate.test.auth.passwdfile.test_passwords -*-
"""
Stored passwords as Dovecot writes them, C{{SCHEME}hash}, and whether a client's password is one of them.

U{Dovecot's password schemes<https://doc.dovecot.org/2.3/configuration_manual/authentication/password_schemes/>} that a
passwd-file of today holds: PLAIN, salted SHA-2, the hashes of crypt(3), and Argon2.
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
from mailgate.login import Method

__all__ = ["Password", "commonest", "expense", "parsePassword"]

_SCHEME = re.compile(rb"\{([A-Za-z0-9.-]{1,32})\}(.*)", re.DOTALL)

_LOCKED = (b"*", b"!")
"""shadow(5): a hash that starts with one of these is nobody's; C{passwd -l} and C{useradd} write them."""


@frozen(eq=False)
class Password:
    """
    A stored password of Dovecot's C{scheme}.

    C{plain} is the password itself, where the scheme keeps it. C{slow} says that L{matches} takes milliseconds and
    more: it belongs in a thread. C{stored} is then the whole hash, parameters and salt included.
    """

    scheme: str
    _verify: Verifier = field(repr=False)
    plain: bytes | None = field(default=None, repr=False)
    slow: bool = False
    stored: bytes = field(default=b"", repr=False)

    def matches(self, secret: bytes) -> bool:
        """
        Whether C{secret} is the password. An empty one, or one that no C string can hold, never is.

        @raise HashFailed: it could not be found out.
        """
        return bool(secret) and b"\0" not in secret and self._verify(secret)

    def answers(self, method: Method, challenge: bytes, digest: bytes) -> bool:
        """
        Whether C{digest}, hexadecimal in any case, is what CRAM-MD5 (RFC 2195), or else APOP (RFC 1939), makes of
        C{challenge} and this password. Never, where it is not C{plain}.
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
    "CRYPT": _Scheme(partial(_slow, cryptHash)),
    "SHA256-CRYPT": _Scheme(partial(_slow, cryptHash)),
    "SHA512-CRYPT": _Scheme(partial(_slow, cryptHash)),
    "BLF-CRYPT": _Scheme(partial(_slow, cryptHash)),
    "ARGON2ID": _Scheme(partial(_slow, argon2Hash)),
    "ARGON2I": _Scheme(partial(_slow, argon2Hash)),
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
    scheme, stored = _decoded(text)
    if stored is None:
        return None
    if not stored:
        raise UnusablePassword("is empty, which never matches; to lock the account, write *")
    return scheme.parse(stored)


def expense(text: bytes) -> str:
    """
    What makes a login by the password C{text} of a passwd-file unusually slow, for the operator: "the password ...".
    Empty where nothing does, or where it is no password.
    """
    try:
        return expenseOf(_decoded(text)[1] or b"")
    except UnusablePassword:
        return ""


def _decoded(text: bytes) -> tuple[_Scheme, bytes | None]:
    """The scheme of a passwd-file's C{text}, and the bytes that it stands for; L{None} where it is locked."""
    word, stored = _split(text)
    name, _, encoding = word.partition(".")
    scheme = _SCHEMES.get(name.upper())
    if scheme is None:
        raise UnusablePassword(f"has the unknown scheme {name}{nearest(name.upper(), list(_SCHEMES))}")
    decode = _DECODERS.get(encoding.upper() or scheme.encoded)
    if decode is None:
        raise UnusablePassword(f"has the unknown encoding .{encoding}{nearest(encoding.upper(), ['B64', 'HEX'])}")
    if scheme.parse is not _plain and stored.startswith(_LOCKED):
        return scheme, None
    try:
        return scheme, decode(stored)
    except ValueError:
        # The exception is dropped from the chain: its message may quote what it could not decode.
        raise UnusablePassword(f"is not encoded as {word.upper()} requires") from None


def _split(text: bytes) -> tuple[str, bytes]:
    if not text.startswith(b"{"):
        return "CRYPT", text
    match = _SCHEME.fullmatch(text)
    if match is None:
        raise UnusablePassword("starts with { but not with {SCHEME}")
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
