# -*- test-case-name: mailgate.test.frontend.test_mechanisms -*-
"""
The server's half of the SASL mechanisms (RFC 4422) that nginx's mail proxy knows: PLAIN (RFC 4616), LOGIN, CRAM-MD5
(RFC 2195) and EXTERNAL; and of those that freenginx adds: Google's XOAUTH2, and OAUTHBEARER (RFC 7628). They take and
give plain bytes: base64 and framing are the protocols'.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

from mailgate.login import Credentials, Denial, Method

__all__ = [
    "MECHANISMS",
    "UNLISTED",
    "Cancelled",
    "InitialResponse",
    "InvalidResponse",
    "Mechanism",
    "NotBase64",
    "RefusedOAuth",
    "decodeBase64",
    "loginMethods",
    "mechanismNames",
]

USERNAME = b"Username:"
PASSWORD = b"Password:"

_CRAM_MD5_DIGEST = 32
_XOAUTH2 = re.compile(rb"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01", re.IGNORECASE)
_GS2_HEADER = re.compile(rb"[^,\x01]*,(?:a=((?:[^,=\x01]|=2C|=3D)*))?,\x01", re.IGNORECASE)
"""RFC 5801's, of which the identity is wanted. RFC 7628 demands none: the token may tell whose it is."""
_BEARER = re.compile(rb"(?:\A|\x01)auth=Bearer ([^\x01]*)", re.IGNORECASE)


class InvalidResponse(Exception):
    """What the client sent is not of the mechanism's form. C{str} says how, and holds nothing that was sent."""


class Cancelled(InvalidResponse):
    """The client sent C{*}: it does not go on (RFC 4422, section 3.5)."""


class NotBase64(InvalidResponse):
    """What the client sent is not base64."""


class InitialResponse(InvalidResponse):
    """The client sent an initial response to a mechanism in which the server speaks first."""


class Mechanism(Protocol):
    """One exchange. Both methods give the next challenge or, at the end, the credentials."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        """
        Begin, with the client's initial response or L{None}.

        @raise InvalidResponse: it makes no sense, or the mechanism knows none.
        """

    def respond(self, response: bytes) -> bytes | Credentials:
        """
        Go on with the answer to the last challenge.

        @raise InvalidResponse: it makes no sense.
        """


class Plain:
    """RFC 4616: C{authzid NUL authcid NUL password}."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        parts = response.split(b"\0", 2)
        if len(parts) < 3:
            raise InvalidResponse("invalid login or password")
        authzid, user, password = parts
        return Credentials(Method.PLAIN, user, password, authzid=b"" if authzid == user else authzid)


class Login:
    """The LOGIN mechanism: user name and password, each asked for; an initial response is the user name."""

    _user: bytes | None = None

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return USERNAME if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        if self._user is None:
            self._user = response
            return PASSWORD
        return Credentials(Method.PLAIN, self._user, response)


class CramMD5:
    """RFC 2195: the user name and an HMAC-MD5 in hexadecimal over the challenge, which C{makeSalt} gives."""

    def __init__(self, makeSalt: Callable[[], bytes]) -> None:
        self._salt = makeSalt()

    def start(self, initial: bytes | None) -> bytes | Credentials:
        if initial is not None:
            raise InitialResponse("unexpected initial response")
        return self._salt

    def respond(self, response: bytes) -> bytes | Credentials:
        # The last blank ends the user name, so that names with blanks can log in (nginx takes the first).
        user, blank, digest = response.rpartition(b" ")
        if not blank or len(digest) != _CRAM_MD5_DIGEST:
            raise InvalidResponse("invalid CRAM-MD5 hash")
        return Credentials(Method.CRAM_MD5, user, digest, self._salt)


class External:
    """RFC 4422 appendix A. Without an initial response nginx asks for the user name, so clients know that prompt."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return USERNAME if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        return Credentials(Method.EXTERNAL, response)


class XOAuth2:
    """Google's: C{user=NAME ^A auth=Bearer TOKEN ^A ^A}, without the blanks."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        match = _XOAUTH2.fullmatch(response)
        if match is None:
            raise InvalidResponse("invalid login or token")
        return Credentials(Method.XOAUTH2, match[1], match[2])


class OAuthBearer:
    """RFC 7628: C{n,a=NAME, ^A host=… ^A port=… ^A auth=Bearer TOKEN ^A ^A}; host and port are not looked at."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        header = _GS2_HEADER.match(response)
        token = header and _BEARER.search(response[header.end() :])
        if header is None or token is None:
            raise InvalidResponse("invalid login or token")
        name = header[1] or b""
        user = re.sub(rb"=(2C|3D)", lambda code: bytes.fromhex(code[1].decode()), name, flags=re.IGNORECASE)
        return Credentials(Method.OAUTHBEARER, user, token[1])


class RefusedOAuth:
    """
    How an OAuth exchange ends after C{denial}: its C{challenge} tells the client why. The response says nothing but
    that it has been told (RFC 7628, section 3.2.3), whatever the client sends for one.

    @raise InvalidResponse: C{denial} holds no such challenge in base64.
    """

    def __init__(self, denial: Denial) -> None:
        self.denial = denial
        self.challenge = decodeBase64(denial.challenge or b"")
        if not self.challenge:
            raise InvalidResponse("empty challenge")


MECHANISMS: dict[bytes, Callable[[Callable[[], bytes]], Mechanism]] = {
    b"PLAIN": lambda makeSalt: Plain(),
    b"LOGIN": lambda makeSalt: Login(),
    b"CRAM-MD5": CramMD5,
    b"EXTERNAL": lambda makeSalt: External(),
    b"XOAUTH2": lambda makeSalt: XOAuth2(),
    b"OAUTHBEARER": lambda makeSalt: OAuthBearer(),
}
"""Mechanisms by name, in the order in which freenginx lists them; each takes what makes a salt."""

UNLISTED = frozenset({b"PLAIN", b"LOGIN"})
"""Those that nginx takes whether they are listed or not."""


@cache
def mechanismNames(words: Sequence[str]) -> tuple[bytes, ...]:
    """The mechanisms that the words of an C{*_auth} directive switch on."""
    return tuple(name for name in MECHANISMS if name.decode().lower() in words)


@cache
def loginMethods(words: Sequence[str]) -> frozenset[Method]:
    """The login methods that the words of an C{*_auth} directive switch on: LOGIN gives what PLAIN does."""
    return frozenset(Method.PLAIN if word == "login" else Method(word) for word in words)


def decodeBase64(token: bytes) -> bytes:
    """
    The bytes that C{token} encodes. As in nginx padding may be left out, and what follows it is not looked at.

    @raise NotBase64: it is not base64.
    """
    digits = token.partition(b"=")[0]
    if len(digits) % 4 == 1 or not re.fullmatch(rb"[A-Za-z0-9+/]*", digits):
        raise NotBase64("invalid base64 encoding")
    return base64.b64decode(digits + b"=" * (-len(digits) % 4))
