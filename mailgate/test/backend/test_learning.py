"""
Tests for L{mailgate.backend.learning}, with a whole gateway on a reactor that makes no real connections.
"""

from __future__ import annotations

from typing import cast

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.caller import Caller
from mailgate.backend.learning import AGAIN, INTERVAL, LOOK, RETRY, TIMEOUT
from mailgate.backend.offers import UNKNOWN
from mailgate.backend.place import Place
from mailgate.backend.visiting import FAREWELL
from mailgate.config import parse
from mailgate.login import Backend
from mailgate.net.endpoints import Begin
from mailgate.service import Gateway, ProcessState
from mailgate.testing import FakeTransport
from mailgate.upstream.notices import Notices

LEARNS = """
[mailgate]
error_log = stderr info
use = reactor
[upstream store]
server =
    192.0.2.1:143
    192.0.2.2:143
[server imap]
listen = 127.0.0.1:143
protocol = imap
"""
FALLBACK = (b"IMAP4", b"IMAP4rev1", b"SASL-IR", b"LITERAL+", b"ID", b"UIDPLUS")


class LearningTests(SynchronousTestCase):
    """When backends are asked, and which."""

    def start(self, text, notices=None):
        """Start a gateway; its first look at its backends is over."""
        self.reactor = MemoryReactorClock()
        self.reactor.advance(1000)
        self.notices = notices or Notices(self.reactor)
        self.gateway = Gateway(parse(text), self.reactor, state=ProcessState.of(self.reactor, self.notices))
        self.gateway._learning._chance = lambda: 1.0
        self.deafen(self.gateway)
        self.events = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.gateway.startService()
        self.reactor.advance(0)

    def deafen(self, gateway):
        """Take the listeners out. They would bind their addresses, which tests in other processes may have."""
        for listener in gateway.listeners:
            gateway.removeService(listener)

    @property
    def asked(self):
        """The hosts that connections were made to."""
        return [host for host, *_ in self.reactor.tcpClients]

    @property
    def announced(self):
        return self.gateway.factories[0].announcement.words

    def answer(self, number, *words):
        """The backend of the connection C{number} greets with capabilities; returns what it hears."""
        factory = self.reactor.tcpClients[number][2]
        transport = FakeTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        transport.protocol.dataReceived(b"* OK [CAPABILITY " + b" ".join(words) + b"] ready\r\n")
        transport.protocol.dataReceived(b"* BYE\r\nmailgate OK\r\n")
        self.assertTrue(transport.disconnecting)
        transport.lose()
        self.reactor.advance(0)
        return transport.value()

    def refuse(self, number):
        factory = self.reactor.tcpClients[number][2]
        factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
        self.reactor.advance(0)

    def advance(self, seconds):
        """Let time pass, in the steps in which the gateway looks."""
        for _ in range(int(seconds // LOOK) + 1):
            self.reactor.advance(LOOK)

    def logged(self):
        return [formatEvent(event) for event in self.events if "backend" in (event.get("log_format") or "")]

    def test_start(self):
        """All backends of a group are asked at the start, and left with a goodbye; the start does not wait."""
        self.start(LEARNS + "proxy_pass = store\n")
        self.assertEqual(self.asked, ["192.0.2.1", "192.0.2.2"])
        self.assertEqual(self.announced, FALLBACK)
        self.assertEqual(self.answer(0, b"IMAP4rev1", b"IDLE", b"MOVE"), b"mailgate LOGOUT\r\n")
        self.assertEqual(self.announced, FALLBACK)
        self.answer(1, b"IMAP4rev1", b"MOVE", b"ENABLE")
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))

    def test_endless(self):
        """A backend that answers, goes on sending and does not close takes no memory, and no descriptor for long."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n")
        factory = self.reactor.tcpClients[0][2]
        transport = FakeTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        client = transport.protocol
        client.dataReceived(b"* OK [CAPABILITY IMAP4rev1 MOVE] ready\r\n")
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))
        for _ in range(100):
            client.dataReceived(b"* OK more\r\n" * 1000)
        self.assertEqual(len(client._wrappedProtocol._buffer), 0)
        self.assertFalse(transport.aborted)
        self.reactor.advance(FAREWELL)
        self.assertTrue(transport.aborted)

    def test_stopsMeanwhile(self):
        """Nor does it keep the connection if the gateway stops then."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n")
        factory = self.reactor.tcpClients[0][2]
        transport = FakeTransport()
        transport.connect(factory.buildProtocol(transport.getPeer()))
        transport.protocol.dataReceived(b"* OK [CAPABILITY IMAP4rev1 MOVE] ready\r\n")
        self.gateway._learning.stopService()
        self.assertTrue(transport.aborted)

    def test_whichBackends(self):
        """A C{proxy_pass} says which; without one the only group is asked if a service may choose it."""
        auth = "auth_http = http://127.0.0.1:9/\n"
        group = "[upstream other]\nserver = 192.0.2.9:143\n"
        table = "[map where]\nsource = $domain\na.test = store\ndefault = 192.0.2.8:143\n"
        for text, expected in (
            ("proxy_pass = 192.0.2.7:143\n", ["192.0.2.7"]),
            (auth, ["192.0.2.1", "192.0.2.2"]),
            (auth + "proxy_pass = 192.0.2.7:143\n", ["192.0.2.7"]),
            (auth + group, []),
            ("proxy_pass = $where\n" + table, ["192.0.2.8", "192.0.2.1", "192.0.2.2"]),
            ("proxy_pass = $domain\n", []),
            ("proxy_pass = store\nimap_capabilities = IMAP4rev1\n", []),
            ("proxy_pass = store\nimap_capabilities = backend\n", ["192.0.2.1", "192.0.2.2"]),
        ):
            self.start(LEARNS + text)
            self.assertEqual(sorted(self.asked), sorted(expected), text)

    def test_fallback(self):
        """The list behind C{backend} holds while nothing is known."""
        self.start(LEARNS + "proxy_pass = store\nimap_capabilities =\n    backend\n    IMAP4rev1\n    QUOTA\n")
        self.assertEqual(self.announced, (b"IMAP4rev1", b"QUOTA"))

    def test_down(self):
        """A backend that does not answer is asked again soon; that is logged once, and what is known of it stays."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n")
        self.answer(0, b"IMAP4rev1", b"MOVE")
        self.advance(INTERVAL * 1.1 - LOOK)
        self.assertEqual(len(self.asked), 2)
        self.refuse(1)
        self.advance(RETRY)
        self.assertEqual(len(self.asked), 3)
        self.refuse(2)
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))
        self.assertEqual(
            self.logged(),
            [
                "imap backend 192.0.2.7:143 offers IMAP4rev1, MOVE",
                "imap backend 192.0.2.7:143 cannot be asked what it offers: it refused the connection; what is known"
                " of it stays",
            ],
        )

    def test_oneDown(self):
        """What the others offer is announced if one is down at the start, or is out of use."""
        self.start(LEARNS + "proxy_pass = store\n")
        self.answer(1, b"IMAP4rev1", b"MOVE")
        self.assertEqual(self.announced, FALLBACK)
        self.refuse(0)
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))
        self.start(LEARNS.replace("192.0.2.2:143", "192.0.2.2:143 down") + "proxy_pass = store\n")
        self.answer(0, b"IMAP4rev1", b"MOVE")
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))

    def test_silent(self):
        """A backend that says nothing is left after some time."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n")
        transport = FakeTransport()
        transport.connect(self.reactor.tcpClients[0][2].buildProtocol(transport.getPeer()))
        self.advance(TIMEOUT)
        self.assertTrue(transport.aborted)
        self.assertIn("did not answer within 30 s", self.logged()[0])

    def test_farewell(self):
        """What a backend offers counts at once; one that does not answer the goodbye is left after some time."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n")
        transport = FakeTransport()
        transport.connect(self.reactor.tcpClients[0][2].buildProtocol(transport.getPeer()))
        transport.protocol.dataReceived(b"* OK [CAPABILITY IMAP4rev1 MOVE] ready\r\n")
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))
        self.assertFalse(transport.disconnecting)
        self.reactor.advance(FAREWELL)
        self.assertTrue(transport.aborted)

    def test_hourly(self):
        """Each backend is asked again after an hour, give or take a tenth: here a tenth more."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n")
        self.answer(0, b"IMAP4rev1", b"MOVE")
        self.advance(INTERVAL * 1.1 - 2 * LOOK)
        self.assertEqual(len(self.asked), 1)
        self.advance(LOOK)
        self.assertEqual(len(self.asked), 2)

    def test_back(self):
        """A backend whose own standing changes is asked again soon, but not more often than a failing one."""
        self.start(LEARNS + "proxy_pass = store\n")
        self.answer(0, b"IMAP4rev1")
        self.answer(1, b"IMAP4rev1")
        self.advance(RETRY)
        self.notices.publish("rest", "store/192.0.2.2:1430", {"since": 1})
        self.notices.publish("order", "1192.0.2.2:143", {"word": "up"})
        self.advance(AGAIN)
        self.assertEqual(len(self.asked), 2)
        self.notices.publish("rest", "store/192.0.2.2:143", {"since": 1})
        self.advance(AGAIN)
        self.assertEqual(self.asked[2:], ["192.0.2.2"])
        self.answer(2, b"IMAP4rev1")
        for _ in range(100):
            self.notices.publish("rest", "store/192.0.2.2:143", {"since": 1})
        self.reactor.advance(LOOK)
        self.assertEqual(len(self.asked), 3)
        self.advance(RETRY)
        self.assertEqual(self.asked[3:], ["192.0.2.2"])

    def test_notFirst(self):
        """Only the first process asks. The others announce what it publishes, also one that starts later."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n", notices=Notices(MemoryReactorClock(), isFirst=False))
        self.advance(RETRY)
        self.assertEqual(self.asked, [])
        self.notices.receive("capabilities", "imap 192.0.2.7:143 off", ["IMAP4rev1", "MOVE"])
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n", notices=self.notices)
        self.assertEqual(self.announced, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))

    def test_stop(self):
        """A gateway that drains asks no more, and leaves nothing behind; one that asks then gives up."""
        self.start(LEARNS + "proxy_pass = store\n")
        self.answer(0, b"IMAP4rev1")
        transport = FakeTransport()
        transport.connect(self.reactor.tcpClients[1][2].buildProtocol(transport.getPeer()))
        self.gateway.drain(farewell=True, patience=None)
        self.assertTrue(transport.aborted)
        self.advance(INTERVAL * 2)
        self.assertEqual(len(self.asked), 2)
        self.assertEqual([each for each in self.events if each["log_level"] > LogLevel.info], [])

    def test_stopAtOnce(self):
        """A gateway that drains right behind an answer leaves no timer behind."""
        self.start(LEARNS + "proxy_pass = store\n")
        transport = FakeTransport()
        transport.connect(self.reactor.tcpClients[0][2].buildProtocol(transport.getPeer()))
        transport.protocol.dataReceived(b"* OK [CAPABILITY IMAP4rev1] ready\r\n")
        self.gateway.drain(farewell=True, patience=None)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_reload(self):
        """A gateway that takes over from another counts sessions at the servers that this one has met."""
        self.start(LEARNS + "proxy_pass = 192.0.2.7:143\n")
        self.answer(0, b"IMAP4rev1", b"MOVE")
        before = self.gateway
        after = Gateway(before.settings, self.reactor, state=ProcessState.of(self.reactor, self.notices))
        self.deafen(after)
        after.goOnFrom(before)
        after.startService()
        self.assertEqual(after.factories[0].announcement.words, (b"IMAP4rev1", b"MOVE", b"SASL-IR"))
        backend = Backend("192.0.2.7", 143)
        (place,) = after._learning._learners[0].places.standing([backend])
        self.assertIs(place.peer, before.upstreams.lone(backend))
        self.assertIs(place.peer, after.upstreams.lone(backend))

    def test_strangers(self):
        """Nothing is learned of a server that only an authentication service names."""
        self.start(LEARNS + "auth_http = http://127.0.0.1:9/\n")
        self.answer(0, b"IMAP4rev1", b"MOVE")
        make = self.gateway.factories[0].connector._client
        for host, port, isKnown in (("192.0.2.1", 143, True), ("192.0.2.1", 144, False), ("192.0.2.9", 143, False)):
            backend, begin = Backend(host, port), cast(Begin, None)
            place = Place(str(backend), backend, begin, None)
            client = make(Caller(self.gateway.settings.servers[0], "mx.test"), place)
            self.assertEqual(client.known is not UNKNOWN, isKnown)

    def test_order(self):
        """A backend that an operator has taken down is not asked."""
        self.start(LEARNS + "proxy_pass = store\n")
        self.answer(0, b"IMAP4rev1")
        self.answer(1, b"IMAP4rev1")
        self.gateway.standing.order("192.0.2.1:143", "down")
        self.advance(INTERVAL * 2)
        self.assertNotIn("192.0.2.1", self.asked[2:])
        self.assertIn("192.0.2.2", self.asked[2:])

    def test_most(self):
        """Few backends are asked at a time."""
        servers = "".join(f"    192.0.2.{number}:143\n" for number in range(10, 40))
        self.start(LEARNS + "proxy_pass = big\n[upstream big]\nserver =\n" + servers)
        self.assertEqual(len(self.asked), 4)
        for number in range(30):
            self.answer(number, b"IMAP4rev1")
        self.assertEqual(len(self.asked), 30)
