# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
Logs a client in at the first backend of a route that can be used. L{mailgate.backend.tries} decides after which
failures a login goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from mailgate.backend.caller import Caller
from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials, PasswordLogin, credentialsFor
from mailgate.backend.errors import (
    FAILURES,
    BackendError,
    LoginRefused,
    Unauthorizing,
    causeOf,
    ofSecret,
    reasonOf,
    replyCode,
)
from mailgate.backend.offers import UNKNOWN
from mailgate.backend.outages import hasAnswered, hasFailed
from mailgate.backend.place import NoBackend, Place, Staying
from mailgate.backend.places import Places
from mailgate.backend.reply import isBusy, isOfAccount, isPassing, transactionDenial
from mailgate.backend.steps import Steps, whyChosen
from mailgate.backend.tries import PAUSE, Tries
from mailgate.directives import ServerSettings
from mailgate.interfaces import IConnector, IWatch
from mailgate.lean.clock import FINEST, deadlinesOf
from mailgate.log.connection import BACKEND_WARNING, CHOSEN, LOOPS, STICKY_MOVED, about
from mailgate.log.journal import Journal, printable
from mailgate.login import Denial, LoginRequest, Method, Refusal, Route, Trouble, fitForWire
from mailgate.session import ICounted, Phase, Session
from mailgate.tls.backendcontexts import DecidedContexts

__all__ = ["Connector"]

_REFUSALS = ("NO", "BAD", "BYE", "-ERR", "4", "5")
"""Beginnings of reply codes that refuse. Only such replies are passed on to a client."""

_TOKENS = ("xoauth2", "oauthbearer")
"""Methods whose message has fields that end with a byte of value 1 (RFC 7628, section 3.1)."""

_CONNECT = Phase.CONNECT

_MOST_LOGGED = 1024
"""How many concerns are remembered. An authentication service may name any number of backends."""


def _isOfClient(refused: LoginRefused, request: LoginRequest, isAnswer: bool) -> bool:
    """
    Return whether a refusal is about the client or its account, so the backend works.

    @param isAnswer: whether the backend decides on the credentials. If an authenticator has accepted them before, the
        backend should not refuse them.
    """
    if request.credentials.method is Method.NONE:
        return refused.denial.answer != b""
    return isOfAccount(refused.reply) or (isAnswer and refused.denial.refusesCredentials)


@implementer(IConnector)
class Connector:
    """Logs clients of one server in at backends."""

    def __init__(
        self,
        client: Callable[..., ProxyClient],
        settings: ServerSettings,
        serverName: str,
        reactor: Any,
        journal: Journal,
        places: Places,
        watch: IWatch | None = None,
        clock: IReactorTime | None = None,
    ) -> None:
        """
        @param client: the class of the protocol's login at a backend, or what makes its instances.
        @param settings: the server's directives.
        @param serverName: the gateway's host name (C{server_name}).
        @param reactor: the reactor for connections and timers.
        @param journal: the log.
        @param places: finds the backends of a route.
        @param watch: receives each attempt; L{None} if nothing does.
        @param clock: where the deadlines of logins wait; L{None} for C{reactor}.
        """
        self._client = client
        self._caller = Caller(settings, serverName, reactor)
        self._reactor = reactor
        self._seconds = reactor.seconds
        self._deadlines = deadlinesOf(clock or reactor, FINEST)
        self._journal = journal
        self._places = places
        self._watch = watch
        self._hearer = watch if getattr(watch, "hearsSuccesses", True) else None
        """Receives the attempts that succeed; L{None} if nothing does: the gateway's own watch reads the sessions."""
        self._logged: set[tuple[str, str]] = set()
        self._proxy = self._caller.proxy
        self._passErrorMessage = self._proxy.passErrorMessage

    async def connect(self, route: Route, request: LoginRequest, session: Session) -> ProxyClient | Refusal | Denial:
        """
        Log in at the first backend that can be used.

        Each backend that fails is logged: as a warning if another backend serves the client or if only this account
        has the trouble, otherwise as an error.

        @param route: the backends and the credentials for them.
        @param request: the client's login.
        @param session: its phase and its backend are kept up to date.
        @return: the conversation, logged in; a L{Refusal} to pass on unchanged before the connection ends; or a
            L{Denial}, whose C{answer} holds the backend's own reply.
        """
        login = self._prepared(route, request, session)
        if isinstance(login, Denial):
            return login
        tries = Tries(route, request, session, self._deadlines)
        try:
            for place in self._places.of(route, request):
                session.enter(_CONNECT)
                if isinstance(place, NoBackend):
                    if place.staying is not None:
                        tries.staying = place.staying
                        await self._find(place.staying, tries, session)
                        continue
                    tries.note(self._unplaced(place, session), isKnown=place.isKnown)
                    continue
                session.backend = place.name
                if session.debugging is not None:
                    session.step(CHOSEN, backend=place.name, why=whyChosen(place, route, int(self._seconds())))
                client = await self._tryAt(place, login, tries)
                while client is None and tries.repeats(place):
                    session.enter(_CONNECT)
                    await deferLater(self._reactor, PAUSE)
                    # The pause is no time in which a backend was connected.
                    session.enter(_CONNECT)
                    if not place.again():
                        break
                    client = await self._tryAt(place, login, tries)
                if client is not None:
                    return client
                if not tries.goesOn:
                    break
        finally:
            if tries.failures:
                tries.log(session.debugging or self._journal)
        return tries.explained()

    async def _tryAt(self, place: Place, login: BackendCredentials, tries: Tries) -> ProxyClient | None:
        """
        Try to log in at one backend, once.

        @return: the conversation, logged in; L{None} if that failed. C{tries} then knows why.
        """
        session = tries.session
        client = self._client(self._caller, place)
        if login.method == "none":
            # An authenticator may name the method. A client that is not logged in must not reach the backend.
            client.logsIn = False
        enter = session.enter
        if self._watch is not None:
            # TCP says how long it took to connect, which costs less than a further event.
            client.readings = session.readings
        elif session.readings is not None:
            client.isTimed = True
        if session.debugging is not None:
            client.isTimed = True
            client.steps = Steps(session, client, place.name, self._seconds)
            enter = client.steps.enter
        if place.contexts is not None and isinstance(place.contexts, DecidedContexts):
            # One login's TLS, perhaps not verified, does not change what the gateway announces to all clients.
            client.known = UNKNOWN
        tries.begin(place, client)
        try:
            await client.open(tries.request.client, place.contexts, enter)
            # The backend has greeted: the rest of the login's time is for the login.
            tries.due = tries.deadline
            if client.steps is not None:
                client.steps.logsIn(login.method)
            await client.login(login, tries.request)
            tries.isServed = True
            if place.succeeded():
                hasAnswered(place, self._seconds())
            session.place = place.peer if tries.staying is None else self._seat(tries.staying, place, session)
            if client.steps is not None:
                client.steps.accepted()
                client.steps.close()
            if client.concerns:
                self._warn(client.concerns, session)
            if self._hearer is not None:
                self._hearer.attempted(session, place, None, *tries.measured())
            return client
        except BaseException as error:
            # One of cancellation as well: the client may leave.
            if not self._ended(error, client, place, login, tries):
                raise
            return None
        finally:
            tries.deadlines.drop(tries)

    def _ended(
        self, error: BaseException, client: ProxyClient, place: Place, login: BackendCredentials, tries: Tries
    ) -> bool:
        """
        An attempt has ended without a conversation.

        @return: whether that is what an attempt may end with. Otherwise the client has left, say.
        """
        isDecided = False
        try:
            if isinstance(error, LoginRefused):
                isDecided = True
                self._refused(error, client, place, tries)
            elif isinstance(error, FAILURES):
                cause = ofSecret(error, login.password) if client.isLoggingIn else error
                isDecided = self._failed(cause, client, place, tries)
        finally:
            if client.steps is not None:
                client.steps.close()
            if not isDecided:
                # A client that leaves must not use up the one login that tries the backend after a rest.
                place.undecided()
            client.abandon()
            if tries.session.place is None:
                place.ended()
            else:
                # The session counts already.
                tries.session.leave()
        return isinstance(error, FAILURES)

    async def _find(self, staying: Staying, tries: Tries, session: Session) -> None:
        """Ask for the user's place. What a login waits for in the limits and for all its groups has one bound."""
        if session.asked is not None:
            tries.waited += session.asked.waited
            session.asked = None
        began = self._reactor.seconds()
        await staying.find(tries.waited)
        tries.waited += max(0.0, self._reactor.seconds() - began)

    def _seat(self, staying: Staying, place: Place, session: Session) -> ICounted | None:
        """Return what counts a session at C{place}, after a login that has asked for the user's place."""
        if place.peer is None or place.group is not staying.group:
            # The route names others besides the sticky group.
            return place.peer
        seat, before = staying.taken(place.peer)
        if before:
            (session.debugging or self._journal).warn(
                STICKY_MOVED,
                **about(session),
                user=printable(session.user),
                group=staying.group.name,
                before=before,
                backend=place.name,
            )
        return seat

    def _failed(self, error: Exception, client: ProxyClient, place: Place, tries: Tries) -> bool:
        """
        The attempt failed.

        @return: whether that is a failure of the backend.
        """
        failure, cause = self._failure(error, client, tries), causeOf(error)
        isDecided = tries.counts(error, cause, client, place)
        peer = place.peer
        if peer is not None and not peer.failingSince and (isDecided or not client.isLoggingIn):
            peer.failingSince = self._seconds()
        if client.steps is not None:
            client.steps.failed(failure["reason"])
        isKnown = isDecided and hasFailed(place, failure["reason"], self._seconds(), self._journal)
        if isDecided and place.failed(failure["reason"], tries.isAlone):
            self._rests(place)
        tries.note(failure, cause == "tls", isKnown)
        tries.failed(cause, error, client, place)
        if isinstance(error, Unauthorizing):
            tries.answer = Denial(Trouble.UNAUTHORIZED, reason="the backend does not support authorization identities")
        else:
            reply = getattr(error, "reply", b"")
            # A refusal of STARTTLS is about the gateway: in SMTP the client would take it for a lasting one of AUTH.
            mayPass = cause != "tls" and client.mayAnswer(reply, tries.request)
            tries.answer = self._unserved(reply if mayPass else b"", tries.request)
        if self._watch is not None:
            self._watch.attempted(tries.session, place, error, *tries.measured())
        return isDecided

    def _refused(self, refused: LoginRefused, client: ProxyClient, place: Place, tries: Tries) -> None:
        """The backend refused the login. Others are tried only if that is temporary and not about the client."""
        if place.succeeded():
            hasAnswered(place, self._seconds())
        request = tries.request
        withoutLogin = request.credentials.method is Method.NONE
        isAnswer = withoutLogin or not tries.route.judged
        isServed = _isOfClient(refused, request, isAnswer)
        if client.steps is not None:
            client.steps.failed(str(refused))
        if not (isAnswer and isServed):
            tries.note(self._failure(refused, client, tries))
        # Without a login a refusal is the client's own, unless nothing of it is for the client.
        mayPass = isPassing(refused.reply) and not (withoutLogin and refused.denial.answer)
        tries.failed("temporary" if mayPass else "", refused, client, place)
        tries.isServed = isServed
        tries.answer = refused.denial if isAnswer else self._passedOn(refused)
        if self._watch is not None:
            self._watch.attempted(tries.session, place, refused, *tries.measured())

    def _prepared(self, route: Route, request: LoginRequest, session: Session) -> PasswordLogin | Denial:
        """Return what to log in with, or why no backend may be tried."""
        if request.hops is not None and self._proxy.hopsOf(request) <= 1:
            user = printable(request.credentials.user)
            (session.debugging or self._journal).error(LOOPS, **about(session), user=user)
            return Denial(Trouble.TEMPORARY)
        if not fitForWire(route.user, route.password, route.authzid):
            return Denial(Trouble.DENIED, reason="the user name or password contains a line end or NUL")
        login = credentialsFor(self._proxy, route)
        if login is None:
            return Denial(Trouble.TEMPORARY, reason="nothing checked the password, and the backend would not")
        if route.options is not None and not fitForWire(login.user, login.authzid):
            return Denial(Trouble.TEMPORARY, reason="a SASL identity for the backend contains a line end or NUL")
        if login.method in _TOKENS and b"\1" in login.owner + (login.password or b""):
            return Denial(Trouble.DENIED, reason="the user name or token contains a byte that ends a field")
        return login

    def _unserved(self, reply: bytes, request: LoginRequest) -> Refusal | Denial:
        """Return the client's answer if no backend could be used, the last of which said C{reply}."""
        if self._passErrorMessage and replyCode(reply).startswith(_REFUSALS):
            if request.credentials.method is Method.NONE:
                # Refuse this recipient only. The connection stays open for others.
                return transactionDenial(reply)
            return Refusal(reply, True)
        return Denial(Trouble.TEMPORARY)

    def _warn(self, concerns: tuple[str, ...], session: Session) -> None:
        """Log each of C{concerns} once for each backend."""
        for concern in concerns:
            if (session.backend, concern) in self._logged:
                continue
            if len(self._logged) >= _MOST_LOGGED:
                self._logged.clear()
            self._logged.add((session.backend, concern))
            (session.debugging or self._journal).warn(
                BACKEND_WARNING,
                **about(session),
                backend=session.backend,
                concern=concern,
            )

    def _rests(self, place: Place) -> None:
        assert place.peer is not None, "others do not rest"
        limits = place.peer.limits
        times = "once" if limits.maxFails == 1 else f"{limits.maxFails} times"
        if place.group is None:
            self._journal.warn(
                "backend {backend} failed {times}; for {seconds} s logins try their other backends first",
                backend=place.name,
                times=times,
                seconds=limits.failTimeout,
            )
            return
        self._journal.warn(
            "upstream {group}: backend {backend} failed {times} and is not used for {seconds} s",
            group=place.group.name,
            backend=place.name,
            times=times,
            seconds=limits.failTimeout,
        )

    def _unplaced(self, place: NoBackend, session: Session) -> dict[str, Any]:
        """The fields of the line about a group that has no backend for the session."""
        text = f', text "{printable(place.text.encode())}"' if place.text else ""
        return {
            **about(session),
            "backend": place.group,
            "reason": place.reason,
            "phase": session.phase.value,
            "user": printable(session.user),
            "text": text,
        }

    def _passedOn(self, refused: LoginRefused) -> Refusal | Denial:
        """Return the client's answer if the backend C{refused} a login that an authenticator had accepted."""
        if self._passErrorMessage:
            return Refusal(refused.reply, refused.temporary)
        if isBusy(refused.reply):
            return refused.denial
        isLasting = refused.denial.trouble is Trouble.PERMANENT
        return Denial(Trouble.PERMANENT if isLasting else Trouble.TEMPORARY)

    def _failure(self, error: Exception, client: ProxyClient, tries: Tries) -> dict[str, Any]:
        """Return the fields of the log line about the backend that has just failed."""
        session = tries.session
        timeout = round(tries.given, 1)
        reason = reasonOf(error, f"timed out after {timeout:g} s")
        text = ""
        if isinstance(error, BackendError) and error.isQuoted:
            text = f', text "{printable(error.reply.strip())}"'
        return {
            **about(session),
            "backend": session.backend,
            "reason": reason,
            "phase": session.phase.value,
            "user": printable(session.user),
            "text": text,
        }
