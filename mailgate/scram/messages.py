# -*- test-case-name: mailgate.test.scram.test_messages -*-
"""
The messages of SCRAM (RFC 5802, sections 5 and 7), decoded from base64.

Messages of the other side are read strictly. Extensions at the end of a message are allowed and ignored, except C{m},
which the RFC reserves for extensions that must not be ignored.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

from attrs import field, frozen

from mailgate.scram.secrets import LEAST_ITERATIONS, MOST_ITERATIONS

__all__ = [
    "ClientFinal",
    "ClientFirst",
    "ScramError",
    "ServerFirst",
    "parseClientFinal",
    "parseClientFirst",
    "parseServerFinal",
    "parseServerFirst",
    "saslName",
    "serverFirst",
]

_NAME = rb"(?:[^,=\0]|=2C|=3D)+"
_NONCE = rb"[!-+\--~]{1,1024}"
_EXTENSIONS = rb"((?:,[A-Za-z]=[^,\0]+)*)"
_BASE64 = rb"[A-Za-z0-9+/]+={0,2}"

_CLIENT_FIRST = re.compile(
    rb"((n|y|p=[A-Za-z0-9.-]{1,64}),(?:a=(" + _NAME + rb"))?,)(n=(" + _NAME + rb"),r=(" + _NONCE + rb")"
    rb"" + _EXTENSIONS + rb")"
)
_CLIENT_FINAL = re.compile(rb"(c=(" + _BASE64 + rb"),r=(" + _NONCE + rb")" + _EXTENSIONS + rb"),p=(" + _BASE64 + rb")")
_SERVER_FIRST = re.compile(rb"r=(" + _NONCE + rb"),s=(" + _BASE64 + rb"),i=([1-9][0-9]{0,8})" + _EXTENSIONS)
_SERVER_FINAL = re.compile(rb"v=(" + _BASE64 + rb")" + _EXTENSIONS)
_SERVER_ERROR = re.compile(rb"e=[^,\0]+" + _EXTENSIONS)


class ScramError(Exception):
    """
    A message of the other side is invalid. The text completes "the message ..." or names the error, for the log, and
    contains nothing of the message.
    """


@frozen
class ClientFirst:
    """
    The first message of a client.

    @ivar header: the GS2 header (RFC 5801, section 4), which C{bare} follows.
    @ivar binding: C{n}, C{y}, or the name of a channel binding.
    @ivar authzid: the authorization identity; empty if there is none.
    @ivar user: the user name.
    @ivar nonce: the client's part of the nonce.
    @ivar bare: the message without the header.
    """

    header: bytes
    binding: bytes
    authzid: bytes
    user: bytes
    nonce: bytes
    bare: bytes


@frozen
class ClientFinal:
    """
    The last message of a client.

    @ivar binding: the GS2 header and the data of the channel binding.
    @ivar nonce: the whole nonce.
    @ivar proof: the proof.
    @ivar bare: the message without the proof.
    """

    binding: bytes = field(repr=False)
    nonce: bytes
    proof: bytes = field(repr=False)
    bare: bytes = field(repr=False)


@frozen
class ServerFirst:
    """
    The first message of a server.

    @ivar nonce: the whole nonce.
    @ivar salt: the salt of the user's secret.
    @ivar iterations: the number of its iterations.
    """

    nonce: bytes
    salt: bytes = field(repr=False)
    iterations: int


def saslName(name: bytes) -> bytes:
    """
    Return a user name as messages have it.

    @param name: the name.
    """
    return name.replace(b"=", b"=3D").replace(b",", b"=2C")


def _named(name: bytes | None) -> bytes:
    if not name:
        return b""
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        raise ScramError("a user name is not UTF-8") from None
    return name.replace(b"=2C", b",").replace(b"=3D", b"=")


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ScramError("invalid base64 in a SCRAM message") from None


def _checkExtensions(extensions: bytes) -> None:
    if b",m=" in extensions:
        raise ScramError("the SCRAM message needs an extension that the gateway does not have")


def parseClientFirst(message: bytes) -> ClientFirst:
    """
    Read C{client-first-message}.

    @param message: the message.
    @raise ScramError: it is invalid.
    """
    match = _CLIENT_FIRST.fullmatch(message)
    if match is None:
        raise ScramError("invalid first SCRAM message")
    header, binding, authzid, bare, user, nonce, extensions = match.groups()
    _checkExtensions(extensions)
    return ClientFirst(header, binding.removeprefix(b"p="), _named(authzid), _named(user), nonce, bare)


def parseClientFinal(message: bytes) -> ClientFinal:
    """
    Read C{client-final-message}.

    @param message: the message.
    @raise ScramError: it is invalid.
    """
    match = _CLIENT_FINAL.fullmatch(message)
    if match is None:
        raise ScramError("invalid last SCRAM message")
    bare, binding, nonce, extensions, proof = match.groups()
    _checkExtensions(extensions)
    return ClientFinal(_decoded(binding), nonce, _decoded(proof), bare)


def serverFirst(nonce: bytes, salt: bytes, iterations: int) -> bytes:
    """
    Return C{server-first-message}.

    @param nonce: the whole nonce.
    @param salt: the salt of the user's secret.
    @param iterations: the number of its iterations.
    """
    return b"r=%b,s=%b,i=%d" % (nonce, b64encode(salt), iterations)


def parseServerFirst(message: bytes) -> ServerFirst:
    """
    Read C{server-first-message}.

    @param message: the message.
    @raise ScramError: it is invalid, or has too few or too many iterations.
    """
    match = _SERVER_FIRST.fullmatch(message)
    if match is None:
        raise ScramError("invalid first SCRAM message")
    nonce, salt, iterations, extensions = match.groups()
    _checkExtensions(extensions)
    if not LEAST_ITERATIONS <= int(iterations) <= MOST_ITERATIONS:
        raise ScramError(f"the iterations of SCRAM are not {LEAST_ITERATIONS} to {MOST_ITERATIONS}")
    return ServerFirst(nonce, _decoded(salt), int(iterations))


def parseServerFinal(message: bytes) -> bytes | None:
    """
    Read C{server-final-message}.

    @param message: the message.
    @return: the server's signature; L{None} if the server reports an error.
    @raise ScramError: it is invalid.
    """
    match = _SERVER_FINAL.fullmatch(message)
    if match is not None:
        return _decoded(match[1])
    if _SERVER_ERROR.fullmatch(message):
        return None
    raise ScramError("invalid last SCRAM message")
