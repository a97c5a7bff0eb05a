# -*- test-case-name: mailgate.test.test_service -*-
"""
The authenticators of a gateway: they are built with it, and closed when it stops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mailgate.backend.settings import ProxySettings
from mailgate.directives import ConfigurationError, ServerSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator, IWatch, IWatchedAuthenticator
from mailgate.log.journal import Journal

__all__ = ["Authenticators"]


class Authenticators:
    """
    The authenticators of one gateway. They may come from other distributions: their errors do not end the gateway.

    @param reactor: what their connections are made by.
    @param journal: where it is logged that one cannot be closed.
    @param watch: receives their requests to services; L{None} if nothing does.
    """

    def __init__(self, reactor: Any, journal: Journal, watch: IWatch | None = None) -> None:
        self._reactor = reactor
        self._journal = journal
        self._watch = watch
        self._built: list[IAuthenticator] = []
        self._watched: list[Any] = []
        self._forgetful: list[Callable[[Callable[[bytes], bool]], Iterator[int]]] = []

    def build(self, kind: AuthenticatorKind, server: ServerSettings, journal: Journal) -> IAuthenticator:
        """
        Build the authenticator of a server.

        @param kind: its kind.
        @param server: the server.
        @param journal: the server's log.
        @raise ConfigurationError: it cannot be created.
        """
        try:
            built = self._make(kind, server, journal)
        except ConfigurationError:
            raise
        except Exception as error:
            reason = f"cannot create the authenticator {kind.name}: {type(error).__name__}: {error}"
            raise ConfigurationError([server.problem(kind.directive, reason)]) from error
        if not kind.isLent:
            self._built.append(built)
        if IWatchedAuthenticator.providedBy(built):
            self._watched.append(built)
            if self._watch is not None:
                built.watchedBy(self._watch)
        forgets = getattr(built, "forgetUsers", None)
        if forgets is not None:
            self._forgetful.append(forgets)
        return built

    def services(self) -> Iterator[Any]:
        """Yield the services that logins are sent to (L{IWatchedAuthenticator}). Servers may share one."""
        for authenticator in self._watched:
            yield from authenticator.services

    def _make(self, kind: AuthenticatorKind, server: ServerSettings, journal: Journal) -> IAuthenticator:
        built: IAuthenticator = kind.build(server, server[ProxySettings].backend, self._reactor, journal)
        if not IAuthenticator.providedBy(built):
            raise TypeError(f"{type(built).__name__} does not provide IAuthenticator")
        return built

    def forgetUsers(self, matches: Callable[[bytes], bool]) -> Iterator[int]:
        """
        Forget what those with a cache have stored about users of a kind: each is called as
        L{mailgate.auth.cache.CachedAuthenticator.forgetUsers}.

        @param matches: returns whether a user name is of this kind.
        @return: yields the numbers of answers that were forgotten, with pauses in between.
        """
        for forgets in self._forgetful:
            try:
                yield from forgets(matches)
            except Exception:
                self._journal.failure("an authenticator cannot forget a user")

    def close(self) -> None:
        """Close those that were built for this gateway."""
        for authenticator in self._built:
            try:
                authenticator.close()
            except Exception:
                self._journal.failure("cannot close an authenticator")
