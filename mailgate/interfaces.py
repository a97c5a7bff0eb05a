# -*- test-case-name: mailgate.test.test_registry -*-
"""
What can be put into mailgate from outside: the interfaces of its extension points.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailgate.directives import ServerSettings
from mailgate.log.journal import Journal
from mailgate.login import Denial, Destination, LoginRequest, Method, Route, Trouble
from mailgate.session import Outcome, Session

__all__ = ["AuthenticatorKind", "IAuthenticator", "IConnection", "IConnector", "Refusals", "methodsOf"]


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
    """
    Judges logins, and knows where accounts live.

    Where an application hands one over, it is asked for passwords (C{Method.PLAIN}) only, unless it has an attribute
    C{methods} with the L{Method}s that it can judge.
    """

    def authenticate(request: LoginRequest) -> Deferred[Route | Denial]:
        """
        Judge C{request}.

        The Deferred can be cancelled: the client has left, and whatever is under way for it is given up. An errback
        means "could not be decided": the client is told of a temporary failure, the reason is logged. L{None}, for an
        account of another, is an answer only in a L{mailgate.auth.firstof.FirstOf}.
        """

    def close() -> None:
        """
        Drop what is kept open: the gateway has stopped. It calls this for those that it has had made; one that was
        handed over is closed by the application.
        """


def methodsOf(authenticator: Any) -> frozenset[Method]:
    """The methods that an L{IAuthenticator} says it can judge; C{PLAIN} where it does not say."""
    return frozenset(getattr(authenticator, "methods", (Method.PLAIN,)))


class IConnector(Interface):
    """Finds a backend that logs a client in."""

    def connect(route: Route, request: LoginRequest, session: Session) -> Awaitable[Any]:
        """
        Log in at a backend of C{route}. C{session} is kept up to date: its phase, and the backend that is asked.

        The result is a L{mailgate.backend.client.ProxyClient} that is logged in; a L{mailgate.login.Refusal}, which the
        client is sent as it is before its connection ends; or a L{Denial}. A L{mailgate.backend.coroutine.Task} awaits
        it. Where that is cancelled the client has left, and whatever is under way is given up.
        """


class IConnection(Interface):
    """The connection of one client, at one stage: a PROXY header is waited for, a dialogue goes on, or a relay does."""

    session: Session = Attribute("The ledger of the connection.")

    def dismiss(outcome: Outcome, trouble: Trouble) -> None:
        """Say goodbye for C{trouble}, where anything can be said, and close. The story ends with C{outcome}."""

    def stop() -> None:
        """Close now: the gateway goes down, and waits no longer."""

    def limit(moment: float | None) -> None:
        """
        Be gone by C{moment}, in seconds of the gateway's clock; it may be a second later. L{None} lifts the limit. What
        follows this connection for the same client keeps it.
        """


@frozen
class AuthenticatorKind:
    """
    A kind of authenticator: chosen by the option C{directive}, configured by the class C{settings}.

    C{methods} are the login methods it can judge. C{build(server, default, reactor, journal)} makes one for a server;
    C{default} is the backend of C{proxy_pass}, for accounts whose own is not known. C{refusals(server)} is how one for
    C{server} treats those who guess.

    One that C{isLent} gives an authenticator that somebody else closes; all others are closed by the gateway that had
    them built.
    """

    name: str
    directive: str
    settings: type
    methods: frozenset[Method]
    build: Callable[[ServerSettings, Destination | None, Any, Journal], Any]
    refusals: Callable[[ServerSettings], Refusals] = _guarded
    isLent: bool = False
