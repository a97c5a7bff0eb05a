# -*- test-case-name: mailgate.test.frontend.test_refusals mailgate.test.frontend.test_limited -*-
"""
Refuses a login, and ends the connection where the refusal or a limit demands it. Refuses an invalid response of a SASL
exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailgate.frontend.exchange import Exchange
from mailgate.frontend.mechanisms import InvalidResponse
from mailgate.log.connection import RESPONSE_REFUSED, about
from mailgate.login import Denial, Method, Trouble
from mailgate.session import Outcome

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["canAnswer", "deny", "refuseResponse"]


def deny(server: ProxyServer, denial: Denial) -> None:
    """
    Refuse a login. Then close the connection, or wait for the next command.

    @param server: the dialogue.
    @param denial: the refusal.
    """
    server.session.enterAgain()
    ending = _ending(server, denial)
    if ending is not None:
        server.lastReply(ending[1])
    server.refuse(denial)
    if ending is not None:
        if ending[0] is Outcome.LIMITED:
            server.session.conclude(Outcome.LIMITED, denial.reason)
        server.end(ending[0])
    server.resume()


def _ending(server: ProxyServer, denial: Denial) -> tuple[Outcome, Trouble] | None:
    """Return how the connection ends after C{denial}; L{None} if it stays open."""
    if denial.close:
        return Outcome.DENIED, Trouble.REFUSED
    if server.hasFailedOften:
        return Outcome.FAILURES, Trouble.FAILURES
    if denial.trouble is Trouble.TOO_FAST and server.mostTooFast and server.session.method is not Method.NONE:
        server.tooFast += 1
        if server.tooFast >= server.mostTooFast:
            return Outcome.LIMITED, Trouble.TOO_FAST
    return None


def refuseResponse(server: ProxyServer, exchange: Exchange, error: InvalidResponse) -> None:
    """
    Refuse a response of the client, which ends its SASL exchange.

    @param server: the dialogue.
    @param exchange: the exchange.
    @param error: what is wrong with the response.
    """
    fields = {**about(server.session), "mechanism": exchange.name}
    server.journal.info(RESPONSE_REFUSED, **fields, reason=str(error))
    server.session.enterAgain()
    wording = server.exchangeWording
    server.reply(wording.get(type(error)) or wording[InvalidResponse])


def canAnswer(server: ProxyServer) -> bool:
    """
    Return whether the client can answer a challenge. If it has closed its side it cannot, and would never get the
    refusal that follows.

    @param server: the dialogue.
    """
    return not server.inputEnded or b"\n" in server.buffer
