"""
Messages of SCRAM, of both sides, and the secrets of account files and services.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve

from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.errors import BackendError
from mailgate.backend.scram import ScramMechanism
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
_CHALLENGES = tuple(
    b"r=%b%b,s=%b,i=4096\n%b" % (b64encode(bytes(18)), nonce, b64encode(_SECRET.salt), last)
    for nonce in (b"def", b"")
    for last in (b"", b"v=aHVzaA==", b"e=other-error")
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


def _behind(pieces: Sequence[bytes]) -> Any:
    """The gateway as a client, with the lines as the messages of a backend. No backend gets in without its proof."""
    (data,) = pieces
    mechanism = ScramMechanism("scram-sha-256", PasswordLogin(b"joe", None, scram=_SECRET), None, bytes)
    outcomes = []
    for challenge in data.split(b"\n"):
        answering = mechanism.answer(b64encode(challenge))
        try:
            answering.send(None)
            raise AssertionError("the answer waits")
        except StopIteration as answer:
            b64decode(answer.value, validate=True)
            outcomes.append(answer.value)
        except BackendError as error:
            outcomes.append(str(error))
            break
    for last in (None, data, b64encode(data)):
        try:
            mechanism.conclude(last)
        except BackendError:
            continue
        raise AssertionError("the backend has proven nothing")
    return outcomes


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
    Target("scrambehind", _behind, mutations(_CHALLENGES, _WORDS), 100, isCut=False),
    Target("scramnames", _names, mutations(_EXAMPLES, _WORDS), 100, isCut=False),
)
