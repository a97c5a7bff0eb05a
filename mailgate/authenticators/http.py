# -*- test-case-name: mailgate.test.test_http -*-
"""
nginx's C{auth_http}: an HTTP service judges logins and says where accounts live.

The directives are those of U{nginx <https://nginx.org/en/docs/mail/ngx_mail_auth_http_module.html>}; unlike it we take
several URLs, https, and keep connections. What is asked and answered: L{mailgate.authhttp}.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from http.cookiejar import CookieJar
from operator import attrgetter
from typing import Any

from attrs import field, frozen
from hyperlink import URL
from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress, isIPv6Address
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

from mailgate.authcache import CachedAuthenticator, IJudge, Judgement, cacheSize
from mailgate.authhttp import Unusable, Wait, question, route, verdict
from mailgate.directives import (
    LONGEST_SOCKET_PATH,
    Problem,
    ServerSettings,
    deadline,
    directive,
    flag,
    isHostName,
    lines,
    path,
    seconds,
)
from mailgate.httpagent import ExchangeCancelled, ExchangeFailed, KeepAliveAgent
from mailgate.httpheaders import PreparedHeaders
from mailgate.interfaces import AuthenticatorKind, IAuthenticator
from mailgate.journal import Journal, printable
from mailgate.login import Backend, Denial, LoginRequest, Method, Route, Trouble
from mailgate.names import endpointFor
from mailgate.tls import backendTLS, loadTrust, trustProblems

__all__ = ["KIND", "HTTPAuthenticator", "HTTPSettings", "ServiceURL"]

REST = 10.0
"""
Seconds for which a service that failed is passed over while there are others: long enough that not every login waits
for its time-out, short enough that it is back in use soon after it has been mended.
"""

_FAILURES = (ExchangeFailed, ResponseFailed, ConnectError, TimeoutError)
"""What agents fail with when it is the service, or the way to it, that has failed."""


# The directives.

_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]*))?(?=[/?]|\Z)")
_FORMS = "must be http://HOST[:PORT][/URI], https://…, HOST[:PORT][/URI] or unix:/PATH[:/URI]"


@frozen
class ServiceURL:
    """
    One URL of C{auth_http}: C{host} is an address without brackets, a name, or C{unix:/path} (then C{port} is 0);
    C{target} is what is asked for, the query included. As a string it is fit for a log: the query may be a secret.
    """

    tls: bool
    host: str
    port: int
    target: str = field(repr=False)

    def __str__(self) -> str:
        shown = self.target.partition("?")[0]
        if self.port == 0:
            return f"http://{self.host}:{shown}"
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{name}:{self.port}{shown}"

    @property
    def hostHeader(self) -> str:
        """C{Host} as nginx writes it: without the port."""
        if self.port == 0:
            return "localhost"
        return f"[{self.host}]" if ":" in self.host else self.host


def _serviceURL(value: str) -> ServiceURL:
    """
    C{value} as nginx reads it, and C{https:} too.

    @raise ValueError: it is none; the message does not hold it, as it may hold a secret.
    """
    if not re.fullmatch(r"[!-~]+", value) or "#" in value:
        raise ValueError(f"holds a blank, a # or something that is not ASCII; {_FORMS}")
    scheme, rest = re.fullmatch(r"(?i:(https?)://)?(.*)", value).groups()  # type: ignore[union-attr]
    tls = (scheme or "").lower() == "https"
    if rest[:5].lower() == "unix:":
        if tls:
            raise ValueError("https:// takes a host, not a unix socket")
        return _unixURL(rest[5:])
    authority = _AUTHORITY.match(rest)
    if authority is None:
        credentials = "; a password for the service goes into auth_http_header" if "@" in rest else ""
        raise ValueError(_FORMS + credentials)
    address, name, port = authority.groups()
    if address is not None and not isIPv6Address(address):
        raise ValueError(f"[{address}] is no IPv6 address")
    if name is not None and not (isIPAddress(name) or isHostName(name)):
        raise ValueError(f"{name} is neither an address nor a host name of letters, digits, - and .")
    if port is None:
        port = "443" if tls else "80"
    if not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError("has an invalid port; ports are 1 to 65535")
    return ServiceURL(tls, address or name, int(port), _target(rest[authority.end() :]))


def _unixURL(rest: str) -> ServiceURL:
    socket, _, target = rest.partition(":")
    if len(socket) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a unix socket has at most {LONGEST_SOCKET_PATH} bytes")
    if not socket.startswith("/") or (target and target[0] not in "/?"):
        raise ValueError("must be unix:/PATH or unix:/PATH:/URI")
    return ServiceURL(False, f"unix:{socket}", 0, _target(target))


def _target(target: str) -> str:
    return target if target.startswith("/") else f"/{target}"


def _urls(value: str, folder: str) -> tuple[ServiceURL, ...]:
    return tuple(map(_serviceURL, lines(value, folder)))


def _headers(value: str, folder: str) -> tuple[tuple[bytes, bytes], ...]:
    """nginx's C{auth_http_header NAME VALUE}, one a line; the value may be missing, or hold blanks."""
    headers = []
    for line in lines(value, folder):
        name, text = [*line.split(None, 1), ""][:2]
        # The messages do not hold the line: what it lacks may be the blank before a secret.
        if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
            raise ValueError("must be NAME VALUE, the name that of an HTTP header and without a colon")
        if re.search(r"[\0-\x08\x0a-\x1f\x7f]", text):
            raise ValueError(f"the value of {name} holds a control character")
        headers.append((name.encode("ascii"), text.encode("utf-8")))
    return tuple(headers)


@frozen
class HTTPSettings:
    """nginx's C{auth_http…}, what TLS needs, by the names of its other modules, and L{mailgate.authcache}'s."""

    urls: tuple[ServiceURL, ...] = directive("auth_http", _urls, ())
    headers: tuple[tuple[bytes, bytes], ...] = directive("auth_http_header", _headers, (), secret=True)
    timeout: float = directive("auth_http_timeout", deadline, 60.0)
    passesCertificate: bool = directive("auth_http_pass_client_cert", flag, False)
    trusted: str | None = directive("auth_http_ssl_trusted_certificate", path, None)
    verify: bool = directive("auth_http_ssl_verify", flag, True)
    cacheTTL: float = directive("auth_cache_ttl", seconds, 0.0)
    cacheSize: int = directive("auth_cache_size", cacheSize, 10 * 1024 * 1024)

    def problems(self, server: ServerSettings) -> Iterator[Problem]:
        """Load the certificates."""
        yield from trustProblems(server, "auth_http_ssl_trusted_certificate", self.trusted)


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

    def __init__(self, url: ServiceURL, agent: IAgent, timeout: float, clock: IReactorTime) -> None:
        self.url = url
        self.restsUntil = 0.0
        self._cookies = _NoCookies()
        self._client = HTTPClient(agent, self._cookies)  # type: ignore[arg-type]
        port = f":{url.port}" if url.port else ""
        text = f"{'https' if url.tls else 'http'}://{url.hostHeader}{port}{url.target}"
        self._normalURL = _NormalURL(URL.from_text(text))
        self._timeout = timeout
        self._clock = clock

    def ask(self, asked: PreparedHeaders) -> Deferred[Headers]:
        """
        The headers of the service's answer to C{asked}, an C{Auth-Status} among them.

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
        if not any(headers.getRawHeaders(b"Auth-Status", ())):
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
    Asks the services of C{settings}, in their order, through the C{agents} that belong to them, until one answers.
    """

    def __init__(
        self,
        settings: HTTPSettings,
        default: Backend | None,
        clock: IReactorTime,
        journal: Journal,
        agents: Sequence[IAgent],
    ) -> None:
        self._configured = settings.headers
        self._passesCertificate = settings.passesCertificate
        self._default = default
        self._clock = clock
        self._journal = journal
        self._agents = tuple(agents)
        self._services = [
            _Service(url, agent, settings.timeout, clock) for url, agent in zip(settings.urls, agents, strict=True)
        ]

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """Ask, as often as the answer is C{WAIT}: whoever calls sets an end to that."""
        return self.judge(request).addCallback(attrgetter("answer"))

    def judge(self, request: LoginRequest) -> Deferred[Judgement]:
        """As C{authenticate}; what came after C{WAIT} is not to be given again."""
        return self._ask(_Asking(request, question(request, self._configured, self._passesCertificate)))

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
        answer: Route | Denial | Wait | None = verdict(headers)
        if isinstance(answer, Wait):
            asking.waited = True
            again: Deferred[None] = deferLater(self._clock, answer.seconds)
            return again.addCallback(lambda _: self._ask(asking))
        if answer is None:
            try:
                answer = route(asking.request, headers, self._default)
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
        agents.append(KeepAliveAgent(endpoint, reactor, host, target, tls))
    asking = HTTPAuthenticator(settings, default, reactor, journal, agents)
    if not settings.cacheTTL:
        return asking
    return CachedAuthenticator(
        asking, reactor, settings.cacheTTL, settings.cacheSize, (server.name, settings.headers), os.urandom
    )


KIND = AuthenticatorKind(
    name="http", directive="auth_http", settings=HTTPSettings, methods=frozenset(Method), build=_build
)
"""What C{auth_http} chooses."""
