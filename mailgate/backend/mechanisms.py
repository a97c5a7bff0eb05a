# -*- test-case-name: mailgate.test.backend.test_mechanisms -*-
"""
The SASL mechanisms by which the gateway logs in at backends (RFC 4422). Those here consist of one message of the
client's. L{mailgate.backend.scram} has the others.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Collection
from typing import Any, TypeAlias

from attrs import field, frozen

from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.scram import METHODS, ScramMechanism
from mailgate.login import Backend

__all__ = ["AnyMechanism", "Mechanism", "mechanismFor"]


@frozen
class Mechanism:
    """
    A mechanism, ready for one login.

    @ivar name: as the protocols have it: C{PLAIN}.
    @ivar message: what the client says, in base64.
    @ivar rejoinder: the answer to a challenge that explains a refusal, in base64; the refusal follows. L{None} where
        there is no such challenge.
    @ivar converses: false: the message is the whole exchange.
    """

    name: bytes
    message: bytes = field(repr=False)
    rejoinder: bytes | None = None
    converses = False

    @property
    def initial(self) -> bytes:
        """The message as an initial response, where C{=} stands for an empty one (RFC 4959, 5034)."""
        return self.message or b"="

    def isOffered(self, offers: Collection[bytes]) -> bool:
        """Whether C{offers}, names of mechanisms in upper case, include it."""
        return self.name in offers


AnyMechanism: TypeAlias = Mechanism | ScramMechanism


def mechanismFor(method: str, credentials: BackendCredentials, backend: Backend, reactor: Any = None) -> AnyMechanism:
    """
    The mechanism that C{proxy_auth} calls C{method}, with C{credentials} for C{backend}.

    @param reactor: the reactor, whose threads derive keys; L{None} to do that at once.

    @raise mailgate.backend.errors.BackendError: no password or token is known.
    """
    if method == "external":
        return Mechanism(b"EXTERNAL", base64.b64encode(credentials.authzid or credentials.user))
    if method == "xoauth2":
        token = b"user=%b\1auth=Bearer %b\1\1" % (credentials.owner, credentials.knownPassword)
        return Mechanism(b"XOAUTH2", base64.b64encode(token), b"")
    if method == "oauthbearer":
        # RFC 7628, section 3.1; the name as RFC 5801 has it.
        name = credentials.owner.replace(b"=", b"=3D").replace(b",", b"=2C")
        place = b"\1host=%b\1port=%d" % (backend.host.encode("idna"), backend.port) if backend.port else b""
        token = b"n,a=%b,%b\1auth=Bearer %b\1\1" % (name, place, credentials.knownPassword)
        return Mechanism(b"OAUTHBEARER", base64.b64encode(token), base64.b64encode(b"\1"))
    if method in METHODS:
        return ScramMechanism(method, credentials, reactor, os.urandom)
    return Mechanism(b"PLAIN", credentials.plainMessage)
