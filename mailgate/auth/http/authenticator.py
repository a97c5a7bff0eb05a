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

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse
from zope.interface import implementer

from mailgate.auth.cache import CachedAuthenticator, IJudge, Judgement
from mailgate.auth.fairqueue import PAUSE, Overloaded
from mailgate.auth.http.asking import FAILURES, REST, Asking, Service, Unanswered
from mailgate.auth.http.connection import ExchangeFailed
from mailgate.auth.http.dialect import Dialect, Untellable
from mailgate.auth.http.exchange import Unusable, Wait, hasStatus, question, route, verdict
from mailgate.auth.http.narration import inLog, logAnswer, logQuestion, traced
from mailgate.auth.http.services import SharedService, sharedService
from mailgate.auth.http.settings import HTTPSettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator, IWatch, IWatchedAuthenticator, Refusals
from mailgate.limits.settings import LimitSettings
from mailgate.log.connection import SERVICE_FAILED, SERVICE_MISSED, SERVICE_WARNING, aboutRequest
from mailgate.log.journal import Journal, printable
from mailgate.login import Denial, Destination, LoginRequest, Method, Route, Trouble
from mailgate.tls.settings import TLSSettings

__all__ = ["KIND", "HTTPAuthenticator"]

_MOST_QUOTED = 1000
"""Bytes of an invalid header that the log quotes."""


@implementer(IJudge, IWatchedAuthenticator)
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
        self._services = [Service(shared, settings.timeout, clock, dialect.acceptsMissing) for shared in services]
        self._closed = False
        self._watch: IWatch | None = None

    @property
    def services(self) -> Sequence[SharedService]:
        """See L{IWatchedAuthenticator}."""
        return [service.shared for service in self._services]

    def watchedBy(self, watch: IWatch) -> None:
        """
        See L{IWatchedAuthenticator.watchedBy}.

        @param watch: receives the requests.
        """
        self._watch = watch

    @property
    def standing(self) -> list[tuple[SharedService, float]]:
        """Each service in order, and until when it is skipped while there are others, in seconds of the clock."""
        return [(each.shared, each.restsUntil) for each in self._services]

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
        service = next(asking.services, None)
        if service is None:
            self._logFailures(asking, isServed=False)
            wait = PAUSE if asking.reason else 0.0
            return succeed(Denial(Trouble.TEMPORARY, wait=wait, reason=asking.reason))
        asking.service = service
        place = service.queue.take(asking.client, asking.patience)
        if place is None:
            return self._put(asking)
        since = self._clock.seconds()
        return place.addCallbacks(self._placeGiven, self._placeMissed, (asking, since), {}, (asking,))

    def _put(self, asking: Asking) -> Deferred[Route | Denial]:
        request = asking.request
        if self._isTraced and request.trace:
            # Each question is a span of its own.
            asking.asked = traced(asking.plain, request.trace, self.randomness)
        if self._watch is not None or request.step is not None:
            asking.since = self._clock.seconds()
        if request.step is not None:
            logQuestion(request, str(asking.service), asking.asked)
        passed = (asking,)
        return asking.service.ask(asking).addCallbacks(self._answered, self._failed, passed, {}, passed)

    def _placeGiven(self, _: None, asking: Asking, since: float) -> Deferred[Route | Denial]:
        service, now = asking.service, self._clock.seconds()
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
            return self._timedOut(asking)
        return self._put(asking)

    def _placeMissed(self, failure: Failure, asking: Asking) -> Deferred[Route | Denial] | Failure:
        """The queue is full, and another service may have room; or the time for all services has expired."""
        if not failure.check(Overloaded, TimeoutError):
            return self._brokenOff(failure, asking)
        if failure.check(TimeoutError):
            return self._timedOut(asking)
        asking.service.shared.isBusy()
        asking.reason = f"too many logins wait for a free connection to {asking.service}"
        return self._askNext(asking)

    def _timedOut(self, asking: Asking) -> Deferred[Route | Denial]:
        asking.service.shared.isBusy()
        self._logFailures(asking, isServed=False)
        why = f"timed out waiting for a free connection to {asking.service}"
        return succeed(Denial(Trouble.TEMPORARY, reason=why))

    def _failed(self, failure: Failure, asking: Asking) -> Route | Denial | Deferred[Route | Denial] | Failure:
        return self._unanswered(asking.service.explain(failure, asking), asking)

    def _unanswered(self, failure: Failure, asking: Asking) -> Route | Denial | Deferred[Route | Denial] | Failure:
        """Ask the next service, unless C{failure} is none of this one."""
        service = asking.service
        if not failure.check(Unanswered, *FAILURES):
            return self._brokenOff(failure, asking)
        if self._watch is not None:
            self._count(self._watch, service, asking, "timeout" if asking.isLate else "failed")
            asking.isLate = False
        if failure.check(Unanswered):
            self._logFailures(asking, isServed=False)
            return Denial(Trouble.TEMPORARY, reason=str(failure.value))
        service.restsUntil = self._clock.seconds() + REST
        reason = inLog(failure.value)
        isKnown = service.shared.failed(reason, self._journal)
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

    def _answered(self, response: IResponse, asking: Asking) -> Route | Denial | Deferred[Route | Denial] | Failure:
        service, request, dialect = asking.service, asking.request, self._dialect
        try:
            values = service.read(response, asking)
        except (Unanswered, ExchangeFailed):
            return self._unanswered(Failure(), asking)
        service.restsUntil = 0.0
        if service.shared.isFailing:
            service.shared.answersAgain()
        if asking.failures is not None:
            self._logFailures(asking, isServed=True)
        answer: Route | Denial | Wait | None = verdict(request, values, dialect)
        if dialect.acceptsMissing and not hasStatus(values):
            reading = "an acceptance" if answer is None else "a refusal"
            self._noted(
                self._journal.warn,
                SERVICE_WARNING,
                service,
                asking,
                concern=f"sent no Auth-Status, which counts as {reading}",
            )
        if request.step is not None:
            logAnswer(request, str(service), values, answer, self._clock.seconds() - asking.since)
        watch = self._watch
        if answer is None:
            try:
                doubt = partial(self._doubt, service, asking)
                answer = route(request, values, self._default, dialect, self._may, doubt)
            except Unusable as reason:
                text = f', text "{printable(reason.quoted[:_MOST_QUOTED])}"' if reason.quoted else ""
                fields = {"reason": str(reason), "rest": "", "text": text}
                self._noted(self._journal.error, SERVICE_FAILED, service, asking, **fields)
                if watch is not None:
                    self._count(watch, service, asking, "failed")
                return Denial(Trouble.TEMPORARY)
        elif isinstance(answer, Wait):
            if watch is not None:
                self._count(watch, service, asking, "wait")
            asking.isStorable = False
            again: Deferred[None] = deferLater(self._clock, answer.seconds)
            return again.addCallback(lambda _: self._ask(asking))
        if watch is not None:
            outcome = "accepted" if isinstance(answer, Route) else "denied"
            # As _count().
            watch.asked(service.shared.label, outcome, self._clock.seconds() - asking.since)
        return answer

    def _count(self, watch: IWatch, service: Service, asking: Asking, outcome: str) -> None:
        """Report the end of a request."""
        watch.asked(service.shared.label, outcome, self._clock.seconds() - asking.since)

    def _doubt(self, service: Service, asking: Asking, concern: str, value: bytes) -> None:
        """Log once that a header is ignored: a service that sends it does so for many logins."""
        if concern not in self._doubts:
            self._doubts.add(concern)
            concern = f'{concern}, text "{printable(value[:_MOST_QUOTED])}"'
            self._noted(self._journal.warn, SERVICE_WARNING, service, asking, concern=concern)

    def _noted(self, log: Callable[..., None], format: str, service: Service, asking: Asking, **fields: str) -> None:
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
