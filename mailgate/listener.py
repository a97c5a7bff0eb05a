# -*- test-case-name: mailgate.test.test_listener -*-
"""
Where clients arrive: the factory of a server's dialogues, and the sockets they come in by.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Set
from itertools import count
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol

from mailgate.client import Connector, ProxySettings
from mailgate.dialogue import DialogueSettings, MailProtocol
from mailgate.directives import ConfigurationError, ListenAddress, ServerSettings
from mailgate.interfaces import IAuthenticator
from mailgate.journal import Journal
from mailgate.listen import bind
from mailgate.login import Fact
from mailgate.realip import HeaderReader, RealIPSettings
from mailgate.relay import Relays
from mailgate.reversedns import ReverseDNS
from mailgate.session import STORY
from mailgate.tls import ServerTLS, TLSSettings

__all__ = ["ByLocalAddress", "ListenError", "Listener", "ProxyServerFactory", "sessionNameSource"]


def sessionNameSource(randomness: Callable[[int], bytes]) -> Iterator[str]:
    """Names for connections, no two the same: eight random digits, the same for all of them, and a number."""
    start = randomness(4).hex()
    return (f"{start}-{number}" for number in count(1))


class ProxyServerFactory(Factory):
    """
    Makes the dialogues of one listening address of one server.

    C{randomness(n)} gives n random bytes, C{relays} is for those who have logged in. C{connections} are those that have
    not ended: dialogues and relays. C{facts} are those that somebody wants to know of each connection, and
    C{sessionNames} the names for L{Fact.SESSION}. C{reverseDNS} finds the names of clients, if that is wanted.
    """

    noisy = False

    def __init__(
        self,
        record: MailProtocol,
        settings: ServerSettings,
        address: ListenAddress,
        authenticator: IAuthenticator,
        connector: Connector,
        clock: Any,
        journal: Journal,
        tls: ServerTLS | None = None,
        randomness: Callable[[int], bytes] = os.urandom,
        relays: Relays | None = None,
        facts: Set[Fact] = frozenset(),
        sessionNames: Iterator[str] | None = None,
        reverseDNS: ReverseDNS | None = None,
    ) -> None:
        self.record = record
        self.settings = settings
        self.address = address
        self.name = str(address)
        self.authenticator = authenticator
        self.connector = connector
        self.clock = clock
        self.journal = journal
        self.tls = tls
        self.randomness = randomness
        # Looked up once: a dialogue asks for them again and again.
        self.protocolSettings: Any = settings[record.settings]
        self.dialogue = settings[DialogueSettings]
        self.starttls = settings[TLSSettings].starttls
        self.verifiesClients = settings[TLSSettings].verifiesClients
        self.relayTimeout = settings[ProxySettings].timeout
        self.relays = Relays(clock) if relays is None else relays
        self.tellsLocal = Fact.LOCAL in facts
        self.tellsDetails = Fact.DETAILS in facts
        self.tellsSession = Fact.SESSION in facts
        self.sessionNames = sessionNameSource(randomness) if sessionNames is None else sessionNames
        self.reverseDNS = reverseDNS
        self._senders = settings[RealIPSettings].senders
        self.connections: set[Any] = set()
        self.relayEnded: Callable[[Any], None] = self.ended
        """L{ended}, once and for all: each look at a method makes an object, and each relay would keep one."""

    def buildProtocol(self, addr: Any) -> Any:
        server = self.record.server(self)
        return HeaderReader(server, self._senders) if self.address.proxyProtocol else server

    def ended(self, connection: Any) -> None:
        """Forget C{connection}, and tell its story."""
        self.connections.discard(connection)
        if self.journal.wantsInfo:
            self.journal.info(STORY, **connection.session.story(self.clock.seconds()))


class ListenError(ConfigurationError):
    """An address cannot be listened on: it is taken, not of this host, or needs more rights."""


class ByLocalAddress(Factory):
    """Gives connections to one of the hosts in C{specific} to that one's factory, and all others to C{wildcard}."""

    noisy = False

    def __init__(self, wildcard: ProxyServerFactory, specific: Mapping[str, ProxyServerFactory]) -> None:
        self.wildcard = wildcard
        self.specific = specific

    def buildProtocol(self, addr: Any) -> Any:
        return _Arrival(self)


class _Arrival(Protocol):
    """Which address a connection has come to, its transport knows, and a factory is not told."""

    def __init__(self, factory: ByLocalAddress) -> None:
        self._factory = factory

    def makeConnection(self, transport: Any) -> None:
        factory = self._factory.specific.get(transport.getHost().host, self._factory.wildcard)
        protocol = factory.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)


class Listener(Service):
    """
    One listening socket, bound when the service starts with the right privileges. C{port} is Twisted's, once bound.

    Connections are C{factory}'s; at a wildcard those to an address that has a factory in C{specific} are that one's:
    beside the wildcard the system would not let such an address be bound.
    """

    port: IListeningPort | None = None

    def __init__(
        self,
        address: ListenAddress,
        factory: ProxyServerFactory,
        reactor: Any,
        specific: Mapping[str, ProxyServerFactory] = {},
    ) -> None:
        self.address = address
        self.factory = factory
        self.specific = specific
        self._reactor = reactor

    def privilegedStartService(self) -> None:
        """
        Bind.

        @raise ListenError: the address cannot be bound.
        """
        if self.port is not None:
            return
        try:
            bound = bind(self.address)
        except OSError as error:
            reason = f"cannot be bound: {os.strerror(error.errno) if error.errno else error}"
            raise ListenError([self.factory.settings.problem("listen", reason, str(self.address))]) from None
        factory = ByLocalAddress(self.factory, self.specific) if self.specific else self.factory
        try:
            self.port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        finally:
            bound.close()

    def startService(self) -> None:
        # `twist` starts services without ever calling privilegedStartService.
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        port, self.port = self.port, None
        if port is None:
            return maybeDeferred(lambda: None)
        # Twisted removes a unix socket's file, unless somebody else has, or whom it belongs to we are no longer.
        return maybeDeferred(port.stopListening).addErrback(
            lambda failure: failure.trap(FileNotFoundError, PermissionError) and None
        )
