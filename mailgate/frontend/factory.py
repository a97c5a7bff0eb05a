# -*- test-case-name: mailgate.test.frontend.test_factory -*-
"""
What makes a server's dialogues, and counts them: one factory for each listening address.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import Factory as Default
from attrs import field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol

from mailgate.directives import ListenAddress, ServerSettings
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.realip import HeaderReader, RealIPSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import IAuthenticator, IConnection, IConnector
from mailgate.lean.connectionlimit import Places
from mailgate.log.connection import BEGUN, STORY, about
from mailgate.log.journal import Journal
from mailgate.login import Method
from mailgate.net.networks import unmapped
from mailgate.net.reversedns import ReverseDNS
from mailgate.relay.portable import Relays
from mailgate.relay.settings import RelaySettings
from mailgate.session import Phase, Session
from mailgate.session import sessionIds as makeSessionIds
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import TLSSettings

__all__ = ["ByLocalAddress", "Means", "ProxyServerFactory"]


@frozen
class Means:
    """
    What all dialogues of a server work with.

    @ivar clock: gives the time, and calls later.
    @ivar tls: the server's certificates and sessions; L{None} where it has no TLS.
    @ivar relays: makes the relays for those who have logged in.
    @ivar places: those that client connections take, among all of the process.
    @ivar sessionIds: yields the ids of sessions.
    @ivar reverseDNS: finds the names of clients, if that is wanted.
    @ivar makeSession: L{Session}, or a subclass.
    @ivar randomness: returns as many random bytes as it is asked for.
    """

    authenticator: IAuthenticator
    connector: IConnector
    clock: IReactorTime
    journal: Journal
    tls: ServerTLS | None = None
    relays: Relays = field(default=Default(lambda self: Relays(self.clock), takes_self=True))
    places: Places = field(default=Default(lambda self: Places(self.clock), takes_self=True))
    randomness: Callable[[int], bytes] = os.urandom
    sessionIds: Iterator[str] = field(default=Default(lambda self: makeSessionIds(self.randomness), takes_self=True))
    reverseDNS: ReverseDNS | None = None
    makeSession: type[Session] = Session


class ProxyServerFactory(Factory):
    """
    Makes the dialogues of one listening address of one server.

    @ivar connections: those that have not ended, dialogues and relays.
    @ivar emptied: called, if there is one, when the last of them has ended.
    """

    noisy = False

    def __init__(self, record: MailProtocol, settings: ServerSettings, address: ListenAddress, means: Means) -> None:
        self.record = record
        self.settings = settings
        self.address = address
        self.name = str(address)
        # Looked up once: a dialogue asks for them again and again.
        self.authenticator = means.authenticator
        self.connector = means.connector
        self.clock = clock = means.clock
        self.journal = journal = means.journal
        self.tls = means.tls
        self.randomness = means.randomness
        self.relays = means.relays
        self.places = means.places
        self.sessionIds = means.sessionIds
        self.reverseDNS = means.reverseDNS
        self.makeSession = means.makeSession
        self.protocolSettings: Any = settings[record.settings]
        self.dialogue = settings[DialogueSettings]
        self.starttls = settings[TLSSettings].starttls
        self.verifiesClients = settings[TLSSettings].verifiesClients
        self.takesPasswords = Method.PLAIN in record.methods(settings)
        self.relayTimeout = settings[RelaySettings].timeout
        self.local = (unmapped(address.host), address.port) if address.isOneAddress else None
        """The address that all clients connect to, if it is one."""
        self._senders = settings[RealIPSettings].senders
        self.connections: set[IConnection] = set()
        self.emptied: Callable[[], object] | None = None
        self.phaseClock: Callable[[], float] | None = clock.seconds if journal.wantsInfo else None
        """What sessions measure their phases by, where the log tells of that."""
        self.relayEnded: Callable[[Any], None] = self.ended
        """L{ended}, once and for all: each look at a method makes an object, and each relay would keep one."""

    def buildProtocol(self, addr: Any) -> Any:
        server = self.record.server(self)
        return HeaderReader(server, self._senders) if self.address.proxyProtocol else server

    def began(self, connection: IConnection) -> None:
        """Count C{connection}, which L{ended} or L{handedOver} has to follow."""
        self.connections.add(connection)
        self.places.taken += 1
        if self.journal.wantsDebug:
            self.journal.debug(BEGUN, **about(connection.session))

    def handedOver(self, connection: IConnection) -> None:
        """Forget C{connection}: what goes on with its client begins, and is counted, at once."""
        self.connections.discard(connection)
        self.places.taken -= 1

    def ended(self, connection: IConnection) -> None:
        """Forget C{connection}, and tell its story."""
        self.connections.discard(connection)
        self.places.leave()
        journal, session = self.journal, connection.session
        if session.place is not None:
            session.leave()
        if journal.wantsInfo:
            # Whose mailbox was open, and when, is never left out; what a stranger can cause may be.
            tell = journal.record if session.reached is Phase.RELAY else journal.info
            tell(STORY, **session.story(self.clock.seconds()))
        if self.emptied is not None and not self.connections:
            self.emptied()


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
