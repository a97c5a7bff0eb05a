# -*- test-case-name: mailgate.test.watch.test_watcher -*-
"""
Counts what happens to the connections of one process, and keeps the stories of those that have ended until the keeper
gets them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import compress, groupby
from operator import attrgetter, is_, not_
from typing import Any

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailgate.backend.errors import causeOf
from mailgate.interfaces import IWatch
from mailgate.limits.attempt import Rule
from mailgate.login import Denial, Method, Refusal
from mailgate.session import Ending, Outcome, Phase, Session
from mailgate.watch.census import WORKER, Survey
from mailgate.watch.failures import HANDSHAKE_FAILURES, backendLoginOutcome, connectOutcome, handshakeFailure
from mailgate.watch.labels import OTHER, FirstNames
from mailgate.watch.metrics import LOG_LINES, LOGIN_OUTCOMES, word
from mailgate.watch.phasetimes import accepted, lengths, settle
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
"""Ends of connections that wait until they are counted together, with all other events."""

_VERSIONS = frozenset(("SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"))

_OUTCOMES: dict[Outcome | None, str] = {None: OTHER, **{outcome: word(outcome) for outcome in Outcome}}
_METHODS = {method.value: word(method) for method in Method}

_protocolOf, _serverOf = attrgetter("listener.protocol"), attrgetter("listener.server")
_methodOf, _phaseOf, _endingOf = attrgetter("method"), attrgetter("phase"), attrgetter("ending")
_outcomeOf, _receivedOf, _sentOf = attrgetter("outcome"), attrgetter("received"), attrgetter("sent")
_RELAY = Phase.RELAY
_isRelay = partial(is_, _RELAY)


def _byProtocol(values: Mapping[Session, float]) -> Iterator[tuple[str, list[Session], list[float]]]:
    """Yield for each protocol its sessions, in order, and their C{values}."""
    for protocol, group in groupby(sorted(values, key=_protocolOf), _protocolOf):
        sessions = [*group]
        yield protocol, sessions, [*map(values.__getitem__, sessions)]


@implementer(IWatch)
class Watcher:
    """
    Watches all connections of one process, those of all its gateways.

    @param clock: the time in seconds, and timers.
    @ivar tally: its counters and histograms.
    @ivar stories: the ends that the keeper has not taken yet.
    @ivar lag: measures how late timers are.
    @ivar backends: the backends that have labels of their own.
    @ivar readsTimes: whether it reads from the sessions what their logins have taken, within a second after the relay
        has begun, and settles their times (L{Session.settleTimes}) then, for many at once.
    @ivar hearsSuccesses: whether L{attempted} must be called for attempts that succeed. It reads those from the
        sessions, too.
    """

    readsTimes = True
    hearsSuccesses = False

    def __init__(self, clock: IReactorTime) -> None:
        self._seconds = clock.seconds
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
        self._lines: Mapping[Any, int] = {}
        # What waits for _fold: of a login nothing else is kept.
        self._begun: list[Session] = []
        self._relays: dict[Session, float] = {}
        self._ends: dict[Session, float] = {}
        self._asks: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
        # Events of IWatch themselves: the call of a method would take longer than what it does.
        self.began: Callable[[Session], None] = self._begun.append
        self.relaying: Callable[[Session, float], None]
        self.feed = None

    @property
    def feed(self) -> Any:
        """
        Is told at once which relays begin and end (L{mailgate.keeper.feed.Feed}); L{None} if no keeper wants to know.
        """
        return self._feed

    @feed.setter
    def feed(self, feed: Any) -> None:
        self._feed = feed
        self.relaying = self._relays.__setitem__ if feed is None else self._relayingFed

    def serverAt(self, address: str) -> str:
        """
        Return the name of the server that listens at an address.

        @param address: the address, as C{server} of a session; it is returned if it is unknown.
        """
        return self._servers.get(address, address)

    def expect(self, gateway: Any, lines: Mapping[Any, int]) -> None:
        """
        Learn the names of a gateway's servers, services and backends, and begin their counters at 0: C{rate()} of
        Prometheus does not see the first event otherwise.

        @param gateway: the L{mailgate.service.Gateway}.
        @param lines: how many lines the process has logged so far, by Twisted's levels: of
            L{mailgate.log.errorlog.ErrorLogs}, which counts on.
        """
        self._lines = lines
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
        relays = self._relays.copy()
        self._relays.clear()
        for protocol, sessions, waited in _byProtocol(relays):
            self._countRelays(protocol, sessions, waited)
        ends, self._ends = self._ends, {}
        for protocol, sessions, moments in _byProtocol(ends):
            self._countEnds(protocol, sessions, moments)

    def _countRelays(self, protocol: str, sessions: list[Session], waited: list[float]) -> None:
        """Count the C{sessions} whose relays have begun, and for how long their clients have C{waited}."""
        for method, number in Counter(map(_methodOf, sessions)).items():
            name = "none" if method is None else _METHODS[method._value_]
            self._count("mailgate_logins", (protocol, name, "accepted"), number)
        self.tally.observeAll("mailgate_login_seconds", (protocol,), waited)
        settle(self.tally, self.backends, protocol, sessions)

    def _countEnds(self, protocol: str, sessions: list[Session], moments: list[float]) -> None:
        """Count the C{sessions} that have ended at C{moments}."""
        count, endings = self._count, [*map(_endingOf, sessions)]
        if not all(endings):
            endings = [each or Ending() for each in endings]
        outcomes = [*map(_outcomeOf, endings)]
        for outcome, number in Counter(outcomes).items():
            count("mailgate_connections_ended", (protocol, _OUTCOMES[outcome]), number)
            if outcome is Outcome.LIMITED:
                limited = (session.server for session in sessions if session.outcome is outcome)
                for server, connections in Counter(limited).items():
                    count("mailgate_connections_limited", (self._servers.get(server, OTHER),), connections)
        areRelays = [*map(_isRelay, map(_phaseOf, sessions))]
        relays = [*compress(sessions, areRelays)]
        if relays:
            seconds = lengths(relays, compress(moments, areRelays))
            self.tally.observeAll("mailgate_session_seconds", (protocol,), seconds)
            moved = [*compress(endings, areRelays)]
            count("mailgate_relayed_bytes", (protocol, "from_client"), sum(map(_receivedOf, moved)))
            count("mailgate_relayed_bytes", (protocol, "to_client"), sum(map(_sentOf, moved)))
        settle(self.tally, self.backends, protocol, [*compress(sessions, map(not_, areRelays))])
        if self.stories.isKept:
            self.stories.ended(sessions, moments, outcomes)

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
        if error is None:
            return
        backend = self.backends.of(place.name)
        if connected is None:
            self._observe("mailgate_backend_connect_seconds", (backend, connectOutcome(error)), seconds)
            return
        self._observe("mailgate_backend_connect_seconds", (backend, "ok"), connected)
        outcome = backendLoginOutcome(error, causeOf(error))
        self._observe("mailgate_backend_login_seconds", (backend, outcome), seconds - connected)

    def limited(self, rule: str, action: str) -> None:
        self._count("mailgate_limited", (rule, action))

    def denied(self, session: Session, answer: Denial | Refusal | None) -> None:
        method = session.method
        name = "none" if method is None else _METHODS[method._value_]
        self._count("mailgate_logins", (session.protocol, name, outcomeOf(answer)))
        if session.phase is Phase.BACKEND_LOGIN and isinstance(answer, Denial) and answer.isLimit:
            # The backend had accepted the login, which it judges. Limits count such a session only then.
            accepted(self.tally, self.backends, session, self._seconds())
        if self.stories.isKept:
            self.stories.denied(session, answer, self._seconds())

    def _relayingFed(self, session: Session, seconds: float) -> None:
        self._relays[session] = seconds
        self._feed.began(session)

    def ended(self, session: Session) -> None:
        ends = self._ends
        ends[session] = self._seconds()
        if self._feed is not None and session.phase is _RELAY:
            self._feed.ended(session)
        if len(ends) >= MOST_WAITING:
            self._fold()

    # Reports.

    def totals(self) -> Totals:
        """Return the counters and histograms from the start of the process on. They never fall."""
        self._fold()
        lines = self.tally.counters[LOG_LINES]
        lines.update({(level.name,): number for level, number in self._lines.items() if number})
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
        return Survey(self, gateways, self._survey, self._seconds())

    def takeStories(self) -> list[dict[str, Any]]:
        """
        Return the stories of the connections and logins that have ended since the last call. After more than
        L{mailgate.watch.stories.PIECE} of them, the rest is returned by the next call.
        """
        self._fold()
        return self.stories.take()
