"""
Tests for L{mailgate.keeper.answers.backends}, L{services<mailgate.keeper.answers.services>} and
L{servers<mailgate.keeper.answers.servers>}: what a process with real gateways answers.
"""

from __future__ import annotations

import json
import os
from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.keeper.answers import backends, servers, services
from mailgate.keeper.view import ANSWERERS, ProcessView
from mailgate.log.journal import Journal
from mailgate.service import Gateway
from mailgate.session import Phase
from mailgate.test.support.certificates import Authority
from mailgate.upstream.listing import combined
from mailgate.watch.watcher import Watcher

TEXT = """
[mailgate]
use = reactor
[upstream dovecot]
server =
    10.0.0.1:143
    10.0.0.2:143
[mail]
server_name = mx.test
proxy_pass = dovecot
[server imap]
protocol = imap
listen =
    127.0.0.1:10143
    127.0.0.1:10993 ssl
ssl_certificate = {pem}
ssl_certificate_key = {pem}
auth_http =
    http://127.0.0.1:9000/auth?key=hidden
    http://[::1]:9001/auth
[server pop3]
protocol = pop3
listen = 127.0.0.1:10110
auth_http = http://127.0.0.1:9000/auth?key=hidden
"""


class AnswersCase(SynchronousTestCase):
    """A process with two generations, of which the second drains."""

    def setUp(self) -> None:
        folder = os.path.abspath(self.mktemp())
        os.mkdir(folder)
        pem = Authority(folder, "ca").issue("imap.test")[1]
        self.clock = MemoryReactorClock()
        settings = parse(TEXT.format(pem=pem))
        self.gateways = [Gateway(settings, self.clock), Gateway(settings, self.clock)]
        self.gateways[0].goOnFrom(self.gateways[1])
        self.gateways[1].drain(farewell=False, patience=None)
        self.view = ProcessView("5g0qa", Watcher(self.clock), lambda: self.gateways)
        for gateway in self.gateways:
            self.addCleanup(gateway.stopService)

    def rows(self, word: str) -> list[Any]:
        """The answer, after a journey over the keeper's socket."""
        return [json.loads(json.dumps(row)) for row in ANSWERERS[word](self.view, {})]


class BackendTests(AnswersCase):
    """The question C{backends}."""

    def test_rows(self) -> None:
        """Each generation has its backends. Those of one process that share a peer count once."""
        found = self.rows("backends")
        self.assertEqual([row["current"] for row in found], [True, True, False, False])
        listed = combined((row["current"], [row["row"]]) for row in found)
        self.assertEqual(
            [(row["address"], row["state"]) for row in listed], [("10.0.0.1:143", "up"), ("10.0.0.2:143", "up")]
        )
        self.gateways[0].standing.order("10.0.0.2:143", "drain")
        listed = combined((row["current"], [row["row"]]) for row in self.rows("backends"))
        self.assertEqual([row["state"] for row in listed], ["up", "drain"])

    def test_registered(self) -> None:
        """The answers are registered by their names."""
        self.assertIs(ANSWERERS["backends"], backends.backends)
        self.assertIs(ANSWERERS["services"], services.services)
        self.assertIs(ANSWERERS["servers"], servers.servers)
        self.assertIs(ANSWERERS["process"], servers.process)


class ServiceTests(AnswersCase):
    """The question C{services}."""

    def test_rows(self) -> None:
        """Each service of the generation that accepts has a row, without the query of its URL."""
        found = self.rows("services")
        self.assertEqual(
            found,
            [
                {
                    "service": "127.0.0.1:9000",
                    "url": "http://127.0.0.1:9000/auth",
                    "failing": False,
                    "seconds": None,
                    "asking": 0,
                    "waiting": 0,
                    "error": None,
                },
                {
                    "service": "[::1]:9001",
                    "url": "http://[::1]:9001/auth",
                    "failing": False,
                    "seconds": None,
                    "asking": 0,
                    "waiting": 0,
                    "error": None,
                },
            ],
        )
        shared = self.gateways[0].sharedServices[0]
        self.clock.advance(100)
        shared.failed("refused the connection", Journal())
        self.clock.advance(7)
        for _ in range(70):
            place = shared.queue.take("192.0.2.7", 60)
            if place is not None:
                place.addErrback(lambda _: None)
        (first, _) = self.rows("services")
        self.assertEqual((first["failing"], first["asking"], first["waiting"]), (True, 64, 6))
        self.assertEqual(first["seconds"], 7.0)
        self.assertEqual(first["error"], ["refused the connection", self.clock.seconds() - 7])
        shared.answersAgain()
        self.clock.advance(2)
        (first, _) = self.rows("services")
        self.assertEqual((first["failing"], first["seconds"]), (False, 2.0))
        self.assertNotIn("hidden", repr(found))


class _Connection:
    """A connection in a phase."""

    def __init__(self, phase: Phase) -> None:
        self.session = self
        self.phase = phase


class ServerTests(AnswersCase):
    """The questions C{servers} and C{process}."""

    def test_servers(self) -> None:
        """Each server has its addresses, connections and certificates."""
        for connection in (_Connection(Phase.RELAY), _Connection(Phase.COMMAND)):
            self.gateways[0].factories[1].connections.add(connection)  # type: ignore[arg-type]
        found = self.rows("servers")
        self.assertEqual([(row["current"], row["name"]) for row in found[:2]], [(True, "imap"), (True, "pop3")])
        self.assertEqual([row["current"] for row in found[2:]], [False, False])
        self.assertEqual(found[0]["listen"], ["127.0.0.1:10143", "127.0.0.1:10993 ssl"])
        self.assertEqual([row["connections"] for row in found], [2, 0, 0, 0])
        self.assertEqual([name for name, _ in found[0]["certificates"]], ["imap.test"])
        self.assertEqual(found[1]["certificates"], [])
        (process,) = self.rows("process")
        self.assertEqual((process["sessions"], process["relayed"]), (2, 1))
        self.gateways[0].factories[1].connections.clear()

    def test_process(self) -> None:
        """A process says who it is, whether it accepts, and what it costs."""
        (row,) = self.rows("process")
        self.assertEqual(
            (row["worker"], row["pid"], row["accepts"], row["generations"]), ("5g0qa", os.getpid(), True, 2)
        )
        self.assertGreater(row["cpu"], 0)
        self.assertTrue(row["memory"] is None or row["memory"] > 1_000_000)
        self.gateways[0].drain(farewell=False, patience=None)
        self.assertFalse(self.rows("process")[0]["accepts"])
        self.assertEqual(self.rows("services"), [])
