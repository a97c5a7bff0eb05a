# -*- test-case-name: mailgate.test.auth.http.test_authenticator -*-
"""
nginx's C{auth_http}: an HTTP service judges logins and says where accounts live.

The directives are those of U{nginx <https://nginx.org/en/docs/mail/ngx_mail_auth_http_module.html>}; unlike it we take
several URLs, https, and keep connections. They are read in L{mailgate.auth.http.settings}; what is asked and answered
stands in L{mailgate.auth.http.exchange}.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from http.cookiejar import CookieJar
from itertools import chain
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
from twisted.web.iweb import IResponse
from zope.interface import implementer

from mailgate.auth.cache import CachedAuthenticator, IJudge, Judgement
from mailgate.auth.fairqueue import PAUSE, Overloaded
from mailgate.auth.http.connection import ExchangeCancelled, ExchangeFailed
from mailgate.auth.http.dialect import Dialect, Untellable
from mailgate.auth.http.exchange import Unusable, Wait, hasStatus, question, route, verdict
from mailgate.auth.http.headers import PreparedHeaders
from mailgate.auth.http.services import SharedService, sharedService
from mailgate.auth.http.settings import HTTPSettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator, Refusals
from mailgate.log.connection import SERVICE_FAILED, SERVICE_NOTED, aboutRequest
from mailgate.log.journal import Journal, printable
from mailgate.login import Backend, Denial, LoginRequest, Method, Route, Trouble
from mailgate.net.clients import LimitSettings
from mailgate.net.connectionerrors import inWords
from mailgate.tls.errors import CertificateError
from mailgate.tls.settings import TLSSettings

__all__ = ["KIND", "HTTPAuthenticator"]

REST = 10.0
"""
Seconds for which a service that failed is passed over while there are others: long enough that not every login waits
for its time-out, short enough that it is back in use soon after it has been mended.
"""

_FAILURES = (ExchangeFailed, ResponseFailed, ConnectError, TimeoutError)
"""What agents fail with when it is the service, or the way to it, that has failed."""

OF_THE_QUESTION = frozenset((400, 413, 414, 431))
"""Statuses that say of a question that it is too long, or otherwise none: the next one may be answered."""

_IGNORANT = Protocol()
"""Takes bodies, and does nothing with them."""


class _Unanswered(Exception):
    """A question has no answer, and the service has not failed; the text says why."""


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
    """
    One URL, asked through what C{shared} has. An answer, the waiting for a place included, may take C{timeout} seconds.
    Before C{restsUntil} it is passed over where there are others.
    """

    def __init__(self, shared: SharedService, timeout: float, clock: IReactorTime, acceptsMissing: bool) -> None:
        self.shared = shared
        self.restsUntil = 0.0
        self._cookies = _NoCookies()
        self._client = HTTPClient(shared.agent, self._cookies)  # type: ignore[arg-type]
        url = shared.url
        port = f":{url.port}" if url.port else ""
        text = f"{'https' if url.tls else 'http'}://{url.hostHeader}{port}{url.target}"
        self._normalURL = _NormalURL(URL.from_text(text))
        self.timeout = timeout
        self._clock = clock
        self._acceptsMissing = acceptsMissing

    def __str__(self) -> str:
        return str(self.shared.url)

    def take(self, asking: _Asking) -> Deferred[None] | None:
        """A place for C{asking}, as of L{mailgate.auth.fairqueue.FairQueue.take}."""
        return self.shared.queue.take(asking.client, asking.patience)

    def leave(self, asking: _Asking) -> None:
        """Give that place back."""
        self.shared.queue.leave(asking.client)

    def ask(self, asking: _Asking) -> Deferred[Headers]:
        """
        The headers of the service's answer to C{asking}, which has a place, and gives it back. An C{Auth-Status} is
        among them, unless that may be missing. It may never in a 5xx: that is a service that has failed.

        It fails with L{ExchangeFailed}, or anything else of L{_FAILURES}, if there is none, or with L{_Unanswered}.
        """
        try:
            answered = self._client.request(
                "GET",
                self._normalURL,
                headers=asking.asked,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._clock,  # type: ignore[arg-type]
                cookies=self._cookies,
            )
        except BaseException:
            self.leave(asking)
            raise
        deadline = self._clock.callLater(asking.patience, answered.cancel)
        told = (deadline, asking)
        headers: Deferred[Headers] = answered.addCallbacks(self._answered, self._failed, told, {}, told)
        return headers

    def _answered(self, response: IResponse, deadline: IDelayedCall, asking: _Asking) -> Headers:
        self.leave(asking)
        if deadline.active():
            deadline.cancel()
        # For agents whose connection is held until the body has been read; ours has seen to that.
        response.deliverBody(_IGNORANT)
        headers: Headers = response.headers
        if not hasStatus(headers):
            self._lacksStatus(response.code)
        return headers

    def _lacksStatus(self, code: int) -> None:
        missing = f"{code} without Auth-Status"
        if code in OF_THE_QUESTION:
            raise _Unanswered(f"{self} answered {missing}")
        if not self._acceptsMissing or code >= 500:
            raise ExchangeFailed("reading the response", missing)

    def _failed(self, failure: Failure, deadline: IDelayedCall, asking: _Asking) -> Failure:
        isLate = not deadline.active() and failure.check(CancelledError) is not None
        # Behind a flood every login has waited a little.
        hadItsChance = asking.patience >= self.timeout / 2
        if failure.check(*_FAILURES) or (isLate and hadItsChance):
            # Before the place goes to a login that could be asked about elsewhere.
            self.restsUntil = self._clock.seconds() + REST
        self.leave(asking)
        if deadline.active():
            deadline.cancel()
        if not isLate:
            return failure
        if not hadItsChance:
            self.shared.isBusy()
            raise _Unanswered(f"timed out after a long wait for a free connection to {self}")
        phase = failure.value.phase if isinstance(failure.value, ExchangeCancelled) else "processing the request"
        raise ExchangeFailed(phase, f"timed out after {self.timeout:g} seconds")


class _Asking:
    """
    A login on its way: the question, the C{client} that it counts for, which services are left to put it to, how many
    seconds of C{patience} its waiting for places has left for an answer, whether one has said C{WAIT}, and the
    C{reason} why one could not be asked. C{failures} are the fields of the lines about services that failed.
    """

    __slots__ = ("asked", "client", "failures", "patience", "reason", "request", "services", "waited")

    services: Iterator[_Service]
    patience: float

    def __init__(self, request: LoginRequest, asked: PreparedHeaders, client: str) -> None:
        self.request = request
        self.asked = asked
        self.client = client
        self.waited = False
        self.reason = ""
        self.failures: list[dict[str, Any]] | None = None


def _inLog(error: BaseException | None) -> str:
    """What C{error} says of a service, as a phrase for the log that begins with a verb."""
    said = str(error)
    if not isinstance(getattr(error, "cause", None), CertificateError):
        # That has escaped what is not ours.
        said = printable(said.encode("utf-8", "backslashreplace"))
    if isinstance(error, ExchangeFailed | ResponseFailed):
        return f"failed {said}"
    return inWords(error) or f"failed: {said}"


@implementer(IJudge)
class HTTPAuthenticator:
    """
    Asks C{services}, which are those of C{settings}, in their order, until one answers. All of them speak C{dialect}.
    C{clientOf(request)} names the client that a login counts for where it has to wait for its turn. Certificates of
    clients are looked at if the server C{verifiesClients}.
    """

    def __init__(
        self,
        settings: HTTPSettings,
        dialect: Dialect,
        default: Backend | None,
        clock: IReactorTime,
        journal: Journal,
        services: Sequence[SharedService],
        clientOf: Callable[[LoginRequest], str],
        verifiesClients: bool = True,
    ) -> None:
        self._dialect = dialect
        self._passesCertificate = settings.passesCertificate
        self._verifiesClients = verifiesClients
        self._default = default
        self._clock = clock
        self._journal = journal
        self._clientOf = clientOf
        self._timeout = settings.timeout
        self._services = [_Service(shared, settings.timeout, clock, dialect.acceptsMissing) for shared in services]
        self._closed = False

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """Ask, as often as the answer is C{WAIT}: whoever calls sets an end to that."""
        return self.judge(request).addCallback(attrgetter("answer"))

    def judge(self, request: LoginRequest) -> Deferred[Judgement]:
        """As C{authenticate}; what came after C{WAIT} is not to be given again."""
        try:
            asked = question(request, self._dialect, self._passesCertificate, self._verifiesClients)
        except Untellable as why:
            return succeed(Judgement(Denial(Trouble.DENIED, reason=str(why)), storable=False))
        return self._ask(_Asking(request, asked, self._clientOf(request)))

    def close(self) -> None:
        """Ask no more. What others do not ask either keeps no connections any longer."""
        if not self._closed:
            self._closed = True
            for service in self._services:
                service.shared.close()

    # Callbacks, where a coroutine would read more easily: between them the two switches that it takes, and the Deferred
    # it needs, cost every login as much as all else that is done here.

    def _ask(self, asking: _Asking) -> Deferred[Judgement]:
        """Put the question to those services that do not rest, or else to all, until one answers."""
        services = self._services
        if len(services) > 1:
            now = self._clock.seconds()
            services = [service for service in services if service.restsUntil <= now] or services
        asking.services = iter(services)
        asking.patience = self._timeout
        return self._askNext(asking)

    def _askNext(self, asking: _Asking) -> Deferred[Judgement]:
        service = next(asking.services, None)
        if service is None:
            wait = PAUSE if asking.reason else 0.0
            return succeed(self._judgement(Denial(Trouble.TEMPORARY, wait=wait, reason=asking.reason), asking))
        place = service.take(asking)
        if place is None:
            return self._put(service, asking)
        told = (service, asking)
        since = self._clock.seconds()
        return place.addCallbacks(self._placeGiven, self._placeMissed, (*told, since), {}, told)

    def _put(self, service: _Service, asking: _Asking) -> Deferred[Judgement]:
        told = (service, asking)
        return service.ask(asking).addCallbacks(self._answered, self._failed, told, {}, told)

    def _placeGiven(self, _: None, service: _Service, asking: _Asking, since: float) -> Deferred[Judgement]:
        now = self._clock.seconds()
        asking.patience = min(asking.patience, max(0.0, asking.patience - (now - since)))
        if service.restsUntil > now:
            following = next(asking.services, None)
            if following is not None:
                # It has failed meanwhile, and there is another.
                service.leave(asking)
                asking.services = chain((following,), asking.services)
                return self._askNext(asking)
        if not asking.patience:
            service.leave(asking)
            return self._waitedInVain(service, asking)
        return self._put(service, asking)

    def _placeMissed(self, failure: Failure, service: _Service, asking: _Asking) -> Deferred[Judgement] | Failure:
        """Too many wait already, and there may be another service; or the time is over, for every service."""
        if not failure.check(Overloaded, TimeoutError):
            return self._brokenOff(failure, asking)
        if failure.check(TimeoutError):
            return self._waitedInVain(service, asking)
        service.shared.isBusy()
        asking.reason = f"too many logins wait for a free connection to {service}"
        return self._askNext(asking)

    def _waitedInVain(self, service: _Service, asking: _Asking) -> Deferred[Judgement]:
        service.shared.isBusy()
        why = f"timed out waiting for a free connection to {service}"
        return succeed(self._judgement(Denial(Trouble.TEMPORARY, reason=why), asking))

    def _failed(self, failure: Failure, service: _Service, asking: _Asking) -> Deferred[Judgement] | Failure:
        if not failure.check(_Unanswered, *_FAILURES):
            return self._brokenOff(failure, asking)
        if failure.check(_Unanswered):
            return succeed(self._judgement(Denial(Trouble.TEMPORARY, reason=str(failure.value)), asking))
        service.restsUntil = self._clock.seconds() + REST
        service.shared.isFailing = True
        reason = _inLog(failure.value)
        rest = f", skipping it for {REST:g} s" if len(self._services) > 1 else ""
        told = {**aboutRequest(asking.request), "url": str(service), "reason": reason, "rest": rest, "text": ""}
        asking.failures = [*(asking.failures or ()), told]
        return self._askNext(asking)

    def _brokenOff(self, failure: Failure, asking: _Asking) -> Failure:
        """Nobody is to be asked any more, because of C{failure}: as a rule the client has left."""
        self._tellFailures(asking, isServed=False)
        return failure

    def _tellFailures(self, asking: _Asking, isServed: bool) -> None:
        """Log each service that failed: it is an error only where no other has answered."""
        failures, asking.failures = asking.failures, None
        tell = self._journal.warn if isServed else self._journal.error
        for failure in failures or ():
            tell(SERVICE_FAILED, **failure)

    def _answered(self, headers: Headers, service: _Service, asking: _Asking) -> Judgement | Deferred[Judgement]:
        service.restsUntil = 0.0
        if service.shared.isFailing:
            service.shared.answersAgain()
        if asking.failures is not None:
            self._tellFailures(asking, isServed=True)
        answer: Route | Denial | Wait | None = verdict(asking.request, headers, self._dialect)
        if self._dialect.acceptsMissing and not hasStatus(headers):
            reading = "an acceptance" if answer is None else "a refusal"
            self._noted(
                self._journal.warn,
                SERVICE_NOTED,
                service,
                asking,
                concern=f"sent no Auth-Status, which counts as {reading}",
            )
        if isinstance(answer, Wait):
            asking.waited = True
            again: Deferred[None] = deferLater(self._clock, answer.seconds)
            return again.addCallback(lambda _: self._ask(asking))
        if answer is None:
            try:
                answer = route(asking.request, headers, self._default, self._dialect)
            except Unusable as reason:
                text = f', text "{printable(reason.quoted)}"' if reason.quoted else ""
                said = {"reason": str(reason), "rest": "", "text": text}
                self._noted(self._journal.error, SERVICE_FAILED, service, asking, **said)
                answer = Denial(Trouble.TEMPORARY)
        return self._judgement(answer, asking)

    def _noted(self, tell: Callable[..., None], format: str, service: _Service, asking: _Asking, **fields: str) -> None:
        tell(format, **aboutRequest(asking.request), url=str(service), **fields)

    def _judgement(self, answer: Route | Denial, asking: _Asking) -> Judgement:
        if asking.failures is not None:
            self._tellFailures(asking, isServed=False)
        return Judgement(answer, storable=not asking.waited)


def _build(server: ServerSettings, default: Backend | None, reactor: Any, journal: Journal) -> IAuthenticator:
    """An authenticator for C{server}, and a cache before it where one is configured."""
    settings = server[HTTPSettings]
    services = [sharedService(url, settings, reactor, journal) for url in settings.urls]
    dialect = settings.dialect(server)
    clientOf = server[LimitSettings].clientOf
    verifiesClients = server[TLSSettings].verifiesClients
    asking = HTTPAuthenticator(settings, dialect, default, reactor, journal, services, clientOf, verifiesClients)
    if not settings.cacheTTL:
        return asking
    cached = CachedAuthenticator(
        asking,
        reactor,
        settings.cacheTTL,
        settings.cacheSize,
        (server.name, dialect.headers),
        os.urandom,
        dialect.told,
        verifiesClients,
    )
    for service in services:
        service.whenDistrusted.append(cached.forget)
    return cached


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
    refusals=_refusals,
)
"""What C{auth_http} chooses."""
