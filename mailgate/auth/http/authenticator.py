# -*- test-case-name: mailgate.test.auth.http.test_authenticator -*-
"""
The authenticator of nginx's C{auth_http}: an HTTP service judges logins and names the backend of each account.

The directives are those of U{nginx <https://nginx.org/en/docs/mail/ngx_mail_auth_http_module.html>}. In addition,
mailgate supports several URLs, https and persistent connections. L{mailgate.auth.http.settings} reads the directives,
L{mailgate.auth.http.exchange} defines the contents of requests and responses.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from mailgate.auth.cache import CachedAuthenticator, IJudge, Judgement
from mailgate.auth.fairqueue import PAUSE, Overloaded
from mailgate.auth.http.asking import FAILURES, REST, Asking, Service, Unanswered
from mailgate.auth.http.dialect import Dialect, Untellable
from mailgate.auth.http.exchange import Unusable, Wait, hasStatus, question, route, verdict
from mailgate.auth.http.headers import Values
from mailgate.auth.http.narration import inLog, logAnswer, logQuestion, traced
from mailgate.auth.http.services import SharedService, sharedService
from mailgate.auth.http.settings import HTTPSettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import (
    AuthenticatorKind,
    IAnswering,
    IAuthenticator,
    IWatch,
    IWatchedAuthenticator,
    Refusals,
)
from mailgate.limits.settings import LimitSettings
from mailgate.log.connection import SERVICE_FAILED, SERVICE_MISSED, SERVICE_WARNING, aboutRequest
from mailgate.log.journal import Journal, printable
from mailgate.login import Denial, Destination, LoginRequest, Method, Route, Trouble
from mailgate.tls.settings import TLSSettings

__all__ = ["KIND", "HTTPAuthenticator"]

_MOST_QUOTED = 1000
"""Bytes of an invalid header that the log quotes."""


@implementer(IJudge, IAnswering, IWatchedAuthenticator)
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
        self._areMany = len(services) > 1
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
        return Deferred.fromCoroutine(self.answer(request))

    def answer(self, request: LoginRequest) -> Coroutine[Any, Any, Route | Denial]:
        """
        See L{IAnswering.answer}.

        @param request: the login.
        """
        return self._judge(Asking(request, self._clientOf(request)))

    async def judge(self, request: LoginRequest) -> Judgement:
        """
        Judge a login as L{authenticate} does.

        @param request: the login.
        @return: the answer. One that followed C{WAIT} is not storable.
        """
        asking = Asking(request, self._clientOf(request))
        return Judgement(await self._judge(asking), asking.isStorable)

    def close(self) -> None:
        """Release the services. A service that is no longer in use closes its idle connections."""
        if not self._closed:
            self._closed = True
            for service in self._services:
                service.shared.close()

    async def _judge(self, asking: Asking) -> Route | Denial:
        try:
            asking.plain = asking.asked = question(
                asking.request, self._dialect, self._passesCertificate, self._verifiesClients
            )
        except Untellable as why:
            asking.isStorable = False
            return Denial(Trouble.DENIED, reason=str(why))
        try:
            answer = await self._ask(asking)
            while isinstance(answer, Wait):
                asking.isStorable = False
                await deferLater(self._clock, answer.seconds)
                answer = await self._ask(asking)
            return answer
        except Unanswered as why:
            return Denial(Trouble.TEMPORARY, reason=str(why))
        finally:
            # None is left if a service has answered.
            if asking.failures is not None:
                self._logFailures(asking, isServed=False)

    async def _ask(self, asking: Asking) -> Route | Denial | Wait:
        """
        Ask one service after another until one answers.

        @raise Unanswered: none is asked any more.
        """
        asking.patience = self._timeout
        services = self._awake() if self._areMany else self._services
        for service in services:
            asking.service = service
            place = service.queue.take(asking.client, asking.patience)
            if place is not None and not await self._waited(place, asking, service is services[-1]):
                continue
            request = asking.request
            if self._isTraced and request.trace:
                # Each question is a span of its own.
                asking.asked = traced(asking.plain, request.trace, self.randomness)
            if request.step is not None:
                logQuestion(request, str(service), asking.asked)
            try:
                values = await service.ask(asking)
            except (Unanswered, *FAILURES) as error:
                self._unanswered(error, asking)
                continue
            return self._answerOf(values, asking)
        why = "auth service {url} {reason}".format_map(asking.failures[-1][-1]) if asking.failures else ""
        return Denial(Trouble.TEMPORARY, wait=PAUSE if asking.reason else 0.0, reason=asking.reason, why=why)

    def _awake(self) -> Sequence[Service]:
        """Return the services that are not skipped, or all if every one of them is."""
        now = self._clock.seconds()
        return [service for service in self._services if service.restsUntil <= now] or self._services

    async def _waited(self, place: Deferred[None], asking: Asking, isLast: bool) -> bool:
        """
        Wait for a place in the queue of the current service.

        @param place: fires when there is one.
        @param isLast: whether there is no other service to ask.
        @return: whether the service is to be asked.
        @raise Unanswered: the time for all services has expired.
        """
        service, since = asking.service, self._clock.seconds()
        try:
            await place
        except Overloaded:
            service.shared.isBusy()
            asking.reason = f"too many logins wait for a free connection to {service}"
            return False
        except TimeoutError:
            raise self._late(service) from None
        now = self._clock.seconds()
        asking.patience = min(asking.patience, max(0.0, asking.patience - (now - since)))
        # The service may have failed while the login waited.
        isPassedOver = service.restsUntil > now and not isLast
        if isPassedOver or not asking.patience:
            service.queue.leave(asking.client)
            if not isPassedOver:
                raise self._late(service)
        return not isPassedOver

    def _late(self, service: Service) -> Unanswered:
        service.shared.isBusy()
        return Unanswered(f"timed out waiting for a free connection to {service}")

    def _unanswered(self, error: Exception, asking: Asking) -> None:
        """
        Note that the current service has not answered: the next one is asked.

        @raise Unanswered: C{error} is no failure of the service.
        """
        service = asking.service
        if self._watch is not None:
            outcome = "timeout" if asking.isLate else "failed"
            self._watch.asked(service.shared.label, outcome, self._clock.seconds() - asking.since)
            asking.isLate = False
        if isinstance(error, Unanswered):
            raise error
        service.restsUntil = self._clock.seconds() + REST
        reason = inLog(error)
        isKnown = service.shared.failed(reason, self._journal)
        if asking.request.step is not None:
            spent = self._clock.seconds() - asking.since
            asking.request.step(SERVICE_MISSED, url=str(service), reason=reason, seconds=spent)
        rest = f", skipping it for {REST:g} s" if self._areMany else ""
        fields = {**aboutRequest(asking.request), "url": str(service), "reason": reason, "rest": rest, "text": ""}
        asking.failures = [*(asking.failures or ()), (isKnown, fields)]

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

    def _answerOf(self, values: Values, asking: Asking) -> Route | Denial | Wait:
        """Return what the C{values} of the current service's answer mean."""
        service, request, dialect = asking.service, asking.request, self._dialect
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
        outcome = "denied"
        if answer is None:
            outcome = "accepted"
            try:
                doubt = partial(self._doubt, service, asking)
                answer = route(request, values, self._default, dialect, self._may, doubt)
            except Unusable as reason:
                outcome, answer = "failed", Denial(Trouble.TEMPORARY, why=f"auth service {service} {reason}")
                text = f', text "{printable(reason.quoted[:_MOST_QUOTED])}"' if reason.quoted else ""
                fields = {"reason": str(reason), "rest": "", "text": text}
                self._noted(self._journal.error, SERVICE_FAILED, service, asking, **fields)
        elif isinstance(answer, Wait):
            outcome = "wait"
        if self._watch is not None:
            self._watch.asked(service.shared.label, outcome, self._clock.seconds() - asking.since)
        return answer

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
