# -*- test-case-name: mailgate.test.frontend.test_scram -*-
"""
Logins of clients by SCRAM (RFC 5802). The authenticator gets the name and returns the secret of the user; the gateway
checks the proof.

The exchange is a part of the login: L{mailgate.frontend.loginflow.Login} begins when the client has named itself, and
waits in the middle for the client's proof. So a login by SCRAM is one login for limits, delays, watches and the log.

A client must not find out which users exist. If the authenticator refuses the credentials, the client gets a challenge
nevertheless, with a secret that no password has, and the refusal after its proof. The refusal has the gateway's own
words: those of the authenticator may differ from user to user. A temporary failure that concerns one account comes with
the account's secret, and reaches the client after a right proof only.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Container
from typing import TYPE_CHECKING

from attrs import evolve
from twisted.internet.defer import Deferred

from mailgate.frontend.exchange import Exchange, Step
from mailgate.frontend.mechanisms import Cancelled, InvalidResponse, decodeBase64
from mailgate.log.connection import CHALLENGED
from mailgate.login import Credentials, Denial, Route, ScramSecret, Trouble
from mailgate.scram.messages import ScramError
from mailgate.scram.names import BOUND, SCRAM
from mailgate.scram.secrets import fakeSecret
from mailgate.scram.server import ScramServer
from mailgate.scram.settings import ScramKey, ScramSettings
from mailgate.session import Phase
from mailgate.tls.binding import bindingOf

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["ScramExchange", "beginningScram"]


class ScramExchange(Exchange):
    """
    A SASL exchange by SCRAM. L{begin} or the first L{respond} returns L{Credentials} without a secret, for which a
    login begins; this login calls L{proven}. Later responses continue the login.
    """

    __slots__ = ("_answered", "_method", "_scram", "_server", "_word")

    def __init__(self, name: bytes, server: ProxyServer) -> None:
        """
        @param name: the mechanism's name in capitals.
        @param server: the dialogue.
        """
        self.name = name.decode("ascii")
        self._server = server
        self._answered: Deferred[None] | None = None
        isBound = name in BOUND
        self._method = BOUND[name] if isBound else SCRAM[name]
        self._scram = ScramServer(isBound, server.hasBinding, self._binding, server.factory.randomness)
        self._word = b""

    def _binding(self) -> bytes:
        return bindingOf(self._server.transport.getHandle())

    def begin(self, initial: bytes | None = None) -> Step:
        return b"" if initial is None else self._first(initial)

    def respond(self, word: bytes) -> Step | None:
        """
        Continue the exchange.

        @param word: the client's response in base64.
        @return: the next step; L{None} if the login goes on with the response.
        """
        answered = self._answered
        if answered is None:
            return self._first(word)
        self._answered = None
        self._word = word
        # The login may go on only later. Until then nothing else is a response, or begins another login.
        self._server.exchange = None
        self._server.session.enter(Phase.AUTH)
        answered.callback(None)
        return None

    def _first(self, word: bytes) -> Step:
        try:
            first = self._scram.first(_decoded(word))
        except ScramError as error:
            return InvalidResponse(str(error))
        except InvalidResponse as error:
            return error
        return Credentials(self._method, first.user, authzid=b"" if first.authzid == first.user else first.authzid)

    async def proven(self, answer: Route | Denial) -> Route | Denial:
        """
        Let the client prove that it knows the password.

        @param answer: what the authenticator returned for the name.
        @return: the answer to the login. The secret of a L{Route} has the client's key.
        @raise InvalidResponse: a response of the client is invalid.
        @raise TypeError: the authenticator returned a route without a secret, or with that of another method.
        """
        secret = answer.scram
        if isinstance(answer, Denial) and not answer.refusesCredentials and secret is None:
            return answer
        if secret is None and isinstance(answer, Denial):
            secret = self._fake()
        if secret is None or secret.method is not self._method:
            raise TypeError(f"the authenticator returned a route without a secret for {self._method.value}")
        word = await self._ask(self._scram.challenge(secret))
        try:
            proven = self._scram.final(word)
        except ScramError as error:
            raise InvalidResponse(str(error)) from None
        if isinstance(answer, Denial) and answer.refusesCredentials:
            isUnknown, isUnlimited = answer.isUnknownUser, answer.isUnlimited
            return Denial(Trouble.DENIED, reason=answer.reason, isUnknownUser=isUnknown, isUnlimited=isUnlimited)
        if proven is None:
            isUnlimited = isinstance(answer, Route) and answer.isUnlimited
            return Denial(Trouble.DENIED, reason="wrong password", isUnlimited=isUnlimited)
        if isinstance(answer, Denial):
            return answer
        if self._server.hasSuccessData:
            self._server.successData = self._scram.signature
        elif await self._ask(self._scram.signature):
            raise InvalidResponse("the client answered the server's signature")
        return evolve(answer, scram=proven)

    def _fake(self) -> ScramSecret:
        settings = self._server.factory.settings
        key, iterations = settings[ScramKey].value, settings[ScramSettings].iterations
        return fakeSecret(key, self._method, self._server.session.user, iterations)

    async def _ask(self, message: bytes) -> bytes:
        """
        Send the challenge C{message}, and return the client's response, both decoded.

        @raise InvalidResponse: the response is not base64, or cancels the exchange.
        """
        server, session = self._server, self._server.session
        answered = self._answered = Deferred()
        server.exchange = self
        session.enter(Phase.CHALLENGE)
        if session.debugging is not None:
            session.step(CHALLENGED, mechanism=self.name)
        server.challenge(b64encode(message))
        server.extend()
        # The response may have arrived already.
        server.advance()
        await answered
        server.extendToEnd()
        return _decoded(self._word)


def _decoded(word: bytes) -> bytes:
    if word == b"*":
        raise Cancelled('cancellation ("*")')
    return decodeBase64(word)


def beginningScram(server: ProxyServer, name: bytes, taken: Container[bytes]) -> ScramExchange | None:
    """
    Return a new exchange, or L{None} if the mechanism is not SCRAM or is not offered.

    @param server: the dialogue.
    @param name: the mechanism's name as the client wrote it.
    @param taken: the names of the accepted mechanisms, in capitals.
    """
    name = name.upper()
    return ScramExchange(name, server) if name in taken and (name in SCRAM or name in BOUND) else None
