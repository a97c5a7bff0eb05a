# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
Logs a client in at the first backend of a route that can be used.
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
from mailgate.log.connection import BACKEND_FAILED, BACKEND_WARNING, about
from mailgate.log.journal import Journal, printable
from mailgate.login import Backend, Denial, LoginRequest, Method, Refusal, Route, Trouble, fitForWire
from mailgate.net.connectionerrors import inWords
from mailgate.net.endpoints import endpointFor
from mailgate.session import Phase, Session

__all__ = ["Connector"]

_REFUSALS = ("NO", "BAD", "BYE", "-ERR", "4", "5")
"""Beginnings of reply codes that refuse. Only such replies are passed on to a client."""

_MOST_PLACES = 1024
"""How many backends are cached. An authentication service may name any number."""


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
        client: type[ProxyClient],
        settings: ServerSettings,
        serverName: str,
        timeout: float,
        reactor: Any,
        journal: Journal,
        trust: Any = None,
    ) -> None:
        """
        @param client: the class of the protocol's login at a backend.
        @param settings: the server's directives.
        @param serverName: the gateway's host name (C{server_name}).
        @param timeout: seconds for each backend, from the connect to the end of the login (nginx's C{timeout}).
        @param reactor: the reactor for connections and timers.
        @param journal: the log.
        @param trust: the roots for backends' certificates; L{None} for those of the platform.
        """
        self._client = client
        self._settings = settings
        self._serverName = serverName
        self._timeout = timeout
        self._reactor = reactor
        self._journal = journal
        self._trust = trust
        self._places: dict[tuple[str, int], tuple[str, IStreamClientEndpoint]] = {}
        self._logged: set[tuple[str, str]] = set()
        self._passErrorMessage = settings[ProxySettings].passErrorMessage

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
                # The level depends on the result: an error only if no other backend has served the client.
                log = self._journal.warn if isServed else self._journal.error
                log(BACKEND_FAILED, **failure)
        if self._passErrorMessage and replyCode(reply).startswith(_REFUSALS):
            if request.credentials.method is Method.NONE:
                # Refuse this recipient only. The connection stays open for others.
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
        """Log each of C{concerns} once for each backend."""
        for concern in concerns:
            if (session.backend, concern) in self._logged:
                continue
            if len(self._logged) >= _MOST_PLACES:
                self._logged.clear()
            self._logged.add((session.backend, concern))
            self._journal.warn(
                BACKEND_WARNING,
                **about(session),
                backend=session.backend,
                concern=concern,
            )

    def _place(self, backend: Backend) -> tuple[str, IStreamClientEndpoint]:
        """Return the name and the endpoint of C{backend} from a cache: many sessions use few backends."""
        place = self._places.get((backend.host, backend.port))
        if place is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            place = str(backend), endpointFor(self._reactor, backend.host, backend.port, None)
            self._places[backend.host, backend.port] = place
        return place

    def _passedOn(self, refused: LoginRefused) -> Refusal | Denial:
        """Return the client's answer if the backend C{refused} a login that an authenticator had accepted."""
        if self._passErrorMessage:
            return Refusal(refused.reply, refused.temporary)
        isLasting = refused.denial.trouble is Trouble.PERMANENT
        return Denial(Trouble.PERMANENT if isLasting else Trouble.TEMPORARY)

    def _failure(self, error: Exception, session: Session) -> dict[str, Any]:
        """Return the fields of the log line about the failed backend of C{session}."""
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
