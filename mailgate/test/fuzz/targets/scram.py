"""
Messages of SCRAM, of both sides, and the secrets of account files and services.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from mailgate.login import Method
from mailgate.scram.client import ScramClient
from mailgate.scram.messages import (
    ScramError,
    parseClientFinal,
    parseClientFirst,
    parseServerFinal,
    parseServerFirst,
    saslName,
)
from mailgate.scram.secrets import BadSecret, fakeSecret, parseSecret, written
from mailgate.scram.server import ScramServer
from mailgate.test.fuzz.frame import Target, mutations

__all__ = ["TARGETS"]

_SECRET = evolve(fakeSecret(b"key", Method.SCRAM_SHA_256, b"joe"), clientKey=bytes(32))
_EXAMPLES = (
    b"n,,n=joe,r=abc",
    b"y,a=ann,n=j=2Co=3De,r=abc,x=1",
    b"p=tls-exporter,,n=joe,r=abc",
    b"c=biws,r=abc,p=aHVzaA==",
    b"r=abcdef,s=c2FsdA==,i=4096",
    b"v=aHVzaA==",
    b"e=other-error",
    written(_SECRET),
)
_WORDS = (
    *(b"n,", b"y,", b"p=", b"a=", b"n=", b"r=", b"c=", b"s=", b"i=", b"v=", b"e=", b"m=", b",", b"=", b"=2C"),
    *(b"=3D", b"biws", b"4096", b"\0", b"\xff", b"99999999999", b"tls-exporter"),
)


def _outcome(parse: Callable[[bytes], object], data: bytes, error: type[Exception]) -> object:
    try:
        return parse(data)
    except error as reason:
        assert len(data) < 6 or data.decode("latin-1") not in str(reason)
        return str(reason)


def _messages(pieces: Sequence[bytes]) -> Any:
    """Each parser with the bytes, and both sides with them as the message of the other one."""
    (data,) = pieces
    parsers = (parseClientFirst, parseClientFinal, parseServerFirst, parseServerFinal)
    outcomes = [_outcome(parse, data, ScramError) for parse in parsers]
    for method in (Method.SCRAM_SHA_256, Method.SCRAM_SHA_1):
        secret = _outcome(lambda text, method=method: parseSecret(method, text), data, BadSecret)  # type: ignore[misc]
        outcomes.append(str(secret))
    server = ScramServer(False, False, lambda: b"", lambda n: bytes(n))
    client = ScramClient(b"joe", b"", b"abc")
    server.first(client.message)
    client.first(server.challenge(evolve(_SECRET, clientKey=None)))
    client.final(_SECRET)
    assert _outcome(server.final, data, ScramError) is None or server.signature == b""
    assert _outcome(client.verify, data, ScramError) is not True
    return [str(each) for each in outcomes]


def _names(pieces: Sequence[bytes]) -> Any:
    """A name means to the server what it means to the client."""
    (data,) = pieces
    user, _, authzid = data.partition(b"\n")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not user or b"\0" in data:
        return None
    first = parseClientFirst(ScramClient(user, authzid, b64encode(b"nonce")).message)
    assert (first.user, first.authzid) == (user, authzid)
    assert b"," not in saslName(user)
    return None


TARGETS = (
    Target("scram", _messages, mutations(_EXAMPLES, _WORDS), 150, isCut=False),
    Target("scramnames", _names, mutations(_EXAMPLES, _WORDS), 100, isCut=False),
)
