# -*- test-case-name: mailgate.test.auth.http.test_services -*-
"""
The services of C{auth_http}, shared by all servers of a gateway. IMAP, POP3 and SMTP servers with the same service
share its connections, the limit of their number, and the knowledge whether connections to it may be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from mailgate.auth.fairqueue import FairQueue
from mailgate.auth.http.agent import COOLING, KeepAliveAgent
from mailgate.auth.http.settings import HTTPSettings, ServiceURL
from mailgate.directives import ServerSettings
from mailgate.log.journal import Journal
from mailgate.log.outage import Outage
from mailgate.log.seldom import PERIOD, Seldom
from mailgate.net.endpoints import endpointFor
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust

__all__ = ["SharedService", "questionsOf", "servicesOf", "sharedService", "tracesQuestions"]

_UNBOUNDED_QUESTIONS = 64
"""File descriptors that are reserved for a service with C{auth_http_max_connections = 0} (no limit)."""

_LONGEST_REASON = 200
"""Characters of a reason that is kept."""

_COOLING: dict[str, float | None] = {"auto": COOLING, "on": 0.0, "off": None}
"""The C{cooling} of L{KeepAliveAgent} for each value of C{auth_http_keepalive}."""


class SharedService:
    """
    A service at one URL.

    @param url: its URL.
    @param agent: sends the requests.
    @param queue: limits the requests; each needs a place in it.
    @param clock: the reactor, or a clock.
    @param journal: the log.
    @ivar whenDistrusted: functions without arguments. They are called when the service sends bytes that belong to no
        request: its recent answers may be wrong.
    @ivar label: its host and port as text.
    @ivar isFailing: whether it has failed and not answered since.
    @ivar lastFailure: why it has failed last, and when; L{None} if it has never failed.
    @ivar changed: when it failed last or, if it answers again, when it began to; 0 if it has never failed.
    @ivar whenUnused: a function without arguments, called when the last user has closed this.
    """

    def __init__(self, url: ServiceURL, agent: IAgent, queue: FairQueue, clock: IReactorTime, journal: Journal) -> None:
        self.url = url
        self.label = f"{url.hostHeader}:{url.port}" if url.port else url.host
        self.agent = agent
        self.queue = queue
        self.whenDistrusted: list[Callable[[], object]] = []
        self.whenUnused: Callable[[], object] = lambda: None
        self._clock = clock
        self._journal = journal
        self.isFailing = False
        self.changed = 0.0
        self.lastFailure: tuple[str, float] | None = None
        self._outage = Outage()
        self._users = 0
        self._saysBusy = Seldom()
        if isinstance(agent, KeepAliveAgent):
            agent.whenDistrusted = self._distrusted

    def join(self) -> SharedService:
        """Count one more user, who must call L{close}."""
        self._users += 1
        return self

    def close(self) -> None:
        """Count one user less. After the last one, the idle connections are closed."""
        self._users -= 1
        if self._users <= 0:
            self.whenUnused()
            if isinstance(self.agent, KeepAliveAgent):
                self.agent.close()

    def _distrusted(self) -> None:
        self._journal.error(
            "auth http server {url} sent more bytes than its Content-Length says; keepalive is off for it until the"
            " next reload; fix the service or set auth_http_keepalive = off",
            url=str(self.url),
        )
        for call in self.whenDistrusted:
            call()

    def failed(self, reason: str, journal: Journal) -> bool:
        """
        Count a login to which the service gave no answer. Say in each log once that the service is down.

        @param reason: why, with the service as the subject.
        @param journal: the log of the server to which the client has connected.
        @return: whether C{journal} mentions the outage already.
        """
        self.isFailing = True
        self.changed = self._clock.seconds()
        self.lastFailure = reason[:_LONGEST_REASON], self.changed
        outage = self._outage
        outage.failed(self.changed)
        if not outage.isOn:
            return False
        if outage.isKnownTo(journal):
            return True
        journal.error("auth service {url} is down: it {reason}", url=str(self.url), reason=reason)
        return False

    def answersAgain(self) -> None:
        """The service answers after a failure. Say that in the logs that mention the outage."""
        self.isFailing = False
        self.changed = self._clock.seconds()
        if self._outage.isOn:
            seconds, logins = self._outage.over(self.changed)
            for journal in self._outage.journals:
                journal.notice(
                    "auth service {url} answers again, after {seconds} s and {logins} failed logins",
                    url=str(self.url),
                    seconds=seconds,
                    logins=logins,
                )

    @property
    def standing(self) -> tuple[bool, float | None]:
        """C{isFailing}, and the seconds since C{changed}; L{None} if it has never failed."""
        return self.isFailing, max(0.0, self._clock.seconds() - self.changed) if self.changed else None

    def isBusy(self) -> None:
        """Log, at most once in L{PERIOD} seconds, that a login could not be sent to the service in time."""
        if self._saysBusy.isDue(self._clock.seconds()):
            self._journal.warn(
                "auth http server {url} is overloaded: auth_http_max_connections requests are under way and {waiting}"
                " logins wait; some logins get a temporary failure (logged once in {seconds:g} seconds)",
                url=str(self.url),
                waiting=len(self.queue),
                seconds=PERIOD,
            )


_services: WeakKeyDictionary[Any, WeakValueDictionary[tuple[Any, ...], SharedService]] = WeakKeyDictionary()
"""
The services by reactor and key. Each gateway has its own reactor, so a reload starts with new connections and limits.
"""


def sharedService(url: ServiceURL, settings: HTTPSettings, reactor: Any, journal: Journal) -> SharedService:
    """
    Return the service at a URL, and count one more user. Servers share it if their settings lead to the same
    connections.

    @param url: the URL.
    @param settings: the settings of the server.
    @param reactor: makes the connections.
    @param journal: the log.
    """
    key = (
        url,
        settings.timeout,
        settings.keepalive,
        settings.maxConnections,
        url.tls and (settings.verify, settings.trusted),
    )
    known = _services.setdefault(reactor, WeakValueDictionary())
    service = known.get(key)
    if service is None:
        trust = loadTrust(settings.trusted) if settings.trusted is not None else None
        agent = KeepAliveAgent(
            endpointFor(reactor, url.host, url.port, settings.timeout),
            reactor,
            url.hostHeader.encode("ascii"),
            url.target.encode("ascii"),
            backendTLS(url.host, settings.verify, trust, "auth_http_ssl_trusted_certificate") if url.tls else None,
            _COOLING[settings.keepalive],
            settings.maxConnections,
        )
        service = SharedService(url, agent, FairQueue(settings.maxConnections, reactor), reactor, journal)
        service.whenUnused = lambda: known.pop(key, None)
        known[key] = service
    return service.join()


def tracesQuestions(server: ServerSettings) -> bool:
    """
    Return whether connections need a trace id: a server asks services, and C{auth_http_traceparent} is on.

    @param server: the settings of the server.
    """
    return "auth_http" in server.given and server[HTTPSettings].traceparent


def questionsOf(servers: Iterable[ServerSettings]) -> int:
    """
    Return how many file descriptors requests to authentication services may use at a time.

    @param servers: the settings of all servers.
    """
    services: dict[tuple[bool, str, int], int] = {}
    for server in servers:
        settings = server[HTTPSettings]
        # In [mail] the options also apply to servers with an auth_file of their own, which do not use them.
        for url in settings.urls if "auth_http" in server.given else ():
            service = (url.tls, url.host, url.port)
            most = settings.maxConnections or _UNBOUNDED_QUESTIONS
            services[service] = max(most, services.get(service, 0))
    return sum(services.values())


def servicesOf(reactor: Any) -> list[SharedService]:
    """
    Return the services in use, in the order in which they were first used.

    @param reactor: that of a gateway: the one that makes the connections.
    """
    return list(_services.get(reactor, {}).values())
