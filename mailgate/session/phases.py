# -*- test-case-name: mailgate.test.test_session mailgate.test.frontend.test_moves -*-
"""
The phases of a connection, and which may follow which.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

__all__ = ["TRANSITIONS", "Phase"]


class Phase(Enum):
    """
    The phase that a connection is in. Log lines have the values.

    @ivar place: the number of the phase, from 0.
    @ivar listens: whether commands or responses of the client are obeyed.
    """

    place: int
    listens: bool
    ACCEPT = "accept"
    PROXY_HEADER = "proxy-header"
    TLS = "tls"
    GREETING = "greeting"
    COMMAND = "command"
    CHALLENGE = "challenge"
    AUTH = "auth"
    CONNECT = "connect"
    BACKEND_TLS = "backend-tls"
    BACKEND_LOGIN = "backend-login"
    RELAY = "relay"
    END = "end"

    # That of Enum is Python code. Members are equal only to themselves.
    __hash__ = object.__hash__


for _place, _phase in enumerate(Phase):
    _phase.place = _place
    _phase.listens = _phase in (Phase.COMMAND, Phase.CHALLENGE)

TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.ACCEPT: frozenset((Phase.PROXY_HEADER, Phase.TLS, Phase.GREETING, Phase.COMMAND, Phase.END)),
    Phase.PROXY_HEADER: frozenset((Phase.TLS, Phase.GREETING, Phase.COMMAND, Phase.END)),
    Phase.TLS: frozenset((Phase.GREETING, Phase.COMMAND, Phase.END)),
    Phase.GREETING: frozenset((Phase.COMMAND, Phase.END)),
    Phase.COMMAND: frozenset((Phase.TLS, Phase.CHALLENGE, Phase.AUTH, Phase.END)),
    Phase.CHALLENGE: frozenset((Phase.COMMAND, Phase.AUTH, Phase.END)),
    Phase.AUTH: frozenset((Phase.COMMAND, Phase.CHALLENGE, Phase.CONNECT, Phase.END)),
    Phase.CONNECT: frozenset((Phase.COMMAND, Phase.BACKEND_LOGIN, Phase.END)),
    Phase.BACKEND_TLS: frozenset((Phase.COMMAND, Phase.CONNECT, Phase.BACKEND_LOGIN, Phase.END)),
    Phase.BACKEND_LOGIN: frozenset(
        (Phase.COMMAND, Phase.AUTH, Phase.CONNECT, Phase.BACKEND_TLS, Phase.RELAY, Phase.END)
    ),
    Phase.RELAY: frozenset(),
    Phase.END: frozenset(),
}
"""
The phases that may follow each phase. Entering the current phase again is always allowed. A gateway does not check this
table; the sessions of L{mailgate.testing} do.
"""
