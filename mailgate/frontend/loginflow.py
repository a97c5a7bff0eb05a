# -*- test-case-name: mailgate.test.frontend -*-
"""
Runs a login, the same for every protocol: from the credentials to the hand-over or the refusal. The authenticator
judges the login, the connector logs in at a backend, and the relay takes the connection over. A refusal is delayed,
sent and counted.

Before the authenticator is asked, the limits for logins may hold the login back or refuse it. They hear how each login
that they let pass has ended, once. What they refuse is no failed login.
"""

from __future__ import annotations

import re
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from mailgate.backend.client import ProxyClient
from mailgate.backend.coroutine import Task
from mailgate.frontend.exchange import explaining
from mailgate.frontend.findings import clientOf
from mailgate.frontend.lifetime import lifetimeOf
from mailgate.frontend.loginlines import logBegun, logDenied, logJudged
from mailgate.frontend.mechanisms import InvalidResponse
from mailgate.frontend.refusing import canAnswer, deny, refuseResponse
from mailgate.frontend.scram import ScramExchange
from mailgate.log.connection import defect
from mailgate.login import Credentials, Denial, LoginRequest, Method, Refusal, Route, Trouble
from mailgate.session import FollowedSession, Outcome, Phase

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["Login"]

_ANSWERS = (Route, Denial)
# A tuple: building a union of types at each call would be slow.

_SAYS_GOODBYE = re.compile(rb"(?mi)^(?:(?:\* )?BYE|421)\b")
"""Matches a backend's reply that contains a goodbye."""


class Login(Task):
    """
    One login, from the client's credentials to the hand-over or the refusal. It ends in one of the phases RELAY,
    COMMAND, END, or CHALLENGE if the client gets an OAuth error first.

    @ivar server: the dialogue.
    @ivar request: the request for the authenticator.
    """

    _exchange: ScramExchange | None
    """The exchange by which the client is still to prove its password; L{None} if it has."""
    _passed: Any = None
    """The pass of the guard, until it is given back."""
    _delayed = 0.0
    """The seconds for which a limit has held the login back."""
    _limits: tuple[float | None, float] | None = None
    """When the session had to end before this login, and because of it; L{None} if the login limits no time."""

    def __init__(self, server: ProxyServer, credentials: Credentials, exchange: ScramExchange | None = None) -> None:
        """
        @param server: the dialogue.
        @param credentials: the client's credentials, as received.
        @param exchange: the exchange by which the client is still to prove its password; L{None} if it has.
        """
        self._exchange = exchange
        self.server = server
        self.session = session = server.session
        self.factory = factory = server.factory
        if credentials.authzid and server.dialogue.authzid == "ignore":
            credentials = evolve(credentials, authzid=b"")
        session.attempts = attempt = session.attempts + 1
        session.user = credentials.user
        session.method = method = credentials.method
        if factory.debugged is not None:
            self._debugIfChosen()
        self.request = LoginRequest(
            factory.authName,
            credentials,
            clientOf(server),
            attempt,
            server.tag,
            server.envelope(method),
            server.hops,
            session.trace,
            None if session.debugging is None else session.step,
        )

    def _debugIfChosen(self) -> None:
        """Debug the connection from now on if C{debug_user} has the user's name."""
        debugged, session = self.factory.debugged, self.session
        if debugged is None or session.debugging is not None or not debugged.hasUser(session.user):
            return
        if isinstance(session, FollowedSession):
            session.debugging = self.factory.journal.debugging

    def begin(self) -> None:
        """Start the login."""
        server, session = self.server, self.session
        session.enter(Phase.AUTH)
        server.loginBegan = server.clock.seconds()
        if session.debugging is not None:
            logBegun(session, self.request)
        server.extendToEnd()
        self._coroutine = self._run()
        server.pending = self
        self.start()

    async def _run(self) -> None:
        try:
            try:
                answer: Any = await self._judge()
                if self.session.phase is Phase.END:
                    # The client left while the authenticator worked, before there was anything to cancel.
                    answer = None
                if isinstance(answer, Route):
                    route, answer = answer, self._accepted(answer)
                    if answer is None:
                        if route.options is not None and route.options.hold > 0:
                            await self._hold(route.options.hold)
                        answer = await self.factory.connector.connect(route, self.request, self.session)
                        if not route.judged:
                            answer = self._judgedThere(route, answer)
                elif self._passed is not None:
                    self._settle(answer)
            finally:
                if self._passed is not None:
                    self._settle(None)
        except InvalidResponse as error:
            self._responseRefused(error)
            return
        except BaseException as error:
            watch = self.factory.watch
            if watch is not None:
                watch.denied(self.session, None if isinstance(error, CancelledError) else Denial(Trouble.INTERNAL))
            raise
        if isinstance(answer, ProxyClient):
            self.server.pending = None
            self.server.loggedIn(answer)
        else:
            await self._refuse(answer)

    def _responseRefused(self, error: InvalidResponse) -> None:
        """
        The exchange that is a part of this login has failed: there is no proof to judge. For the authenticator it was
        as much work as a refusal, so it counts as one.
        """
        server, exchange = self.server, self._exchange
        assert exchange is not None
        if self.factory.watch is not None:
            self.factory.watch.denied(self.session, None)
        server.pending = None
        server.failures += 1
        isLast = server.hasFailedOften
        if isLast:
            server.lastReply(Trouble.FAILURES)
        refuseResponse(server, exchange, error)
        if isLast:
            server.end(Outcome.FAILURES)
        server.resume()

    async def _judge(self) -> Route | Denial:
        """Return the answer of the authenticator, or the refusal of a limit before it."""
        request, factory = self.request, self.factory
        authzid = request.credentials.authzid
        if authzid and self.server.dialogue.authzid == "refuse":
            return Denial(Trouble.UNAUTHORIZED, reason="sasl_authzid refuses authorization identities")
        if factory.guard is not None:
            passed = factory.guard.begin(request, self.session, self._delay)
            if not isinstance(passed, tuple):
                if isinstance(passed, CoroutineType):
                    passed = await passed
                if isinstance(passed, Denial):
                    return passed
            self._passed = passed
        try:
            answer = await factory.answer(request)
            if self._exchange is not None and isinstance(answer, _ANSWERS):
                answer = await self._prove(self._exchange, answer)
            if not isinstance(answer, Route):
                return _denialOf(answer)
        except InvalidResponse:
            raise
        except Exception:
            if self.session.phase is Phase.END:
                # The client left, so the dialogue cancelled the request.
                raise
            defect(factory.journal, self.session, "the authenticator failed", Failure())
            return Denial(Trouble.TEMPORARY)
        if authzid and answer.authzid is None:
            return Denial(Trouble.UNAUTHORIZED, reason="the authenticator did not confirm the authorization identity")
        if not answer.user and request.credentials.method is not Method.NONE:
            return Denial(Trouble.DENIED, reason="neither the client nor the authenticator named a user")
        return answer

    def _accepted(self, route: Route) -> Denial | None:
        """
        The authenticator has accepted the login: apply what C{route} says about the session.

        @return: why the login is refused all the same; L{None} if it is not.
        """
        session, factory = self.session, self.factory
        if route.options is not None or factory.maxAge:
            if self._passed is not None and (route.judged or route.isUnlimited):
                self._settle(route)
            denial = self._limitTime(route)
            if denial is not None:
                return denial
        session.user = route.user
        if self.server.named is not None:
            self.server.named()
        if factory.isFollowed:
            # The authenticator may know the user by another name.
            self._debugIfChosen()
            if session.debugging is not None:
                logJudged(session, self.request, route)
        if factory.admission is not None and route.judged:
            passed, self._passed = self._passed, None
            return factory.admission.accepted(session, passed)
        if self._passed is not None and route.judged:
            self._settle(route)
        return None

    async def _refuse(self, answer: Refusal | Denial | None) -> None:
        """Pass C{answer} to the client; L{None} if the connection has ended."""
        server, session, request = self.server, self.session, self.request
        if self._limits is not None and session.expires == self._limits[1]:
            # The client may log in again, as another user.
            server.limit(self._limits[0])
        if self.factory.watch is not None:
            self.factory.watch.denied(session, answer)
        if answer is None:
            return
        if isinstance(answer, Denial):
            # Log before the delay: a client that disconnects during the delay has still guessed a password.
            if not answer.isLimit:
                logDenied(server.journal, session, request, answer)
            wait = self._wait(answer, request)
            if wait > 0:
                session.enter(Phase.AUTH)
                await deferLater(server.clock, wait)
        server.pending = None
        if isinstance(answer, Refusal):
            goodbye = b"" if _SAYS_GOODBYE.search(answer.reply) else server.farewell(Trouble.REFUSED)
            server.end(Outcome.BACKEND_REFUSED, answer.reply + goodbye)
        else:
            self._loginDenied(request, answer)

    def _judgedThere(self, route: Route, answer: ProxyClient | Refusal | Denial) -> ProxyClient | Refusal | Denial:
        """
        Return the answer to a login that the backend has judged. Only now it counts as a session of the user: a
        stranger with wrong passwords must not use up the user's sessions.
        """
        if self._passed is not None:
            self._settle(route if isinstance(answer, ProxyClient) else answer)
        admission = self.factory.admission
        if admission is None or not isinstance(answer, ProxyClient):
            return answer
        denial = admission.accepted(self.session)
        if denial is None:
            return answer
        answer.abandon()
        self.session.leave()
        return denial

    def _settle(self, answer: Route | Refusal | Denial | None) -> None:
        """Tell the limits how the login has ended."""
        passed, self._passed, guard = self._passed, None, self.factory.guard
        assert guard is not None
        guard.ended(passed, answer)

    def _limitTime(self, route: Route) -> Denial | None:
        """
        Limit the session to what C{route} and C{session_max_age} allow. It counts from now: backends may be slow.

        @return: the refusal if nothing is left.
        """
        lifetime = lifetimeOf(route.options, self.factory.maxAge)
        if isinstance(lifetime, Denial):
            return lifetime
        if lifetime is not None:
            moment = self.server.clock.seconds() + lifetime
            before = self.session.expires
            if before is None or moment < before:
                self._limits = before, moment
                self.server.limit(moment)
        return None

    def _wait(self, denial: Denial, request: LoginRequest) -> float:
        """
        Return the seconds to wait before the refusal: the longer of C{Auth-Wait} and what is left of C{auth_delay}.
        C{auth_delay} applies to refused credentials only, not to temporary failures or refused recipients. The delay by
        a limit is not added to either.
        """
        wait = denial.wait - self._delayed if self._delayed else denial.wait
        delay = self.server.dialogue.authDelay
        if not delay or not denial.refusesCredentials or request.credentials.method is Method.NONE:
            return wait
        # With SCRAM the login counts from the proof.
        before = 0.0 if self._exchange is None else self._delayed
        rest: float = self.server.loginBegan + delay - before - self.server.clock.seconds()
        return max(wait, rest)

    def _delay(self, seconds: float) -> None:
        """A limit is about to hold the login back. The client must not run out of time because of that."""
        self._delayed += seconds
        self._giveBack(seconds)

    def _giveBack(self, seconds: float) -> None:
        self.server.giveBack(seconds)
        self.server.extendToEnd()

    async def _hold(self, seconds: float) -> None:
        """Wait before the gateway connects to the backend. The client may leave meanwhile, which cancels the wait."""
        self._giveBack(seconds)
        await deferLater(self.server.clock, seconds)

    async def _prove(self, exchange: ScramExchange, answer: Route | Denial) -> Route | Denial:
        """Let the client prove its password. The login's time counts from then."""
        if self.session.phase is Phase.END:
            # The client has left.
            return answer
        try:
            return await exchange.proven(answer)
        finally:
            self.server.loginBegan = self.server.clock.seconds()

    def _failed(self, failure: Failure) -> None:
        self.server.pending = None
        defect(self.factory.journal, self.session, "the login failed", failure)
        self.server.end(Outcome.INTERNAL, self.server.goodbye(Trouble.INTERNAL))

    def _loginDenied(self, request: LoginRequest, denial: Denial) -> None:
        if denial.refusesCredentials and request.credentials.method is not Method.NONE:
            self.server.failures += 1
        server = self.server
        if server.successData:
            # The next login may have none.
            server.successData = b""
        method = request.credentials.method
        explanation = explaining(method, denial, server.dialogue.oauthError) if canAnswer(server) else None
        if explanation is None:
            deny(server, denial)
        else:
            server.explain(explanation)


def _denialOf(answer: object) -> Denial:
    """Return the C{answer} of an authenticator, which is no route."""
    if not isinstance(answer, Denial):
        raise TypeError(f"the authenticator returned a {type(answer).__name__} instead of a Route or Denial")
    return answer
