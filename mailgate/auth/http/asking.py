# -*- test-case-name: mailgate.test.auth.http.test_authenticator -*-
"""
One request to one service of C{auth_http}: its place in the queue, its deadline, and what counts as an answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hyperlink import URL
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol
from twisted.web.client import ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from mailgate.auth.http.agent import KeepAliveAgent
from mailgate.auth.http.connection import ExchangeCancelled, ExchangeFailed
from mailgate.auth.http.exchange import hasStatus
from mailgate.auth.http.headers import FieldHeaders, PreparedHeaders, Values, valuesOf
from mailgate.auth.http.requesting import NoCookies, NormalURL
from mailgate.auth.http.services import SharedService
from mailgate.lean.clock import FINEST, ExactClock, deadlinesOf
from mailgate.login import LoginRequest

__all__ = ["FAILURES", "OF_THE_QUESTION", "REST", "Asking", "Service", "Unanswered"]

REST = 10.0
"""
Seconds for which a failed service is skipped while there are others. Logins need not wait for its time-out, and it is
used again soon after it has recovered.
"""

FAILURES = (ExchangeFailed, ResponseFailed, ConnectError, TimeoutError)
"""What agents fail with when the service, or the network on the way to it, fails."""

OF_THE_QUESTION = frozenset((400, 413, 414, 431))
"""HTTP statuses that reject this one request, as too long for example; the service itself works."""

_IGNORANT = Protocol()
"""Receives response bodies and ignores them."""


class Unanswered(Exception):
    """A request got no answer although the service did not fail. The text is the reason."""


class Service:
    """
    One URL of C{auth_http}, as one server uses it.

    @ivar shared: the connections to the service.
    @ivar queue: limits the requests.
    @ivar restsUntil: the time until which the service is skipped while there are others.
    @ivar timeout: the seconds in which an answer must come, the wait in the queue included.
    """

    def __init__(self, shared: SharedService, timeout: float, clock: IReactorTime, acceptsMissing: bool) -> None:
        """
        @param shared: the connections to the service.
        @param timeout: the seconds in which an answer must come.
        @param clock: the reactor, or a clock.
        @param acceptsMissing: whether a response needs no C{Auth-Status} (C{auth_http_missing_status}).
        """
        self.shared = shared
        self.queue = shared.queue
        self.restsUntil = 0.0
        self._cookies = NoCookies()
        self._client = HTTPClient(shared.agent, self._cookies)  # type: ignore[arg-type]
        url = shared.url
        port = f":{url.port}" if url.port else ""
        text = f"{'https' if url.tls else 'http'}://{url.hostHeader}{port}{url.target}"
        # Our agent looks at no URL. The code for cookies parses that of each request, so it gets a short one.
        self._normalURL = NormalURL(URL.from_text("http://-/" if isinstance(shared.agent, KeepAliveAgent) else text))
        self.timeout = timeout
        self._clock = clock
        self._acceptsMissing = acceptsMissing
        self._deadlines = deadlinesOf(clock, timeout)
        self._exact = ExactClock(clock)
        """Where the deadlines wait that a wait in the queue has left too short for the coarse clock."""

    def __str__(self) -> str:
        return str(self.shared.url)

    async def ask(self, asking: Asking) -> Values:
        """
        Send a request that has a place in the queue, and give the place back.

        A response without C{Auth-Status} is a failure, unless C{auth_http_missing_status} accepts it and the status is
        not 5xx.

        @param asking: the login that is being judged.
        @return: the values of the response's headers.
        @raise ExchangeFailed: the service failed, as with the others of L{FAILURES}.
        @raise Unanswered: the service rejected this one request, or had no chance to answer.
        """
        asking.since = now = self._clock.seconds()
        deadlines = self._deadlines if asking.patience >= FINEST else self._exact
        try:
            answered: Deferred[Any] = self._client.request(
                "GET",
                self._normalURL,
                headers=asking.asked,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._clock,  # type: ignore[arg-type]
                cookies=self._cookies,
            )
            asking.cancel = answered.cancel
            deadlines.put(asking, now + asking.patience)
            response: IResponse = await answered
        except Exception as error:
            explained = self._explained(error, asking)
            deadlines.drop(asking)
            self.queue.leave(asking.client)
            if explained is error:
                raise
            raise explained from None
        # No "finally": the coroutine of a gateway that is gone must not let other logins of its queue go on.
        deadlines.drop(asking)
        self.queue.leave(asking.client)
        headers: Headers = response.headers
        values: Values
        if isinstance(headers, FieldHeaders):
            values = headers.values
        else:
            # Other agents keep the connection until the body has been read; ours reads it itself.
            response.deliverBody(_IGNORANT)
            values = valuesOf(headers)
        if not hasStatus(values):
            self._lacksStatus(response.code)
        return values

    def _lacksStatus(self, code: int) -> None:
        missing = f"{code} without Auth-Status"
        if code in OF_THE_QUESTION:
            raise Unanswered(f"{self} answered {missing}")
        if not self._acceptsMissing or code >= 500:
            raise ExchangeFailed("reading the response", missing)

    def _explained(self, error: Exception, asking: Asking) -> Exception:
        """
        Return the failure of the login: L{ExchangeFailed} or another of L{FAILURES} if the service failed,
        L{Unanswered} if it had no chance.

        @param error: what treq and the agent say.
        """
        isLate, asking.isExpired = asking.isExpired and isinstance(error, CancelledError), False
        # During a flood every login waits a little in the queue, which is no fault of the service.
        hadItsChance = asking.patience >= self.timeout / 2
        if isinstance(error, FAILURES) or (isLate and hadItsChance):
            # Set this before the place goes to the next login, which then skips this service.
            self.restsUntil = self._clock.seconds() + REST
        if not isLate:
            return error
        asking.isLate = True
        if not hadItsChance:
            self.shared.isBusy()
            return Unanswered(f"timed out after a long wait for a free connection to {self}")
        phase = error.phase if isinstance(error, ExchangeCancelled) else "processing the request"
        return ExchangeFailed(phase, f"timed out after {self.timeout:g} seconds")


class Asking:
    """
    A login that is being judged.

    @ivar request: the login.
    @ivar plain: the headers of the request, without C{traceparent}.
    @ivar asked: the headers of the request to the current service.
    @ivar client: the name of its client in the queue.
    @ivar service: the current service.
    @ivar patience: the seconds left for an answer.
    @ivar cancel: cancels the current request; called without arguments.
    @ivar isExpired: whether the deadline of the current request has passed.
    @ivar tick: its place among the deadlines, see L{mailgate.lean.clock.Entry}.
    @ivar since: the time at which the current request was sent.
    @ivar isLate: whether the current request has timed out.
    @ivar isStorable: whether no service has answered C{WAIT}.
    @ivar reason: why a service could not receive the request; may be empty.
    @ivar failures: for each failed service whether its outage was known before, and the log fields.
    """

    asked: PreparedHeaders
    plain: PreparedHeaders
    service: Service
    patience: float
    cancel: Callable[[], object]
    since: float
    tick: float = 0
    isExpired = False
    isLate = False
    isStorable = True
    reason = ""
    failures: list[tuple[bool, dict[str, Any]]] | None = None

    def __init__(self, request: LoginRequest, client: str) -> None:
        """
        @param request: the login.
        @param client: the name of its client in the queue.
        """
        self.request = request
        self.client = client

    def expired(self) -> None:
        """The deadline of the current request has passed."""
        self.isExpired = True
        self.cancel()
