# -*- test-case-name: mailgate.test.test_service -*-
"""
The gateway as a Twisted service: what `twistd mailgate` runs, and what an application embeds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall

from mailgate.client import Connector, ProxySettings
from mailgate.config import GatewaySettings, authenticatorKind
from mailgate.dialogue import DialogueSettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import IAuthenticator
from mailgate.journal import ErrorLogs, Journal, ServerLogSettings, leastLevel
from mailgate.leanreactor import LeanReactor
from mailgate.listener import Listener, ProxyServerFactory, sessionNameSource
from mailgate.login import Fact
from mailgate.names import NamingReactor
from mailgate.registry import PROTOCOLS
from mailgate.relay import Relays
from mailgate.resolver import ResolverSettings
from mailgate.reversedns import ReverseDNS
from mailgate.sandbox.service import SandboxService
from mailgate.streamrelay import StreamRelays
from mailgate.tls import BackendTLSSettings, ServerTLS, TLSSettings, loadTrust, usesTLS
from mailgate.tlsengine import fastEngineWorks

__all__ = ["Gateway"]

_LAST_MOMENTS = 2.0
"""Seconds that connections are given to be gone when the gateway stops."""


def _sockets(
    factories: Sequence[ProxyServerFactory],
) -> Iterator[tuple[ProxyServerFactory, Mapping[str, ProxyServerFactory]]]:
    """The factories that get a socket of their own, each with those whose addresses its wildcard takes in, by host."""
    places = {(factory.address.host, factory.address.port) for factory in factories}
    taken: dict[Any, dict[str, ProxyServerFactory]] = {place: {} for place in places}
    for factory in factories:
        wildcard = factory.address.wildcard
        if wildcard is not None and wildcard in taken and factory.address.host != wildcard[0]:
            taken[wildcard][factory.address.host] = factory
    for factory in factories:
        place = factory.address.host, factory.address.port
        if factory.address.wildcard in (None, place) or factory.address.wildcard not in places:
            yield factory, taken[place]


class Gateway(MultiService):
    """
    Every server of C{settings}, on C{reactor}: C{Gateway(load("gateway.ini"), reactor).setServiceParent(application)}.

    Certificates and users are read at once, sockets are bound when the service starts. It logs to Twisted's log, at
    the level that the process's C{error_log} names, and for servers with an C{error_log} of their own to that, opened
    at once among C{logs}.

    @raise ConfigurationError: a server's C{error_log} cannot be opened.
    """

    def __init__(self, settings: GatewaySettings, reactor: Any, logs: ErrorLogs | None = None) -> None:
        super().__init__()
        self.settings = settings
        self._logs = ErrorLogs() if logs is None else logs
        self._reactor: Any
        self._relays: Relays
        if settings.events.isLean:
            self._reactor = LeanReactor(reactor)
            self._relays = StreamRelays(self._reactor.poller, self._reactor.clock)
        else:
            self._reactor, self._relays = reactor, Relays(reactor)
        self._naming = NamingReactor(self._reactor)
        self._journal = Journal(settings.log.level)
        self._sessionNames = sessionNameSource(os.urandom)
        self.listeners: list[Listener] = []
        self._authenticators: list[IAuthenticator] = []
        self._reverseDNS: dict[ResolverSettings, ReverseDNS] = {}
        if settings.sandbox is not None:
            self.addService(SandboxService(settings.sandbox, reactor))
        self._factories = [factory for server in settings.servers for factory in self._factoriesOf(server)]
        for factory, specific in _sockets(self._factories):
            listener = Listener(factory.address, factory, self._reactor, specific)
            self.listeners.append(listener)
            self.addService(listener)

    def _journalOf(self, server: ServerSettings) -> Journal:
        own = server[ServerLogSettings].errorLog
        if not own:
            return self._journal
        return Journal(leastLevel(own), self._logs.observerFor(own, server.file, f"server {server.name}"))

    def _factoriesOf(self, server: ServerSettings) -> Iterator[ProxyServerFactory]:
        record = PROTOCOLS[server.protocol]
        kind = authenticatorKind(server)
        assert kind is not None, "the configuration has been checked"
        dialogue = server[DialogueSettings]
        journal = self._journalOf(server)
        trusted = server[BackendTLSSettings].trusted
        connector = Connector(
            record.client,
            server,
            dialogue.serverName,
            dialogue.timeout,
            self._naming,
            journal,
            None if trusted is None else loadTrust(trusted),
        )
        tls = ServerTLS(server[TLSSettings], server.protocol) if usesTLS(server) else None
        authenticator = kind.build(server, server[ProxySettings].backend, self._naming, journal)
        self._authenticators.append(authenticator)
        facts = set(kind.facts(server) | server[ProxySettings].facts)
        if server[TLSSettings].verifiesClients:
            facts.add(Fact.DETAILS)
        reverseDNS = self._clientNames(server)
        for address in server.listen:
            yield ProxyServerFactory(
                record,
                server,
                address,
                authenticator,
                connector,
                self._reactor,
                journal,
                tls,
                relays=self._relays,
                facts=facts,
                sessionNames=self._sessionNames,
                reverseDNS=reverseDNS,
            )

    def _clientNames(self, server: ServerSettings) -> ReverseDNS | None:
        """Who finds the names of C{server}'s clients: the same for all servers that name the same C{resolver}."""
        settings = server[ResolverSettings]
        # As nginx: no other protocol tells anybody the client's name.
        if settings.resolver is None or server.protocol != "smtp":
            return None
        if settings not in self._reverseDNS:
            made = ReverseDNS(settings.resolver, settings.timeout, self._reactor, self._journal)
            self._reverseDNS[settings] = made
        return self._reverseDNS[settings]

    def startService(self) -> None:
        super().startService()
        for warning in self.settings.warnings:
            self._journal.warn("{reason}", reason=str(warning))
        lean = self.settings.events.isLean and any(map(usesTLS, self.settings.servers))
        if lean and not fastEngineWorks():
            self._journal.warn("this pyOpenSSL has but its public interface for us: TLS takes more CPU and memory")

    @property
    def connections(self) -> list[Any]:
        """The clients that are connected: their dialogues and relays."""
        return [connection for factory in self._factories for connection in factory.connections]

    def stopService(self) -> Deferred[Any]:
        """Stop listening and end every connection; the Deferred fires when they are gone."""
        stopped = super().stopService()
        for connection in self.connections:
            connection.stop()
        for authenticator in self._authenticators:
            authenticator.close()
        asked = [reverseDNS.close() for reverseDNS in self._reverseDNS.values()]
        return DeferredList([stopped, *asked, self._emptied()]).addCallback(self._closeRelays)

    def _closeRelays(self, result: Any) -> Any:
        self._relays.close()
        return result

    def _emptied(self) -> Deferred[Any]:
        deadline = self._reactor.seconds() + _LAST_MOMENTS

        def look() -> None:
            if not self.connections or self._reactor.seconds() >= deadline:
                looking.stop()

        looking = LoopingCall(look)
        looking.clock = self._reactor
        return looking.start(0.01)
