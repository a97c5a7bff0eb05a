# -*- test-case-name: mailgate.test.test_registry -*-
"""
What can be put into mailgate from outside: the interfaces of its extension points.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from mailgate.directives import ServerSettings
from mailgate.log.journal import Journal
from mailgate.login import Backend, Denial, Fact, LoginRequest, Method, Route
from mailgate.session import Session

__all__ = ["AuthenticatorKind", "IAuthenticator", "IConnector", "IGenerations", "Refusals"]


def _none(server: ServerSettings) -> Set[Fact]:
    return frozenset()


@frozen
class Refusals:
    """
    How a server treats those who guess, where its configuration does not say: C{delay} seconds pass from a login to its
    refusal (C{auth_delay}), and C{most} refusals end a connection, 0 being no limit (C{max_auth_failures}).
    """

    delay: float = 2.0
    most: int = 5


def _guarded(server: ServerSettings) -> Refusals:
    return Refusals()


class IAuthenticator(Interface):
    """Judges logins, and knows where accounts live."""

    def authenticate(request: LoginRequest) -> Deferred[Route | Denial]:
        """
        Judge C{request}.

        The Deferred can be cancelled: the client has left, and whatever is under way for it is given up. An errback
        means "could not be decided": the client is told of a temporary failure, the reason is logged.
        """

    def close() -> None:
        """Drop what is kept open: the gateway has stopped."""


class IConnector(Interface):
    """Finds a backend that logs a client in."""

    def connect(route: Route, request: LoginRequest, session: Session) -> Awaitable[Any]:
        """
        Log in at a backend of C{route}. C{session} is kept up to date: its phase, and the backend that is asked.

        The result is a L{mailgate.backend.client.ProxyClient} that is logged in; a L{mailgate.login.Refusal}, which the
        client is sent as it is before its connection ends; or a L{Denial}. A L{mailgate.backend.coroutine.Task} awaits
        it. Where that is cancelled the client has left, and whatever is under way is given up.
        """


class IGenerations(Interface):
    """
    All that serve clients in this process, or for it. A generation is one configuration, put into force once, and all
    who are served by it.
    """

    def whenReady() -> Deferred[None]:
        """Fires when the first of them serves; fails, with a reason for the log, if it does not come up."""

    def reload() -> Deferred[Sequence[str]]:
        """
        Read the configuration again, and serve those who come from now on by it; if it is bad, say so in the log and
        change nothing. Fires when that is done, with what was wrong, if anything; those who are connected go on.
        """

    def drain() -> Deferred[int]:
        """
        Let nobody in any more, and wait until all have left, for worker_shutdown_timeout at most. Fires with how many
        proxied sessions had to be cut.
        """

    def stop() -> Deferred[int]:
        """The same, without waiting; the second time without courtesy."""

    def retire() -> Deferred[int]:
        """
        Another process has taken over: let nobody in any more, and wait as in C{drain} until all have left; those
        before login go on, too.
        """

    def reopen() -> None:
        """Open the log files again: they have been renamed."""


@frozen
class AuthenticatorKind:
    """
    A kind of authenticator: chosen by the option C{directive}, configured by the class C{settings}.

    C{methods} are the login methods it can judge. C{build(server, default, reactor, journal)} makes one for a server;
    C{default} is the backend of C{proxy_pass}, for accounts whose own is not known. C{facts(server)} are those that one
    for C{server} wants to know of each connection; C{refusals(server)} how it treats those who guess.
    """

    name: str
    directive: str
    settings: type
    methods: frozenset[Method]
    build: Callable[[ServerSettings, Backend | None, Any, Journal], Any]
    facts: Callable[[ServerSettings], Set[Fact]] = _none
    refusals: Callable[[ServerSettings], Refusals] = _guarded
