# -*- test-case-name: mailgate.test.auth.test_cred -*-
"""
An authenticator that checks passwords with a checker of L{twisted.cred}: one of Twisted's own, or one that was written
for another Twisted server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from attrs import field, frozen
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.auth.digests import answersChallenge
from mailgate.interfaces import IAuthenticator
from mailgate.login import Credentials, Denial, LoginRequest, Method, Route, Trouble, fitForWire

__all__ = ["CredAuthenticator"]


@implementer(IUsernameHashedPassword)
@frozen
class _Digest:
    """The answer to a CRAM-MD5 or APOP challenge, for checkers that know the password."""

    username: bytes
    credentials: Credentials = field(repr=False)

    def checkPassword(self, password: bytes) -> bool:
        """
        See L{IUsernameHashedPassword}.

        @param password: the account's password.
        @return: whether the answer was made with it.
        """
        given = self.credentials
        return answersChallenge(given.method, password, given.salt, given.secret)


@implementer(IAuthenticator)
class CredAuthenticator:
    """
    Judges logins with a checker of L{twisted.cred}.

    The checker signals a wrong password by L{UnauthorizedLogin}. Any other failure, of the checker or of C{route}, is
    passed on: the client gets a temporary failure.

    @param checker: takes L{IUsernamePassword} or L{IUsernameHashedPassword} credentials, or both.
    @param route: C{route(avatarId, request)} returns the L{Route} of an accepted login, or a L{Denial}, or a Deferred
        of either. C{avatarId} is the checker's result, C{request} the L{LoginRequest}.
    @ivar methods: C{PLAIN} if the checker takes L{IUsernamePassword}; CRAM-MD5 and APOP if it takes
        L{IUsernameHashedPassword}.
    @raise ValueError: C{checker} takes neither.
    """

    def __init__(
        self, checker: ICredentialsChecker, route: Callable[[Any, LoginRequest], Route | Denial | Deferred[Any]]
    ) -> None:
        self._checker = checker
        self._route = route
        methods = set()
        if IUsernamePassword in checker.credentialInterfaces:
            methods.add(Method.PLAIN)
        if IUsernameHashedPassword in checker.credentialInterfaces:
            methods |= {Method.CRAM_MD5, Method.APOP}
        if not methods:
            raise ValueError(f"{type(checker).__name__} accepts neither IUsernamePassword nor IUsernameHashedPassword")
        self.methods = frozenset(methods)

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """
        See L{IAuthenticator.authenticate}.

        @param request: the login.
        """
        given = request.credentials
        if given.method not in self.methods or not given.secret:
            # An LDAP server, for example, treats a login without a password as anonymous and accepts it.
            return succeed(Denial(Trouble.DENIED, reason="no password"))
        if not fitForWire(given.user, given.secret):
            # If the checker stops at such a byte, the rest of the text would reach the backend unchecked.
            return succeed(Denial(Trouble.DENIED, reason="CR, LF or NUL in the credentials"))
        isDigest = given.method.isDigest
        credentials: Any = _Digest(given.user, given) if isDigest else UsernamePassword(given.user, given.secret)
        checked: Deferred[Any] = maybeDeferred(self._checker.requestAvatarId, credentials)
        return checked.addCallbacks(partial(self._accepted, request), _refused)

    def _accepted(self, request: LoginRequest, avatarId: Any) -> Any:
        return self._route(avatarId, request)

    def close(self) -> None:
        """Do nothing: the checker belongs to the application."""


def _refused(failure: Failure) -> Denial:
    failure.trap(UnauthorizedLogin)
    return Denial(Trouble.DENIED, reason="the checker refused the login")
