# -*- test-case-name: mailgate.test.limits.test_loginguard -*-
"""
The limits of a server for logins: asks the store before each login, holds the login back for as long as the store says,
and tells the store how it has ended.

A login is held before its question, so a right password waits as long as a wrong one, and the delay does not tell which
users exist. A login that waits holds nothing but its own connection.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2s
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from mailgate.interfaces import ILoginGuard
from mailgate.limits.attempt import Action, Attempt, Kind, Pass, Result, Rule, Verdict
from mailgate.limits.interfaces import ILimitStore
from mailgate.limits.keys import UNIX, canonical
from mailgate.limits.policy import ConnectionPolicy, Mode
from mailgate.limits.sources import Sources
from mailgate.limits.telling import DELAYED, DRY_RUN, REFUSED, Telling
from mailgate.login import Asked, Credentials, Denial, LoginRequest, Method, Refusal, Route, Trouble
from mailgate.session import Session

__all__ = ["LONGEST", "REFUSED_AFTER", "LoginGuard", "denialOf", "resultOf"]

LONGEST = 60.0
"""
Seconds for which a login is held back at most, by all rules together. The rules have shorter times of their own, except
for a large burst of C{limit_req login}. Clients give up after a minute or two.
"""

REFUSED_AFTER = 1.0
"""
Seconds from the login to the refusal of a limit, unless the login has been held back for longer. A client that comes
again at once would keep the gateway busy otherwise. It waits like one with C{auth_delay}: its connection counts for
C{limit_conn address} and C{worker_connections}, which bound how many wait.
"""

_REMEMBERED = 1024
"""So many logins of different users and addresses are remembered, in some 400 bytes each."""

_LONGEST_NAME = 64
"""Bytes of the longest name of these."""

_LEAST = 0.01
"""Seconds between two checks of a login at least."""

_SHORT = 0.005
"""Seconds. A login that has waited less for the store has the whole of its time for further questions."""

_TAG = 16
"""Bytes of a tag."""


def _kindOf(method: Method) -> Kind:
    if method.isOAuth:
        return Kind.TOKEN
    if method.isDigest or method.isScram:
        return Kind.DIGEST
    return Kind.PASSWORD if method is Method.PLAIN else Kind.EXTERNAL


_KINDS = {method.value: _kindOf(method) for method in Method}
"""The kind of each method, by the value of the method: hashing an enumeration member runs Python code."""

_TAGGED = (Kind.PASSWORD, Kind.TOKEN)
"""Kinds whose repeats can be told by a tag."""

_GO, _WAIT = Action.GO, Action.WAIT
_ACCEPTED, _UNLIMITED = Result.ACCEPTED, Result.UNLIMITED
_FAILED, _FAILED_UNKNOWN = Result.FAILED, Result.FAILED_UNKNOWN
"""Looked up once: each look-up at an enumeration runs Python code, too."""

_TROUBLES = {
    Rule.HOLD: Trouble.HELD,
    Rule.HELD: Trouble.BUSY,
    **dict.fromkeys((Rule.BLOCK, Rule.PAIR_BLOCK, Rule.ADDRESS_BLOCK, Rule.USER_REFUSE), Trouble.BLOCKED),
}
"""What the client hears of a rule. Of all others it hears that its logins come too fast."""


def denialOf(rule: Rule | None) -> Denial:
    """
    Return the refusal of a login.

    @param rule: the limit that refuses it.
    """
    if rule is None:
        return Denial(Trouble.TOO_FAST, wait=REFUSED_AFTER)
    # As many as may wait do so already.
    wait = 0.0 if rule is Rule.HELD else REFUSED_AFTER
    return Denial(_TROUBLES.get(rule, Trouble.TOO_FAST), reason=rule.value, wait=wait)


def resultOf(answer: Route | Denial | Refusal | None) -> Result:
    """
    Return what the answer to a login means for the limits. Only refused credentials are a failure.

    @param answer: the answer, as for L{ILoginGuard.ended}.
    """
    if isinstance(answer, Route):
        return _UNLIMITED if answer.isUnlimited else _ACCEPTED
    if isinstance(answer, Refusal):
        return Result.UNDECIDED if answer.temporary else Result.FAILED
    if answer is None:
        return Result.UNDECIDED
    if answer.isUnlimited:
        return _UNLIMITED
    if not answer.refusesCredentials:
        return Result.UNDECIDED
    if answer.isRepeat:
        return Result.REPEATED
    return Result.FAILED_UNKNOWN if answer.isUnknownUser else Result.FAILED


@implementer(ILoginGuard)
class LoginGuard:
    """
    The limits of one server for logins.

    @param store: decides, and counts.
    @param policy: has C{limit_req login}.
    @param sources: knows the addresses of clients.
    @param mode: C{limit_login}.
    @param clock: the clock in which logins wait.
    @param runKey: the key for tags, which all processes of a gateway share until it is started anew; at most 32 bytes.
    @param telling: tells the log and the metrics when a limit acts.
    """

    def __init__(
        self,
        store: ILimitStore,
        policy: ConnectionPolicy,
        sources: Sources,
        mode: Mode,
        clock: IReactorTime,
        runKey: bytes,
        telling: Telling,
    ) -> None:
        self._store = store
        self._passes, self._check, self._record = store.passes, store.check, store.record
        self._attempts: dict[tuple[bytes, object, str], Attempt] = {}
        self._clock = clock
        self._telling = telling
        self._mode = mode
        isRated = policy.login is not None and policy.reqMode is not Mode.OFF
        self._rate = policy.login if isRated else None
        self._rateMode = policy.reqMode
        # Copying a state with the key takes a part of the time of making one.
        self._mac = blake2s(key=runKey, digest_size=_TAG, person=b"tag")
        self._sourceOf = sources.of

    def begin(self, request: LoginRequest, session: Session, held: Callable[[float], object]) -> Any:
        credentials = request.credentials
        key = credentials.user, session.counted, credentials.method._value_
        attempt = self._attempts.get(key) or self._attemptOf(key, request, session)
        ticket = self._passes(attempt)
        if ticket is not None:
            return attempt, ticket, credentials
        session.asked = None
        verdict = self._check(attempt)
        if isinstance(verdict, Verdict):
            action = verdict.action
            if action is _GO and not verdict.would and not verdict.elsewhere:
                return attempt, verdict.ticket, credentials
            if action is not _WAIT:
                self._tellWould(verdict, session)
                return self._decided(verdict, attempt, credentials, session)
        return self._hold(verdict, attempt, credentials, session, held)

    def _attemptOf(self, key: tuple[bytes, object, str], request: LoginRequest, session: Session) -> Attempt:
        """
        Return what stands for all logins of a user at an address.

        @param key: the user's name, where the client is, and the method.
        @param request: one of the logins.
        @param session: the record of its connection.
        """
        user, counted, method = key
        source = counted[1] if isinstance(counted, tuple) else self._sourceOf(session.client)
        attempt = Attempt(
            source.host or UNIX,
            canonical(user),
            _KINDS[method],
            b"",
            self._mode,
            source.isExempt,
            self._rate,
            self._rateMode,
            request.protocol,
        )
        # Names are long at a stranger's will.
        if counted is not None and len(user) <= _LONGEST_NAME:
            if len(self._attempts) >= _REMEMBERED:
                self._attempts.clear()
            self._attempts[key] = attempt
        return attempt

    def ended(self, passed: Pass, answer: Route | Denial | Refusal | None) -> None:
        attempt, ticket, credentials = passed
        result = resultOf(answer)
        if (result is _FAILED or result is _FAILED_UNKNOWN) and attempt.kind in _TAGGED:
            # Few logins fail, and nothing else needs the tag.
            attempt = evolve(attempt, tag=self._tagOf(attempt.user, credentials.secret))
        self._record(attempt, ticket, result)

    def _tagOf(self, user: bytes, secret: bytes) -> bytes:
        mac = self._mac.copy()
        mac.update(user + b"\0" + secret)
        return bytes(mac.digest())

    def _decided(self, verdict: Verdict, attempt: Attempt, credentials: Credentials, session: Session) -> Pass | Denial:
        """Return the result of a login that waits no longer."""
        if verdict.action is Action.REFUSE:
            return self._refused(verdict, session)
        if verdict.elsewhere:
            asked = session.asked = session.asked or Asked()
            asked.user, asked.elsewhere = attempt.user, verdict.elsewhere
            asked.fromAddress = verdict.elsewhereAddress
        return attempt, verdict.ticket, credentials

    def _tellWould(self, verdict: Verdict, session: Session) -> None:
        """Tell what limits with C{dry_run} would have done."""
        for words in verdict.would.split("; ") if verdict.would else ():
            rule, _, deed = words.partition(" would ")
            self._telling.acted(session, Rule(rule), DRY_RUN, deed)

    def _refused(self, verdict: Verdict, session: Session) -> Denial:
        self._telling.acted(session, verdict.rule, REFUSED)
        return denialOf(verdict.rule)

    async def _hold(
        self,
        verdict: Verdict | Deferred[Verdict],
        attempt: Attempt,
        credentials: Credentials,
        session: Session,
        held: Callable[[float], object],
    ) -> Pass | Denial:
        """
        Hold a login back until it is decided.

        @param verdict: the first verdict.
        @param attempt: the login.
        @param credentials: what the client has sent.
        @param session: the record of the connection.
        @param held: called before each wait.
        """
        until: float | None = None
        isFirst = True
        while True:
            if isinstance(verdict, Deferred):
                verdict = await self._answered(verdict, attempt, session)
            if isFirst:
                isFirst = False
                self._tellWould(verdict, session)
            if verdict.action is not _WAIT:
                return self._decided(verdict, attempt, credentials, session)
            now = self._clock.seconds()
            if until is None:
                until = now + LONGEST
                self._telling.acted(session, verdict.rule, DELAYED)
            elif now >= until:
                self._record(attempt, verdict.ticket, Result.UNDECIDED)
                return self._refused(verdict, session)
            seconds = max(_LEAST, min(verdict.seconds, until - now))
            try:
                held(seconds)
                await deferLater(self._clock, seconds)
            except BaseException:
                # Usually the client has left.
                self._record(attempt, verdict.ticket, Result.UNDECIDED)
                raise
            verdict = self._check(attempt, verdict.ticket)

    async def _answered(self, coming: Deferred[Verdict], attempt: Attempt, session: Session) -> Verdict:
        """
        Wait for a verdict. If the client leaves meanwhile, the verdict comes nevertheless, and its ticket must be given
        back.
        """
        began = self._clock.seconds()
        waiting: Deferred[Verdict] = Deferred()

        def answered(verdict: Verdict) -> None:
            if not waiting.called:
                waiting.callback(verdict)
            elif verdict.ticket:
                self._record(attempt, verdict.ticket, Result.UNDECIDED)

        coming.addCallbacks(answered, waiting.errback)
        verdict = await waiting
        waited = self._clock.seconds() - began
        if waited >= _SHORT:
            asked = session.asked = session.asked or Asked()
            asked.waited += waited
        return verdict
