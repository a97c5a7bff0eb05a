# -*- test-case-name: mailgate.test.test_session -*-
"""
The ledger of one connection, from its first byte to the one event that tells its story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum
from itertools import count
from typing import Any

from attrs import define

from mailgate.journal import printable
from mailgate.login import TLSState

__all__ = ["STORY", "Outcome", "Phase", "Session", "sessionIds"]


STORY = (
    "connection ended: client {client}, server {server}, protocol {protocol}, tls {tls}, user {user},"
    " backend {backend}, reached {reached}, outcome {outcome}{reason}, {seconds:.3f} s, received {received},"
    " sent {sent}, session {id}"
)
"""The event at the end of a connection, in twisted.logger's format; L{Session.story} gives its fields."""


_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_LOW = tuple(high + low for high in _DIGITS for low in _DIGITS)
"""Numbers below 1,024 in base 32."""


def _inBase32(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 32)
        text = _DIGITS[digit] + text
    return text


def sessionIds(randomness: Callable[[int], bytes]) -> Iterator[str]:
    """
    Ids for connections, no two the same, such as C{5g0qa.7k}: five random digits of base 32, the same for all of them,
    and a number in base 32. C{randomness(n)} gives n random bytes.
    """
    start = "".join(_DIGITS[byte % 32] for byte in randomness(5))
    for thousands in count():
        beginning = f"{start}.{_inBase32(thousands)}"
        for low in _LOW:
            yield beginning + low


class Phase(Enum):
    """Where a connection stands: every log line names it by its value."""

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


class Outcome(Enum):
    """How a connection ended. The first reason counts."""

    RELAYED = "relayed"
    IDLE = "idle for proxy_timeout"
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


@define(weakref_slot=False)
class Session:
    """
    What is known of a connection. C{started} is the clock's time in seconds; C{received} and C{sent} count the bytes
    relayed from and to the client; C{id} is one of L{sessionIds}. C{reason} says more of the C{outcome}, in our words,
    where there is more to say.
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
    reason: str = ""
    id: str = "-"

    def enter(self, phase: Phase) -> None:
        """Go over to C{phase}; C{reached} keeps the one before the end."""
        self.phase = phase
        if phase is not Phase.END:
            self.reached = phase

    def conclude(self, outcome: Outcome, reason: str = "") -> None:
        """Name how the connection ends, and why, unless an earlier end has been named."""
        if self.outcome is None:
            self.outcome = outcome
            self.reason = reason

    def story(self, now: float) -> dict[str, Any]:
        """What one log event tells of the connection that ended at C{now}."""
        return {
            "client": self.client,
            "server": self.server,
            "protocol": self.protocol,
            "tls": f"{self.tls.protocol} {self.tls.cipher}" if self.tls else "no",
            "user": f'"{printable(self.user)}"',
            "backend": self.backend or "-",
            "reached": self.reached.value,
            "outcome": self.outcome.value if self.outcome else "-",
            "reason": f" ({self.reason})" if self.reason else "",
            "seconds": now - self.started,
            "received": self.received,
            "sent": self.sent,
            "id": self.id,
        }
