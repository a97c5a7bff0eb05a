"""
Tests for L{mailgate.watch.census}.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.session import Outcome, Phase
from mailgate.test.support.watching import surveyed
from mailgate.testing.fakes import makeSession
from mailgate.watch.census import SLICE
from mailgate.watch.distinct import size
from mailgate.watch.watcher import Watcher


class Relayed:
    """A relay, as far as a survey reads it."""

    def __init__(self, number: int) -> None:
        self.session = makeSession("imap", "127.0.0.1:143", f"192.0.2.7:{number}", 0.0, phase=Phase.RELAY)
        self.session.user, self.session.backend = b"user%d" % (number // 2), "10.0.0.1:143"
        self.traffic = (10, 100)


class Waiting:
    """A dialogue."""

    def __init__(self, phase: Phase) -> None:
        self.session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:1", 0.0, phase=phase)


class CensusTests(SynchronousTestCase):
    """A process with a gateway."""

    def setUp(self) -> None:
        self.watcher = Watcher(Clock())
        self.connections: set[Any] = set()
        self.gateway = self.gatewayOf(self.connections)
        for direction in ("from_client", "to_client"):
            self.watcher.tally.count("mailgate_relayed_bytes", ("imap", direction), 0)

    def gatewayOf(self, connections: set[Any]) -> Any:
        factory = SimpleNamespace(
            record=SimpleNamespace(name="imap"),
            connections=connections,
            settings=SimpleNamespace(name="clients"),
            tls=SimpleNamespace(certificates=(("mx.test", 2000.0),)),
        )
        return SimpleNamespace(
            factories=[factory],
            listeners=[],
            upstreams=SimpleNamespace(everyPeer=lambda: []),
            namedBackends=lambda: [],
            authServices=lambda: [SimpleNamespace(label="a:1", isFailing=True)],
        )

    def end(self, relay: Relayed) -> None:
        """End a relay as its module does: the record has the bytes, then the watch learns it."""
        session = relay.session
        ending = session.conclude(Outcome.RELAYED)
        ending.received, ending.sent = relay.traffic
        self.connections.discard(relay)
        self.watcher.ended(session)

    def gauges(self, *more: Any) -> dict[str, dict[tuple[str, ...], Any]]:
        census = surveyed(self.watcher, [self.gateway, *more])
        return {name: {tuple(labels): value for labels, value in rows} for name, rows in census.items()}

    def test_counts(self) -> None:
        """Phases, backends, users, bytes; certificates and services of the current gateway."""
        self.connections.update(map(Relayed, range(10)))
        self.connections.add(Waiting(Phase.COMMAND))
        older = self.gatewayOf({Relayed(100)})
        older.factories[0].tls = SimpleNamespace(certificates=(("old.test", 1.0),))
        found = self.gauges(older)
        phases = {phase: count for (_, phase), count in found["mailgate_sessions"].items() if count}
        self.assertEqual(phases, {"command": 1, "relay": 11})
        self.assertEqual(found["mailgate_sessions_relayed"], {("imap", "10.0.0.1:143"): 11})
        self.assertEqual(size(found["mailgate_users"][()]), 6)
        self.assertEqual(found["mailgate_relayed_bytes"][("imap", "to_client")], 1100)
        self.assertEqual(found["mailgate_auth_service_up"], {("a:1",): 0})
        certificates = found["mailgate_certificate_not_after_timestamp_seconds"]
        self.assertEqual(certificates, {("clients", "mx.test"): 2000.0})

    def test_paused(self) -> None:
        """A server pauses if one of its sockets does; a draining gateway has none. The others have 0."""
        other = self.gatewayOf(set()).factories[0]
        other.settings = SimpleNamespace(name="others")
        self.gateway.factories.append(other)
        self.assertEqual(self.gauges()["mailgate_accept_paused"], {("clients",): 0, ("others",): 0})
        self.gateway.listeners = [
            SimpleNamespace(isPaused=True, serverNames={"clients"}),
            SimpleNamespace(isPaused=False, serverNames={"clients", "others"}),
        ]
        self.assertEqual(self.gauges()["mailgate_accept_paused"], {("clients",): 1, ("others",): 0})

    def test_zero(self) -> None:
        """A backend whose sessions have ended has 0, and does not vanish."""
        relay = Relayed(1)
        self.connections.add(relay)
        self.gauges()
        self.end(relay)
        self.assertEqual(self.gauges()["mailgate_sessions_relayed"], {("imap", "10.0.0.1:143"): 0})

    def test_slices(self) -> None:
        """Thousands of connections are looked at in pieces."""
        self.connections.update(map(Relayed, range(3 * SLICE + 1)))
        survey = self.watcher.survey([self.gateway])
        self.assertEqual(sum(1 for _ in survey), 5)
        self.assertEqual(survey.looked["mailgate_sessions_relayed"], [[["imap", "10.0.0.1:143"], 3 * SLICE + 1]])

    def sent(self, survey: Any) -> int:
        ((_, value),) = [row for row in survey.looked["mailgate_relayed_bytes"] if row[0] == ["imap", "to_client"]]
        return int(value)

    def test_bytes(self) -> None:
        """
        No byte is counted twice, and the sum never falls, whatever ends or begins between two slices.
        """
        relays = [Relayed(number) for number in range(3 * SLICE)]
        self.connections.update(relays)
        before = 0
        while relays:
            survey = self.watcher.survey([self.gateway])
            for _ in survey:
                for _ in range(150):
                    if relays:
                        self.end(relays.pop())
                if relays:
                    relays[0].traffic = (10, relays[0].traffic[1] + 5)
            now = self.sent(survey)
            everything = 100 * 3 * SLICE + (relays[0].traffic[1] - 100 if relays else 10**6)
            self.assertTrue(before <= now <= everything, (before, now, everything))
            before = now
        last = self.watcher.survey([self.gateway])
        for _ in last:
            pass
        ended = self.watcher.tally.counters["mailgate_relayed_bytes"][("imap", "to_client")]
        self.assertEqual(self.sent(last), ended)
        self.assertTrue(before <= ended)

    def test_together(self) -> None:
        """In one go, totals and census add up to the same."""
        relays = [Relayed(number) for number in range(10)]
        self.connections.update(relays)
        self.end(relays.pop())
        survey = self.watcher.survey([self.gateway])
        for _ in survey:
            pass
        census, totals = surveyed(self.watcher, [self.gateway]), self.watcher.totals()
        sums = [{tuple(k): v for k, v in rows["mailgate_relayed_bytes"]} for rows in (census, totals)]
        self.assertEqual(sum(each["imap", "to_client"] for each in sums), self.sent(survey), 1000)

    def test_starting(self) -> None:
        """A dialogue in the phase of the relay, which starts in this moment, has no bytes yet."""
        self.connections.add(Waiting(Phase.RELAY))
        found = self.gauges()
        self.assertEqual(found["mailgate_sessions"][("imap", "relay")], 1)
        self.assertEqual(found["mailgate_sessions_relayed"], {})
