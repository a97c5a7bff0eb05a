"""
Messages of SASL: those of clients, and those that the gateway sends to backends, which its own front understands.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from mailgate.backend.credentials import PasswordLogin
from mailgate.backend.mechanisms import mechanismFor
from mailgate.frontend.exchange import Step, beginning
from mailgate.frontend.mechanisms import MECHANISMS, InvalidResponse
from mailgate.login import Backend, Credentials, Method, fitForWire
from mailgate.test.fuzz.frame import Target, mutations

__all__ = ["TARGETS"]

_EXAMPLES = (
    b"\0joe\0sesame",
    b"admin\0joe\0sesame",
    b"joe 0123456789abcdef0123456789abcdef",
    b"user=joe\1auth=Bearer token==\1\1",
    b"n,a=j=2Coe,\1host=x\1port=143\1auth=Bearer token\1\1",
    b"y,,\1auth=Bearer t\1\1",
)
_WORDS = (
    *(b"\0", b"\1", b"=", b",", b"=2C", b"=3D", b"n,", b"y,", b"p=tls-exporter,", b"a=", b"user=", b"auth=Bearer "),
    *(b"host=", b"t", b"*", b" ", b"\r\n"),
)

_REFUSALS = frozenset(
    (
        "invalid login or password",
        "unexpected initial response",
        "invalid CRAM-MD5 hash",
        "invalid login or token",
        "invalid base64 encoding",
        'cancellation ("*")',
    )
)
"""All that is said about a response that cannot be used."""


def _exchanges(pieces: Sequence[bytes]) -> Any:
    """Each mechanism with the message, as an initial response, as a response, and without base64 around it."""
    (data,) = pieces
    outcomes = []
    for name in MECHANISMS:
        encoded = base64.b64encode(data)
        for initial in (encoded, data, None):
            exchange = beginning(name, MECHANISMS, lambda: b"<salt>")
            assert exchange is not None
            step: Step | None = exchange.begin(initial)
            for _ in range(3):
                if not isinstance(step, bytes):
                    break
                base64.b64decode(step, validate=True)
                step = exchange.respond(encoded)
            assert isinstance(step, Credentials | InvalidResponse), f"{name!r} does not end"
            outcomes.append(str(step))
            if isinstance(step, InvalidResponse):
                # It may hold nothing of what the client has sent.
                assert str(step) in _REFUSALS, str(step)
            elif step.method.isOAuth:
                assert fitForWire(step.secret) and b"\1" not in step.user
    return outcomes


def _roundTrip(pieces: Sequence[bytes]) -> Any:
    """What the gateway sends to a backend means to a server what it means to the gateway."""
    (data,) = pieces
    user, _, secret = data.partition(b"\0")
    user, authzid = user[: len(user) // 2], user[len(user) // 2 :]
    if not user or not secret or b"\0" in secret or not authzid:
        return None
    backend = Backend("mail.test", 143)
    plain = mechanismFor("plain", PasswordLogin(user, secret, authzid), backend)
    given = Credentials(Method.PLAIN, user, secret, authzid=b"" if authzid == user else authzid)
    assert MECHANISMS[plain.name](bytes).start(base64.b64decode(plain.message)) == given
    if b"\1" in user:
        return None
    for method in ("xoauth2", "oauthbearer"):
        token = base64.urlsafe_b64encode(secret)
        mechanism = mechanismFor(method, PasswordLogin(user, token), backend)
        wanted = Credentials(Method(method), user, token)
        assert MECHANISMS[mechanism.name](bytes).start(base64.b64decode(mechanism.message)) == wanted
    return None


TARGETS = (
    Target("sasl", _exchanges, mutations(_EXAMPLES, _WORDS), 100, isCut=False),
    Target("saslsent", _roundTrip, mutations(_EXAMPLES, _WORDS), 100, isCut=False),
)
