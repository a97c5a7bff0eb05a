# -*- test-case-name: mailgate.test.scram.test_server -*-
"""
The server's side of one SCRAM exchange, without I/O (RFC 5802; RFC 9266 for the channel binding).
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Callable

from mailgate.login import ScramSecret
from mailgate.scram.messages import ClientFirst, ScramError, parseClientFinal, parseClientFirst, serverFirst
from mailgate.scram.secrets import signatureOf, unlocked

__all__ = ["TLS_EXPORTER", "ScramServer"]

TLS_EXPORTER = b"tls-exporter"
"""The name of the only channel binding that the gateway has."""

_NONCE_BYTES = 18


class ScramServer:
    """
    Call L{first}, L{challenge} and L{final}, in this order.

    @param binds: whether the client has chosen a mechanism with C{-PLUS}.
    @param offersBinding: whether the gateway has offered such a mechanism to this client.
    @param binding: returns the data of the channel binding; called only if C{binds}.
    @param randomness: C{randomness(n)} returns C{n} unpredictable bytes.
    @ivar signature: after a right proof, the last message for the client.
    """

    def __init__(
        self,
        binds: bool,
        offersBinding: bool,
        binding: Callable[[], bytes],
        randomness: Callable[[int], bytes],
    ) -> None:
        self._binds = binds
        self._offersBinding = offersBinding
        self._binding = binding
        self._randomness = randomness
        self._first: ClientFirst | None = None
        self._secret: ScramSecret | None = None
        self._challenge = self._nonce = b""
        self.signature = b""

    def first(self, message: bytes) -> ClientFirst:
        """
        Read the client's first message.

        @param message: the message.
        @raise ScramError: it is invalid, or its channel binding cannot be that of this connection.
        """
        self._first = first = parseClientFirst(message)
        if self._binds:
            if first.binding != TLS_EXPORTER:
                raise ScramError("the channel binding of SCRAM is not tls-exporter")
        elif first.binding == b"y":
            if self._offersBinding:
                # An attacker between the two may have removed it from the list (RFC 5802, section 6).
                raise ScramError("the client did not see the -PLUS mechanism that the gateway offers")
        elif first.binding != b"n":
            raise ScramError("a channel binding of SCRAM without a -PLUS mechanism")
        return first

    def challenge(self, secret: ScramSecret) -> bytes:
        """
        Return the first message for the client.

        @param secret: the user's secret, or a fake.
        """
        assert self._first is not None
        self._secret = secret
        self._nonce = self._first.nonce + b64encode(self._randomness(_NONCE_BYTES))
        self._challenge = serverFirst(self._nonce, secret.salt, secret.iterations)
        return self._challenge

    def final(self, message: bytes) -> ScramSecret | None:
        """
        Check the client's proof.

        @param message: the client's last message.
        @return: the secret with the client's key; L{None} if the proof is wrong.
        @raise ScramError: the message is invalid, or belongs to another exchange or connection.
        """
        first, secret = self._first, self._secret
        assert first is not None and secret is not None
        final = parseClientFinal(message)
        if not hmac.compare_digest(final.nonce, self._nonce):
            raise ScramError("the nonce of SCRAM is not that of the exchange")
        if not hmac.compare_digest(final.binding, first.header + (self._binding() if self._binds else b"")):
            raise ScramError("the channel binding of SCRAM is not that of the connection")
        signed = b",".join((first.bare, self._challenge, final.bare))
        proven = unlocked(secret, final.proof, signed)
        if proven is not None:
            self.signature = b"v=" + b64encode(signatureOf(secret, signed))
        return proven
