# -*- test-case-name: mailgate.test.frontend.test_refusals mailgate.test.frontend.test_limited -*-
"""
Refuses a login, and ends the connection where the refusal or a limit demands it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailgate.login import Denial, Method, Trouble
from mailgate.session import Outcome

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["deny"]


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
