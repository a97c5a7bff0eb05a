# -*- test-case-name: mailgate.test.frontend -*-
"""
A login, the same for every protocol, from the credentials to the hand-over or the refusal: it is judged, the backend is
logged in at, a refusal is held back, told and counted, and the relay takes the connection over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from mailgate.backend.client import ProxyClient
from mailgate.frontend.exchange import SASLServer
from mailgate.frontend.findings import DialogueFindings
from mailgate.log.connection import JUDGED, LOGGED_IN, LOGIN_FAILED, about, defect, tlsName
from mailgate.log.journal import printable
from mailgate.login import (
    Client,
    Credentials,
    Denial,
    Envelope,
    LoginRequest,
    Method,
    ProxiedAddresses,
    Refusal,
    Route,
    Trouble,
)
from mailgate.session import Outcome, Phase

if TYPE_CHECKING:
    from mailgate.frontend.factory import ProxyServerFactory

__all__ = ["LoginServer"]

_SAYS_GOODBYE = re.compile(rb"(?mi)^(?:\* BYE|421)\b")
"""A backend's reply that has the goodbye in it."""


class LoginServer(SASLServer):
    """
    The part of a dialogue that L{login} begins. It ends in the phase RELAY, in COMMAND, or in END.
    """

    wording: ClassVar[Mapping[Trouble, bytes]]
    """What is said of each trouble, without the line end; in IMAP without the tag."""
    tag: bytes = b""

    _failures = 0
    _parting = b""
    """The goodbye that the next reply is to take with it."""
    _host: str
    _port: int
    _proxied: ProxiedAddresses | None
    _deadline: IDelayedCall
    _limit: IDelayedCall | None = None
    """What ends the dialogue when the session's time is over."""
    _budgetEnd: float

    def __init__(self, factory: ProxyServerFactory) -> None:
        super().__init__()
        self.factory = factory
        self.clock = factory.clock
        self._journal = factory.journal
        self.settings = factory.protocolSettings
        self.dialogue = factory.dialogue
        self._clientName = "[UNAVAILABLE]"
        self._pending: Deferred[Any] | None = None

    def resume(self) -> None:
        """Take the next command, unless this is the end."""
        raise NotImplementedError

    def end(self, outcome: Outcome, goodbye: bytes = b"") -> None:
        """Say C{goodbye} and close, whatever is under way."""
        raise NotImplementedError

    def _extend(self) -> None:
        raise NotImplementedError

    def goodbye(self, trouble: Trouble) -> bytes:
        """The line for a trouble that ends the connection."""
        return self.wording[trouble] + b"\r\n"

    def farewell(self, trouble: Trouble) -> bytes:
        """The line that ends the connection behind a reply; empty in a protocol that has none."""
        return self.goodbye(trouble)

    def lastReply(self, trouble: Trouble) -> None:
        """
        Have the next reply, or else L{end}, say goodbye for C{trouble}: in one segment, as a client that sees the end
        of the connection first forgets what it was told before.
        """
        self._parting = self.farewell(trouble)

    def takeParting(self) -> bytes:
        """What a reply has to end with: nothing, or the goodbye of L{lastReply}."""
        parting, self._parting = self._parting, b""
        return parting

    def refuse(self, denial: Denial) -> None:
        """Tell the client that its login failed."""
        raise NotImplementedError

    def accept(self, client: ProxyClient) -> bytes:
        """What the client is told of its login, by the backend or by us."""
        return client.reply

    def login(self, credentials: Credentials) -> None:
        """Have C{credentials} judged, and the connection handed over or the client refused."""
        session = self.session
        session.attempts += 1
        session.user = credentials.user
        session.method = credentials.method
        session.enter(Phase.AUTH)
        now = self.clock.seconds()
        self._deadline.reset(max(0.0, self._budgetEnd - now))
        request = LoginRequest(
            session.protocol, credentials, self._client(), session.attempts, self.tag, self.envelope(credentials.method)
        )
        pending = Deferred.fromCoroutine(self._login(request, now))
        if not pending.called:
            self._pending = pending
        pending.addErrback(self._loginFailed)

    def _client(self) -> Client:
        """Who wants to log in. What costs something to find out of its connection is left until somebody asks."""
        factory, session = self.factory, self.session
        known = (
            *(self._host, self._port, session.tls, self._clientName, self._proxied),
            *(factory.local or ("", 0)),
            *(session.id, None, session.server),
        )
        unknown: tuple[str, ...] = () if factory.local else ("local", "localPort")
        if session.tls is not None:
            unknown += ("details",)
        return Client.lazily(DialogueFindings(self), unknown, *known) if unknown else Client(*known)

    def envelope(self, method: Method) -> Envelope:
        """What has been heard so far that matters to a login by C{method}."""
        return Envelope()

    async def _login(self, request: LoginRequest, began: float) -> None:
        answer: Route | ProxyClient | Refusal | Denial = await self._judge(request)
        if isinstance(answer, Route):
            self.session.user = answer.user
            if self._journal.wantsDebug:
                self._logJudged(request, answer)
            answer = await self.factory.connector.connect(answer, request, self.session)
        if isinstance(answer, Denial):
            # Before it waits: a client that leaves meanwhile has guessed, and been told by the silence.
            self._logDenied(request, answer)
            wait = self._wait(answer, request, began)
            if wait > 0:
                self.session.enter(Phase.AUTH)
                await deferLater(self.clock, wait)
        self._pending = None
        if isinstance(answer, ProxyClient):
            self._handOver(answer)
        elif isinstance(answer, Refusal):
            said = _SAYS_GOODBYE.search(answer.reply)
            self.end(Outcome.BACKEND_REFUSED, answer.reply + (b"" if said else self.farewell(Trouble.REFUSED)))
        else:
            self._loginDenied(request, answer)

    def _wait(self, denial: Denial, request: LoginRequest, began: float) -> float:
        """
        The seconds until the client may hear C{denial} of the login that C{began}: of the service's wait and ours the
        longer. A refused recipient is no guess, and a passing failure none either.
        """
        delay = self.dialogue.authDelay
        if not delay or not denial.refusesCredentials or request.credentials.method is Method.NONE:
            return denial.wait
        rest: float = began + delay - self.clock.seconds()
        return max(denial.wait, rest)

    async def _judge(self, request: LoginRequest) -> Route | Denial:
        authzid = request.credentials.authzid
        if authzid and self.dialogue.authzid == "refuse":
            return Denial(Trouble.UNAUTHORIZED, reason="another authorization identity")
        try:
            answer = await self.factory.authenticator.authenticate(request)
            if authzid and isinstance(answer, Route) and answer.authzid is None:
                return Denial(Trouble.UNAUTHORIZED, reason="the authorization identity was not answered for")
            if isinstance(answer, Route) and not answer.user and request.credentials.method is not Method.NONE:
                return Denial(Trouble.DENIED, reason="neither the client nor the answer names a user")
            return answer
        except Exception:
            if self.session.phase is Phase.END:
                # The client has left, and we have cancelled it.
                raise
            defect(self._journal, self.session, "the login could not be judged", Failure())
            return Denial(Trouble.TEMPORARY)

    def _loginFailed(self, failure: Failure) -> None:
        if self.session.phase is Phase.END and failure.check(CancelledError):
            return
        self._pending = None
        defect(self._journal, self.session, "the login failed", failure)
        self.end(Outcome.INTERNAL, self.goodbye(Trouble.INTERNAL))

    def _logDenied(self, request: LoginRequest, denial: Denial) -> None:
        journal = self._journal
        if journal.wantsInfo:
            text = denial.answer or denial.text
            journal.info(
                LOGIN_FAILED,
                **about(self.session),
                trouble=denial.kind.value,
                method=request.credentials.method.value,
                reason=f", reason {denial.reason}" if denial.reason else "",
                user=printable(self.session.user),
                text=f', text "{printable(text)}"' if text else "",
            )

    def _logJudged(self, request: LoginRequest, route: Route) -> None:
        self._journal.debug(
            JUDGED,
            **about(self.session),
            method=request.credentials.method.value,
            attempt=request.attempt,
            backends=" ".join(map(str, route.backends)),
            user=printable(route.user),
        )

    def _logLoggedIn(self) -> None:
        session = self.session
        self._journal.record(
            LOGGED_IN,
            **about(session),
            tls=tlsName(session.tls),
            method=session.method.value if session.method else "-",
            backend=session.backend or "-",
            times=session.times,
            user=printable(session.user),
        )

    def _loginDenied(self, request: LoginRequest, denial: Denial) -> None:
        if denial.refusesCredentials and request.credentials.method is not Method.NONE:
            self._failures += 1
        # Who sends no more does not answer a challenge, and would not hear of the refusal behind that.
        answers = not self.inputEnded or b"\n" in self._buffer
        if answers and self.explain(request.credentials.method, denial):
            self._extend()
            self.advance()
        else:
            self.deny(denial)

    def deny(self, denial: Denial) -> None:
        self.session.enter(Phase.COMMAND)
        ending = self._ending(denial)
        if ending is not None:
            self.lastReply(ending[1])
        self.refuse(denial)
        if ending is not None:
            self.end(ending[0])
        self.resume()

    def _ending(self, denial: Denial) -> tuple[Outcome, Trouble] | None:
        """How the connection ends behind C{denial}, if it does."""
        if denial.close:
            return Outcome.DENIED, Trouble.REFUSED
        if 0 < (self.dialogue.maxAuthFailures or 0) <= self._failures:
            return Outcome.FAILURES, Trouble.FAILURES
        return None

    def _dropLimit(self) -> None:
        """The relay heeds the end of the session's time itself; a dialogue that ends needs to no more."""
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()

    def _handOver(self, client: ProxyClient) -> None:
        self._deadline.cancel()
        if self._limit is not None:
            self._dropLimit()
        self.session.enter(Phase.RELAY)
        self.session.settleTimes()
        if self._journal.wantsInfo:
            self._logLoggedIn()
        early = self.takeBuffer()
        self.transport.unregisterProducer()
        factory = self.factory
        idle, linger = factory.relayTimeout, self.dialogue.timeout
        relay = factory.relays.between(self, client, self.session, idle, linger, factory.relayEnded)
        factory.connections.discard(self)
        factory.connections.add(relay)
        try:
            relay.start(self.accept(client) + client.leftOver, early)
        except Exception:
            # It is the relay's to end: the dialogue has nothing left to say it with.
            defect(self._journal, self.session, "the relay failed", Failure())
            self.session.conclude(Outcome.INTERNAL)
            relay.abort()
