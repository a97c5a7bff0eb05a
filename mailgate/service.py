# -*- test-case-name: mailgate.test.test_service -*-
"""
The gateway as a Twisted service. C{twistd mailgate} runs it, and other applications can embed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults

from mailgate.auth.authenticators import Authenticators
from mailgate.auth.http.services import SharedService, questionsOf, servicesOf, tracesQuestions
from mailgate.backend.client import ProxyClient
from mailgate.backend.connector import Connector
from mailgate.backend.health import HealthChecks
from mailgate.backend.learning import Learner, Learning
from mailgate.backend.offers import Announcement, Offers
from mailgate.backend.places import Places as BackendPlaces
from mailgate.backend.settings import ProxySettings
from mailgate.backend.uses import Uses
from mailgate.config import GatewaySettings, authenticatorKind
from mailgate.config.outside import handOver
from mailgate.directives import ServerSettings
from mailgate.frontend.capabilities import configured
from mailgate.frontend.clearing import Clearing
from mailgate.frontend.debugging import DebugSettings
from mailgate.frontend.draining import Draining
from mailgate.frontend.factory import Means, ProxyServerFactory
from mailgate.frontend.listener import Listener
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import AuthenticatorKind, IAuthenticator, IConnection, IWatch
from mailgate.lean.connectionlimit import ConnectionLimit, ConnectionSettings
from mailgate.lean.descriptors import mostDescriptors
from mailgate.lean.port import BATCH
from mailgate.lean.reactor import EventSettings, LeanReactor
from mailgate.limits.settings import LimitSettings
from mailgate.limits.telling import Telling
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.journals import Journals
from mailgate.log.levels import LEVELS
from mailgate.login import Backend, BackendGroup, Destination
from mailgate.net.naming import NamingReactor
from mailgate.net.resolver import ResolverSettings
from mailgate.net.reversedns import ReverseDNS
from mailgate.net.sockets import ListeningSockets, ownSockets
from mailgate.processstate import ProcessState
from mailgate.registry import AUTHENTICATORS, PROTOCOLS
from mailgate.relay.portable import Relays
from mailgate.relay.stream import StreamRelays
from mailgate.scram.settings import ScramSettings
from mailgate.tls.makeengine import fastEngineWorks
from mailgate.tls.server import ServerTLS
from mailgate.tls.settings import TLSSettings, usesTLS
from mailgate.tls.ticketkeys import derivedKey, ticketKeyCall
from mailgate.upstream.following import Following
from mailgate.upstream.standing import Standing
from mailgate.upstream.upstreams import Upstreams
from mailgate.watch.audience import watchOf
from mailgate.watch.gatewayname import NameSettings

__all__ = ["Gateway", "ProcessState"]


class Gateway(MultiService):
    """
    A gateway with all servers of a configuration. To embed it:
    C{Gateway(load("gateway.ini"), reactor).setServiceParent(application)}.

    The constructor reads certificates and account files and opens log files. The gateway binds its sockets when the
    service starts. It logs to Twisted's log at the level of the process's C{error_log}. A server with its own
    C{error_log} logs there instead.

    @param settings: the configuration.
    @param reactor: the reactor.
    @param logs: opens the log files of servers.
    @param sockets: the listening sockets, which stay the caller's. Without them the gateway binds its own sockets.
    @param contexts: TLS contexts that exist already, by the names of their servers.
    @param state: what the gateways of this process share: pass on the C{state} of the gateway that this one replaces.
    @param authenticators: authenticators by the names of servers. They replace those of the configuration at all
        addresses of the server.
    @param watch: the application's own watch. Its exceptions are logged, and the sessions continue.
    @ivar settings: the configuration.
    @ivar sockets: the listening sockets. They may be set until the service starts.
    @ivar state: what the gateways of this process share.
    @ivar places: counts the connections.
    @ivar notices: what the processes and generations of the gateway tell each other about backends.
    @ivar offers: what has been learned of the capabilities of backends.
    @ivar standing: which backends are used, by orders of operators and health checks.
    @ivar listeners: a listener for each socket.
    @raise ConfigurationError: a server's C{error_log} cannot be opened, or its authenticator cannot be created.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        reactor: Any,
        logs: ErrorLogs | None = None,
        sockets: ListeningSockets | None = None,
        contexts: Mapping[str, ServerTLS] | None = None,
        state: ProcessState | None = None,
        authenticators: Mapping[str, AuthenticatorKind | IAuthenticator] = {},
        watch: IWatch | None = None,
    ) -> None:
        super().__init__()
        if authenticators:
            settings = evolve(settings, servers=handOver(settings.servers, authenticators, settings.file))
        self.settings = settings
        self.state = ProcessState.of(reactor) if state is None else state
        self.places, self.notices = self.state.places, self.state.notices
        share = self._share = self.state.share
        self.sockets = sockets
        self._hasShared = False
        self._contexts = {} if contexts is None else dict(contexts)
        self._clock = reactor
        logs = ErrorLogs() if logs is None else logs
        self._runKey = logs.key
        self._journals = Journals(settings, logs, reactor)
        self._journal = self._journals.own
        self._watch = watchOf(self.state.watcher, watch, self._journal)
        if settings[EventSettings].isLean:
            self._reactor: Any = LeanReactor(reactor, BATCH if share is None else 1, self._journal)
            self._relays: Relays = StreamRelays(self._reactor.poller, self._reactor.clock)
        else:
            self._reactor, self._relays = reactor, Relays(reactor)
        self._naming = NamingReactor(self._reactor)
        self._sessionIds = self.state.ids.of(settings[NameSettings].name or "")
        self.listeners: list[Listener] = []
        self._resting: list[Service] = []
        self._authenticators = Authenticators(self._naming, self._journal, self._watch)
        self.upstreams = Upstreams(settings, self._naming)
        self.upstreams.placing = self.state.placing
        self.standing = Standing(self.upstreams, self.notices, self._reactor, self._journal)
        self.offers = Offers(self.notices, self._journal, reactor.seconds)
        self._learning = Learning(self.offers, self.notices, self._clock, self._journal)
        self._uses = Uses(self.upstreams, self._naming)
        self._reverseDNS: dict[ResolverSettings, ReverseDNS] = {}
        self._debugged = settings[DebugSettings].debugged
        self._factories = self._allFactories()
        self._addCare()
        # The clock of the lean reactor is too coarse.
        self._draining = Draining(self._factories, reactor)
        self._clearing = Clearing(self.upstreams, self._factories, reactor, self._journal)
        self.standing.whenDown.append(self._clearing.down)
        if share is not None:
            share.count = lambda: self.places.taken
            self.addService(share.refreshing(reactor))
        self._addListeners()
        if self.state.watcher is not None:
            self.state.watcher.expect(self, logs.lines)

    def _allFactories(self) -> list[ProxyServerFactory]:
        try:
            return [factory for server in self.settings.servers for factory in self._factoriesOf(server)]
        except Exception:
            # This gateway is never stopped, and a process may try many configurations.
            self._authenticators.close()
            self._unsubscribe()
            raise

    def _addCare(self) -> None:
        """Add the services that find out about backends."""
        for follower in self.upstreams.followers(self._journal):
            self.addService(follower)
        isChecked = any(group.settings.healthCheck for group in self.upstreams.groups)
        if isChecked or any(self.notices.held("verdict")):
            # It also takes back what an earlier configuration has found. The clock of the lean reactor is too coarse.
            self.addService(
                HealthChecks(self.upstreams, self.standing, self.notices, self._uses.all, self._clock, self._journal)
            )
        self.addService(self._learning)

    def _addListeners(self) -> None:
        byAddress = {factory.address: factory for factory in self._factories}
        for address, others in ownSockets(byAddress).items():
            specific = {other.host: byAddress[other] for other in others}
            listener = Listener(address, byAddress[address], self._reactor, specific)
            if self._share is not None:
                listener.isLarge = self._share.isLarge
            self.listeners.append(listener)
            self.addService(listener)

    def _factoriesOf(self, server: ServerSettings) -> Iterator[ProxyServerFactory]:
        record = PROTOCOLS[server.protocol]
        if any(method.isScram for method in record.methods(server)):
            # All workers and generations must make the same salts.
            server = server.having(server[ScramSettings].keyOf(self._runKey))
        dialogue = server[DialogueSettings]
        journal = self._journals.of(server)
        timeout = dialogue.timeout if "timeout" in server.given else None
        use = self._uses.add(server, record.client, record.alpn, record.ports, dialogue.serverName, timeout)
        places = use.places
        announcement = Announcement(configured(record, server))
        connector = Connector(
            self._learnFrom(record, server, places, announcement),
            server,
            dialogue.serverName,
            self._naming,
            journal,
            places,
            self._watch,
            self._relays.clock,
        )
        tls = self._contexts.get(server.name)
        if tls is None and usesTLS(server):
            tls = self._contexts[server.name] = ServerTLS(server[TLSSettings], record.alpn)
        kind = authenticatorKind(server)
        # The check of the configuration has made sure of that.
        assert kind is not None
        authenticator = self._authenticators.build(kind, server, journal)
        telling = Telling(journal, LEVELS[server[LimitSettings].logLevel], self._watch)
        admission, guard = self.state.limits.of(server, telling, self._clock, self._runKey)
        means = Means(
            authenticator,
            connector,
            self._relays.clock,
            journal,
            tls,
            self._relays,
            self.places,
            sessionIds=self._sessionIds,
            reverseDNS=self._clientNames(server) if record.wantsClientName else None,
            announcement=announcement,
            debugged=self._debugged,
            isTraced=tracesQuestions(server),
            watch=self._watch,
            admission=admission,
            guard=guard,
            isOutside=kind not in AUTHENTICATORS,
        )
        for address in server.listen:
            yield ProxyServerFactory(record, server, address, means)

    def _learnFrom(
        self, record: MailProtocol, server: ServerSettings, places: BackendPlaces, announcement: Announcement
    ) -> Callable[..., ProxyClient]:
        """
        Have C{server} announce what its backends offer, if it is to do that and they are known. Return what makes the
        conversations with them.
        """
        kind = authenticatorKind(server)
        announcement.isClosed = kind is not None and kind.directive == "proxy_pass"
        own: Any = server[record.settings]
        destinations = self._backendsOf(server) if getattr(own, "learns", False) else []
        if record.learnable is None or not destinations:
            return record.client
        learner = Learner(record.name, record.client, server, server[DialogueSettings].serverName, places, destinations)
        return self._learning.add(learner, announcement, record.learnable)

    def _backendsOf(self, server: ServerSettings) -> list[Destination]:
        """
        Where all logins of C{server} go, as far as the configuration says so. An authentication service without a
        C{proxy_pass} may choose any server, but the only group is the likely one.
        """
        given = server[ProxySettings].backend
        if given is not None:
            return self.upstreams.possible(given)
        groups = self.upstreams.groups
        return [BackendGroup(groups[0].name)] if len(groups) == 1 and "auth_http" in server.given else []

    def goOnFrom(self, before: Gateway) -> None:
        """Take over what C{before}, the gateway of an earlier configuration, knows of backends that stay."""
        self._naming.names.goOnFrom(before._naming.names)
        self.upstreams.goOnFrom(before.upstreams)
        self.standing.review()

    def _clientNames(self, server: ServerSettings) -> ReverseDNS | None:
        """Return what looks up the names of clients. Servers with the same C{resolver} share it."""
        settings = server[ResolverSettings]
        if settings.resolver is None:
            return None
        if settings not in self._reverseDNS:
            made = ReverseDNS(settings.resolver, settings.timeout, self._reactor, self._journal)
            self._reverseDNS[settings] = made
        return self._reverseDNS[settings]

    def _takeSockets(self) -> None:
        if self.sockets is None or self._hasShared:
            return
        self._hasShared = True
        for listener in list(self.listeners):
            listener.shared = self.sockets.find(listener.address)
            for other in self.sockets.findAll(listener.address)[1:]:
                beside = Listener(listener.address, listener.factory, self._reactor)
                beside.shared = other
                self.listeners.append(beside)
                self.addService(beside)

    def _bind(self) -> None:
        self._takeSockets()
        try:
            for listener in [each for each in self if isinstance(each, Listener)]:
                listener.privilegedStartService()
        except BaseException:
            self.stopListening()  # An application may go on without this gateway.
            raise

    def privilegedStartService(self) -> None:
        self._bind()
        super().privilegedStartService()

    def startService(self) -> None:
        self._bind()
        if self.isDraining and not self.running:
            self._revive()
        if self.state.watcher is not None and not self.running:
            self.state.watcher.lag.start()
        super().startService()
        for warning in self.settings.warnings:
            self._journal.warn("{reason}", reason=str(warning))
        self._limitConnections()
        self.state.limits.configure(self.settings[LimitSettings])
        lean = self.settings[EventSettings].isLean and any(map(usesTLS, self.settings.servers))
        if lean and not fastEngineWorks():
            text = "using pyOpenSSL's public API only (private API differs): TLS costs more CPU and memory; {remedy}"
            self._journal.warn(text, remedy="install pyOpenSSL 26.2 to 26.4 to avoid that")

    def _revive(self) -> None:
        """Find out about backends again, after a stop."""
        self._draining.hasBegun = False
        self.standing.open()
        self.offers.open()
        while self._resting:
            self.addService(self._resting.pop())

    def _limitConnections(self) -> None:
        # Not earlier: the process may set its limit of open files after it has read the configuration.
        settings = self.settings
        limit = ConnectionLimit.of(
            settings[ConnectionSettings], questionsOf(settings.servers), mostDescriptors(), settings.file
        )
        self.places.limit(limit, self._journal)
        if limit.warning is not None and (self._share is None or self._share.isFirst):
            self._journal.warn("{reason}", reason=str(limit.warning))

    def stopListening(self) -> Deferred[None]:
        """Stop accepting; sessions continue. The Deferred fires when the listening sockets are closed."""
        closed = gatherResults([listener.stopListening() for listener in self.listeners])
        return closed.addCallback(lambda _: None)

    @property
    def factories(self) -> tuple[ProxyServerFactory, ...]:
        """
        The factories of all listening addresses, in the order of the configuration. An address whose port a wildcard
        address serves as well has a factory but no listener.
        """
        return tuple(self._factories)

    def namedBackends(self) -> list[Backend]:
        """Return the backends that C{proxy_pass} of the servers names, without those of groups."""
        named = (server[ProxySettings].backend for server in self.settings.servers)
        return [backend for backend in named if isinstance(backend, Backend)]

    def authServices(self) -> Iterator[Any]:
        """Yield the authentication services: objects with a C{label}, their host and port, and C{isFailing}."""
        return self._authenticators.services()

    @property
    def connections(self) -> list[IConnection]:
        """The dialogues and relays of all connected clients."""
        return [connection for factory in self._factories for connection in factory.connections]

    def giveTicketKeys(self, secrets: Sequence[bytes]) -> bool:
        """
        From now on issue and accept TLS tickets by keys that other gateways have, too. Servers with keys of their own
        (C{ssl_session_ticket_key}) keep these.

        @param secrets: random bytes, of which each server derives keys: the first is for new tickets.
        @return: whether all servers use them.
        """
        call = ticketKeyCall()
        rings = [(name, tls.ring) for name, tls in self._contexts.items() if tls.ring is not None]
        if call is None:
            return not rings
        given = [ring.give([derivedKey(secret, name) for secret in secrets], call) for name, ring in rings]
        return all(given)

    def forgetUsers(self, matches: Callable[[bytes], bool]) -> Iterator[int]:
        """
        Forget the stored answers of authenticators (C{auth_cache_ttl}) about users of a kind.

        @param matches: returns whether a user name is of this kind: that of the client, or that of the route.
        @return: yields the numbers of answers that were forgotten. Between two of them the gateway may serve clients.
        """
        return self._authenticators.forgetUsers(matches)

    @property
    def cut(self) -> int:
        """The number of proxied sessions that were cut."""
        return self._draining.cut

    @property
    def isDraining(self) -> bool:
        """Whether it accepts no new clients and waits for the end of its sessions."""
        return self._draining.hasBegun

    @property
    def sharedServices(self) -> list[SharedService]:
        """The services of C{auth_http} that its servers ask."""
        return servicesOf(self._naming)

    def drain(self, farewell: bool, patience: float | None, pace: float = 5.0) -> Deferred[int]:
        """
        Stop listening, and wait until all connections have ended. A second call ends them at the earlier of both times.

        @param farewell: whether to end sessions before login at once, with a goodbye in their protocol.
        @param patience: seconds until the remaining sessions are ended; 0: now, L{None}: never.
        @param pace: seconds over which their ends are spread.
        @return: fires with the number of proxied sessions that were cut.
        """
        for service in list(self):
            if isinstance(service, Following | HealthChecks | Learning):
                # Logins are the next gateway's now, and sessions may last for days.
                self.removeService(service)
                self._resting.append(service)
        closed = self.stopListening()
        drained = self._draining.begin(farewell, patience, pace)
        return closed.addCallback(lambda _: drained).addBoth(self._flush)

    def _flush(self, result: Any) -> Any:
        self._journals.flush()
        return result

    def stopService(self) -> Deferred[Any]:
        """Stop listening and end all connections; the Deferred fires when they have ended."""
        if self.state.watcher is not None and self.running:
            self.state.watcher.lag.stop()
        stopped = super().stopService()
        drained = self.drain(farewell=True, patience=0, pace=0)
        self._authenticators.close()
        closed = [reverseDNS.close() for reverseDNS in self._reverseDNS.values()]
        return DeferredList([stopped, drained, *closed]).addCallback(self._closeRelays)

    def _unsubscribe(self) -> None:
        """Follow no more notices."""
        self.standing.close()
        self.offers.close()

    def _closeRelays(self, result: Any) -> Any:
        self._unsubscribe()
        self._clearing.close()
        self.state.kicks.forget(self._factories)
        self._relays.close()
        if isinstance(self._reactor, LeanReactor):
            self._reactor.poller.close()
        return self._flush(result)
