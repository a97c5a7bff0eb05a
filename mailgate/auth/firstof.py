# -*- test-case-name: mailgate.test.auth.test_firstof -*-
"""
Chains several authenticators for one server, each with its own accounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from mailgate.interfaces import IAuthenticator, IWatch, IWatchedAuthenticator, methodsOf
from mailgate.login import Denial, LoginRequest, Method, Route, Trouble

__all__ = ["FirstOf"]


@implementer(IAuthenticator, IWatchedAuthenticator)
class FirstOf:
    """
    Asks several authenticators in order until one answers. If none knows the account, the login is refused.

    The Deferred of each authenticator may also fire with L{None}: it does not know the account, and the next one is
    asked. A L{Denial} ends the search. So does a failure, because the account may belong to the authenticator that
    failed.

    @param authenticators: the L{IAuthenticator}s.
    @ivar methods: the login methods that at least one of them can judge. A login goes only to those that can judge its
        method.
    """

    def __init__(self, *authenticators: Any) -> None:
        self._authenticators = [(each, methodsOf(each)) for each in authenticators]
        self.methods: frozenset[Method] = frozenset().union(*(methods for _, methods in self._authenticators))

    @property
    def authenticators(self) -> list[Any]:
        """The authenticators, in order."""
        return [authenticator for authenticator, _ in self._authenticators]

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """
        See L{IAuthenticator.authenticate}.

        @param request: the login.
        """
        return Deferred.fromCoroutine(self._ask(request))

    async def _ask(self, request: LoginRequest) -> Route | Denial:
        method = request.credentials.method
        for authenticator, methods in self._authenticators:
            if method in methods:
                answer: Route | Denial | None = await authenticator.authenticate(request)
                if answer is not None:
                    return answer
        return Denial(Trouble.DENIED, reason="no authenticator knows this account")

    @property
    def _watched(self) -> list[Any]:
        return [each for each, _ in self._authenticators if IWatchedAuthenticator.providedBy(each)]

    @property
    def services(self) -> Sequence[Any]:
        """See L{IWatchedAuthenticator}."""
        return [service for each in self._watched for service in each.services]

    def watchedBy(self, watch: IWatch) -> None:
        """
        See L{IWatchedAuthenticator.watchedBy}.

        @param watch: receives the requests and look-ups.
        """
        for each in self._watched:
            each.watchedBy(watch)

    def forgetUsers(self, matches: Callable[[bytes], bool]) -> Iterator[int]:
        """
        Have those with a cache forget what it holds about users of a kind: see
        L{mailgate.auth.cache.CachedAuthenticator.forgetUsers}.

        @param matches: returns whether a user name is of this kind.
        @return: yields the numbers of answers that were forgotten, with pauses in between.
        """
        for authenticator, _ in self._authenticators:
            forgets = getattr(authenticator, "forgetUsers", None)
            if forgets is not None:
                yield from forgets(matches)

    def close(self) -> None:
        """
        Close all authenticators.

        @raise Exception: the first exception that one of them raised; all others are closed nevertheless.
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
