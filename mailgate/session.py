# -*- test-case-name: mailgate.test.test_session -*-
"""
The ledger of one connection, from its first byte to the one event that tells its story.
"""

from __future__ import annotations

from enum import Enum

from attrs import define

from mailgate.login import TLSState

__all__ = ["Outcome", "Phase", "Session"]


class Phase(Enum):
    """Where a connection stands: every log line names it by its value."""

    ACCEPT = "accept"
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


class Outcome(Enum):
    """How a connection ended. The first reason counts."""

    RELAYED = "relayed"
    IDLE = "idle for proxy_timeout"
    QUIT = "client quit"
    CLIENT_LEFT = "client left"
    TIMEOUT = "client timed out"
    ERRORS = "too many invalid commands"
    TOO_LONG = "too long command"
    EARLY = "client spoke before the greeting"
    DENIED = "login refused"
    BACKEND_REFUSED = "backend refused the login"
    TLS_FAILED = "TLS handshake failed"
    STOPPED = "gateway stopped"
    INTERNAL = "internal error"


@define
class Session:
    """
    What is known of a connection. C{started} is the clock's time in seconds; C{received} and C{sent} count the bytes
    relayed from and to the client.
    """

    protocol: str
    server: str
    client: str
    started: float
    phase: Phase = Phase.ACCEPT
    reached: Phase = Phase.ACCEPT
    tls: TLSState | None = None
    user: bytes = b""
    backend: str = ""
    attempts: int = 0
    received: int = 0
    sent: int = 0
    outcome: Outcome | None = None

    def enter(self, phase: Phase) -> None:
        """Go over to C{phase}; C{reached} keeps the one before the end."""
        self.phase = phase
        if phase is not Phase.END:
            self.reached = phase

    def conclude(self, outcome: Outcome) -> None:
        """Name the reason of the end, unless an earlier one has been named."""
        if self.outcome is None:
            self.outcome = outcome
