# -*- test-case-name: mailgate.test.auth.test_cred -*-
"""
Passwords are checked by one of L{twisted.cred}'s checkers: its own, or those that were written for other servers on
Twisted.
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
    """The answer to the challenge of CRAM-MD5 or APOP, which a checker that knows the password can check."""

    username: bytes
    credentials: Credentials = field(repr=False)

    def checkPassword(self, password: bytes) -> bool:
        """Whether the answer was made with C{password}."""
        given = self.credentials
        return answersChallenge(given.method, password, given.salt, given.secret)


@implementer(IAuthenticator)
class CredAuthenticator:
    """
    Judges logins by C{checker}. An accepted one goes where C{route(avatarId, request)} says: it returns a L{Route}, or
    a L{Denial}, or a Deferred of one. C{avatarId} is what the checker answered.

    L{UnauthorizedLogin} is the answer to a wrong password. Every other failure, of C{route} too, is passed on: the
    client is told of a temporary failure.

    @ivar methods: passwords, if C{checker} takes L{IUsernamePassword}; CRAM-MD5 and APOP, if it takes
        L{IUsernameHashedPassword}.
    @raise ValueError: it takes neither.
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
            raise ValueError(f"{type(checker).__name__} checks no passwords")
        self.methods = frozenset(methods)

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """See L{IAuthenticator.authenticate}."""
        given = request.credentials
        if given.method not in self.methods or not given.secret:
            # An LDAP server, for one, takes a login without a password for that of an anonymous user.
            return succeed(Denial(Trouble.DENIED, reason="no password"))
        if not fitForWire(given.user, given.secret):
            # A checker that looks at the beginning alone would let the rest through to the backend.
            return succeed(Denial(Trouble.DENIED, reason="CR, LF or NUL in the credentials"))
        isDigest = given.method.isDigest
        credentials: Any = _Digest(given.user, given) if isDigest else UsernamePassword(given.user, given.secret)
        checked: Deferred[Any] = maybeDeferred(self._checker.requestAvatarId, credentials)
        return checked.addCallbacks(partial(self._accepted, request), _refused)

    def _accepted(self, request: LoginRequest, avatarId: Any) -> Any:
        return self._route(avatarId, request)

    def close(self) -> None:
        """Nothing is kept open; what C{checker} keeps is the application's."""


def _refused(failure: Failure) -> Denial:
    failure.trap(UnauthorizedLogin)
    return Denial(Trouble.DENIED, reason="refused by the checker")
