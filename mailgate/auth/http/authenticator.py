# -*- test-case-name: mailgate.test.auth.http.test_authenticator -*-
"""
The authenticator of nginx's C{auth_http}: an HTTP service judges logins and names the backend of each account.

The directives are those of U{nginx <https://nginx.org/en/docs/mail/ngx_mail_auth_http_module.html>}. In addition,
mailgate supports several URLs, https and persistent connections. L{mailgate.auth.http.settings} reads the directives,
L{mailgate.auth.http.exchange} defines the contents of requests and responses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
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
from mailgate.auth.http.asking import Asking
from mailgate.auth.http.connection import ExchangeCancelled, ExchangeFailed
from mailgate.auth.http.dialect import Dialect, Untellable
from mailgate.auth.http.exchange import Unusable, Wait, hasStatus, question, route, verdict
from mailgate.auth.http.headers import FieldHeaders
from mailgate.auth.http.narration import inLog, logAnswer, logQuestion, traced
from mailgate.auth.http.requesting import NoCookies, NormalURL
from mailgate.auth.http.services import SharedService, sharedService
from mailgate.auth.http.settings import HTTPSettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator, Refusals
from mailgate.log.connection import SERVICE_FAILED, SERVICE_MISSED, SERVICE_WARNING, aboutRequest
from mailgate.log.journal import Journal, printable
from mailgate.login import Denial, Destination, LoginRequest, Method, Route, Trouble
from mailgate.net.clients import LimitSettings
from mailgate.tls.settings import TLSSettings

__all__ = ["KIND", "HTTPAuthenticator"]

REST = 10.0
"""
Seconds for which a failed service is skipped while there are others. Logins need not wait for its time-out, and it is
used again soon after it has recovered.
"""

_FAILURES = (ExchangeFailed, ResponseFailed, ConnectError, TimeoutError)
"""What agents fail with when the service, or the network on the way to it, fails."""

_MOST_QUOTED = 1000
"""Bytes of an invalid header that the log quotes."""

OF_THE_QUESTION = frozenset((400, 413, 414, 431))
"""HTTP statuses that reject this one request, as too long for example; the service itself works."""

_IGNORANT = Protocol()
"""Receives response bodies and ignores them."""


class _Unanswered(Exception):
    """A request got no answer although the service did not fail. The text is the reason."""


class _Service:
    """
    One URL of C{auth_http}, as one server uses it. C{shared} has the connections and the C{queue}. An answer may take
    C{timeout} seconds, including the wait in the queue. Until C{restsUntil} it is skipped while there are others.
    """

    def __init__(self, shared: SharedService, timeout: float, clock: IReactorTime, acceptsMissing: bool) -> None:
        self.shared = shared
        self.queue = shared.queue
        self.restsUntil = 0.0
        self._cookies = NoCookies()
        self._client = HTTPClient(shared.agent, self._cookies)  # type: ignore[arg-type]
        url = shared.url
        port = f":{url.port}" if url.port else ""
        text = f"{'https' if url.tls else 'http'}://{url.hostHeader}{port}{url.target}"
        self._normalURL = NormalURL(URL.from_text(text))
        self.timeout = timeout
        self._clock = clock
        self._acceptsMissing = acceptsMissing

    def __str__(self) -> str:
        return str(self.shared.url)

    def ask(self, asking: Asking) -> Deferred[Headers]:
        """
        Send the request of C{asking}, which has a place in the queue, and give the place back when the request ends.

        A response without C{Auth-Status} is a failure, unless C{auth_http_missing_status} accepts it and the status is
        not 5xx.

        @return: a Deferred of the response's headers. It fails with L{ExchangeFailed} or another of L{_FAILURES} if the
            service failed, or with L{_Unanswered}.
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
            self.queue.leave(asking.client)
            raise
        deadline = self._clock.callLater(asking.patience, answered.cancel)
        passed = (deadline, asking)
        headers: Deferred[Headers] = answered.addCallbacks(self._answered, self._failed, passed, {}, passed)
        return headers

    def _answered(self, response: IResponse, deadline: IDelayedCall, asking: Asking) -> Headers:
        self.queue.leave(asking.client)
        if deadline.active():
            deadline.cancel()
        headers: Headers = response.headers
        if not isinstance(headers, FieldHeaders):
            # Other agents keep the connection until the body has been read; ours reads it itself.
            response.deliverBody(_IGNORANT)
        if not hasStatus(headers):
            self._lacksStatus(response.code)
        return headers

    def _lacksStatus(self, code: int) -> None:
        missing = f"{code} without Auth-Status"
        if code in OF_THE_QUESTION:
            raise _Unanswered(f"{self} answered {missing}")
        if not self._acceptsMissing or code >= 500:
            raise ExchangeFailed("reading the response", missing)

    def _failed(self, failure: Failure, deadline: IDelayedCall, asking: Asking) -> Failure:
        isLate = not deadline.active() and failure.check(CancelledError) is not None
        # During a flood every login waits a little in the queue, which is no fault of the service.
        hadItsChance = asking.patience >= self.timeout / 2
        if failure.check(*_FAILURES) or (isLate and hadItsChance):
            # Set this before the place goes to the next login, which then skips this service.
            self.restsUntil = self._clock.seconds() + REST
        self.queue.leave(asking.client)
        if deadline.active():
            deadline.cancel()
        if not isLate:
            return failure
        if not hadItsChance:
            self.shared.isBusy()
            raise _Unanswered(f"timed out after a long wait for a free connection to {self}")
        phase = failure.value.phase if isinstance(failure.value, ExchangeCancelled) else "processing the request"
        raise ExchangeFailed(phase, f"timed out after {self.timeout:g} seconds")


@implementer(IJudge)
class HTTPAuthenticator:
    """
    Asks services in order until one answers.

    @param settings: the directives of the server.
    @param dialect: how the services expect requests and word answers.
    @param default: the backend of C{proxy_pass}, for answers without C{Auth-Server}.
    @param clock: the reactor, or a clock, for deadlines.
    @param journal: the log.
    @param services: the services of C{settings}, in the same order.
    @param clientOf: C{clientOf(request)} names the client that a login counts for in the queue.
    @param verifiesClients: whether the client's certificate is sent (C{ssl_verify_client}).
    """

    randomness: Callable[[int], bytes] = staticmethod(os.urandom)
    """Returns that many random bytes, for the ids of spans."""

    def __init__(
        self,
        settings: HTTPSettings,
        dialect: Dialect,
        default: Destination | None,
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
        self._may = settings.may
        self._doubts: set[str] = set()
        self._timeout = settings.timeout
        self._isTraced = settings.traceparent
        self._services = [_Service(shared, settings.timeout, clock, dialect.acceptsMissing) for shared in services]
        self._closed = False

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        """
        See L{IAuthenticator.authenticate}. Asks again for as long as the answer is C{WAIT}: the caller sets the limit.

        @param request: the login.
        """
        return self._begin(Asking(request, self._clientOf(request)))

    def judge(self, request: LoginRequest) -> Deferred[Judgement]:
        """
        Judge a login as L{authenticate} does.

        @param request: the login.
        @return: a Deferred of the answer. An answer that followed C{WAIT} is not storable.
        """
        asking = Asking(request, self._clientOf(request))
        return self._begin(asking).addCallback(lambda answer: Judgement(answer, asking.isStorable))

    def close(self) -> None:
        """Release the services. A service that is no longer in use closes its idle connections."""
        if not self._closed:
            self._closed = True
            for service in self._services:
                service.shared.close()

    # Callbacks, because the two switches and the Deferred of a coroutine would double the cost of a login here.

    def _begin(self, asking: Asking) -> Deferred[Route | Denial]:
        try:
            asked = question(asking.request, self._dialect, self._passesCertificate, self._verifiesClients)
        except Untellable as why:
            asking.isStorable = False
            return succeed(Denial(Trouble.DENIED, reason=str(why)))
        asking.plain = asking.asked = asked
        return self._ask(asking)

    def _ask(self, asking: Asking) -> Deferred[Route | Denial]:
        """Ask the services that are not skipped, or all if every one of them is."""
        services = self._services
        if len(services) > 1:
            now = self._clock.seconds()
            services = [service for service in services if service.restsUntil <= now] or services
        asking.services = iter(services)
        asking.patience = self._timeout
        return self._askNext(asking)

    def _askNext(self, asking: Asking) -> Deferred[Route | Denial]:
        service: _Service | None = next(asking.services, None)
        if service is None:
            self._logFailures(asking, isServed=False)
            wait = PAUSE if asking.reason else 0.0
            return succeed(Denial(Trouble.TEMPORARY, wait=wait, reason=asking.reason))
        place = service.queue.take(asking.client, asking.patience)
        if place is None:
            return self._put(service, asking)
        passed = (service, asking)
        since = self._clock.seconds()
        return place.addCallbacks(self._placeGiven, self._placeMissed, (*passed, since), {}, passed)

    def _put(self, service: _Service, asking: Asking) -> Deferred[Route | Denial]:
        passed, request = (service, asking), asking.request
        if self._isTraced and request.trace:
            # Each question is a span of its own.
            asking.asked = traced(asking.plain, request.trace, self.randomness)
        if request.step is not None:
            asking.since = self._clock.seconds()
            logQuestion(request, str(service), asking.asked)
        return service.ask(asking).addCallbacks(self._answered, self._failed, passed, {}, passed)

    def _placeGiven(self, _: None, service: _Service, asking: Asking, since: float) -> Deferred[Route | Denial]:
        now = self._clock.seconds()
        asking.patience = min(asking.patience, max(0.0, asking.patience - (now - since)))
        if service.restsUntil > now:
            following = next(asking.services, None)
            if following is not None:
                # The service failed while the login waited, and there is another one.
                service.queue.leave(asking.client)
                asking.services = chain((following,), asking.services)
                return self._askNext(asking)
        if not asking.patience:
            service.queue.leave(asking.client)
            return self._timedOut(service, asking)
        return self._put(service, asking)

    def _placeMissed(self, failure: Failure, service: _Service, asking: Asking) -> Deferred[Route | Denial] | Failure:
        """The queue is full, and another service may have room; or the time for all services has expired."""
        if not failure.check(Overloaded, TimeoutError):
            return self._brokenOff(failure, asking)
        if failure.check(TimeoutError):
            return self._timedOut(service, asking)
        service.shared.isBusy()
        asking.reason = f"too many logins wait for a free connection to {service}"
        return self._askNext(asking)

    def _timedOut(self, service: _Service, asking: Asking) -> Deferred[Route | Denial]:
        service.shared.isBusy()
        self._logFailures(asking, isServed=False)
        why = f"timed out waiting for a free connection to {service}"
        return succeed(Denial(Trouble.TEMPORARY, reason=why))

    def _failed(
        self, failure: Failure, service: _Service, asking: Asking
    ) -> Route | Denial | Deferred[Route | Denial] | Failure:
        if not failure.check(_Unanswered, *_FAILURES):
            return self._brokenOff(failure, asking)
        if failure.check(_Unanswered):
            self._logFailures(asking, isServed=False)
            return Denial(Trouble.TEMPORARY, reason=str(failure.value))
        service.restsUntil = self._clock.seconds() + REST
        reason = inLog(failure.value)
        isKnown = service.shared.failed(reason)
        if asking.request.step is not None:
            spent = self._clock.seconds() - asking.since
            asking.request.step(SERVICE_MISSED, url=str(service), reason=reason, seconds=spent)
        rest = f", skipping it for {REST:g} s" if len(self._services) > 1 else ""
        fields = {**aboutRequest(asking.request), "url": str(service), "reason": reason, "rest": rest, "text": ""}
        asking.failures = [*(asking.failures or ()), (isKnown, fields)]
        return self._askNext(asking)

    def _brokenOff(self, failure: Failure, asking: Asking) -> Failure:
        """Stop after C{failure}: usually the client has disconnected."""
        self._logFailures(asking, isServed=False)
        return failure

    def _logFailures(self, asking: Asking, isServed: bool) -> None:
        """
        Log each failed service: as a warning if another one answered, otherwise as an error. An outage that the log has
        mentioned would flood it with errors.
        """
        failures, asking.failures = asking.failures, None
        log = self._journal.warn if isServed else self._journal.error
        for isKnown, failure in failures or ():
            if isKnown:
                self._journal.info(SERVICE_FAILED, **failure)
            else:
                log(SERVICE_FAILED, **failure)

    def _answered(
        self, headers: Headers, service: _Service, asking: Asking
    ) -> Route | Denial | Deferred[Route | Denial]:
        service.restsUntil = 0.0
        if service.shared.isFailing:
            service.shared.answersAgain()
        if asking.failures is not None:
            self._logFailures(asking, isServed=True)
        answer: Route | Denial | Wait | None = verdict(asking.request, headers, self._dialect)
        if asking.request.step is not None:
            logAnswer(asking.request, str(service), headers, answer, self._clock.seconds() - asking.since)
        if self._dialect.acceptsMissing and not hasStatus(headers):
            reading = "an acceptance" if answer is None else "a refusal"
            self._noted(
                self._journal.warn,
                SERVICE_WARNING,
                service,
                asking,
                concern=f"sent no Auth-Status, which counts as {reading}",
            )
        if isinstance(answer, Wait):
            asking.isStorable = False
            again: Deferred[None] = deferLater(self._clock, answer.seconds)
            return again.addCallback(lambda _: self._ask(asking))
        if answer is None:
            try:
                doubt = partial(self._doubt, service, asking)
                answer = route(asking.request, headers, self._default, self._dialect, self._may, doubt)
            except Unusable as reason:
                text = f', text "{printable(reason.quoted[:_MOST_QUOTED])}"' if reason.quoted else ""
                fields = {"reason": str(reason), "rest": "", "text": text}
                self._noted(self._journal.error, SERVICE_FAILED, service, asking, **fields)
                answer = Denial(Trouble.TEMPORARY)
        return answer

    def _doubt(self, service: _Service, asking: Asking, concern: str, value: bytes) -> None:
        """Log once that a header is ignored: a service that sends it does so for many logins."""
        if concern not in self._doubts:
            self._doubts.add(concern)
            concern = f'{concern}, text "{printable(value[:_MOST_QUOTED])}"'
            self._noted(self._journal.warn, SERVICE_WARNING, service, asking, concern=concern)

    def _noted(self, log: Callable[..., None], format: str, service: _Service, asking: Asking, **fields: str) -> None:
        log(format, **aboutRequest(asking.request), url=str(service), **fields)


def _build(server: ServerSettings, default: Destination | None, reactor: Any, journal: Journal) -> IAuthenticator:
    """Make the authenticator of C{server}, behind a cache if one is configured."""
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
    # A service that checks passwords sets the delay (Auth-Wait), and omits it to end the connection.
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
"""The authenticator that C{auth_http} selects."""
