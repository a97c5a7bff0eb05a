# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
What turns a route into a client that is logged in at a backend.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IStreamClientEndpoint
from zope.interface import implementer

from mailgate.backend.client import ProxyClient
from mailgate.backend.credentials import BackendCredentials, PasswordLogin
from mailgate.backend.errors import BackendError, LoginRefused, replyCode
from mailgate.backend.reply import isOfAccount, transactionDenial
from mailgate.backend.settings import ProxySettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import IConnector
from mailgate.log.connection import BACKEND_FAILED, BACKEND_NOTED, about
from mailgate.log.journal import Journal, printable
from mailgate.login import Backend, Denial, LoginRequest, Method, Refusal, Route, Trouble, fitForWire
from mailgate.net.connectionerrors import inWords
from mailgate.net.endpoints import endpointFor
from mailgate.session import Phase, Session

__all__ = ["Connector"]

_REFUSALS = ("NO", "BAD", "BYE", "-ERR", "4", "5")
"""How the codes of replies begin that say no: what is garbled is not passed on to a client."""

_MOST_PLACES = 1024
"""Backends whose places are kept: an authentication service may name any number."""


def _isOfClient(refused: LoginRefused, request: LoginRequest, isAnswer: bool) -> bool:
    """
    Whether a refusal is about the client or its account, and so no trouble of the backend. Credentials are the client's
    where the refusal C{isAnswer} to them; where they were judged before, the backend should have taken them.
    """
    if request.credentials.method is Method.NONE:
        return refused.denial.answer != b""
    return isOfAccount(refused.reply) or (isAnswer and refused.denial.refusesCredentials)


@implementer(IConnector)
class Connector:
    """
    Makes logged-in clients of class C{client} for a server's sessions. C{timeout} seconds are given to each backend,
    from the connection to the end of the login (nginx's C{timeout}); C{trust} are the roots that backends'
    certificates are judged by, or L{None} for the platform's.
    """

    def __init__(
        self,
        client: type[ProxyClient],
        settings: ServerSettings,
        serverName: str,
        timeout: float,
        reactor: Any,
        journal: Journal,
        trust: Any = None,
    ) -> None:
        self._client = client
        self._settings = settings
        self._serverName = serverName
        self._timeout = timeout
        self._reactor = reactor
        self._journal = journal
        self._trust = trust
        self._places: dict[tuple[str, int], tuple[str, IStreamClientEndpoint]] = {}
        self._told: set[tuple[str, str]] = set()
        self._passErrorMessage = settings[ProxySettings].passErrorMessage

    async def connect(self, route: Route, request: LoginRequest, session: Session) -> ProxyClient | Refusal | Denial:
        """
        Log in at the first backend of C{route} that can be used. A L{Refusal} is to be passed on to the client as it
        is, before its connection ends. A L{Denial} with an C{answer} is the backend's own word.

        Each backend that failed is a line of the log: a warning where another served the client, or where the trouble
        is this one account's, or else an error.
        """
        if not fitForWire(route.user, route.password, route.authzid):
            return Denial(Trouble.DENIED, reason="the user name or password contains a line end or NUL")
        login = PasswordLogin(route.user, route.password, route.authzid, route.judged)
        reply = b""
        failures: list[dict[str, Any]] = []
        isServed = False
        try:
            for backend in route.backends:
                session.backend, endpoint = self._place(backend)
                session.enter(Phase.CONNECT)
                client = self._client(self._settings, self._serverName, backend, endpoint)
                try:
                    await self._attempt(client, login, request, session)
                    isServed = True
                    return client
                except LoginRefused as refused:
                    isAnswer = request.credentials.method is Method.NONE or not route.judged
                    isServed = _isOfClient(refused, request, isAnswer)
                    if not (isAnswer and isServed):
                        failures.append(self._failure(refused, session))
                    return refused.denial if isAnswer else self._passedOn(refused)
                except (BackendError, ConnectError, TimeoutError, OSError) as error:
                    failures.append(self._failure(error, session))
                    if isinstance(error, BackendError) and not error.retriable:
                        return Denial(
                            Trouble.UNAUTHORIZED, reason="the backend does not support authorization identities"
                        )
                    reply = getattr(error, "reply", b"")
        finally:
            for failure in failures:
                # Not sooner: it is an error only where no other backend has served the client.
                tell = self._journal.warn if isServed else self._journal.error
                tell(BACKEND_FAILED, **failure)
        if self._passErrorMessage and replyCode(reply).startswith(_REFUSALS):
            if request.credentials.method is Method.NONE:
                # Of all recipients of a connection this one alone is refused.
                return transactionDenial(reply)
            return Refusal(reply, True)
        return Denial(Trouble.TEMPORARY)

    async def _attempt(
        self, client: ProxyClient, login: BackendCredentials, request: LoginRequest, session: Session
    ) -> None:
        deadline = self._reactor.callLater(self._timeout, client.expired)
        try:
            await client.open(request.client, self._trust, session.enter)
            await client.login(login, request)
        except BaseException:
            client.abandon()
            raise
        finally:
            if deadline.active():
                deadline.cancel()
        if client.concerns:
            self._warn(client.concerns, session)

    def _warn(self, concerns: tuple[str, ...], session: Session) -> None:
        """Tell of each backend once that it is a cause for C{concerns}."""
        for concern in concerns:
            if (session.backend, concern) in self._told:
                continue
            if len(self._told) >= _MOST_PLACES:
                self._told.clear()
            self._told.add((session.backend, concern))
            self._journal.warn(
                BACKEND_NOTED,
                **about(session),
                backend=session.backend,
                concern=concern,
            )

    def _place(self, backend: Backend) -> tuple[str, IStreamClientEndpoint]:
        """What C{backend} is called, and where it is. A site has some backends, and many sessions at each."""
        place = self._places.get((backend.host, backend.port))
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            place = str(backend), endpointFor(self._reactor, backend.host, backend.port, None)
            self._places[backend.host, backend.port] = place
        return place

    def _passedOn(self, refused: LoginRefused) -> Refusal | Denial:
        """What the client hears where the login that was C{refused} had been judged before."""
        if self._passErrorMessage:
            return Refusal(refused.reply, refused.temporary)
        isLasting = refused.denial.trouble is Trouble.PERMANENT
        return Denial(Trouble.PERMANENT if isLasting else Trouble.TEMPORARY)

    def _failure(self, error: Exception, session: Session) -> dict[str, Any]:
        """The fields of the line about the backend of C{session}, which cannot be used because of C{error}."""
        text = ""
        if isinstance(error, BackendError):
            reason = str(error)
            text = f', text "{printable(error.reply.strip())}"' if error.isQuoted else ""
        elif isinstance(error, TimeoutError | ConnectTimeout):
            reason = f"timed out after {self._timeout:g} s"
        else:
            reason = inWords(error) or f"failed: {printable(str(error).encode())}"
        return {
            **about(session),
            "backend": session.backend,
            "reason": reason,
            "phase": session.phase.value,
            "user": printable(session.user),
            "text": text,
        }
