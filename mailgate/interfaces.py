# -*- test-case-name: mailgate.test.test_registry -*-
"""
The interfaces of mailgate's extension points: authenticators, connectors and the connections of clients.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailgate.directives import ServerSettings
from mailgate.log.journal import Journal
from mailgate.login import Denial, Destination, LoginRequest, Method, Refusal, Route, Trouble
from mailgate.session import Outcome, Session

__all__ = [
    "AuthenticatorKind",
    "IAdmission",
    "IAnswering",
    "IAuthenticator",
    "IConnection",
    "IConnector",
    "ILoginGuard",
    "IWatch",
    "IWatchedAuthenticator",
    "Refusals",
    "methodsOf",
]


@frozen
class Refusals:
    """
    Defaults of a server against guessed passwords, where its configuration does not set the directives.

    @ivar delay: the default of C{auth_delay}: seconds from a login to its refusal. The gateway lowers it so that it
        fits into the server's C{timeout}.
    @ivar most: the default of C{max_auth_failures}: after that many refused logins the connection ends; 0 is no limit.
    """

    delay: float = 2.0
    most: int = 5


def _guarded(server: ServerSettings) -> Refusals:
    return Refusals()


class IAuthenticator(Interface):
    """
    Checks logins, and knows the backends of the accounts.

    An authenticator that the application makes itself may have an attribute C{methods}: a collection of the L{Method}s
    that it can check. Without this attribute it is used for passwords (C{Method.PLAIN}) only.
    """

    def authenticate(request: LoginRequest) -> Deferred[Route | Denial]:
        """
        Check the credentials of a login.

        The gateway cancels the Deferred when the client disconnects. Stop the work for this login then.

        If the Deferred fails, or if this method raises an exception, the client receives a temporary failure, and the
        exception is logged with its traceback.

        For a login by SCRAM the request has the name only, and a L{Route} needs the user's secret in C{scram}: the
        gateway checks the client's proof then. A L{Denial} reaches the client after its proof, but a temporary one
        without a secret at once.

        @param request: the login.
        @return: a Deferred that fires with a L{Route} (accepted) or a L{Denial} (refused). Inside a
            L{mailgate.auth.firstof.FirstOf} it may also fire with L{None}: this authenticator does not have the
            account, and the next one is asked.
        """

    def close() -> None:
        """
        Close connections and files; the gateway has stopped. If it is started again, it asks this authenticator again.

        The gateway calls this only for authenticators that it made through a L{AuthenticatorKind}. The application
        closes those that it made itself.
        """


def methodsOf(authenticator: Any) -> frozenset[Method]:
    """
    Return the login methods that an authenticator can check.

    @param authenticator: an L{IAuthenticator}.
    @return: its attribute C{methods}, or C{Method.PLAIN} alone if it has no such attribute.
    """
    return frozenset(getattr(authenticator, "methods", (Method.PLAIN,)))


class IConnector(Interface):
    """Connects to the backends of a route, and logs in there."""

    def connect(route: Route, request: LoginRequest, session: Session) -> Awaitable[Any]:
        """
        Log in at the first usable backend of a route.

        A L{mailgate.backend.coroutine.Task} awaits the result. It is cancelled when the client disconnects. Close the
        connection to the backend then.

        @param route: the backends, and the credentials for them.
        @param request: the login of the client.
        @param session: the client's session. Keep its C{phase} and C{backend} up to date.
        @return: an awaitable with one of these results: a L{mailgate.backend.client.ProxyClient} that is logged in; a
            L{mailgate.login.Refusal}, which the client receives unchanged before its connection ends; or a L{Denial}.
        """


class IConnection(Interface):
    """
    The connection of one client in one of its stages: waiting for the PROXY header, dialogue, or relay. When a stage
    hands the connection over to the next one, another object provides this interface.
    """

    session: Session = Attribute("The record of the connection.")

    def dismiss(outcome: Outcome, trouble: Trouble) -> None:
        """
        Close the connection. In a dialogue the client first receives a goodbye.

        @param outcome: how the session ends, unless an earlier outcome is already set.
        @param trouble: the reason that the goodbye gives.
        """

    def stop() -> None:
        """Close the connection at once, without a goodbye; the gateway shuts down. The outcome is C{STOPPED}."""

    def limit(moment: float | None) -> None:
        """
        Set the time at which the connection must end. The limit also holds in the stages that follow for this client.

        @param moment: seconds of the gateway's clock; L{None} removes the limit. The connection may end up to a second
            later. A relay ends once neither side sends a byte, and a minute later at the latest.
        """


class IWatch(Interface):
    """
    Follows the connections of clients, for metrics, lists or an audit log. An embedding application passes its own to
    L{mailgate.service.Gateway}.

    The methods are called on the path of each login, so they must return at once. An exception from an application's
    object is logged, and the session continues.
    """

    def began(session: Session) -> None:
        """
        A connection was accepted. Behind a PROXY header the record changes later: the C{session} of the following calls
        has the same C{id}.

        @param session: its record.
        """

    def encrypted(session: Session, resumed: bool, failure: Any) -> None:
        """
        A TLS handshake with the client has ended. After a success C{session.tls} says what it negotiated.

        @param session: the record.
        @param resumed: whether it resumed an earlier TLS session.
        @param failure: why it failed, an exception; L{None} after a success.
        """

    def asked(service: str, outcome: str, seconds: float) -> None:
        """
        A request to an authentication service has ended. Requests that the gateway cancels, because their client left,
        do not count.

        @param service: the host and port of the service's URL, such as C{127.0.0.1:8080}.
        @param outcome: C{accepted}, C{denied}, C{wait}, C{failed} or C{timeout}.
        @param seconds: the time from the request to its end, without the wait for a free connection.
        """

    def cached(result: str) -> None:
        """
        A login was looked up in the cache of answers (C{auth_cache_ttl}).

        @param result: C{hit}, C{miss} or C{stale}.
        """

    def attempted(
        session: Session, place: Any, error: Exception | None, connected: float | None, seconds: float
    ) -> None:
        """
        An attempt to log in at a backend has ended.

        @param session: the record.
        @param place: the L{mailgate.backend.place.Place}.
        @param error: why it failed; L{None} after a success.
        @param connected: the seconds until the TCP connection was there; L{None} if it never was. Of a backend that
            greets first it may be the round trip of another connection to it, in the second before.
        @param seconds: the seconds of the whole attempt.
        """

    def limited(rule: str, action: str) -> None:
        """
        A limit has acted on a connection or on a login. The gateway calls this once for each time. An application's
        object need not have this method.

        @param rule: the limit, a value of L{mailgate.limits.attempt.Rule}, such as C{limit_conn address} or C{R2}.
        @param action: what it did: C{refused}, C{delayed}, or C{dry_run} if it only would have acted.
        """

    def denied(session: Session, answer: Denial | Refusal | None) -> None:
        """
        A login ends without a relay. Each login gets one call of this or of L{IWatch.relaying}.

        @param session: the record, with the C{user} and C{method} of the login.
        @param answer: the answer to the client; a L{Refusal} is that of the backend. L{None}: the login was cancelled,
            because the client left or the connection had to end.
        """

    def relaying(session: Session, seconds: float) -> None:
        """
        The client is logged in, and the relay begins.

        @param session: the record.
        @param seconds: the time since the client's credentials were complete.
        """

    def ended(session: Session) -> None:
        """
        The connection has ended. This is called exactly once for each connection that began.

        @param session: the record, with its C{outcome}.
        """


class IAdmission(Interface):
    """
    The limits of a server for connections and sessions. It is called on the path of each connection, and answers at
    once. The connection's record keeps in C{Session.counted} what it counts for.
    """

    def arrived(session: Session, host: str) -> Trouble | None:
        """
        A client has connected; behind a PROXY header, its address is that of the header. This is before TLS.

        @param session: the record of the connection.
        @param host: the client's address, in the form of L{mailgate.login.Client}.
        @return: why the connection must end: in clear text after one line, on a TLS port without a handshake.
        """

    def shaken(session: Session) -> Trouble | None:
        """
        A full TLS handshake has ended well: not one that resumed a session.

        @param session: the record of the connection.
        @return: why the connection must end.
        """

    def accepted(session: Session, passed: Any = None) -> Denial | None:
        """
        The authenticator has accepted the login of C{session.user}. The gateway connects to the backend next. A session
        that is counted by this may log in again, as another user.

        @param session: the record of the connection.
        @param passed: the pass of the login, which ends with this instead of C{ILoginGuard.ended}; L{None}: there is
            none, or it has ended.
        @return: why the login is refused.
        """

    def relaying(session: Session) -> None:
        """The client of C{session} is logged in: it no longer counts among those that are not."""

    def left(session: Session) -> None:
        """
        The connection has ended, in whatever phase. What it counts for is counted down, exactly once. It is called for
        connections that were refused, too, if they count for anything.

        @param session: the record of the connection.
        """


class ILoginGuard(Interface):
    """The limits of a server for logins. It is called on the path of each login."""

    def begin(request: LoginRequest, session: Session, held: Callable[[float], object]) -> Any:
        """
        Check a login before the authenticator is asked.

        @param request: the login.
        @param session: the record of the connection.
        @param held: C{held(seconds)} is called before the login is held back for some time.
        @return: the pass of the login, a tuple that C{ended} needs; L{None} if nothing limits it; a L{Denial} if it is
            refused; or a coroutine that returns one of these, which the caller awaits at once. If that is cancelled,
            because the client has left, there is no pass to end.
        """

    def ended(passed: Any, answer: Route | Denial | Refusal | None) -> None:
        """
        A login that may be judged has ended. Call this exactly once for each pass, whatever happens, unless
        C{IAdmission.accepted} has got it.

        @param passed: the pass.
        @param answer: the answer of the authenticator; where the backend judges, that of the backend: the L{Route} if
            it has accepted. L{None}: there was none, because the client has left or something failed.
        """


class IAnswering(Interface):
    """An authenticator that needs no Deferred for its answers. Authenticators need not provide this."""

    def answer(request: LoginRequest) -> Coroutine[Any, Any, Route | Denial]:
        """
        Check the credentials of a login as L{IAuthenticator.authenticate} does.

        @param request: the login.
        @return: a coroutine of the answer. It does nothing before it is awaited, and may await Deferreds.
        """


class IWatchedAuthenticator(Interface):
    """An authenticator whose requests to services can be counted. Authenticators need not provide this."""

    services: Any = Attribute(
        "The services: objects with a C{label}, their host and port, and C{isFailing}, whether the last request failed."
    )

    def watchedBy(watch: IWatch) -> None:
        """
        Report requests and look-ups in a cache from now on.

        @param watch: receives them by C{asked} and C{cached}.
        """


@frozen
class AuthenticatorKind:
    """
    A kind of authenticator. A directive in gateway.ini chooses it for a server.

    @ivar name: its name in messages. It must be unique.
    @ivar directive: the directive that chooses this kind. For an entry point it is the name of the entry point. Empty
        for an authenticator that the application made itself.
    @ivar settings: the attrs class with its directives (L{mailgate.directives.directive}), C{directive} among them.
    @ivar methods: the login methods that it can check.
    @ivar build: C{build(server, default, reactor, journal)} returns an L{IAuthenticator} for one server. C{server} has
        the server's settings (L{ServerSettings}); C{default} is the backend of C{proxy_pass} for accounts without a
        backend, or L{None}; C{reactor} is for timers and connections; C{journal} is the server's log. It may raise
        L{mailgate.directives.ConfigurationError}; the start or the reload fails with this error then. Any other
        exception is reported as such an error, too.
    @ivar refusals: C{refusals(server)} returns the L{Refusals} for a server of this kind.
    @ivar isLent: whether C{build} returns an authenticator that the application closes. The gateway closes all others.
    """

    name: str
    directive: str
    settings: type
    methods: frozenset[Method]
    build: Callable[[ServerSettings, Destination | None, Any, Journal], Any]
    refusals: Callable[[ServerSettings], Refusals] = _guarded
    isLent: bool = False
