# -*- test-case-name: mailgate.test.test_http -*-
"""
nginx's C{auth_http}: an HTTP service judges logins and says where accounts live.

The directives are those of U{nginx <https://nginx.org/en/docs/mail/ngx_mail_auth_http_module.html>}; unlike it we take
several URLs, https, and keep connections. They are read in L{mailgate.authsettings}; what is asked and answered stands
in L{mailgate.authhttp}.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from http.cookiejar import CookieJar
from operator import attrgetter
from typing import Any

from hyperlink import URL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from mailgate.authcache import CachedAuthenticator, IJudge, Judgement
from mailgate.authdialect import Dialect, Untellable
from mailgate.authhttp import Unusable, Wait, hasStatus, question, route, verdict
from mailgate.authsettings import HTTPSettings, ServiceURL
from mailgate.directives import ServerSettings
from mailgate.httpagent import ExchangeCancelled, ExchangeFailed, KeepAliveAgent
from mailgate.httpheaders import PreparedHeaders
from mailgate.interfaces import AuthenticatorKind, IAuthenticator, Refusals
from mailgate.journal import Journal, printable
from mailgate.login import Backend, Denial, Fact, LoginRequest, Method, Route, Trouble
from mailgate.names import endpointFor
from mailgate.tls import backendTLS, loadTrust

__all__ = ["KIND", "HTTPAuthenticator", "HTTPSettings", "ServiceURL"]

REST = 10.0
"""
Seconds for which a service that failed is passed over while there are others: long enough that not every login waits
for its time-out, short enough that it is back in use soon after it has been mended.
"""

_FAILURES = (ExchangeFailed, ResponseFailed, ConnectError, TimeoutError)
"""What agents fail with when it is the service, or the way to it, that has failed."""

_IGNORANT = Protocol()
"""Takes bodies, and does nothing with them."""


class _NoCookies(CookieJar):
    """A jar that takes no cookie and gives none: two logins have nothing to do with one another."""

    def add_cookie_header(self, request: object) -> None:
        """Give none."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Take none."""


class _NormalURL(URL):
    """A URL that needs no normalising: treq does that for each request, and it takes half of treq's time."""

    def __init__(self, url: URL) -> None:
        super().__init__(url.scheme, url.host, url.path, url.query, url.fragment, url.port, url.rooted)
        self._text = url.to_text()

    def to_uri(self) -> _NormalURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self._text


class _Service:
    """One URL, asked through C{agent}; before C{restsUntil} it is passed over where there are others."""

    def __init__(
        self, url: ServiceURL, agent: IAgent, timeout: float, clock: IReactorTime, acceptsMissing: bool
    ) -> None:
        self.url = url
        self.restsUntil = 0.0
        self._cookies = _NoCookies()
        self._client = HTTPClient(agent, self._cookies)  # type: ignore[arg-type]
        port = f":{url.port}" if url.port else ""
        text = f"{'https' if url.tls else 'http'}://{url.hostHeader}{port}{url.target}"
        self._normalURL = _NormalURL(URL.from_text(text))
        self._timeout = timeout
        self._clock = clock
        self._acceptsMissing = acceptsMissing

    def ask(self, asked: PreparedHeaders) -> Deferred[Headers]:
        """
        The headers of the service's answer to C{asked}, an C{Auth-Status} among them, unless that may be missing. It
        may never in a 5xx: that is a service that has failed.

        It fails with L{ExchangeFailed}, or anything else of L{_FAILURES}, if there is none.
        """
        answered = self._client.request(
            "GET",
            self._normalURL,
            headers=asked,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,  # type: ignore[arg-type]
            cookies=self._cookies,
        )
        deadline = self._clock.callLater(self._timeout, answered.cancel)
        headers: Deferred[Headers] = answered.addCallbacks(self._answered, self._failed, (deadline,), {}, (deadline,))
        return headers

    def _answered(self, response: IResponse, deadline: IDelayedCall) -> Headers:
        if deadline.active():
            deadline.cancel()
        # For agents whose connection is held until the body has been read; ours has seen to that.
        response.deliverBody(_IGNORANT)
        headers: Headers = response.headers
        if not hasStatus(headers) and (not self._acceptsMissing or response.code >= 500):
            raise ExchangeFailed("reading the response", f"{response.code} without Auth-Status")
        return headers

    def _failed(self, failure: Failure, deadline: IDelayedCall) -> Failure:
        if deadline.active():
            deadline.cancel()
        elif failure.check(CancelledError):
            phase = failure.value.phase if isinstance(failure.value, ExchangeCancelled) else "asking"
            raise ExchangeFailed(phase, f"timed out after {self._timeout:g} seconds")
        return failure


class _Asking:
    """A login on its way: the question, which services are left to put it to, and whether one has said C{WAIT}."""

    __slots__ = ("asked", "request", "services", "waited")

    services: Iterator[_Service]

    def __init__(self, request: LoginRequest, asked: PreparedHeaders) -> None:
        self.request = request
        self.asked = asked
        self.waited = False


@implementer(IJudge)
class HTTPAuthenticator:
    """
    Asks the services of C{settings}, in their order, through the C{agents} that belong to them, until one answers. All
    of them speak C{dialect}.
    """

    def __init__(
        self,
        settings: HTTPSettings,
        dialect: Dialect,
        default: Backend | None,
        clock: IReactorTime,
        journal: Journal,
        agents: Sequence[IAgent],
    ) -> None:
        self._dialect = dialect
        self._passesCertificate = settings.passesCertificate
        self._default = default
        self._clock = clock
        self._journal = journal
        self._agents = tuple(agents)
        self._services = [
            _Service(url, agent, settings.timeout, clock, dialect.acceptsMissing)
            for url, agent in zip(settings.urls, agents, strict=True)
        ]

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """Ask, as often as the answer is C{WAIT}: whoever calls sets an end to that."""
        return self.judge(request).addCallback(attrgetter("answer"))

    def judge(self, request: LoginRequest) -> Deferred[Judgement]:
        """As C{authenticate}; what came after C{WAIT} is not to be given again."""
        try:
            asked = question(request, self._dialect, self._passesCertificate)
        except Untellable:
            host = request.client.host
            self._journal.info("login of client {client} refused: no header can carry it unescaped", client=host)
            return succeed(Judgement(Denial(Trouble.DENIED), storable=False))
        return self._ask(_Asking(request, asked))

    def close(self) -> None:
        """Close the connections that are kept for later, where the agents are ours."""
        for agent in self._agents:
            if isinstance(agent, KeepAliveAgent):
                agent.close()

    # Callbacks, where a coroutine would read more easily: between them the two switches that it takes, and the Deferred
    # it needs, cost every login as much as all else that is done here.

    def _ask(self, asking: _Asking) -> Deferred[Judgement]:
        """Put the question to those services that do not rest, or else to all, until one answers."""
        services = self._services
        if len(services) > 1:
            now = self._clock.seconds()
            services = [service for service in services if service.restsUntil <= now] or services
        asking.services = iter(services)
        return self._askNext(asking)

    def _askNext(self, asking: _Asking) -> Deferred[Judgement]:
        service = next(asking.services, None)
        if service is None:
            return succeed(self._judgement(Denial(Trouble.TEMPORARY), asking))
        told = (service, asking)
        return service.ask(asking.asked).addCallbacks(self._answered, self._failed, told, {}, told)

    def _failed(self, failure: Failure, service: _Service, asking: _Asking) -> Deferred[Judgement]:
        failure.trap(*_FAILURES)
        service.restsUntil = self._clock.seconds() + REST
        reason = printable(str(failure.value).encode("utf-8", "backslashreplace"))
        self._journal.error("auth http server {url} failed {reason}", url=str(service.url), reason=reason)
        return self._askNext(asking)

    def _answered(self, headers: Headers, service: _Service, asking: _Asking) -> Judgement | Deferred[Judgement]:
        service.restsUntil = 0.0
        answer: Route | Denial | Wait | None = verdict(asking.request, headers, self._dialect)
        if self._dialect.acceptsMissing and not hasStatus(headers):
            taken = "an acceptance" if answer is None else "a refusal"
            self._journal.warn("auth http server {url} sent no Auth-Status: {taken}", url=str(service.url), taken=taken)
        if isinstance(answer, Wait):
            asking.waited = True
            again: Deferred[None] = deferLater(self._clock, answer.seconds)
            return again.addCallback(lambda _: self._ask(asking))
        if answer is None:
            try:
                answer = route(asking.request, headers, self._default, self._dialect)
            except Unusable as reason:
                self._journal.error("auth http server {url} {reason}", url=str(service.url), reason=str(reason))
                answer = Denial(Trouble.TEMPORARY)
        return self._judgement(answer, asking)

    def _judgement(self, answer: Route | Denial, asking: _Asking) -> Judgement:
        return Judgement(answer, storable=not asking.waited)


def _build(server: ServerSettings, default: Backend | None, reactor: Any, journal: Journal) -> IAuthenticator:
    """An authenticator for C{server}, with an agent for each URL, and a cache before it where one is configured."""
    settings = server[HTTPSettings]
    agents = []
    trust = loadTrust(settings.trusted) if settings.trusted is not None else None
    for url in settings.urls:
        endpoint = endpointFor(reactor, url.host, url.port, settings.timeout)
        tls = backendTLS(url.host, settings.verify, trust) if url.tls else None
        host, target = url.hostHeader.encode("ascii"), url.target.encode("ascii")
        agents.append(KeepAliveAgent(endpoint, reactor, host, target, tls, settings.keepsConnections))
    dialect = settings.dialect(server)
    asking = HTTPAuthenticator(settings, dialect, default, reactor, journal, agents)
    if not settings.cacheTTL:
        return asking
    return CachedAuthenticator(
        asking,
        reactor,
        settings.cacheTTL,
        settings.cacheSize,
        (server.name, dialect.headers),
        os.urandom,
        dialect.told,
    )


def _facts(server: ServerSettings) -> Set[Fact]:
    return server[HTTPSettings].dialect(server).facts


def _refusals(server: ServerSettings) -> Refusals:
    # A service that judges says how long a client waits (Auth-Wait), and ends its connection by leaving that out.
    judges = server[HTTPSettings].dialect(server).showsPassword
    return Refusals(0.0, 0) if judges else Refusals()


KIND = AuthenticatorKind(
    name="http",
    directive="auth_http",
    settings=HTTPSettings,
    methods=frozenset(Method),
    build=_build,
    facts=_facts,
    refusals=_refusals,
)
"""What C{auth_http} chooses."""
