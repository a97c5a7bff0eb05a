# -*- test-case-name: mailgate.test.backend.test_scram -*-
"""
The login at a backend by SCRAM (RFC 5802): with a known password, or with the client's key that the client's own login
by SCRAM has revealed. That key is valid at each backend that has the same secret: the same salt and iterations.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.threads import deferToThreadPool

from mailgate.backend.credentials import BackendCredentials
from mailgate.backend.errors import BackendError
from mailgate.login import Method, ScramSecret
from mailgate.scram.client import ScramClient
from mailgate.scram.messages import ScramError, ServerFirst
from mailgate.scram.secrets import derivedSecret

__all__ = ["METHODS", "ScramMechanism", "strongest"]

METHODS = {Method.SCRAM_SHA_256.value: Method.SCRAM_SHA_256, Method.SCRAM_SHA_1.value: Method.SCRAM_SHA_1}
"""The login methods by the words of C{proxy_auth}, the best first."""

_NONCE_BYTES = 18
_QUICK = 8192
"""Iterations that are computed at once. They take about three milliseconds, and a thread would not be faster."""


class ScramMechanism:
    """
    SCRAM, ready for one login. Each challenge of the backend goes to L{answer}, and the reply that accepts the login
    to L{conclude}.

    @param method: a key of L{METHODS}.
    @param credentials: what to log in with.
    @param reactor: the reactor, whose threads derive keys; L{None} to do that at once.
    @param randomness: C{randomness(n)} returns C{n} unpredictable bytes.
    @ivar name: as the protocols have it.
    @ivar message: the first message for the backend, in base64.
    @ivar initial: the same, as an initial response.
    @ivar rejoinder: L{None}, as no challenge explains a refusal.
    @ivar converses: true: the backend answers the message with a challenge.
    @raise BackendError: neither the password nor the client's key is known.
    """

    converses = True
    rejoinder: bytes | None = None

    def __init__(
        self, method: str, credentials: BackendCredentials, reactor: Any, randomness: Callable[[int], bytes]
    ) -> None:
        self._method = METHODS[method]
        self._reactor = reactor
        self._password = credentials.password
        secret = credentials.scram
        self._secret = secret if secret is not None and secret.method is self._method else None
        if self._password is None and self._secret is None:
            raise BackendError("needs a password that the gateway does not know", counts=False, cause="")
        self.name = method.upper().encode("ascii")
        nonce = base64.b64encode(randomness(_NONCE_BYTES))
        self._scram = ScramClient(credentials.user, credentials.authzid or b"", nonce)
        self.message = self.initial = base64.b64encode(self._scram.message)
        self._challenges = 0
        self._isProven = False

    def isOffered(self, offers: Any) -> bool:
        """Whether C{offers}, names of mechanisms in upper case, include it."""
        return self.name in offers

    async def answer(self, challenge: bytes) -> bytes:
        """
        Answer a challenge.

        @param challenge: the challenge in base64.
        @return: the answer in base64.
        @raise BackendError: the challenge is invalid, or the client's key is not valid at this backend.
        """
        self._challenges += 1
        try:
            message = base64.b64decode(challenge, validate=True)
            if self._challenges == 1:
                given = self._scram.first(message)
                return base64.b64encode(self._scram.final(await self._secretFor(given)))
            if self._challenges == 2:
                # After an error the backend refuses the login.
                self._isProven = self._scram.verify(message)
                return b""
        except ValueError:
            raise BackendError("sent a challenge that is not base64") from None
        except ScramError as error:
            raise BackendError(f"failed SCRAM: {error}", counts=False) from None
        raise BackendError("sent a challenge after the end of SCRAM")

    def conclude(self, data: bytes | None = None) -> None:
        """
        Check that the backend, which has accepted the login, has proven that it knows the user's secret.

        @param data: its last message in base64, if its reply has it (RFC 4422, section 3.6); L{None} if it was a
            challenge.
        @raise BackendError: it has not.
        """
        if data is not None and self._challenges == 1:
            with suppress(ValueError, ScramError):
                self._isProven = self._scram.verify(base64.b64decode(data, validate=True))
        if not self._isProven:
            raise BackendError("accepted the login by SCRAM without its own proof", counts=False)

    async def _secretFor(self, given: ServerFirst) -> ScramSecret:
        """
        Return the secret with the client's key for what the backend has C{given}.

        @raise BackendError: the backend has another secret than that which the client has proven.
        """
        secret, password = self._secret, self._password
        if password is None:
            assert secret is not None
            if (given.salt, given.iterations) != (secret.salt, secret.iterations):
                message = (
                    "has another salt or number of iterations than the secret by which the client has logged in:"
                    " store the same SCRAM secret at the backend, or let the gateway log in another way"
                )
                raise BackendError(message, counts=False, cause="")
            return secret
        arguments = self._method, password, given.salt, given.iterations
        if given.iterations <= _QUICK or self._reactor is None:
            return derivedSecret(*arguments)
        pool = self._reactor.getThreadPool()
        derived: ScramSecret = await deferToThreadPool(self._reactor, pool, derivedSecret, *arguments)
        return derived


def strongest(offers: Any) -> str:
    """
    Return the word of C{proxy_auth} for the best mechanism with SCRAM that a backend offers; empty if there is none.

    @param offers: names of mechanisms in upper case.
    """
    return next((word for word in METHODS if word.upper().encode("ascii") in offers), "")
