# -*- test-case-name: mailgate.test.frontend.test_factory -*-
"""
Makes and counts a server's dialogues: one factory for each listening address.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import Factory as Default
from attrs import evolve, field, frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol

from mailgate.backend.offers import Announcement
from mailgate.directives import ListenAddress, ServerSettings
from mailgate.frontend.capabilities import configured
from mailgate.frontend.debugging import Debugged
from mailgate.frontend.outside import checked
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.realip import HeaderReader, RealIPSettings
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import IAdmission, IAnswering, IAuthenticator, IConnection, IConnector, ILoginGuard, IWatch
from mailgate.lean.clock import deadlinesOf
from mailgate.lean.connectionlimit import Places
from mailgate.log.connection import BEGUN, STORY
from mailgate.log.journal import Journal
from mailgate.login import Denial, LoginRequest, Method, Route
from mailgate.net.networks import unmapped
from mailgate.net.reversedns import ReverseDNS
from mailgate.relay.portable import Relays
from mailgate.relay.settings import RelaySettings
from mailgate.relay.terms import Terms
from mailgate.session import FollowedSession, Phase, Session
from mailgate.sessionids import GatewayIds, Listener
from mailgate.sessionids import sessionIds as makeSessionIds
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import TLSSettings

__all__ = ["ByLocalAddress", "Means", "ProxyServerFactory"]


@frozen
class Means:
    """
    The services that all dialogues of a server use.

    @ivar authenticator: judges logins.
    @ivar connector: logs clients in at backends.
    @ivar clock: the time in seconds, and timers.
    @ivar journal: the log.
    @ivar tls: the server's certificates and sessions; L{None} without TLS.
    @ivar relays: makes the relays for clients that are logged in.
    @ivar places: counts client connections of the whole process (C{worker_connections}).
    @ivar randomness: C{randomness(n)} returns n random bytes.
    @ivar sessionIds: the ids of sessions.
    @ivar reverseDNS: looks up the host names of clients, or L{None}.
    @ivar announcement: the capabilities before the login, if the gateway learns them from backends. L{None}: the
        configured ones.
    @ivar makeSession: L{Session} or a subclass.
    @ivar debugged: the connections that are logged at level debug whatever the level of C{journal}; L{None} for none.
    @ivar isTraced: whether each connection gets a trace id (C{auth_http_traceparent}).
    @ivar watch: follows the connections; L{None} if nothing does.
    @ivar admission: the limits for connections and sessions; L{None} for none.
    @ivar guard: the limits for logins; L{None} for none.
    @ivar isOutside: whether C{authenticator} is not mailgate's own, so that its answers are checked.
    """

    authenticator: IAuthenticator
    connector: IConnector
    clock: IReactorTime
    journal: Journal
    tls: ServerTLS | None = None
    relays: Relays = field(default=Default(lambda self: Relays(self.clock), takes_self=True))
    places: Places = field(default=Default(lambda self: Places(self.clock), takes_self=True))
    randomness: Callable[[int], bytes] = os.urandom
    sessionIds: GatewayIds = field(default=Default(lambda self: makeSessionIds(self.randomness), takes_self=True))
    reverseDNS: ReverseDNS | None = None
    announcement: Announcement | None = None
    makeSession: type[Session] = Session
    debugged: Debugged | None = None
    isTraced: bool = False
    watch: IWatch | None = None
    admission: IAdmission | None = None
    guard: ILoginGuard | None = None
    isOutside: bool = False


def _answeringOf(means: Means) -> Callable[[LoginRequest], Awaitable[Route | Denial]]:
    authenticator = means.authenticator
    answer = authenticator.answer if IAnswering.providedBy(authenticator) else authenticator.authenticate
    return checked(answer) if means.isOutside else answer


def _dialogueOf(record: MailProtocol, settings: ServerSettings) -> DialogueSettings:
    """Return the directives for dialogues, with the default of C{max_errors} that the protocol C{record} has."""
    dialogue: DialogueSettings = settings[DialogueSettings]
    if record.mostErrors is None or "max_errors" in settings.given:
        return dialogue
    return evolve(dialogue, maxErrors=record.mostErrors)


class ProxyServerFactory(Factory):
    """
    Makes the dialogues of one listening address of one server.

    @ivar connections: the open connections: dialogues and relays.
    @ivar emptied: called when the last of them has ended, unless it is L{None}.
    """

    noisy = False
    ignoresPeer = True

    def __init__(self, record: MailProtocol, settings: ServerSettings, address: ListenAddress, means: Means) -> None:
        """
        @param record: the protocol that clients speak.
        @param settings: the server's directives.
        @param address: the listening address.
        @param means: the services that dialogues use.
        """
        self.record = record
        self.settings = settings
        self.address = address
        self.name = str(address)
        self.authName = record.authName
        # Copied here: dialogues read them often.
        self.authenticator = means.authenticator
        self.answer = _answeringOf(means)
        """Returns what a login awaits: the answer of the authenticator."""
        self.connector = means.connector
        self.clock = clock = means.clock
        self.journal = journal = means.journal
        self.tls = means.tls
        self.randomness = means.randomness
        self.relays = means.relays
        self.places = means.places
        self.listener = Listener(record.name, self.name, means.sessionIds)
        self.sessionNumbers = means.sessionIds.numbers
        self.reverseDNS = means.reverseDNS
        self.watch = watch = means.watch
        self.admission = means.admission
        self.guard = means.guard
        self.debugged = means.debugged
        self._isTraced = means.isTraced
        isToFollow = journal.wantsDebug or means.debugged is not None or means.isTraced
        self.makeSession = FollowedSession if isToFollow and means.makeSession is Session else means.makeSession
        self.isFollowed = issubclass(self.makeSession, FollowedSession)
        """Whether each session is passed to L{follow}."""
        self.protocolSettings: Any = settings[record.settings]
        self.announcement = means.announcement or Announcement(configured(record, settings))
        """The capabilities before the login. It changes when the gateway learns what backends offer."""
        self.dialogue = _dialogueOf(record, settings)
        self.deadlines = deadlinesOf(clock, self.dialogue.timeout)
        """Where the deadlines of dialogues wait."""
        self.setsNoDelay = True
        """Whether dialogues set TCP_NODELAY. The connections of a lean port have it already."""
        self.starttls = settings[TLSSettings].starttls
        self.verifiesClients = settings[TLSSettings].verifiesClients
        self.takesPasswords = Method.PLAIN in record.methods(settings)
        self.takesAll = self.takesPasswords and self.starttls != "only"
        """Whether all commands are allowed at any time: passwords are, and TLS is not demanded before."""
        self.maxAge = settings[RelaySettings].maxAge
        self.isWildcard = not address.isOneAddress
        """Whether each connection has to be asked for the host and port that the client has connected to."""
        self.localHost, self.localPort = ("", 0) if self.isWildcard else (unmapped(address.host), address.port)
        """The host and port that all clients connect to; not known for a wildcard address."""
        self._senders = settings[RealIPSettings].senders
        self.connections: set[IConnection] = set()
        self.emptied: Callable[[], object] | None = None
        isTimed = journal.wantsInfo or watch is not None
        self.phaseClock: Callable[[], float] | None = clock.seconds if isTimed else None
        """The clock with which sessions measure their phases; L{None} if neither the log nor C{watch} needs it."""
        self.settlesTimes = not getattr(watch, "readsTimes", False)
        """Whether the times of a session are settled when its relay begins. Otherwise C{watch} does that later."""
        self.relayTerms = Terms(means.relays, settings[RelaySettings].timeout, self.dialogue.timeout, self.ended)
        """What all relays of this address have in common."""

    def buildProtocol(self, addr: Any) -> Any:
        server = self.record.server(self)
        return HeaderReader(server, self._senders) if self.address.proxyProtocol else server

    def follow(self, session: Any, host: str, trace: str) -> None:
        """
        Debug a session if it is to be debugged, and give it a trace id.

        @param session: the new record of a connection, a L{FollowedSession}.
        @param host: the client's address, in the form of L{mailgate.login.Client}.
        @param trace: the trace id that the connection has already; may be empty.
        """
        if self.debugged is not None and host in self.debugged.clients:
            session.debugging = self.journal.debugging
        elif self.journal.wantsDebug:
            session.debugging = self.journal
        if session.debugging is not None and session.readings is None:
            session.readings = [self.clock.seconds, Phase.ACCEPT, session.started]
        if self._isTraced:
            session.trace = trace or self.randomness(16).hex()

    def began(self, connection: IConnection) -> None:
        """Count a new C{connection}. A call of L{ended} or L{handedOver} must follow."""
        self.connections.add(connection)
        self.places.taken += 1
        session = connection.session
        # Behind a PROXY header the dialogue goes on in the phase of the header.
        if self.watch is not None and session.phase is Phase.ACCEPT:
            self.watch.began(session)
        if session.debugging is not None:
            session.step(BEGUN)

    def handedOver(self, connection: IConnection) -> None:
        """Remove C{connection}: another object for the same client replaces it and calls L{began}."""
        self.connections.discard(connection)
        self.places.taken -= 1

    def ended(self, connection: IConnection) -> None:
        """Remove C{connection} and log how it ended."""
        self.connections.discard(connection)
        self.places.leave()
        session = connection.session
        journal = session.debugging or self.journal
        if session.place is not None:
            session.leave()
        if self.admission is not None:
            self.admission.left(session)
        if journal.wantsInfo:
            # Lines about logged-in users are never dropped. Lines that a stranger can cause are limited in rate.
            log = journal.record if session.reached is Phase.RELAY else journal.info
            log(STORY, **session.story(self.clock.seconds()))
        if self.watch is not None:
            self.watch.ended(session)
        if self.emptied is not None and not self.connections:
            self.emptied()


class ByLocalAddress(Factory):
    """
    Chooses the factory of a connection by the address to which the client has connected.

    @ivar wildcard: the factory for all addresses that are not in C{specific}.
    @ivar specific: factories by address.
    """

    noisy = False
    ignoresPeer = True

    def __init__(self, wildcard: ProxyServerFactory, specific: Mapping[str, ProxyServerFactory]) -> None:
        self.wildcard = wildcard
        self.specific = specific

    def buildProtocol(self, addr: Any) -> Any:
        return _Arrival(self)


class _Arrival(Protocol):
    """Stands in until the transport exists: only that knows the local address, and Twisted does not pass it on."""

    def __init__(self, factory: ByLocalAddress) -> None:
        self._factory = factory

    def makeConnection(self, transport: Any) -> None:
        factory = self._factory.specific.get(transport.getHost().host, self._factory.wildcard)
        protocol = factory.buildProtocol(transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
