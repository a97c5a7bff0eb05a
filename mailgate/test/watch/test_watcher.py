"""
Tests for L{mailgate.watch.watcher}: what connections of a gateway count, played through dialogues and a gateway.
"""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.config import parse
from mailgate.interfaces import IWatch
from mailgate.log.errorlog import ErrorLogs
from mailgate.log.settings import ErrorLog
from mailgate.login import Backend, Denial, Method, Refusal, TLSState, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.service import Gateway, ProcessState
from mailgate.session import Outcome, Phase, Session
from mailgate.test.support.watching import surveyed
from mailgate.testing import Conversation, FakeAuthenticator
from mailgate.testing.fakes import makeSession
from mailgate.watch.metrics import METRICS, Kind, named
from mailgate.watch.watcher import MOST_BACKENDS, MOST_CIPHERS, MOST_WAITING, Watcher

CONFIGURATION = """
[mailgate]
use = reactor
[mail]
auth_http = http://127.0.0.1:9000/auth
server_name = mx.test
[server clients]
protocol = imap
listen = 127.0.0.1:143
[server old]
protocol = pop3
listen = 127.0.0.1:110
proxy_pass = 192.0.2.5:110
"""


class Place:
    """A backend, as far as a watch reads it."""

    def __init__(self, name: str) -> None:
        self.name = name


def session(**changes: Any) -> Session:
    """A session that began at 1000."""
    given = {"method": Method.PLAIN, "user": b"joe", "attempts": 1, **changes}
    return makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 1000.0, **given)


def loggedIn(backend: str, *phases: tuple[Phase, float]) -> Session:
    """A session at a relay. Each of its C{phases} has taken so many seconds."""
    record = session(backend=backend, phase=Phase.RELAY, readings=[None, Phase.ACCEPT, 1000.0])
    moment = 1000.0
    for phase, seconds in phases or ((Phase.CONNECT, 0.25), (Phase.BACKEND_LOGIN, 1.0)):
        record.readings += phase, moment
        moment += seconds
    record.readings += Phase.RELAY, moment
    return record


class WatcherCase(SynchronousTestCase):
    """A watcher whose clock stands at 1000."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.watcher = Watcher(self.clock)

    def values(self, name: str) -> dict[tuple[str, ...], Any]:
        """The values of a metric that are not 0, by labels; of a histogram the observations."""
        rows = self.watcher.totals().get(name, [])
        found = {tuple(labels): sum(value[:-1]) if isinstance(value, list) else value for labels, value in rows}
        return {labels: value for labels, value in found.items() if value}


class EventTests(WatcherCase):
    """Single events."""

    def test_interface(self) -> None:
        """It is a watch."""
        verifyObject(IWatch, self.watcher)

    def test_feed(self) -> None:
        """A keeper that wants to know hears of relays that begin and end, and of no other connection."""
        told: list[tuple[str, Session]] = []

        class Feed:
            began = staticmethod(lambda relay: told.append(("began", relay)))
            ended = staticmethod(lambda relay: told.append(("ended", relay)))

        relay, other = session(phase=Phase.RELAY), session(phase=Phase.AUTH)
        for feed in (None, Feed, None):
            self.watcher.feed = feed
            self.watcher.began(relay)
            self.watcher.relaying(relay, 0.5)
            self.watcher.denied(other, None)
            self.watcher.ended(other)
            self.watcher.ended(relay)
        self.assertEqual(told, [("began", relay), ("ended", relay)])

    def test_handshakes(self) -> None:
        """Versions, resumption, ciphers and failures."""
        done = session(tls=TLSState("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        self.watcher.encrypted(done, False, None)
        self.watcher.encrypted(done, True, None)
        self.watcher.encrypted(session(tls=TLSState("TLSv9", "X")), False, None)
        self.watcher.encrypted(session(), False, SSL.Error([("SSL routines", "", "no shared cipher")]))
        self.assertEqual(
            self.values("mailgate_tls_handshakes"),
            {
                ("other", "TLSv1.3", "full"): 1,
                ("other", "TLSv1.3", "resumed"): 1,
                ("other", "other", "full"): 1,
                ("other", "none", "failed"): 1,
            },
        )
        self.assertEqual(self.values("mailgate_tls_ciphers")[("TLSv1.3", "TLS_AES_256_GCM_SHA384")], 2)
        self.assertEqual(self.values("mailgate_tls_failures"), {("no_common_cipher",): 1})

    def test_results(self) -> None:
        """Logins by their results."""
        for answer in (
            None,
            Refusal(b"NO"),
            Denial(Trouble.DENIED),
            Denial(Trouble.UNAUTHORIZED),
            Denial(Trouble.PERMANENT, answer=b"NO"),
            Denial(Trouble.TEMPORARY),
            Denial(Trouble.DENIED, code=b"454"),
        ):
            self.watcher.denied(session(), answer)
        self.watcher.relaying(session(method=Method.CRAM_MD5), 0.5)
        self.watcher.denied(session(method=None), Denial(Trouble.DENIED))
        self.assertEqual(
            self.values("mailgate_logins"),
            {
                ("imap", "plain", "abandoned"): 1,
                ("imap", "plain", "backend_refused"): 2,
                ("imap", "plain", "denied"): 2,
                ("imap", "plain", "temporary"): 2,
                ("imap", "cram_md5", "accepted"): 1,
                ("imap", "none", "denied"): 1,
            },
        )
        self.assertEqual(self.values("mailgate_login_seconds"), {("imap",): 1})

    def test_attempts(self) -> None:
        """The connection and the login at a backend are observed apart."""
        place = Place("192.0.2.5:143")
        self.watcher.relaying(loggedIn(place.name), 1.25)
        self.watcher.attempted(session(), place, ConnectionRefusedError(), None, 0.5)
        connects, logins = "mailgate_backend_connect_seconds", "mailgate_backend_login_seconds"
        self.assertEqual(self.values(connects), {("192.0.2.5:143", "ok"): 1, ("192.0.2.5:143", "refused"): 1})
        self.assertEqual(self.values(logins), {("192.0.2.5:143", "ok"): 1})
        ((_, value),) = self.watcher.totals()[logins]
        self.assertEqual(value[-1], 1.0)

    def test_accepted(self) -> None:
        """The times of the attempt that was accepted, with TLS or without, among others of the same moment."""
        tls = (Phase.CONNECT, 0.5), (Phase.BACKEND_TLS, 4.0), (Phase.BACKEND_LOGIN, 8.0)
        failed = (Phase.CONNECT, 100.0), (Phase.BACKEND_LOGIN, 100.0)
        for place, *phases in (
            ("192.0.2.6:143", *failed, (Phase.CONNECT, 0.0625), (Phase.BACKEND_LOGIN, 2.0)),
            ("192.0.2.5:143", *tls),
            ("192.0.2.6:143",),
            ("192.0.2.5:143", *tls),
            ("192.0.2.6:143", (Phase.AUTH, 100.0), *tls),
        ):
            self.watcher.relaying(loggedIn(place, *phases), 1.25)
        totals = self.watcher.totals()
        first, second = ["192.0.2.5:143", "ok"], ["192.0.2.6:143", "ok"]
        for name, expected in (
            ("mailgate_backend_connect_seconds", [(first, 2, 1.0), (second, 3, 0.8125)]),
            ("mailgate_backend_login_seconds", [(first, 2, 24.0), (second, 3, 15.0)]),
        ):
            found = [(labels, sum(value[:-1]), value[-1]) for labels, value in totals[name]]
            self.assertEqual(sorted(found), expected)

    def test_limited(self) -> None:
        """
        A limit refuses a login that the backend has accepted: its times count. A later one is refused before a backend
        gets it, and those times do not count again.
        """
        record = session(backend="192.0.2.5:143", readings=[None, Phase.ACCEPT, 1000.0, Phase.CONNECT, 1000.0])
        record.readings += Phase.BACKEND_LOGIN, 1000.25
        for phase in (Phase.BACKEND_LOGIN, Phase.AUTH):
            record.phase = phase
            self.watcher.denied(record, Denial(Trouble.SESSIONS))
            for name in ("mailgate_backend_connect_seconds", "mailgate_backend_login_seconds"):
                self.assertEqual(self.values(name), {("192.0.2.5:143", "ok"): 1})

    def test_questions(self) -> None:
        """Authentication services and the cache."""
        self.watcher.asked("127.0.0.1:9000", "accepted", 0.1)
        self.watcher.cached("hit")
        self.assertEqual(self.values("mailgate_auth_seconds"), {("127.0.0.1:9000", "accepted"): 1})
        self.assertEqual(self.values("mailgate_auth_cache"), {("hit",): 1})

    def test_relayed(self) -> None:
        """A relay's length does not count the time before it, its bytes count both ways, and its phases once."""
        ended = session(readings=[self.clock.seconds, Phase.ACCEPT, 1000.0])
        for phase in (Phase.GREETING, Phase.COMMAND, Phase.AUTH, Phase.RELAY):
            ended.enter(phase)
            self.clock.advance(2)
        self.watcher.relaying(ended, 2.0)
        self.clock.advance(98)
        ending = ended.conclude(Outcome.RELAYED)
        ending.received, ending.sent = 7, 9
        self.watcher.ended(ended)
        moved = {("imap", "from_client"): 7, ("imap", "to_client"): 9}
        self.assertEqual(self.values("mailgate_relayed_bytes"), moved)
        ((_, value),) = self.watcher.totals()["mailgate_session_seconds"]
        self.assertEqual(value[-1], 100.0)
        self.assertEqual(self.values("mailgate_phase_seconds"), {("imap", "command"): 1, ("imap", "auth"): 1})
        self.assertEqual(self.values("mailgate_connections_ended"), {("imap", "relayed"): 1})

    def test_settled(self) -> None:
        """After a report the record of a relay needs little memory, and has the same times."""
        record = session(readings=[self.clock.seconds, Phase.ACCEPT, 1000.0])
        for phase in (Phase.COMMAND, Phase.CHALLENGE, Phase.AUTH, Phase.COMMAND, Phase.AUTH, Phase.RELAY):
            record.enter(phase)
            self.clock.advance(2)
        times = record.times
        self.watcher.relaying(record, 2.0)
        self.watcher.totals()
        self.assertIs(type(record.readings), bytes)
        self.assertEqual(record.times, times)
        ((_, command), (_, auth)) = self.watcher.totals()["mailgate_phase_seconds"]
        self.assertEqual((command[-1], auth[-1]), (6.0, 4.0))
        self.watcher.ended(record)
        ((_, value),) = self.watcher.totals()["mailgate_session_seconds"]
        self.assertEqual(value[-1], 2.0)

    def test_waiting(self) -> None:
        """Events that wait for a report are few."""
        gone = []
        for _ in range(10 * MOST_WAITING):
            record = session(phase=Phase.RELAY)
            self.watcher.relaying(record, 0.1)
            self.watcher.ended(record)
            waiting = len(self.watcher._relays) + len(self.watcher._ends)
            self.assertLess(waiting, 2 * MOST_WAITING)
            gone.append(waiting)
        self.assertIn(0, gone)
        self.assertEqual(sum(self.values("mailgate_session_seconds").values()), 10 * MOST_WAITING)

    def test_hostile(self) -> None:
        """Users, backends, addresses and ciphers that others choose do not make labels without bounds."""
        for number in range(20_000):
            other = session(
                user=b"user%d" % number,
                backend=f"192.0.2.5:{number}",
                tls=TLSState(f"TLSv{number}", f"CIPHER{number}"),
            )
            self.watcher.began(other)
            self.watcher.encrypted(other, False, None)
            self.watcher.attempted(other, Place(other.backend), ConnectionRefusedError(), 0.1, 0.2)
            self.watcher.denied(other, Denial(Trouble.DENIED, reason=f"reason {number}"))
            other.conclude(Outcome.CLIENT_LEFT, f"reason {number}")
            self.watcher.ended(other)
        totals = self.watcher.totals()
        self.assertEqual(len(totals["mailgate_backend_login_seconds"]), MOST_BACKENDS + 1)
        self.assertEqual(len(totals["mailgate_tls_ciphers"]), MOST_CIPHERS + 1)
        self.assertLess(sum(map(len, totals.values())), 300)
        self.assertNotIn("user1", json.dumps(totals))
        self.assertLess(len(json.dumps(totals)), 50_000)


class PlayedTests(WatcherCase):
    """Whole connections."""

    def play(self, *lines: bytes, authenticator: Any = None) -> Conversation:
        watched = type("Watched", (Conversation,), {"watch": self.watcher})
        conversation: Conversation = watched(IMAP4, authenticator=authenticator)
        self.watcher._seconds = conversation.clock.seconds
        conversation.says(*lines)
        return conversation

    def test_denied(self) -> None:
        """A refused login, and the end of its connection."""
        self.play(b"a LOGIN joe wrong", authenticator=FakeAuthenticator(Denial(Trouble.DENIED))).transport.lose()
        self.assertEqual(self.values("mailgate_logins"), {("imap", "plain", "denied"): 1})
        self.assertEqual(self.values("mailgate_connections_ended"), {("imap", "client_left"): 1})
        login, connection = self.watcher.takeStories()
        self.assertEqual((login["kind"], login["outcome"], login["trouble"]), ("login", "denied", "denied"))
        self.assertEqual((connection["kind"], connection["outcome"]), ("connection", "client left"))
        self.assertEqual(self.watcher.takeStories(), [])

    def test_limited(self) -> None:
        """A login that a limit refuses is no refused password. Its story has the rule."""
        for trouble, outcome in (
            (Trouble.TOO_FAST, "limited"),
            (Trouble.HELD, "limited"),
            (Trouble.BLOCKED, "blocked"),
        ):
            before = self.values("mailgate_logins")
            denial = Denial(trouble, reason="R2")
            self.play(b"a LOGIN joe wrong", authenticator=FakeAuthenticator(denial)).transport.lose()
            after = self.values("mailgate_logins")
            self.assertEqual(after["imap", "plain", outcome], before.get(("imap", "plain", outcome), 0) + 1)
            self.assertNotIn(("imap", "plain", "denied"), after)
            login = self.watcher.takeStories()[0]
            self.assertEqual((login["outcome"], login["trouble"], login["reason"]), (outcome, trouble.value, "R2"))
        self.watcher.limited("R2", "refused")
        self.watcher.limited("R2", "refused")
        self.watcher.limited("limit_conn address", "dry_run")
        self.assertEqual(self.values("mailgate_limited"), {("R2", "refused"): 2, ("limit_conn address", "dry_run"): 1})

    def test_limitedConnection(self) -> None:
        """A connection that a limit ends counts for its server; others do not."""
        for outcome, count in ((Outcome.QUIT, None), (Outcome.LIMITED, 1)):
            session = makeSession("imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0, outcome=outcome)
            self.watcher.ended(session)
            self.assertEqual(self.values("mailgate_connections_limited").get(("other",)), count)

    def test_noStories(self) -> None:
        """With C{explain_memory = 0} nothing is kept."""
        self.watcher.stories.isKept = False
        self.play(b"a LOGIN joe wrong", authenticator=FakeAuthenticator(Denial(Trouble.DENIED))).transport.lose()
        self.assertEqual(self.watcher.takeStories(), [])
        self.assertEqual(self.values("mailgate_logins"), {("imap", "plain", "denied"): 1})


class ExpectationTests(SynchronousTestCase):
    """What a gateway makes known."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.state = ProcessState.of(self.reactor, isWatched=True)
        watcher = self.state.watcher
        assert watcher is not None
        self.watcher = watcher
        self.gateway = Gateway(parse(CONFIGURATION), self.reactor, state=self.state)

    def test_zeros(self) -> None:
        """Counters of known labels begin at 0, and nothing has been counted."""
        totals = self.watcher.totals()
        self.assertIn([["clients", "imap"], 0], totals["mailgate_connections"])
        self.assertIn([["pop3", "plain", "denied"], 0], totals["mailgate_logins"])
        self.assertIn([["clients"], 0], totals["mailgate_connections_limited"])
        self.assertIn([["R2", "refused"], 0], totals["mailgate_limited"])
        self.assertEqual(len(totals["mailgate_connections_ended"]), 2 * len(Outcome))
        self.assertIn(["127.0.0.1:9000", "accepted"], [labels for labels, _ in totals["mailgate_auth_seconds"]])
        self.assertNotIn("mailgate_tls_handshakes", totals)
        for name, rows in totals.items():
            for labels, value in rows:
                self.assertEqual(len(labels), len(named(name).labels))
                self.assertFalse(any(value) if isinstance(value, list) else value)

    def test_stories(self) -> None:
        """The stories of connections are kept unless C{explain_memory} is 0, which a reload may change."""
        self.assertTrue(self.watcher.stories.isKept)
        Gateway(
            parse(CONFIGURATION.replace("use = reactor", "use = reactor\nexplain_memory = 0")),
            self.reactor,
            state=self.state,
        )
        self.assertFalse(self.watcher.stories.isKept)
        Gateway(parse(CONFIGURATION), self.reactor, state=self.state)
        self.assertTrue(self.watcher.stories.isKept)

    def test_lines(self) -> None:
        """The lines that the process has logged are counted by their levels, over a reload."""
        logs = ErrorLogs(StringIO())
        observer = logs.observer([ErrorLog(None, LogLevel.warn)])
        for count in (1, 2):
            Gateway(parse(CONFIGURATION), self.reactor, logs, state=self.state)
            observer({"log_level": LogLevel.error, "log_format": "a"})
            observer({"log_level": LogLevel.info, "log_format": "a"})
            self.assertEqual(self.watcher.totals()["mailgate_log_lines"], [[["error"], count]])

    def test_names(self) -> None:
        """Servers have the names of their sections."""
        self.watcher.began(session())
        self.assertIn([["clients", "imap"], 1], self.watcher.totals()["mailgate_connections"])
        self.assertEqual(self.watcher.serverAt("127.0.0.1:110"), "old")

    def test_backends(self) -> None:
        """Backends of the configuration have labels in any case."""
        for number in range(100):
            self.watcher.relaying(loggedIn(f"192.0.2.6:{number}"), 1.25)
        self.watcher.relaying(loggedIn(str(Backend("192.0.2.5", 110))), 1.25)
        backends = {labels[0] for labels, _ in self.watcher.totals()["mailgate_backend_login_seconds"]}
        self.assertIn("192.0.2.5:110", backends)

    def test_census(self) -> None:
        """The gauges of an idle gateway."""
        census = surveyed(self.watcher, [self.gateway])
        self.assertIn([["imap", "relay"], 0], census["mailgate_sessions"])
        self.assertEqual(census["mailgate_backend_up"], [[["192.0.2.5:110"], 1]])
        self.assertEqual(census["mailgate_backend_draining"], [[["192.0.2.5:110"], 0]])
        self.assertEqual(census["mailgate_auth_service_up"], [[["127.0.0.1:9000"], 1]])
        known = {metric.name: metric for metric in METRICS}
        for name in census:
            self.assertTrue(known[name].kind is Kind.GAUGE or name == "mailgate_relayed_bytes")

    def test_lag(self) -> None:
        """The timer runs as long as the gateway."""
        self.gateway.startService()
        self.reactor.advance(1)
        ((_, value),) = self.watcher.totals()["mailgate_loop_lag_seconds"]
        self.assertEqual(sum(value[:-1]), 1)
        self.gateway.stopService()
        self.reactor.advance(2)
        ((_, value),) = self.watcher.totals()["mailgate_loop_lag_seconds"]
        self.assertEqual(sum(value[:-1]), 1)

    def test_application(self) -> None:
        """An application's watch is served beside it, in dialogues, connectors and authenticators."""
        from mailgate.test.support.watching import RecordingWatch

        watch = RecordingWatch()
        gateway = Gateway(parse(CONFIGURATION), self.reactor, state=self.state, watch=watch)
        (factory, *_) = gateway.factories
        assert factory.watch is not None
        authenticator: Any = factory.authenticator
        connector: Any = factory.connector
        factory.watch.began(session())
        authenticator._watch.cached("hit")
        connector._watch.attempted(session(), Place("192.0.2.6:1"), None, 0.1, 0.2)
        self.assertEqual(watch.names, ["began", "cached", "attempted"])
        self.assertIn([["hit"], 1], self.watcher.totals()["mailgate_auth_cache"])

    def test_unwatched(self) -> None:
        """Without both, nothing is called."""
        gateway = Gateway(parse(CONFIGURATION), self.reactor)
        (factory, *_) = gateway.factories
        self.assertIsNone(factory.watch)
        self.assertIsNone(factory.phaseClock)
