"""
Tests for L{mailgate.lean.connectionlimit}: the numbers, what is counted, and what waits.
L{mailgate.test.lean.test_portlimit} tests it with ports.
"""

from __future__ import annotations

import os
import resource
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, LogPublisher, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.http.services import questionsOf
from mailgate.config import parse
from mailgate.directives import ConfigurationError, ListenAddress
from mailgate.lean.connectionlimit import KEPT_BACK, ConnectionLimit, ConnectionSettings, Places, carried
from mailgate.lean.descriptors import mostDescriptors
from mailgate.lean.shares import Shares
from mailgate.log.journal import Journal
from mailgate.log.seldom import PERIOD
from mailgate.service import Gateway, ProcessState
from mailgate.test.integration.daemon import freePort
from mailgate.test.support.factories import makeFactory
from mailgate.testing import FakeTransport

SERVICE = "auth_http = a:1\n"
INI = "[mail]\n{mail}\n[server x]\nprotocol = imap\nlisten = 127.0.0.1:143\n{server}"


class NumberTests(SynchronousTestCase):
    """The number of clients."""

    def test_carried(self) -> None:
        """It depends on the descriptors, and on services of 64 connections each."""
        table = {
            200: (68, 50, 50),
            256: (96, 64, 64),
            1024: (480, 448, 384),
            65536: (32736, 32704, 32640),
        }
        for descriptors, expected in table.items():
            self.assertEqual(tuple(carried(descriptors, 64 * services) for services in (0, 1, 3)), expected)

    def test_few(self) -> None:
        """However few descriptors there are, one client is accepted, and at most half of them are reserved."""
        self.assertEqual(carried(1, 0), 1)
        for descriptors in range(8, 600):
            for questions in (0, 64, 100000):
                most = carried(descriptors, questions)
                self.assertGreaterEqual(most, descriptors // 4)
                self.assertLessEqual(2 * most, descriptors - min(KEPT_BACK, descriptors // 2))

    def test_questions(self) -> None:
        """Each service counts once, with the largest configured number. No limit counts as the default."""

        def count(mail: str, *servers: str) -> int:
            text = f"[mail]\n{mail}\n" + "".join(
                f"[server {number}]\nprotocol = imap\nlisten = 127.0.0.1:{number}\n{server}\n"
                for number, server in enumerate(servers, 1000)
            )
            return questionsOf(parse(text).servers)

        self.assertEqual(count(SERVICE, ""), 64)
        self.assertEqual(count(SERVICE, "", "", "auth_http_max_connections = 5"), 64)
        self.assertEqual(count(SERVICE + "auth_http_max_connections = 5", "", "auth_http_max_connections = 7"), 7)
        self.assertEqual(count(SERVICE, "", "auth_http = b:1", "auth_http = a:2/x\n"), 192)
        self.assertEqual(count("auth_http =\n  http://a:1/x\n  http://a:1/y\n  http://b:1/x", ""), 128)
        self.assertEqual(count(SERVICE + "auth_http_max_connections = 0", ""), 64)
        self.assertEqual(count("proxy_pass = 127.0.0.1:1", "", ""), 0)
        accounts = os.path.abspath(self.mktemp())
        with open(accounts, "w"):
            self.assertEqual(count(SERVICE, f"auth_file = {accounts}"), 0)

    def limit(self, written: int | None, descriptors: int, mail: str = SERVICE) -> ConnectionLimit:
        servers = parse(INI.format(mail=mail, server="")).servers
        return ConnectionLimit.of(ConnectionSettings(written), questionsOf(servers), descriptors, "gateway.ini")

    def test_default(self) -> None:
        """By default it is the largest possible number. The remedy is more descriptors."""
        limit = self.limit(None, 1024)
        self.assertEqual((limit.most, limit.warning), (448, None))
        self.assertEqual(limit.remedy, "raise worker_rlimit_nofile, or the system's limit on open files (1024)")

    def test_written(self) -> None:
        """A possible number is used. The remedy is a larger number."""
        for written in (1, 100, 448):
            limit = self.limit(written, 1024)
            self.assertEqual((limit.most, limit.warning), (written, None))
            self.assertIn("raise worker_connections (at most 448", limit.remedy)

    def test_tooMany(self) -> None:
        """A number that is too large is reduced, with a warning that says what to set."""
        limit = self.limit(449, 1024)
        self.assertEqual(limit.most, 448)
        self.assertIn("raise worker_rlimit_nofile", limit.remedy)
        self.assertEqual(
            str(limit.warning),
            "gateway.ini: [mailgate] worker_connections = 449: exceeds the limit of 1024 open files: each client needs"
            " one and its backend another, and 128 are reserved; the gateway uses 448; set worker_rlimit_nofile = 1026"
            " to allow this value",
        )

    def test_wouldDo(self) -> None:
        """The number in the warning is enough, and a smaller one is not."""
        for mail in (SERVICE, "proxy_pass = 127.0.0.1:1"):
            for written in (20, 40, 51, 65, 1000, 5001):
                text = str(self.limit(written, 8, mail).warning)
                named = int(text.partition("worker_rlimit_nofile = ")[2].partition(" ")[0])
                self.assertEqual(self.limit(written, named, mail).most, written)
                self.assertLess(self.limit(written, named - 2, mail).most, written)

    def test_directive(self) -> None:
        """The value is a number above 0, or none."""
        text = INI.format(mail=SERVICE, server="")
        self.assertIsNone(parse(text)[ConnectionSettings].most)
        self.assertEqual(parse("[mailgate]\nworker_connections = 7\n" + text)[ConnectionSettings].most, 7)
        for value in ("0", "-1", "auto", ""):
            error = self.assertRaises(ConfigurationError, parse, f"[mailgate]\nworker_connections = {value}\n{text}")
            (problem,) = error.problems
            self.assertEqual((problem.section, problem.option), ("mailgate", "worker_connections"))

    def test_descriptors(self) -> None:
        """The limit of open files is the current soft limit. Unlimited counts as a very large number."""
        self.assertEqual(mostDescriptors(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.patch(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        self.assertGreater(mostDescriptors(), 10**6)


class Log:
    """The log of L{Places}."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        publisher = LogPublisher(self.events.append)  # type: ignore[arg-type]
        self.journal = Journal(LogLevel.error, publisher)

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]


class PlacesTests(SynchronousTestCase):
    """L{Places}, without ports."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = Log()
        self.places = Places(self.clock)
        self.places.limit(ConnectionLimit(2, "do something"), self.log.journal)
        self.woken: list[str] = []

    def wake(self) -> None:
        self.woken.append("one")

    def other(self) -> None:
        self.woken.append("other")

    def fill(self) -> None:
        self.places.taken = 2
        self.assertEqual(self.places.room(self.wake), 0)

    def test_room(self) -> None:
        """There is room up to the limit."""
        for taken, room in ((0, 2), (1, 1), (2, 0), (3, 0)):
            self.places.taken = taken
            self.assertEqual(self.places.room(self.wake), room)

    def test_unlimited(self) -> None:
        """Before a limit is set there is room for every client."""
        places = Places(self.clock)
        places.taken = 10**6
        self.assertGreater(places.room(self.wake), 10**6)

    def test_wakes(self) -> None:
        """The first client that leaves wakes all waiting ports once."""
        self.fill()
        self.places.room(self.other)
        self.places.room(self.wake)
        self.assertEqual(self.woken, [])
        self.places.leave()
        self.assertEqual(self.woken, ["one", "other"])
        self.places.leave()
        self.assertEqual((self.woken, self.places.taken), (["one", "other"], 0))

    def test_stillFull(self) -> None:
        """If the limit has been lowered, they wait until there is room."""
        self.places.taken = 4
        self.places.room(self.wake)
        self.places.leave()
        self.places.leave()
        self.assertEqual(self.woken, [])
        self.places.leave()
        self.assertEqual(self.woken, ["one"])

    def test_raised(self) -> None:
        """Raising the limit wakes them, lowering it does not."""
        self.fill()
        self.places.limit(ConnectionLimit(1, ""), self.log.journal)
        self.assertEqual(self.woken, [])
        self.places.limit(ConnectionLimit(3, ""), self.log.journal)
        self.assertEqual(self.woken, ["one"])

    def test_forget(self) -> None:
        """A closed port is not woken. A port that never waited can be forgotten."""
        self.fill()
        self.places.room(self.other)
        self.places.forget(self.wake)
        self.places.forget(self.wake)
        self.places.leave()
        self.assertEqual(self.woken, ["other"])

    def test_told(self) -> None:
        """The log has the limit, the number of clients, and the remedy."""
        self.fill()
        self.assertEqual(
            self.log.lines(),
            [
                "worker_connections are not enough: 2 client connections are open, and new clients wait until one"
                " closes; do something"
            ],
        )

    def test_toldOnce(self) -> None:
        """It is logged once for all ports, however often it happens, and again after a quiet minute."""
        for _ in range(5):
            self.fill()
            self.places.room(self.other)
            self.clock.advance(10 * PERIOD)
            self.places.leave()
            self.clock.advance(PERIOD - 1)
        self.assertEqual(len(self.log.lines()), 1)
        self.clock.advance(1)
        self.fill()
        self.assertEqual(len(self.log.lines()), 2)

    def test_toldOnceByReloads(self) -> None:
        """Ports that replace others meanwhile do not log it again."""
        self.fill()
        self.clock.advance(PERIOD)
        self.places.forget(self.wake)
        self.places.room(self.other)
        self.assertEqual(len(self.log.lines()), 1)


class CountTests(SynchronousTestCase):
    """What is counted, and for how long."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.places = Places(self.clock)

    def connect(self, proxyProtocol: bool = False) -> FakeTransport:
        transport = FakeTransport()
        address = ListenAddress("127.0.0.1", 0, proxyProtocol=proxyProtocol)
        factory = makeFactory(address, clock=self.clock, places=self.places)
        transport.connect(factory.buildProtocol(transport.getPeer()))
        return transport

    def test_dialogue(self) -> None:
        """A dialogue counts from its start until its connection is closed, not only until it ends."""
        transport = self.connect()
        self.assertEqual(self.places.taken, 1)
        transport.protocol.dataReceived(b"QUIT\r\n")
        self.assertEqual((transport.disconnecting, self.places.taken), (True, 1))
        transport.lose()
        self.assertEqual(self.places.taken, 0)

    def test_header(self) -> None:
        """The reader of a PROXY header counts together with the dialogue after it."""
        transport = self.connect(proxyProtocol=True)
        self.assertEqual(self.places.taken, 1)
        transport.protocol.dataReceived(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        self.assertEqual(self.places.taken, 1)
        transport.lose()
        self.assertEqual(self.places.taken, 0)

    def test_noHeader(self) -> None:
        """A client whose header never arrives no longer counts after that."""
        transport = self.connect(proxyProtocol=True)
        transport.protocol.dataReceived(b"EHLO\r\n")
        self.assertEqual(self.places.taken, 1)
        transport.lose()
        self.assertEqual(self.places.taken, 0)

    def test_relay(self) -> None:
        """A proxied session still counts once."""
        transport = self.connect()
        transport.protocol.dataReceived(b"USER joe\r\nPASS sesame\r\n")
        self.assertEqual(self.places.taken, 1)
        self.assertTrue(transport.protocol.relayed)
        backend = next(iter(transport.protocol.factory.connections))._backend.transport
        transport.lose()
        self.assertEqual(self.places.taken, 1)
        backend.lose()
        self.assertEqual(self.places.taken, 0)


class GatewayTests(SynchronousTestCase):
    """The limit of a L{Gateway} that starts."""

    def start(self, process: str, slot: int | None = None) -> tuple[Gateway, list[str]]:
        """A gateway, as worker C{slot} if that is given, and its log."""
        self.patch(resource, "getrlimit", lambda which: (256, 4096))
        text = f"[mailgate]\nerror_log = stderr warn\n{process}\n" + INI.format(mail=SERVICE, server="")
        settings = parse(text.replace(":143", f":{freePort()}"))
        share = None if slot is None else Shares(2).of(slot)
        reactor = MemoryReactorClock()
        with capturedLogs() as events:
            gateway = Gateway(settings, reactor, state=ProcessState.of(reactor, share=share))
            gateway.startService()
            self.addCleanup(reactor.pump, [0, 2.0, 0])
            self.addCleanup(gateway.stopService)
        return gateway, [formatEvent(event) or "" for event in events if event["log_namespace"] == "mailgate"]

    def most(self, gateway: Gateway) -> int:
        return gateway.places.room(lambda: None)

    def test_default(self) -> None:
        """The default depends on the limit of open files at the start."""
        gateway, told = self.start("")
        self.assertEqual((self.most(gateway), told), (carried(256, 64), []))

    def test_written(self) -> None:
        """A possible number is used without a warning."""
        gateway, told = self.start("worker_connections = 10")
        self.assertEqual((self.most(gateway), told), (10, []))

    def test_tooMany(self) -> None:
        """A number that is too large is reduced, with a warning by only one of several workers."""
        for slot, count in ((None, 1), (0, 1), (1, 0)):
            gateway, told = self.start("worker_connections = 5000", slot)
            self.assertEqual((self.most(gateway), len(told)), (64, count))
            for line in told:
                self.assertIn("[mailgate] worker_connections = 5000: exceeds the limit of 256 open files", line)

    def test_share(self) -> None:
        """A worker publishes the number of its clients."""
        share = Shares(2).of(0)
        clock = MemoryReactorClock()
        settings = parse(INI.format(mail=SERVICE, server=""))
        gateway = Gateway(settings, clock, state=ProcessState.of(clock, share=share))
        gateway.places.taken = 7
        self.assertEqual(share.count(), 7)
