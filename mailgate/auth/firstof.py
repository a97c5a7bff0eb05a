# -*- test-case-name: mailgate.test.auth.test_firstof -*-
"""
Several authenticators for one server, each for accounts of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.interfaces import IAuthenticator, methodsOf
from mailgate.login import Denial, LoginRequest, Method, Route, Trouble

__all__ = ["FirstOf"]


@implementer(IAuthenticator)
class FirstOf:
    """
    Asks C{authenticators} in their order until one answers. These are L{IAuthenticator}s whose Deferred may also fire
    with L{None}: the account is not theirs, and the next is asked. If it is nobody's, the login is refused.

    A L{Denial} ends the search, and so does a failure: it could not be found out whose the account is.

    @ivar methods: the login methods that at least one can judge. The others are not asked for such a login.
    """

    def __init__(self, *authenticators: Any) -> None:
        self._authenticators = [(each, methodsOf(each)) for each in authenticators]
        self.methods: frozenset[Method] = frozenset().union(*(methods for _, methods in self._authenticators))

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """See L{IAuthenticator.authenticate}."""
        return Deferred.fromCoroutine(self._ask(request))

    async def _ask(self, request: LoginRequest) -> Route | Denial:
        method = request.credentials.method
        for authenticator, methods in self._authenticators:
            if method in methods:
                answer: Route | Denial | None = await authenticator.authenticate(request)
                if answer is not None:
                    return answer
        return Denial(Trouble.DENIED, reason="no authenticator has this account")

    def close(self) -> None:
        """
        Close all of them.

        @raise Exception: what the first of those that cannot be closed has raised; the others are closed.
        """
        failures = list(_closed(authenticator for authenticator, _ in self._authenticators))
        if failures:
            failures[0].raiseException()


def _closed(authenticators: Iterable[IAuthenticator]) -> Iterable[Failure]:
    for authenticator in authenticators:
        try:
            authenticator.close()
        except Exception:
            yield Failure()
