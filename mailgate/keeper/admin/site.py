# -*- test-case-name: mailgate.test.keeper.admin.test_site -*-
"""
The admin server and the port for metrics: who may ask what, and what is logged of it.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from mailgate.directives import GatewaySettings, nearest
from mailgate.keeper.admin.asked import Asked, decoded, given, objectIn, queryIn
from mailgate.keeper.admin.callers import Caller, Callers, TokenFile
from mailgate.keeper.admin.channel import AdminFactory
from mailgate.keeper.admin.endpoints import ENDPOINTS, Endpoint
from mailgate.keeper.admin.guard import Guard
from mailgate.keeper.admin.pages import Pages
from mailgate.keeper.admin.processes import PROCESS_HANDLERS, Readiness
from mailgate.keeper.admin.replies import Refused, Reply, jsonReply, problemReply
from mailgate.keeper.admin.resources import HANDLERS, Functions, Handler, Visit
from mailgate.keeper.admin.tls import AdminTLS
from mailgate.keeper.keeper import Keeper
from mailgate.log.journal import Journal, printable
from mailgate.log.settings import LogSettings
from mailgate.system.pidfile import PIDSettings
from mailgate.system.privileges import ProcessSettings
from mailgate.watch.settings import AdminAddress, AdminSettings
from mailgate.watch.tokens import Level

__all__ = ["MOST_QUESTIONS", "Desk", "adminSite", "metricsSite"]

MOST_QUESTIONS = 8
"""The most requests at a time that ask the processes which serve clients."""

WITHIN = 60.0
"""Seconds until an answer must be there, besides the time over which a request itself spreads its work."""

_METRICS_PORT = ("/metrics", "/healthz", "/readyz")


class _Route:
    """The endpoints at one path, which may have segments that vary."""

    def __init__(self, path: str) -> None:
        self.segments = path.split("/")
        self.endpoints: dict[str, Endpoint] = {}

    def match(self, segments: list[bytes]) -> dict[str, bytes] | None:
        """The varying segments by name; L{None} if this is another path."""
        if len(segments) != len(self.segments):
            return None
        found = {}
        for own, segment in zip(self.segments, segments, strict=True):
            if own.startswith("{"):
                found[own[1:-1]] = segment
            elif own.encode("ascii") != segment:
                return None
        return found if all(found.values()) else None

    @property
    def methods(self) -> str:
        """The value of the header field Allow."""
        return ", ".join(
            ["GET", "HEAD"] * ("GET" in self.endpoints) + [each for each in self.endpoints if each != "GET"]
        )


class Desk:
    """
    Answers the requests at one port.

    @param keeper: the keeper.
    @param settings: the configuration.
    @param reactor: timers and the time.
    @param address: where the port listens.
    @param endpoints: the endpoints of the port.
    @param owners: the users whose processes may use the unix socket.
    @param functions: what the keeper does.
    @param isOpen: whether everyone may use the endpoints, as at the port for metrics.
    """

    _log = Logger("mailgate")

    def __init__(
        self,
        keeper: Keeper,
        settings: GatewaySettings,
        reactor: Any,
        address: AdminAddress | None,
        endpoints: Iterable[Endpoint] = ENDPOINTS,
        owners: Collection[int] = (0,),
        functions: Functions | None = None,
        isOpen: bool = False,
    ) -> None:
        own = settings[AdminSettings]
        journal = Journal(settings[LogSettings].level, None, settings[LogSettings].rate, reactor)
        self._keeper = keeper
        self._settings = settings
        self._reactor = reactor
        self._guard = Guard(address, own.hosts)
        self._callers = Callers(TokenFile(own.tokenFile), owners, journal)
        self._functions = functions or Functions()
        self._isOpen = isOpen
        self._questions = 0
        self._routes: dict[str, _Route] = {}
        readiness = Readiness(keeper, reactor)
        pages = Pages(keeper, reactor, self._callers.find)
        self._handlers: dict[tuple[str, str], Handler] = {
            **HANDLERS,
            **PROCESS_HANDLERS,
            **pages.handlers,
            ("GET", "/healthz"): readiness.health,
            ("GET", "/readyz"): readiness.ready,
        }
        for each in endpoints:
            self._routes.setdefault(each.path, _Route(each.path)).endpoints[each.method] = each

    def answer(self, asked: Asked) -> Deferred[Reply]:
        """
        Answer a request.

        @param asked: the request.
        @return: a Deferred that fires with the answer. When it is cancelled, requests that only read end; those that
            change something go on.
        """
        answered: Deferred[Reply] = maybeDeferred(self._answer, asked).addErrback(self._problem)
        return answered

    def _problem(self, failure: Failure) -> Any:
        error = failure.value
        if isinstance(error, CancelledError):
            return failure
        if isinstance(error, Refused):
            return problemReply(error)
        if isinstance(error, DeferredTimeout):
            return problemReply(Refused(504, "the answer took too long"))
        # The cause may contain anything: it is for the log alone.
        self._log.failure("an admin request failed", failure)
        return problemReply(Refused(500, "the error log has the reason"))

    def _answer(self, asked: Asked) -> Any:
        self._guard.check(asked)
        endpoint, names = self._find(asked)
        caller = self._admit(asked, endpoint)
        isQuery = endpoint.method == "GET"
        if asked.query and not isQuery:
            raise Refused(400, "parameters belong into the body", "bad query")
        values = given(endpoint.parameters, queryIn(asked.query) if isQuery else objectIn(asked.body), isQuery)
        visit = Visit(self._keeper, self._functions, self._settings, caller, asked, endpoint, names, values)
        if not endpoint.isChange or values.get("dry_run"):
            return self._run(visit)
        done: Deferred[Any] = maybeDeferred(self._run, visit)
        done.addErrback(self._problem).addBoth(self._changed, visit)
        # The client may leave: what has begun is finished, and logged.
        waiting: Deferred[Any] = Deferred()
        done.addBoth(waiting.callback)
        return waiting

    def _run(self, visit: Visit) -> Deferred[Reply]:
        endpoint = visit.endpoint
        if endpoint.isList:
            if self._questions >= MOST_QUESTIONS:
                raise Refused(503, "too many requests are under way; try again", headers=((b"Retry-After", b"1"),))
            self._questions += 1
        answered: Deferred[Any] = maybeDeferred(self._handlers[endpoint.method, endpoint.path], visit)
        answered.addTimeout(WITHIN + visit.values.get("over", 0), self._reactor)
        if endpoint.isList:
            answered.addBoth(self._done)
        return answered.addCallback(lambda value: value if isinstance(value, Reply) else jsonReply(value))

    def _done(self, result: Any) -> Any:
        self._questions -= 1
        return result

    def _changed(self, result: Any, visit: Visit) -> Any:
        """Log who has ordered what."""
        values = {**visit.names, **visit.values}
        self._log.info(
            "admin request {method} {path} by {caller}: status {status}{values}",
            method=visit.endpoint.method,
            path=visit.endpoint.path,
            caller=visit.caller.name,
            # A Failure is that of a request that was cancelled.
            status=getattr(result, "status", "none"),
            values="".join(f', {name} "{printable(str(value).encode())}"' for name, value in values.items()),
        )
        return result

    def _find(self, asked: Asked) -> tuple[Endpoint, dict[str, str]]:
        """The endpoint of a request, and the segments of its path that vary."""
        if not asked.target.startswith(b"/"):
            raise Refused(400, "the request target must be a path", closes=True)
        segments = asked.path.split(b"/")
        method = asked.method.decode("ascii", "replace")
        for route in self._routes.values():
            names = route.match(segments)
            if names is None:
                continue
            endpoint = route.endpoints.get("GET" if method == "HEAD" else method)
            if endpoint is None:
                raise Refused(
                    405,
                    f"this path has only {route.methods}",
                    headers=((b"Allow", route.methods.encode("ascii")),),
                )
            return endpoint, {name: decoded(raw, f"the {name} in the path") for name, raw in names.items()}
        path = asked.path[:200].decode("ascii", "replace")
        raise Refused(404, f"there is no such path{nearest(path, list(self._routes))}")

    def _admit(self, asked: Asked, endpoint: Endpoint) -> Caller:
        if self._isOpen or endpoint.level is Level.NONE:
            return Caller(Level.NONE, "everyone")
        caller = self._callers.find(asked, endpoint.isBasic)
        if caller.level < endpoint.level:
            raise Refused(403, f"this needs the level {endpoint.level.word}; you have {caller.level.word}")
        return caller


def adminSite(
    keeper: Keeper,
    settings: GatewaySettings,
    reactor: Any,
    tls: AdminTLS | None = None,
    functions: Functions | None = None,
    isPath: bool | None = None,
) -> IProtocolFactory:
    """
    Make the admin server.

    @param keeper: the keeper.
    @param settings: the configuration.
    @param reactor: timers and the time.
    @param tls: its TLS, if a process with more rights has loaded it.
    @param functions: what the keeper does.
    @param isPath: whether its socket is a unix socket, which has no TLS; L{None}: as the configuration says. A reload
        changes the configuration, and not the socket.
    @return: the factory of its connections, for unix sockets and TCP.
    @raise TLSError: a file of its TLS cannot be used.
    """
    own = settings[AdminSettings]
    address = own.adminAt(settings[PIDSettings])
    # This process may still be root, and become the user later.
    user = settings[ProcessSettings].owner
    owners = (0, os.geteuid()) if user is None else (0, user[0])
    desk = Desk(keeper, settings, reactor, address, ENDPOINTS, owners, functions)
    factory = AdminFactory(desk.answer, reactor)
    if isPath or not own.usesTLS:
        return factory
    wrapped = TLSMemoryBIOFactory(tls or AdminTLS(own.tls), False, factory, reactor)
    wrapped.noisy = False
    return wrapped


def metricsSite(
    keeper: Keeper, settings: GatewaySettings, reactor: Any, functions: Functions | None = None
) -> IProtocolFactory:
    """
    Make the server of the port for metrics. It asks for no token.

    @param keeper: the keeper.
    @param settings: the configuration.
    @param reactor: timers and the time.
    @param functions: what the keeper does.
    @return: the factory of its connections.
    """
    own = settings[AdminSettings]
    chosen = [each for each in ENDPOINTS if each.path in _METRICS_PORT]
    desk = Desk(keeper, settings, reactor, own.metrics, chosen, (), functions, isOpen=True)
    return AdminFactory(desk.answer, reactor)
