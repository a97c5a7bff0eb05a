# -*- test-case-name: mailgate.test.auth.test_passthrough -*-
"""
C{proxy_pass} without an authenticator: the gateway replays the login at the backend, and the backend's reply decides.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailgate.backend.settings import ProxySettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator
from mailgate.log.journal import Journal
from mailgate.login import Denial, Destination, LoginRequest, Method, Route, Trouble

__all__ = ["KIND", "PassThroughAuthenticator"]

_REPLAYABLE = (Method.PLAIN, Method.NONE)
"""A tuple, because hashing an enumeration member runs Python code."""


@implementer(IAuthenticator)
class PassThroughAuthenticator:
    """
    Accepts every login that the gateway can replay, for the backend to decide.

    @param backend: the backend of C{proxy_pass}.
    """

    def __init__(self, backend: Destination) -> None:
        self._backend = backend

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        credentials = request.credentials
        if credentials.method not in _REPLAYABLE:
            return succeed(Denial(Trouble.DENIED))
        authzid = credentials.authzid or None
        route = Route((self._backend,), credentials.user, credentials.secret, judged=False, authzid=authzid)
        return succeed(route)

    def close(self) -> None:
        """Do nothing: this authenticator holds no resources."""


def _build(server: ServerSettings, default: Destination | None, reactor: Any, journal: Journal) -> IAuthenticator:
    assert default is not None
    return PassThroughAuthenticator(default)


KIND = AuthenticatorKind(
    name="passthrough",
    directive="proxy_pass",
    settings=ProxySettings,
    methods=frozenset(_REPLAYABLE),
    build=_build,
)
