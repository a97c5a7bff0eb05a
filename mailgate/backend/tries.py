# -*- test-case-name: mailgate.test.backend.test_retry mailgate.test.backend.test_tries -*-
"""
What one login has tried at backends, how much time it has left, and whether it may go on to another backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import evolve

from mailgate.backend.client import ProxyClient
from mailgate.backend.errors import Cause
from mailgate.backend.place import Place, Staying
from mailgate.lean.clock import FINEST, CoarseClock, Deadlines, ExactClock
from mailgate.log.connection import BACKEND_FAILED
from mailgate.log.journal import Journal
from mailgate.login import Denial, LoginRequest, Refusal, Route, Trouble
from mailgate.session import Phase, Session

__all__ = ["PAUSE", "Tries"]

_CONNECT = Phase.CONNECT

PAUSE = 1.0
"""Seconds until a server that is alone is tried again, as in Dovecot."""

_MOST_REPEATS = 3
"""How often a server that is alone is tried again, as in Dovecot (C{login_proxy_max_reconnects})."""

_LEAST_LEFT = 1.1
"""Seconds that a login must have left for that, as in Dovecot."""

_DOWN = 30.0
"""
A server that is alone is not tried again if it has failed for so many seconds, without a success: each login then fails
at once. Dovecot connects for one login at a time then.
"""

_MOST_FAILED_LOGINS = 2
"""
At how many backends one login is tried that fail after they have greeted. The login itself may be what they fail at, so
only the first of these failures counts for C{max_fails}: one login must not put all servers of a group to rest.
"""


class Tries:
    """
    What one login has tried.

    @ivar request: the client's login.
    @ivar session: the session.
    @ivar route: the backends, and the credentials for them.
    @ivar goesOn: whether the login may go on to another server.
    @ivar answer: what the client hears if no other backend is used.
    @ivar failures: for each failure whether it is an error in any case, whether it repeats a known outage, and the
        fields of its line.
    @ivar isServed: whether the client got what it wanted, or has only itself to blame: failures are then warnings.
    @ivar staying: the user's place, if the current group is sticky; L{None} otherwise.
    @ivar waited: for how many seconds the login has waited for what the keeper knows.
    @ivar client: the current attempt.
    @ivar deadlines: where the deadline of the attempt waits, as its entry. L{begin} puts it there.
    @ivar due: when the attempt fails, in seconds of the clock. It moves to C{deadline} once the backend has greeted.
    @ivar deadline: when the login fails; 0 before the first attempt.
    @ivar tick: its place in the clock.
    """

    # Most logins change few of these.
    goesOn = True
    answer: Refusal | Denial = Denial(Trouble.TEMPORARY)
    isServed = False
    staying: Staying | None = None
    waited = due = deadline = 0.0
    tick: float = 0
    client: ProxyClient
    _began = _since = 0.0
    _servers = 1
    _repeats = _failedLogins = 0
    _mayPass = False
    failures: Sequence[tuple[bool, bool, dict[str, Any]]] = ()

    def __init__(self, route: Route, request: LoginRequest, session: Session, deadlines: Deadlines) -> None:
        """
        @param route: the backends, and the credentials for them.
        @param request: the client's login.
        @param session: the session.
        @param deadlines: as the attribute.
        """
        self.route = route
        self.request = request
        self.session = session
        self.deadlines = deadlines

    @property
    def isAlone(self) -> bool:
        """Whether the route names one backend or one group."""
        return len(self.route.backends) == 1

    def begin(self, place: Place, client: ProxyClient) -> None:
        """
        Begin an attempt, with a deadline for its greeting.

        @param place: the backend.
        @param client: the attempt.
        """
        self.client = client
        deadlines = self.deadlines
        self._since = now = deadlines.seconds()
        patience = place.attempt
        if not self.deadline:
            self._began = now
            self.deadline = now + place.wholeLogin
        else:
            self.deadline = max(now, self.deadline)
            patience = min(patience, self.deadline - now)
            if not self._repeats:
                self._servers += 1
        if patience < FINEST and isinstance(deadlines, CoarseClock):
            self.deadlines = deadlines = ExactClock(deadlines)
        self.due = due = now + patience
        deadlines.put(self, due)

    def expired(self) -> None:
        """The time of the entry has come. The deadline may have moved meanwhile."""
        if self.due > self.deadlines.seconds():
            self.deadlines.put(self, self.due)
        else:
            self.client.expired()

    def measured(self) -> tuple[float | None, float]:
        """
        Return what an attempt took: the seconds until the backend was connected, L{None} if it never was, and all
        seconds.
        """
        seconds, readings = self.deadlines.seconds() - self._since, self.session.readings
        if readings is None:
            return None, seconds
        # From the end: those of earlier attempts and logins do not count.
        if readings[-2] is _CONNECT:
            return None, seconds
        noticed = -1 if readings[-4] is _CONNECT else 2 - readings[::-1].index(_CONNECT)
        return readings[noticed] - readings[noticed - 2], seconds

    @property
    def given(self) -> float:
        """The seconds that the current attempt had until its deadline."""
        return self.due - self._since

    def counts(self, error: Exception, cause: Cause, client: ProxyClient, place: Place) -> bool:
        """
        Return whether a failure is the backend's own (C{max_fails}).

        @param error: the failure.
        @param cause: its kind.
        @param client: the attempt.
        @param place: the backend.
        """
        if client.sendsForClient or not getattr(error, "counts", True):
            return False
        if cause == "timeout" and self.given < place.retry.attempt / 2:
            # Earlier attempts have used up the time: this backend had too little.
            return False
        return not (client.isLoggingIn and self._failedLogins)

    def failed(self, cause: Cause, error: Exception, client: ProxyClient, place: Place) -> None:
        """
        Decide whether the login goes on after a failure.

        @param cause: the kind of the failure.
        @param error: the failure.
        @param client: the attempt.
        @param place: the backend.
        """
        retry, spent = place.retry, self.deadlines.seconds() - self._began
        isLate = 0 < retry.timeout <= spent or self._began + spent >= self.deadline
        mayRetry = cause in retry.causes and not isLate
        if cause == "temporary" and client.isGateway:
            mayRetry = False
        if client.isLoggingIn and cause != "temporary":
            self._failedLogins += 1
            mayRetry = mayRetry and cause != "timeout" and self._failedLogins < _MOST_FAILED_LOGINS
        self.goesOn = mayRetry and not 0 < retry.tries <= self._servers
        # What the client has caused, or the configuration, is the same a second later.
        isLasting = cause == "tls" or (cause == "invalid_response" and not getattr(error, "counts", True))
        self._mayPass = mayRetry and not isLasting

    def repeats(self, place: Place) -> bool:
        """
        Whether the login is to be tried again at C{place} after L{PAUSE}: at a server that is alone, if the failure may
        pass, and time is left.
        """
        isLone = self.isAlone and (place.group is None or place.group.isLone)
        if not isLone or not self._mayPass or self._repeats >= _MOST_REPEATS:
            return False
        now, limit = self.deadlines.seconds(), place.retry.timeout
        if self.deadline - now <= _LEAST_LEFT or 0 < limit <= now + PAUSE - self._began:
            return False
        if place.peer is not None and 0 < place.peer.failingSince < self._began - _DOWN:
            return False
        self._repeats += 1
        return True

    def note(self, failure: dict[str, Any], isError: bool = False, isKnown: bool = False) -> None:
        """
        Remember a failure for the log. One that is the same as that before it is logged once.

        @param failure: the fields of the line.
        @param isError: whether it is an error even if another backend serves the client.
        @param isKnown: whether it repeats an outage that the log has mentioned.
        """
        if not self.failures or self.failures[-1][-1] != failure:
            self.failures = [*self.failures, (isError, isKnown, failure)]

    def explained(self) -> Refusal | Denial:
        """Return C{answer}; if it gives no cause, with that of the last failure, for operators."""
        answer = self.answer
        if not self.failures or not isinstance(answer, Denial) or answer.reason or answer.answer:
            return answer
        last = self.failures[-1][-1]
        return evolve(answer, why=f"backend {last['backend']} {last['reason']}")

    def log(self, journal: Journal) -> None:
        """
        Log the failures.

        @param journal: the log.
        """
        for isError, isKnown, failure in self.failures:
            if isKnown and not isError:
                # Otherwise an outage would flood the log with errors.
                journal.info(BACKEND_FAILED, **failure)
                continue
            # The level depends on the result: an error only if no other backend has served the client.
            log = journal.error if isError or not self.isServed else journal.warn
            log(BACKEND_FAILED, **failure)
