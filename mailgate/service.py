# -*- test-case-name: mailgate.test.test_service -*-
"""
The gateway as a Twisted service: what `twistd mailgate` runs, and what an application embeds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall

from mailgate.client import Connector, ProxySettings
from mailgate.config import GatewaySettings, authenticatorKind
from mailgate.dialogue import DialogueSettings
from mailgate.directives import ServerSettings
from mailgate.interfaces import IAuthenticator
from mailgate.journal import Journal
from mailgate.leanreactor import LeanReactor
from mailgate.listener import Listener, ProxyServerFactory, sessionNameSource
from mailgate.login import Fact
from mailgate.names import NamingReactor
from mailgate.registry import PROTOCOLS
from mailgate.relay import Relays
from mailgate.sandbox.service import SandboxService
from mailgate.streamrelay import StreamRelays
from mailgate.tls import BackendTLSSettings, ServerTLS, TLSSettings, loadTrust, usesTLS
from mailgate.tlsengine import fastEngineWorks

__all__ = ["Gateway"]

_LAST_MOMENTS = 2.0
"""Seconds that connections are given to be gone when the gateway stops."""


class Gateway(MultiService):
    """
    Every server of C{settings}, on C{reactor}: C{Gateway(load("gateway.ini"), reactor).setServiceParent(application)}.

    Certificates and users are read at once, sockets are bound when the service starts. It logs to Twisted's log, at
    the level that C{error_log} names.
    """

    def __init__(self, settings: GatewaySettings, reactor: Any) -> None:
        super().__init__()
        self.settings = settings
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
        if settings.sandbox is not None:
            self.addService(SandboxService(settings.sandbox, reactor))
        for server in settings.servers:
            for factory in self._factories(server):
                listener = Listener(factory.address, factory, self._reactor)
                self.listeners.append(listener)
                self.addService(listener)

    def _factories(self, server: ServerSettings) -> Iterator[ProxyServerFactory]:
        record = PROTOCOLS[server.protocol]
        kind = authenticatorKind(server)
        assert kind is not None, "the configuration has been checked"
        dialogue = server[DialogueSettings]
        trusted = server[BackendTLSSettings].trusted
        connector = Connector(
            record.client,
            server,
            dialogue.serverName,
            dialogue.timeout,
            self._naming,
            self._journal,
            None if trusted is None else loadTrust(trusted),
        )
        tls = ServerTLS(server[TLSSettings], server.protocol) if usesTLS(server) else None
        authenticator = kind.build(server, server[ProxySettings].backend, self._naming, self._journal)
        self._authenticators.append(authenticator)
        facts = set(kind.facts(server))
        if server[TLSSettings].verifiesClients:
            facts.add(Fact.DETAILS)
        for address in server.listen:
            yield ProxyServerFactory(
                record,
                server,
                address,
                authenticator,
                connector,
                self._reactor,
                self._journal,
                tls,
                relays=self._relays,
                facts=facts,
                sessionNames=self._sessionNames,
            )

    def startService(self) -> None:
        super().startService()
        for warning in self.settings.warnings:
            self._journal.warn("{warning}", warning=str(warning))
        lean = self.settings.events.isLean and any(map(usesTLS, self.settings.servers))
        if lean and not fastEngineWorks():
            self._journal.warn("this pyOpenSSL has but its public interface for us: TLS takes more CPU and memory")

    @property
    def connections(self) -> list[Any]:
        """The clients that are connected: their dialogues and relays."""
        return [connection for listener in self.listeners for connection in listener.factory.connections]

    def stopService(self) -> Deferred[Any]:
        """Stop listening and end every connection; the Deferred fires when they are gone."""
        stopped = super().stopService()
        for connection in self.connections:
            connection.stop()
        for authenticator in self._authenticators:
            authenticator.close()
        return DeferredList([stopped, self._emptied()]).addCallback(self._closeRelays)

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
