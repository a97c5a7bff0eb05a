# -*- test-case-name: mailgate.test.test_session -*-
"""
The ledger of one connection, from its first byte to the one event that tells its story.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from itertools import count
from typing import Any, Protocol

from attrs import define, field

from mailgate.log.connection import about, peerOf, tlsName
from mailgate.log.journal import printable
from mailgate.login import Method, TLSState

__all__ = ["TRANSITIONS", "Outcome", "Phase", "Session", "Stopwatch", "sessionIds"]

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
    """Where a connection stands: log lines name it by its value. C{place} numbers them from 0."""

    place: int
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


for _place, _phase in enumerate(Phase):
    # Faster to look up than the place of a member in a dict, whose hash is Python code.
    _phase.place = _place

TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    Phase.ACCEPT: frozenset((Phase.PROXY_HEADER, Phase.TLS, Phase.GREETING)),
    Phase.PROXY_HEADER: frozenset((Phase.TLS, Phase.GREETING, Phase.END)),
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
The phases that may follow each. To enter the one that it is in already is no move. Nothing asks for this in a gateway:
L{mailgate.testing} holds the sessions of tests to it.
"""

_TIMES = (
    "proxy=%.12g tls=%.12g greeting=%.12g command=%.12g auth=%.12g connect=%.12g backend-tls=%.12g backend-login=%.12g"
)
"""How the log tells how long a connection was in each phase, from PROXY_HEADER to BACKEND_LOGIN, CHALLENGE left out."""


class Outcome(Enum):
    """How a connection ended. The first reason counts."""

    RELAYED = "relayed"
    IDLE = "idle for proxy_timeout"
    EXPIRED = "session expired"
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


class Stopwatch:
    """
    The seconds that a connection is in each phase. C{clock} gives the time in seconds, and the first phase began at
    C{since}.
    """

    __slots__ = ("_clock", "_seconds", "_since")

    def __init__(self, clock: Callable[[], float], since: float) -> None:
        self._clock = clock
        self._since = since
        self._seconds = [0.0] * len(Phase)

    def lap(self, place: int) -> None:
        """The phase of that C{place} ends now, and another begins."""
        now = self._clock()
        self._seconds[place] += now - self._since
        self._since = now

    def __str__(self) -> str:
        _, proxy, tls, greeting, command, challenge, *others = self._seconds
        spent = (proxy, tls, greeting, command + challenge, *others[:4])
        # The system's clock may have been set back.
        return _TIMES % tuple([round(1000 * seconds, 1) if seconds > 0 else 0 for seconds in spent])


class ICounted(Protocol):
    """What counts the sessions at a backend."""

    def ended(self) -> None:
        """One is over."""


@define(weakref_slot=False)
class Session:
    """
    What is known of a connection.

    @ivar client: its client, as of L{mailgate.log.connection.peerName}.
    @ivar started: the clock's time in seconds.
    @ivar expires: the clock's time by which the session ends, if it has a limit.
    @ivar received: how many bytes were relayed from the client, and C{sent} to it.
    @ivar reason: says more of the C{outcome}, in our words, where there is more to say.
    @ivar id: one of L{sessionIds}.
    @ivar method: that of the last login.
    @ivar stopwatch: measures the phases before the login, where the log wants to know how long each lasted.
    @ivar place: what counts the session at its backend, if anything does; L{leave} is called when it is over.
    @ivar settled: what C{stopwatch} has measured, once the login is done.
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
    expires: float | None = None
    outcome: Outcome | None = None
    reason: str = ""
    id: str = "-"
    method: Method | None = None
    stopwatch: Stopwatch | None = field(default=None, repr=False, eq=False)
    settled: str = field(default="-", repr=False, eq=False)
    place: ICounted | None = field(default=None, repr=False, eq=False)

    def enter(self, phase: Phase) -> None:
        """Go over to C{phase}; C{reached} keeps the one before the end."""
        if self.stopwatch is not None:
            self.stopwatch.lap(self.phase.place)
        self.phase = phase
        if phase is not Phase.END:
            self.reached = phase

    def goOnFrom(self, before: Session) -> None:
        """This is the ledger of the connection that C{before} was of, once more is known of the client."""
        self.phase, self.reached, self.stopwatch = before.phase, before.reached, before.stopwatch
        self.expires = before.expires

    # Read from the name: an idle session keeps no second form of it.

    @property
    def host(self) -> str:
        """The client's address, in the form of L{mailgate.login.Client}."""
        return peerOf(self.client)[0]

    @property
    def port(self) -> int:
        """The client's port, 0 if it has none."""
        return peerOf(self.client)[1]

    def hasExpired(self, now: float) -> bool:
        """Whether its time is over at C{now}."""
        return self.expires is not None and self.expires <= now

    def settleTimes(self) -> None:
        """No phase takes time any more: what they took is kept as a short text, for as long as the session lasts."""
        if self.stopwatch is not None:
            self.settled, self.stopwatch = str(self.stopwatch), None

    @property
    def times(self) -> str:
        """
        The milliseconds that the connection was in each phase, all its stays there together: C{proxy=0.1 tls=3.2 …};
        C{-} where that is not measured.
        """
        return self.settled if self.stopwatch is None else str(self.stopwatch)

    def leave(self) -> None:
        """The session is over: its backend has one less."""
        place, self.place = self.place, None
        if place is not None:
            place.ended()

    def conclude(self, outcome: Outcome, reason: str = "") -> None:
        """Name how the connection ends, and why, unless an earlier end has been named."""
        if self.outcome is None:
            self.outcome = outcome
            self.reason = reason

    def story(self, now: float) -> dict[str, Any]:
        """What one log event tells of the connection that ended at C{now}."""
        return {
            **about(self),
            "tls": tlsName(self.tls),
            "method": self.method.value if self.method else "-",
            "attempts": self.attempts,
            "backend": self.backend or "-",
            "reached": self.reached.value,
            "outcome": self.outcome.value if self.outcome else "-",
            "reason": f" ({self.reason})" if self.reason else "",
            "seconds": now - self.started,
            "received": self.received,
            "sent": self.sent,
            "times": self.times,
            "user": printable(self.user),
        }
