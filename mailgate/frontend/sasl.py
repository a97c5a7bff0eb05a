# -*- test-case-name: mailgate.test.frontend.test_exchange mailgate.test.frontend.test_scram -*-
"""
Runs the SASL exchanges of a dialogue: begins one, sends its challenges, and starts the login or refuses at its end.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from mailgate.frontend.disclosure import mechanismOf
from mailgate.frontend.exchange import OFF, Exchange, Step, beginning, complaining
from mailgate.frontend.loginflow import Login
from mailgate.frontend.mechanisms import UNLISTED, InvalidToken, TooLongResponse
from mailgate.frontend.refusing import canAnswer, deny, refuseResponse
from mailgate.frontend.scram import ScramExchange, beginningScram
from mailgate.log.connection import CHALLENGED, EXCHANGE_BEGUN, MECHANISM_REFUSED
from mailgate.login import Credentials, Denial
from mailgate.session import Phase

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["authenticate", "goOn"]


def authenticate(server: ProxyServer, name: bytes, initial: bytes | None) -> None:
    """
    Begin a SASL exchange with the client.

    @param server: the dialogue.
    @param name: the mechanism's name as the client wrote it.
    @param initial: the initial response in base64, or L{None}.
    """
    taken: Container[bytes] = server.mechanisms
    if server.dialogue.unlistedAuth:
        taken = UNLISTED.union(server.mechanisms)
    exchange = beginning(name, taken, lambda: server.salt) or beginningScram(server, name, taken)
    session = server.session
    if exchange is None:
        if session.debugging is not None:
            session.step(MECHANISM_REFUSED, mechanism=mechanismOf(name).decode("ascii"))
        server.reply(server.unsupported)
    else:
        if session.debugging is not None:
            session.step(EXCHANGE_BEGUN, mechanism=exchange.name, initial="no" if initial is None else "yes")
        if initial is not None and len(initial) + 2 > server.dialogue.longestResponse:
            goOn(server, exchange, TooLongResponse("response longer than sasl_max_response"))
        else:
            goOn(server, exchange, exchange.begin(initial))


def goOn(server: ProxyServer, exchange: Exchange, step: Step | None) -> None:
    """
    Carry out a step of a SASL exchange: send the challenge, start the login, or refuse.

    @param server: the dialogue.
    @param exchange: the exchange.
    @param step: its next step; L{None} if the login carries on with the exchange.
    """
    if step is None:
        return
    if isinstance(step, bytes):
        server.exchange = exchange
        server.session.enter(Phase.CHALLENGE)
        if server.session.debugging is not None:
            server.session.step(CHALLENGED, mechanism=exchange.name)
        server.challenge(step)
        return
    server.exchange = None
    if isinstance(step, Credentials):
        if isinstance(exchange, ScramExchange):
            Login(server, step, exchange).begin()
        else:
            server.login(step)
    elif isinstance(step, Denial):
        deny(server, step)
    elif isinstance(step, InvalidToken) and exchange.last is None and _complains(server):
        explanation = complaining(step)
        goOn(server, explanation, explanation.begin())
    else:
        refuseResponse(server, exchange, step)


def _complains(server: ProxyServer) -> bool:
    """Return whether a client of OAUTHBEARER gets the error of an invalid message."""
    return server.dialogue.oauthError != OFF and canAnswer(server)
