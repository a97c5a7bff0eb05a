# -*- test-case-name: mailgate.test.frontend.test_listener -*-
"""
Where clients arrive: the factory of a server's dialogues, and the sockets they come in by.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Set
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port as TCPPort
from twisted.internet.unix import Port as UNIXPort
from twisted.python.failure import Failure

from mailgate.backend.connector import Connector
from mailgate.backend.settings import ProxySettings
from mailgate.directives import ListenAddress, ServerSettings
from mailgate.frontend.protocol import DialogueSettings, MailProtocol
from mailgate.frontend.realip import HeaderReader, RealIPSettings
from mailgate.interfaces import IAuthenticator
from mailgate.lean.connectionlimit import Places
from mailgate.lean.port import LeanPort
from mailgate.lean.reactor import LeanReactor
from mailgate.log.connection import BEGUN, STORY, about
from mailgate.log.journal import Journal
from mailgate.login import Fact
from mailgate.net.networks import unmapped
from mailgate.net.reversedns import ReverseDNS
from mailgate.net.sockets import ListenError, openSocket
from mailgate.relay.portable import Relays
from mailgate.session import Phase
from mailgate.session import sessionIds as makeSessionIds
from mailgate.tls.settings import ServerTLS, TLSSettings

__all__ = ["ByLocalAddress", "ListenError", "Listener", "ProxyServerFactory", "SharedUNIXPort"]


class ProxyServerFactory(Factory):
    """
    Makes the dialogues of one listening address of one server.

    C{randomness(n)} gives n random bytes, C{relays} is for those who have logged in. C{connections} are those that have
    not ended: dialogues and relays. C{facts} are those that somebody wants to know of each connection, and
    C{sessionIds} the ids for their sessions. C{reverseDNS} finds the names of clients, if that is wanted.
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
        sessionIds: Iterator[str] | None = None,
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
        self.local = (unmapped(address.host), address.port) if address.isOneAddress else ("", 0)
        """What is known of L{Fact.LOCAL} without asking the system for each connection."""
        self.tellsDetails = Fact.DETAILS in facts
        self.sessionIds = makeSessionIds(randomness) if sessionIds is None else sessionIds
        self.reverseDNS = reverseDNS
        self._senders = settings[RealIPSettings].senders
        self.places = Places(clock)
        """Those that the connections take, among all of the process."""
        self.connections: set[Any] = set()
        self.emptied: Callable[[], object] | None = None
        """Called, if there is one, when the last of them has ended."""
        self.phaseClock: Callable[[], float] | None = clock.seconds if journal.wantsInfo else None
        """What sessions measure their phases by, where the log tells of that."""
        self.relayEnded: Callable[[Any], None] = self.ended
        """L{ended}, once and for all: each look at a method makes an object, and each relay would keep one."""

    def buildProtocol(self, addr: Any) -> Any:
        server = self.record.server(self)
        return HeaderReader(server, self._senders) if self.address.proxyProtocol else server

    def began(self, connection: Any) -> None:
        """Count C{connection}, which L{ended} or L{handedOver} has to follow."""
        self.connections.add(connection)
        self.places.taken += 1
        if self.journal.wantsDebug:
            self.journal.debug(BEGUN, **about(connection.session))

    def handedOver(self, connection: Any) -> None:
        """Forget C{connection}: what goes on with its client begins, and is counted, at once."""
        self.connections.discard(connection)
        self.places.taken -= 1

    def ended(self, connection: Any) -> None:
        """Forget C{connection}, and tell its story."""
        self.connections.discard(connection)
        self.places.leave()
        journal, session = self.journal, connection.session
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


class SharedUNIXPort(UNIXPort):
    """
    A port of Twisted's on a unix socket that other processes or gateways have, too. It never unlinks the socket file or
    changes its mode: a reload, an upgrade and systemd hand the socket on.
    """

    def startListening(self) -> None:
        factory: Any = self.factory
        factory.doStart()
        shared: Any = self._preexistingSocket
        self._preexistingSocket = None
        self.socket = shared
        self.fileno = shared.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = 100
        # As Twisted does for a TCP socket that it has been given.
        self._shouldShutdown = False
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        TCPPort.connectionLost(self, reason)


def _makeBounded(port: Any, places: Places) -> None:
    """Have C{port}, one of Twisted's, let in no more newcomers than there are C{places} for, as L{LeanPort} does."""
    accept = port.doRead

    def doRead() -> Any:
        room = places.room(resume)
        if not room:
            port.stopReading()
            return None
        port.numberAccepts = min(port.numberAccepts, room)
        return accept()

    def resume() -> None:
        if port.connected and not port.disconnecting:
            port.startReading()

    port.doRead = doRead


class Listener(Service):
    """
    One listening socket, bound when the service starts with the right privileges. C{port} is Twisted's, once bound.

    Where there is a C{shared} socket before that, it is that one, which stays the caller's, and stays open. With
    C{isLarge} other processes accept from the same one, and newcomers are left to them while it says so; that takes a
    reactor that is lean. Without one of C{places}, if there are such, they have to wait.

    Connections are C{factory}'s; at a wildcard those to an address that has a factory in C{specific} are that one's:
    beside the wildcard the system would not let such an address be bound.
    """

    port: IListeningPort | None = None
    shared: socket.socket | None = None
    isLarge: Callable[[], bool] | None = None
    places: Places | None = None

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
        factory = ByLocalAddress(self.factory, self.specific) if self.specific else self.factory
        bound = openSocket(self.factory.settings, self.address) if self.shared is None else self.shared
        try:
            self.port = self._adopt(bound, factory)
            self._restrain(self.port)
            # Twisted's port sets a length of the queue of its own.
            bound.listen(self.address.socket.backlog)
        finally:
            if bound is not self.shared:
                bound.close()

    def _restrain(self, port: IListeningPort) -> None:
        """Have C{port} leave newcomers to others, or let them wait, where that is wanted."""
        if isinstance(port, LeanPort):
            port.isLarge, port.places = self.isLarge, self.places
            return
        # A reactor of the application's may have ports of another kind, which it limits itself.
        if self.places is not None and isinstance(port, TCPPort):
            _makeBounded(port, self.places)

    def _adopt(self, bound: socket.socket, factory: Factory) -> IListeningPort:
        port: IListeningPort
        isShared = bound is self.shared and bound.family == socket.AF_UNIX
        if isShared and not isinstance(self._reactor, LeanReactor):
            port = SharedUNIXPort._fromListeningDescriptor(self._reactor, bound.fileno(), factory)
            port.startListening()
            return port
        port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
        if isinstance(port, LeanPort):
            port.keepsFile = isShared
        return port

    def startService(self) -> None:
        # `twist` starts services without ever calling privilegedStartService.
        self.privilegedStartService()
        super().startService()

    def stopService(self) -> Deferred[Any]:
        super().stopService()
        return self.stopListening()

    def stopListening(self) -> Deferred[Any]:
        """Accept no more."""
        port, self.port = self.port, None
        if port is None:
            return succeed(None)
        # Twisted removes a unix socket's file, unless somebody else has, or whom it belongs to we are no longer.
        return maybeDeferred(port.stopListening).addErrback(
            lambda failure: failure.trap(FileNotFoundError, PermissionError) and None
        )
