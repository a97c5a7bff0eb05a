# -*- test-case-name: mailgate.test.watch.test_watcher -*-
"""
Counts what happens to the connections of one process, and keeps the stories of those that have ended until the keeper
gets them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import compress
from operator import attrgetter, is_, not_, sub
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailgate.backend.errors import causeOf
from mailgate.interfaces import IWatch
from mailgate.limits.attempt import Rule
from mailgate.login import Denial, Method, Refusal
from mailgate.session import Outcome, Phase, Session
from mailgate.watch.census import WORKER, Survey
from mailgate.watch.failures import HANDSHAKE_FAILURES, backendLoginOutcome, connectOutcome, handshakeFailure
from mailgate.watch.labels import OTHER, FirstNames
from mailgate.watch.metrics import LOGIN_OUTCOMES, word
from mailgate.watch.phasetimes import lengths, settle
from mailgate.watch.process import LagMeter
from mailgate.watch.settings import AdminSettings
from mailgate.watch.stories import Stories, outcomeOf
from mailgate.watch.tally import Tally, Totals

__all__ = ["Watcher"]

MOST_BACKENDS = 64
"""How many backends that are not in the configuration have labels of their own."""

MOST_CIPHERS = 20
"""How many ciphers have labels of their own."""

MOST_WAITING = 64
"""Ends of connections of one protocol that wait until they are counted together, with all other events."""

_MOST_VALUES = 2 * MOST_WAITING

_VERSIONS = frozenset(("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"))

_OUTCOMES: dict[Outcome | None, str] = {None: OTHER, **{outcome: word(outcome) for outcome in Outcome}}
_METHODS = {method.value: word(method) for method in Method}

_serverOf, _methodOf, _outcomeOf = attrgetter("server"), attrgetter("method"), attrgetter("outcome")
_reachedOf, _receivedOf, _sentOf = attrgetter("reached"), attrgetter("received"), attrgetter("sent")
_isRelay = partial(is_, Phase.RELAY)


@implementer(IWatch)
class Watcher:
    """
    Watches all connections of one process, those of all its gateways.

    @param clock: the time in seconds, and timers.
    @ivar tally: its counters and histograms.
    @ivar stories: the ends that the keeper has not taken yet.
    @ivar lag: measures how late timers are.
    @ivar backends: the backends that have labels of their own.
    @ivar settlesTimes: whether it settles the times of sessions (L{Session.settleTimes}): within a second after the
        relay has begun, and for many at once.
    @ivar feed: is told which relays begin and end (L{mailgate.keeper.feed.Feed}); L{None} if no keeper wants to know.
    """

    feed: Any = None
    settlesTimes = True

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self.tally = tally = Tally()
        self.stories = Stories(self.serverAt)
        self.backends = FirstNames(MOST_BACKENDS)
        self._ciphers = FirstNames(MOST_CIPHERS)
        self._servers: dict[str, str] = {}
        self._labels: dict[str, tuple[str, str]] = {}
        self._survey = Survey.Memory()
        lag = (WORKER,)
        tally.prepare("mailgate_loop_lag_seconds", lag)
        self.lag = LagMeter(clock, lambda seconds: tally.observe("mailgate_loop_lag_seconds", lag, seconds))
        self._count, self._observe = tally.count, tally.observe
        # What waits for _fold, in plain lists: of a login nothing else is kept.
        self._begun: list[Session] = []
        self._relays: defaultdict[str, list[Any]] = defaultdict(list)
        self._ends: defaultdict[str, list[Any]] = defaultdict(list)
        self._asks: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        self._attempts: defaultdict[str, list[float]] = defaultdict(list)
        # The events of IWatch themselves: the call of a method would take longer than what it does.
        self.began: Callable[[Session], None] = self._begun.append

    def serverAt(self, address: str) -> str:
        """
        Return the name of the server that listens at an address.

        @param address: the address, as C{server} of a session; it is returned if it is unknown.
        """
        return self._servers.get(address, address)

    def expect(self, gateway: Any) -> None:
        """
        Learn the names of a gateway's servers, services and backends, and begin their counters at 0: C{rate()} of
        Prometheus does not see the first event otherwise.

        @param gateway: the L{mailgate.service.Gateway}.
        """
        count, prepare = self.tally.count, self.tally.prepare
        self.stories.isKept = gateway.settings[AdminSettings].explainMemory > 0
        for factory in gateway.factories:
            self._servers[factory.name] = factory.settings.name
            self._labels[factory.name] = (factory.settings.name, factory.record.name)
            self._expectServer(factory.record, factory.settings, factory.tls is not None)
        self.backends.know(str(peer.backend) for group in gateway.upstreams.groups for peer in group.peers)
        self.backends.know(map(str, gateway.namedBackends()))
        for service in gateway.authServices():
            for outcome in ("accepted", "denied", "failed", "timeout"):
                prepare("mailgate_auth_seconds", (service.label, outcome))
        for result in ("hit", "miss", "stale"):
            count("mailgate_auth_cache", (result,), 0)
        for rule in Rule:
            count("mailgate_limited", (rule.value, "refused"), 0)

    def _expectServer(self, record: Any, settings: Any, isEncrypted: bool) -> None:
        count, protocol, server = self.tally.count, record.name, settings.name
        count("mailgate_connections", (server, protocol), 0)
        count("mailgate_connections_limited", (server,), 0)
        for outcome in Outcome:
            count("mailgate_connections_ended", (protocol, word(outcome)), 0)
        for direction in ("from_client", "to_client"):
            count("mailgate_relayed_bytes", (protocol, direction), 0)
        for method in record.methods(settings):
            for result in LOGIN_OUTCOMES:
                count("mailgate_logins", (protocol, word(method), result), 0)
        for name in ("mailgate_login_seconds", "mailgate_session_seconds"):
            self.tally.prepare(name, (protocol,))
        if isEncrypted:
            for version in ("TLSv1.2", "TLSv1.3"):
                for result in ("full", "resumed"):
                    count("mailgate_tls_handshakes", (server, version, result), 0)
            count("mailgate_tls_handshakes", (server, "none", "failed"), 0)
            for reason in HANDSHAKE_FAILURES:
                count("mailgate_tls_failures", (reason,), 0)

    # Events.

    # Those of each login wait for L{_fold}: events of a kind that are counted together take a tenth of the time.

    def _fold(self) -> None:
        """Count the events that wait."""
        count, observeAll = self._count, self.tally.observeAll
        servers = Counter(map(_serverOf, self._begun))
        self._begun.clear()
        for server, number in servers.items():
            count("mailgate_connections", self._labels.get(server, (OTHER, OTHER)), number)
        asks, self._asks = self._asks, defaultdict(list)
        for labels, seconds in asks.items():
            observeAll("mailgate_auth_seconds", labels, seconds)
        attempts, self._attempts = self._attempts, defaultdict(list)
        for name, both in attempts.items():
            labels, connected = (self.backends.of(name), "ok"), both[::2]
            observeAll("mailgate_backend_connect_seconds", labels, connected)
            observeAll("mailgate_backend_login_seconds", labels, [*map(sub, both[1::2], connected)])
        relays, self._relays = self._relays, defaultdict(list)
        for protocol, begun in relays.items():
            self._countRelays(protocol, begun[::2], begun[1::2])
        ends, self._ends = self._ends, defaultdict(list)
        for protocol, ended in ends.items():
            self._countEnds(protocol, ended[::2], ended[1::2])

    def _countRelays(self, protocol: str, sessions: list[Session], waited: list[float]) -> None:
        """Count the C{sessions} whose relays have begun, and for how long their clients have C{waited}."""
        for method, number in Counter(map(_methodOf, sessions)).items():
            name = "none" if method is None else _METHODS[method._value_]
            self._count("mailgate_logins", (protocol, name, "accepted"), number)
        self.tally.observeAll("mailgate_login_seconds", (protocol,), waited)
        settle(self.tally, protocol, sessions)

    def _countEnds(self, protocol: str, sessions: list[Session], moments: list[float]) -> None:
        """Count the C{sessions} that have ended at C{moments}."""
        count = self._count
        for outcome, number in Counter(map(_outcomeOf, sessions)).items():
            count("mailgate_connections_ended", (protocol, _OUTCOMES[outcome]), number)
            if outcome is Outcome.LIMITED:
                limited = (session.server for session in sessions if session.outcome is outcome)
                for server, connections in Counter(limited).items():
                    count("mailgate_connections_limited", (self._servers.get(server, OTHER),), connections)
        areRelays = [*map(_isRelay, map(_reachedOf, sessions))]
        relays = [*compress(sessions, areRelays)]
        if relays:
            seconds = lengths(relays, compress(moments, areRelays))
            self.tally.observeAll("mailgate_session_seconds", (protocol,), seconds)
            count("mailgate_relayed_bytes", (protocol, "from_client"), sum(map(_receivedOf, relays)))
            count("mailgate_relayed_bytes", (protocol, "to_client"), sum(map(_sentOf, relays)))
        settle(self.tally, protocol, compress(sessions, map(not_, areRelays)))
        if self.stories.isKept:
            self.stories.ended(sessions, moments)

    def encrypted(self, session: Session, resumed: bool, failure: Any) -> None:
        server, tls = self._servers.get(session.server, OTHER), session.tls
        if failure is not None:
            self._count("mailgate_tls_handshakes", (server, "none", "failed"))
            self._count("mailgate_tls_failures", (handshakeFailure(failure),))
        elif tls is not None:
            version = tls.protocol if tls.protocol in _VERSIONS else OTHER
            self._count("mailgate_tls_handshakes", (server, version, "resumed" if resumed else "full"))
            self._count("mailgate_tls_ciphers", (version, self._ciphers.of(tls.cipher)))

    def asked(self, service: str, outcome: str, seconds: float) -> None:
        self._asks[service, outcome].append(seconds)

    def cached(self, result: str) -> None:
        self._count("mailgate_auth_cache", (result,))

    def attempted(
        self, session: Session, place: Any, error: Exception | None, connected: float | None, seconds: float
    ) -> None:
        if error is None and connected is not None:
            self._attempts[place.name] += connected, seconds
            return
        backend = self.backends.of(place.name)
        if connected is not None and error is not None:
            self._observe("mailgate_backend_connect_seconds", (backend, "ok"), connected)
            outcome = backendLoginOutcome(error, causeOf(error))
            self._observe("mailgate_backend_login_seconds", (backend, outcome), seconds - connected)
        elif error is not None:
            self._observe("mailgate_backend_connect_seconds", (backend, connectOutcome(error)), seconds)

    def limited(self, rule: str, action: str) -> None:
        self._count("mailgate_limited", (rule, action))

    def denied(self, session: Session, answer: Denial | Refusal | None) -> None:
        method = session.method
        name = "none" if method is None else _METHODS[method._value_]
        self._count("mailgate_logins", (session.protocol, name, outcomeOf(answer)))
        if self.stories.isKept:
            self.stories.denied(session, answer, self._clock.seconds())

    def relaying(self, session: Session, seconds: float) -> None:
        self._relays[session.protocol] += session, seconds
        if self.feed is not None:
            self.feed.began(session)

    def ended(self, session: Session) -> None:
        ends = self._ends[session.protocol]
        ends += session, self._clock.seconds()
        if self.feed is not None and session.reached is Phase.RELAY:
            self.feed.ended(session)
        if len(ends) >= _MOST_VALUES:
            self._fold()

    # Reports.

    def totals(self) -> Totals:
        """Return the counters and histograms from the start of the process on. They never fall."""
        self._fold()
        return self.tally.totals()

    def relayed(self) -> dict[tuple[str, ...], float]:
        """Return the bytes of the relays that have ended, by protocol and direction."""
        self._fold()
        return dict(self.tally.counters["mailgate_relayed_bytes"])

    def survey(self, gateways: Sequence[Any]) -> Survey:
        """
        Return what looks at the connections in slices. Iterate over it, and let the process serve clients between two
        steps. Then its C{gauges} are the connections by phase and backend, and so on; and, as counters, the bytes of
        the relays that go on: added to those of L{totals} of the same moment they are all bytes.

        @param gateways: the L{mailgate.service.Gateway}s of the process.
        """
        return Survey(self, gateways, self._survey, self._clock.seconds())

    def takeStories(self) -> list[dict[str, Any]]:
        """
        Return the stories of the connections and logins that have ended since the last call. After more than
        L{mailgate.watch.stories.PIECE} of them, the rest is returned by the next call.
        """
        self._fold()
        return self.stories.take()
