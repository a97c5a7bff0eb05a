# -*- test-case-name: mailgate.test.test_session -*-
"""
The record of one connection, and what counts it at its backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from attrs import define, field

from mailgate.log.connection import about, peerOf, tlsName
from mailgate.log.journal import Journal, printable
from mailgate.login import Asked, Method, TLSState
from mailgate.session.ending import Ending, Outcome
from mailgate.session.phases import Phase
from mailgate.session.times import SETTLED, TIMED, inWords, staysIn
from mailgate.sessionids import Listener

__all__ = ["FollowedSession", "ICounted", "IDelay", "Session"]


class IDelay(Protocol):
    """
    The time for which the client of a lost session waits.

    @ivar moment: when it is let go, in seconds of the gateway's clock.
    """

    moment: float

    def over(self) -> None:
        """The client no longer waits. Call this once."""


class ICounted(Protocol):
    """What counts the sessions at a backend. C{at} is the same for all of one backend."""

    @property
    def at(self) -> Any: ...

    def ended(self) -> None:
        """One is over."""

    def lost(self, now: float) -> IDelay | None:
        """
        The backend has closed the connection of a session, which still counts.

        @param now: the time, in seconds of the gateway's clock.
        @return: L{None} if the client may go at once.
        """


_GOING_ON = Ending()
"""What stands for the ending of sessions that have none."""


@define(weakref_slot=False, eq=False)
class Session:
    """
    The record of one connection. It is mutable and changes as the connection goes on. It is equal only to itself.

    @ivar listener: what it has in common with others; C{protocol} and C{server} are of it.
    @ivar client: the client's address and port, in the form of L{mailgate.log.connection.peerName}.
    @ivar started: the time at which the connection was accepted, in seconds of the gateway's clock.
    @ivar phase: the current phase.
    @ivar tls: what the TLS handshake with the client negotiated; L{None} without TLS.
    @ivar user: the user name of the last login: from the client, then from the authenticator's route; empty before.
    @ivar backend: the backend of the last login, in the form of C{str} of L{mailgate.login.Backend}. Empty before.
    @ivar attempts: the number of logins so far.
    @ivar expires: the time by which the session must end, in seconds of the gateway's clock; L{None} without a limit.
    @ivar ending: how it ended; L{None} as long as it goes on. Its values are also properties of the session.
    @ivar number: the number of its C{id} among the ids of the C{listener}.
    @ivar method: the method of the last login; L{None} before the first.
    @ivar readings: a list of the clock, and then of each phase with the time at which it began: they are added up only
        when the times are needed. L{None} if nothing needs them; after L{settleTimes} the times, packed.
    @ivar place: counts the session at its backend, in a group; L{leave} ends that.
    @ivar counted: what the connection counts for in the limits, as L{mailgate.limits.admission.Admission} notes it;
        during the relay it is the canonical name of the user. L{None}: nothing.
    @ivar asked: what the login has learned from the keeper, until the relay; L{None} if that is nothing.
    @cvar debugging: the log for all lines about this connection, down to level debug; L{None} if that level is not
        logged for it. Then the log of the server has its lines. Only a L{FollowedSession} can have one.
    @cvar trace: the trace id of C{auth_http_traceparent}, 32 hexadecimal digits; empty without that directive. Only a
        L{FollowedSession} can have one.
    """

    listener: Listener
    client: str
    started: float
    phase: Phase = Phase.ACCEPT
    tls: TLSState | None = None
    user: bytes = b""
    backend: str = ""
    attempts: int = 0
    expires: float | None = None
    ending: Ending | None = None
    number: int = 0
    method: Method | None = None
    readings: Any = field(default=None, repr=False)
    place: ICounted | None = field(default=None, repr=False)
    counted: Any = field(default=None, repr=False)
    asked: Asked | None = field(default=None, repr=False)

    # No attributes of each instance: thousands of idle sessions have none of them.
    debugging: ClassVar[Journal | None] = None
    trace: ClassVar[str] = ""

    @property
    def protocol(self) -> str:
        """The name of the protocol."""
        return self.listener.protocol

    @property
    def server(self) -> str:
        """The address of the listener."""
        return self.listener.server

    @property
    def id(self) -> str:
        """A unique id from L{mailgate.sessionids}."""
        return self.listener.ids.textOf(self.number)

    @property
    def outcome(self) -> Outcome | None:
        """How the connection ended; L{None} as long as it goes on."""
        ending = self.ending
        return None if ending is None else ending.outcome

    @property
    def reason(self) -> str:
        """More about the outcome. May be empty."""
        return (self.ending or _GOING_ON).reason

    @property
    def received(self) -> int:
        """How many bytes were relayed from the client to the backend. 0 until the relay ends."""
        return (self.ending or _GOING_ON).received

    @property
    def sent(self) -> int:
        """How many bytes were relayed from the backend to the client. 0 until the relay ends."""
        return (self.ending or _GOING_ON).sent

    @property
    def reached(self) -> Phase:
        """The last phase other than C{END}."""
        return (self.ending or _GOING_ON).reached or self.phase

    def enter(self, phase: Phase) -> None:
        """
        Change the phase.

        @param phase: the new phase, which is not C{END}.
        """
        self.phase = phase
        readings = self.readings
        # They are not packed: no phase but END follows the relay.
        if readings is not None:
            readings += phase, readings[0]()

    def end(self) -> None:
        """Enter the phase C{END}. To enter it again changes nothing but the readings."""
        self.ending = ending = self.ending or Ending()
        ending.reached, self.phase = self.reached, Phase.END
        readings = self.readings
        if type(readings) is list:
            readings += Phase.END, readings[0]()

    def enterAgain(self) -> None:
        """Enter the phase COMMAND after a login or an exchange that has failed. A client may do that very often."""
        self.enter(Phase.COMMAND)
        readings = self.readings
        if readings is not None:
            # As if the connection had been in each phase once.
            moment = readings[2]
            once = readings[:1]
            for phase, seconds in staysIn(readings).items():
                once += phase, moment
                moment += seconds
            self.readings = [*once, *readings[-2:]]

    def goOnFrom(self, before: Session) -> None:
        """
        Continue the record of the same connection, when the PROXY header has named another client.

        @param before: the previous record, whose phase, times and limit this one takes over.
        """
        self.phase, self.ending, self.expires = before.phase, before.ending, before.expires
        self.readings = before.readings or self.readings

    def step(self, format: str, **fields: Any) -> None:
        """
        Log a step at level debug. Check C{debugging} before, so that the fields need not be made for nothing.

        @param format: the format, one of L{mailgate.log.connection}.
        @param fields: its fields besides those of L{about}.
        """
        if self.debugging is not None:
            self.debugging.debug(format, **about(self), **fields)

    # Derived from the name: thousands of idle sessions do not need a second copy.

    @property
    def host(self) -> str:
        """The client's address without brackets, or C{unix:}, as in L{mailgate.login.Client}."""
        return peerOf(self.client)[0]

    @property
    def port(self) -> int:
        """The client's port; 0 for a unix socket."""
        return peerOf(self.client)[1]

    def hasExpired(self, now: float) -> bool:
        """
        Return whether the time limit has passed.

        @param now: the time, in seconds of the gateway's clock.
        """
        return self.expires is not None and self.expires <= now

    def settleTimes(self) -> None:
        """Stop measuring, and keep the times in a short form. A relay may last for days, and needs less memory so."""
        if type(self.readings) is list:
            stays = staysIn(self.readings)
            self.readings = SETTLED.pack(*[stays.get(phase, 0.0) for phase in TIMED])

    def stays(self) -> Mapping[Phase, float]:
        """
        Return the seconds that the connection was in each phase. Several stays in a phase are added up. It is empty if
        the times are not measured.
        """
        readings = self.readings
        if type(readings) is list:
            return staysIn(readings)
        return {} if readings is None else dict(zip(TIMED, SETTLED.unpack(readings), strict=True))

    @property
    def spent(self) -> tuple[float, ...] | None:
        """The seconds that the connection was in each phase of L{TIMED}; L{None} if the times are not measured."""
        if self.readings is None:
            return None
        stays = self.stays()
        # They are negative if the system's clock was set back.
        return tuple([max(0.0, stays.get(phase, 0.0)) for phase in TIMED])

    @property
    def times(self) -> str:
        """The milliseconds of C{spent} as text, such as C{proxy=0.1 tls=3.2 …}; C{-} if they are not measured."""
        spent = self.spent
        return "-" if spent is None else inWords(spent)

    def leave(self) -> None:
        """The session is over: its backend has one less."""
        place, self.place = self.place, None
        if place is not None:
            place.ended()

    def conclude(self, outcome: Outcome, reason: str = "") -> Ending:
        """
        Set the outcome, unless one is already set.

        @param outcome: how the connection ends.
        @param reason: more about it in words; may be empty.
        @return: the ending, with the outcome that was set first.
        """
        ending = self.ending
        if ending is None:
            ending = self.ending = Ending(outcome, reason)
        elif ending.outcome is None:
            ending.outcome = outcome
            ending.reason = reason
        return ending

    def story(self, now: float) -> dict[str, Any]:
        """
        Return the fields of the log event at the end of the connection (L{mailgate.log.connection.STORY}).

        @param now: the time at which it ended, in seconds of the gateway's clock.
        """
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


@define(weakref_slot=False, eq=False)
class FollowedSession(Session):
    """
    The record of a connection that may be debugged, or has a trace id.

    @ivar debugging: as of L{Session}.
    @ivar trace: as of L{Session}.
    """

    debugging: Journal | None = field(default=None, repr=False)  # type: ignore[misc]
    trace: str = ""  # type: ignore[misc]
