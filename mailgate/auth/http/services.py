# -*- test-case-name: mailgate.test.auth.http.test_services -*-
"""
Services for C{auth_http} as all servers of a gateway ask them: imap, pop3 and smtp servers before the same service have
one set of connections to it, one limit, and one opinion of whether it can be trusted with connections that are kept.
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
from mailgate.log.seldom import PERIOD, Seldom
from mailgate.net.endpoints import endpointFor
from mailgate.tls.backend import backendTLS
from mailgate.tls.backendsettings import loadTrust

__all__ = ["SharedService", "questionsOf", "sharedService"]

_UNBOUNDED_QUESTIONS = 64
"""Descriptors kept back for a service whose C{auth_http_max_connections} is 0, which is no limit."""

_COOLING: dict[str, float | None] = {"auto": COOLING, "on": 0.0, "off": None}
"""What the words of C{auth_http_keepalive} mean to the agent."""


class SharedService:
    """
    The service at C{url}. It is asked through C{agent}; each question has a place in C{queue}, or waits there.
    C{whenDistrusted} are called when it has sent what nobody asked for: what it has said lately may be wrong.
    """

    def __init__(self, url: ServiceURL, agent: IAgent, queue: FairQueue, clock: IReactorTime, journal: Journal) -> None:
        self.url = url
        self.agent = agent
        self.queue = queue
        self.whenDistrusted: list[Callable[[], object]] = []
        self.whenUnused: Callable[[], object] = lambda: None
        self._clock = clock
        self._journal = journal
        self.isFailing = False
        """Whether it has not answered since it failed: L{answersAgain} says so."""
        self._users = 0
        self._saysBusy = Seldom()
        if isinstance(agent, KeepAliveAgent):
            agent.whenDistrusted = self._distrusted

    def join(self) -> SharedService:
        """Ask it, from now on: one L{close} is to follow."""
        self._users += 1
        return self

    def close(self) -> None:
        """One of those who ask it asks no more. With the last its idle connections are closed."""
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

    def answersAgain(self) -> None:
        """It has answered, for the first time since it failed."""
        self.isFailing = False
        self._journal.info("auth http server {url} answers again", url=str(self.url))

    def isBusy(self) -> None:
        """A login could not be asked about in time: say so, but not of each."""
        if self._saysBusy.isDue(self._clock.seconds()):
            # One client alone may have asked that often.
            self._journal.warn(
                "auth http server {url} is overloaded: auth_http_max_connections requests are under way and {waiting}"
                " logins wait; some logins get a temporary failure (logged once in {seconds:g} seconds)",
                url=str(self.url),
                waiting=len(self.queue),
                seconds=PERIOD,
            )


_services: WeakKeyDictionary[Any, WeakValueDictionary[tuple[Any, ...], SharedService]] = WeakKeyDictionary()
"""By reactor, of which each gateway has its own: after a reload services are asked, and trusted, anew."""


def sharedService(url: ServiceURL, settings: HTTPSettings, reactor: Any, journal: Journal) -> SharedService:
    """The service at C{url}, joined: the same for all C{settings} by which the connections to it would be the same."""
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


def questionsOf(servers: Iterable[ServerSettings]) -> int:
    """How many descriptors may be in use at a time for questions at the services of all C{servers}."""
    services: dict[tuple[bool, str, int], int] = {}
    for server in servers:
        settings = server[HTTPSettings]
        # The options may stand in [mail], where a server with an auth_file of its own has no use for them.
        for url in settings.urls if "auth_http" in server.given else ():
            service = (url.tls, url.host, url.port)
            most = settings.maxConnections or _UNBOUNDED_QUESTIONS
            services[service] = max(most, services.get(service, 0))
    return sum(services.values())
