# -*- test-case-name: mailgate.test.test_session -*-
"""
How a connection ended.
"""

from __future__ import annotations

from enum import Enum

from attrs import define

from mailgate.session.phases import Phase

__all__ = ["Ending", "Outcome"]


class Outcome(Enum):
    """How a connection ended. The log has the values. The first one counts (L{mailgate.session.Session.conclude})."""

    RELAYED = "relayed"
    IDLE = "idle for proxy_timeout"
    EXPIRED = "session expired"
    BACKEND_DOWN = "backend taken down"
    KICKED = "kicked"
    LIMITED = "limited"
    QUIT = "client quit"
    CLIENT_LEFT = "client left"
    SILENT = "client left without a word"
    TIMEOUT = "client timed out"
    ERRORS = "too many invalid commands"
    TOO_LONG = "too long command"
    NO_SIZE = "message chunk without a size"
    EARLY = "client spoke before the greeting"
    DENIED = "login refused"
    FAILURES = "too many failed logins"
    BACKEND_REFUSED = "backend refused the login"
    TLS_FAILED = "TLS handshake failed"
    BAD_HEADER = "bad PROXY header"
    CERTIFICATE = "client certificate refused"
    COMMANDS = "too many commands"
    STOPPED = "gateway stopped"
    INTERNAL = "internal error"

    # As that of L{Phase}.
    __hash__ = object.__hash__


@define(weakref_slot=False)
class Ending:
    """
    What is known of a connection only at its end: thousands of idle sessions need no room for it.

    @ivar outcome: how the connection ended; L{None} as long as nothing has decided that.
    @ivar reason: more about the C{outcome}, in the gateway's own words. May be empty.
    @ivar reached: the phase before C{END}; L{None} before that one.
    @ivar received: how many bytes were relayed from the client to the backend. 0 until the relay ends.
    @ivar sent: how many bytes were relayed from the backend to the client. 0 until the relay ends.
    """

    outcome: Outcome | None = None
    reason: str = ""
    reached: Phase | None = None
    received: int = 0
    sent: int = 0
