# -*- test-case-name: mailgate.test.frontend.test_mechanisms -*-
"""
The server's side of the SASL mechanisms (RFC 4422). nginx's mail proxy has PLAIN (RFC 4616), LOGIN, CRAM-MD5 (RFC 2195)
and EXTERNAL (RFC 4422, appendix A). freenginx adds Google's XOAUTH2 and OAUTHBEARER (RFC 7628).

Mechanisms take and return decoded bytes. L{mailgate.frontend.exchange} adds base64, the protocols add the framing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

from mailgate.login import Credentials, Method
from mailgate.scram.names import SCRAM

__all__ = [
    "MECHANISMS",
    "UNLISTED",
    "Cancelled",
    "InitialResponse",
    "InvalidResponse",
    "InvalidToken",
    "Mechanism",
    "NotBase64",
    "TooLongResponse",
    "decodeBase64",
    "loginMethods",
    "mechanismNames",
]

USERNAME = b"Username:"
PASSWORD = b"Password:"

_CRAM_MD5_DIGEST = 32
_TOKEN = rb"[A-Za-z0-9\-._~+/]+=*"
"""C{b64token} of RFC 6750, section 2.1. A token becomes part of URLs and headers."""
_FIELDS = rb"(?:(?!auth=)[A-Za-z]+=[^\x01]*\x01)*"
"""Fields that no document has. Dovecot ignores them, too."""
_XOAUTH2 = re.compile(
    rb"user=([^\x01]*)\x01%b" % _FIELDS + rb"auth=Bearer (%b)\x01%b\x01" % (_TOKEN, _FIELDS), re.IGNORECASE
)
_GS2_HEADER = re.compile(rb"[ny],(?:a=((?:[^,=\x01]|=2C|=3D)*))?,\x01", re.IGNORECASE)
"""
The header of RFC 5801, section 4, with its authorization identity. RFC 7628 makes the identity optional: the token may
name the user. A binding to a TLS channel (C{p=}) is refused.
"""
_BEARER = re.compile(rb"(?:\A|\x01)auth=Bearer (%b)(?:\x01|\Z)" % _TOKEN, re.IGNORECASE)


class InvalidResponse(Exception):
    """The client's response is invalid. The text names the error for the log and contains nothing that was sent."""


class Cancelled(InvalidResponse):
    """The client cancelled the exchange with C{*} (RFC 4422, section 3.5)."""


class NotBase64(InvalidResponse):
    """The client's response is not base64."""


class TooLongResponse(InvalidResponse):
    """The client's response is longer than C{sasl_max_response}."""


class InvalidToken(InvalidResponse):
    """The client's response is no message of OAUTHBEARER. It asks for the error (RFC 7628, section 3.2.3)."""


class InitialResponse(InvalidResponse):
    """The client sent an initial response to a mechanism in which the server speaks first."""


class Mechanism(Protocol):
    """The state of one exchange. Both methods return the next challenge or, at the end, the credentials."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        """
        Begin the exchange.

        @param initial: the client's initial response, decoded, or L{None}.
        @raise InvalidResponse: it is invalid, or the mechanism does not allow one.
        """

    def respond(self, response: bytes) -> bytes | Credentials:
        """
        Continue the exchange.

        @param response: the client's response to the last challenge, decoded.
        @raise InvalidResponse: it is invalid.
        """


class Plain:
    """
    PLAIN (RFC 4616, section 2): C{authzid NUL authcid NUL password}. As with nginx, whatever follows the second NUL is
    the password, and the authenticator decides about empty names and passwords.
    """

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        parts = response.split(b"\0", 2)
        if len(parts) < 3:
            raise InvalidResponse("invalid login or password")
        authzid, user, password = parts
        return Credentials(Method.PLAIN, user, password, authzid=b"" if authzid == user else authzid)


class Login:
    """LOGIN: the server prompts for the user name and the password. An initial response is the user name."""

    _user: bytes | None = None

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return USERNAME if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        if self._user is None:
            self._user = response
            return PASSWORD
        return Credentials(Method.PLAIN, self._user, response)


class CramMD5:
    """
    CRAM-MD5 (RFC 2195, section 2): the user name and an HMAC-MD5 of the challenge in hexadecimal.

    @param makeSalt: returns the challenge.
    """

    def __init__(self, makeSalt: Callable[[], bytes]) -> None:
        self._salt = makeSalt()

    def start(self, initial: bytes | None) -> bytes | Credentials:
        if initial is not None:
            raise InitialResponse("unexpected initial response")
        return self._salt

    def respond(self, response: bytes) -> bytes | Credentials:
        # The last blank ends the user name: names may contain blanks. nginx splits at the first.
        user, blank, digest = response.rpartition(b" ")
        if not blank or len(digest) != _CRAM_MD5_DIGEST:
            raise InvalidResponse("invalid CRAM-MD5 hash")
        return Credentials(Method.CRAM_MD5, user, digest, self._salt)


class External:
    """EXTERNAL (RFC 4422, appendix A). Without an initial response it sends the same prompt as nginx."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return USERNAME if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        return Credentials(Method.EXTERNAL, response)


class XOAuth2:
    """Google's XOAUTH2: C{user=NAME ^A auth=Bearer TOKEN ^A ^A}, without the blanks."""

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        match = _XOAUTH2.fullmatch(response)
        if match is None:
            raise InvalidResponse("invalid login or token")
        return Credentials(Method.XOAUTH2, match[1], match[2])


class OAuthBearer:
    """
    OAUTHBEARER (RFC 7628, section 3.1): C{n,a=NAME, ^A host=… ^A port=… ^A auth=Bearer TOKEN ^A ^A}, without the
    blanks. Host and port are ignored.
    """

    def start(self, initial: bytes | None) -> bytes | Credentials:
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> bytes | Credentials:
        header = _GS2_HEADER.match(response)
        token = header and _BEARER.search(response[header.end() :])
        if header is None or token is None:
            raise InvalidToken("invalid login or token")
        name = header[1] or b""
        user = re.sub(rb"=(2C|3D)", lambda code: bytes.fromhex(code[1].decode()), name, flags=re.IGNORECASE)
        return Credentials(Method.OAUTHBEARER, user, token[1])


MECHANISMS: dict[bytes, Callable[[Callable[[], bytes]], Mechanism]] = {
    b"PLAIN": lambda makeSalt: Plain(),
    b"LOGIN": lambda makeSalt: Login(),
    b"CRAM-MD5": CramMD5,
    b"EXTERNAL": lambda makeSalt: External(),
    b"XOAUTH2": lambda makeSalt: XOAuth2(),
    b"OAUTHBEARER": lambda makeSalt: OAuthBearer(),
}
"""Constructors of mechanisms by name, in freenginx's order. Their argument returns the challenge for CRAM-MD5."""

UNLISTED = frozenset({b"PLAIN", b"LOGIN"})
"""Mechanisms that nginx accepts even if C{*_auth} does not list them (C{unlisted_auth})."""


@cache
def mechanismNames(words: Sequence[str]) -> tuple[bytes, ...]:
    """Return the names of the mechanisms that the C{words} of an C{*_auth} directive enable."""
    return tuple(name for name in (*MECHANISMS, *SCRAM) if name.decode().lower() in words)


@cache
def loginMethods(words: Sequence[str]) -> frozenset[Method]:
    """Return the login methods that the C{words} of an C{*_auth} directive enable. LOGIN counts as PLAIN."""
    return frozenset(Method.PLAIN if word == "login" else Method(word) for word in words)


def decodeBase64(token: bytes) -> bytes:
    """
    Decode base64. As in nginx, padding is optional and anything after it is ignored.

    @param token: the encoded bytes.
    @raise NotBase64: C{token} is not base64.
    """
    digits = token.partition(b"=")[0]
    if len(digits) % 4 == 1 or not re.fullmatch(rb"[A-Za-z0-9+/]*", digits):
        raise NotBase64("invalid base64 encoding")
    return base64.b64decode(digits + b"=" * (-len(digits) % 4))
