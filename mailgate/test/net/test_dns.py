"""
The servers that a query goes to, and the answers that count.
"""

from __future__ import annotations

import errno
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IListeningPort, IReactorUDP, IUDPTransport
from twisted.internet.testing import StringTransport
from twisted.names import dns
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.net.dns import NameServers
from mailgate.test.support.datagrams import DatagramReactor, parsed, reply

FIRST, SECOND, THIRD = ("192.0.2.1", 53), ("192.0.2.2", 5353), ("2001:db8::3", 53)
ADDRESS = dns.Record_A("198.51.100.1", 60)
OTHER = dns.Record_A("198.51.100.2", 60)


class NameServersTestCase(SynchronousTestCase):
    """Name servers on a reactor without a network."""

    def setUp(self) -> None:
        self.reactor = DatagramReactor()
        self.servers = NameServers((FIRST, SECOND), self.reactor)

    def ask(self, name: str = "www.example", timeout: float = 30) -> Deferred[dns.Message]:
        return self.servers.ask(dns.Query(name, dns.A), lambda message: OTHER not in payloads(message), timeout)

    def sentTo(self) -> list[str]:
        return [host for host, _, _ in self.reactor.sent]

    def assertNothingLeft(self) -> None:
        """Check that no socket is open, and that no timer runs except those that close sockets."""
        self.assertEqual(self.reactor.open, [])
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


def payloads(message: dns.Message) -> list[object]:
    """Return the payloads of the answers in C{message}."""
    return [record.payload for record in message.answers]


class FakeTests(NameServersTestCase):
    """The fake reactor of these tests."""

    def test_interfaces(self) -> None:
        """The reactor and its sockets provide the interfaces."""
        self.ask()
        self.assertTrue(verifyObject(IReactorUDP, self.reactor))
        self.assertTrue(verifyObject(IListeningPort, self.reactor.ports[0]))
        self.assertTrue(verifyObject(IUDPTransport, self.reactor.ports[0]))


class TurnsTests(NameServersTestCase):
    """The servers that are queried."""

    def test_turns(self) -> None:
        """Each query goes to the next server; the first query goes to the first one."""
        for _ in range(3):
            self.ask()
        self.assertEqual(self.sentTo(), ["192.0.2.1", "192.0.2.2", "192.0.2.1"])

    def test_resend(self) -> None:
        """
        Without an answer the query goes to the next server every five seconds, from the same socket and with the same
        id.
        """
        self.ask()
        for _ in range(2):
            self.reactor.advance(4.9)
            self.reactor.advance(0.1)
        (port,) = self.reactor.ports
        self.assertEqual([server for _, server in port.sent], [FIRST, SECOND, FIRST])
        self.assertEqual(len({wire for wire, _ in port.sent}), 1)

    def test_unpredictable(self) -> None:
        """Each query has a random port and id."""
        for _ in range(20):
            self.ask()
        self.assertGreater(len({port.number for port in self.reactor.ports}), 15)
        self.assertGreater(len({parsed(port.sent[0][0]).id for port in self.reactor.ports}), 15)

    def test_recursion(self) -> None:
        """The query asks for recursion."""
        self.ask()
        self.assertTrue(parsed(self.reactor.ports[0].sent[0][0]).recDes)

    def test_families(self) -> None:
        """Queries to IPv6 servers and to IPv4 servers have different sockets."""
        self.servers = NameServers((FIRST, THIRD), self.reactor)
        self.ask()
        self.reactor.advance(5)
        self.assertEqual([port.interface for port in self.reactor.ports], ["", "::"])
        self.assertEqual(self.reactor.ports[1].sent[0][1], THIRD)

    def test_unreachable(self) -> None:
        """
        Without a route to one server the query goes to the next one at once. Without a route to any, all are tried
        later.
        """
        self.reactor.unreachable = {"192.0.2.1"}
        self.ask()
        self.assertEqual(self.sentTo(), ["192.0.2.2"])
        self.reactor.unreachable = {"192.0.2.1", "192.0.2.2"}
        answered = self.ask()
        self.assertNoResult(answered)
        self.reactor.unreachable = set()
        self.reactor.advance(5)
        self.assertEqual(len(self.reactor.ports[1].sent), 1)

    def test_portTaken(self) -> None:
        """If a port is in use or not allowed, another one is tried."""
        self.reactor.taken = [OSError(errno.EADDRINUSE, ""), OSError(errno.EACCES, "")]
        self.ask()
        self.assertEqual(len(self.reactor.ports), 1)

    def test_noFamily(self) -> None:
        """On a host without IPv6 there is no route to IPv6 servers."""
        for reason in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.servers = NameServers((THIRD, FIRST), self.reactor)
            self.reactor.taken = [OSError(reason, "")]
            self.assertNoResult(self.ask())
        self.assertEqual(self.sentTo(), ["192.0.2.1", "192.0.2.1"])

    def test_noSocket(self) -> None:
        """If the process has too many open files, the query fails at once."""
        self.reactor.taken = [OSError(errno.EMFILE, "Too many open files")] * 2
        self.failureResultOf(self.ask(), CannotListenError)
        self.assertEqual(len(self.reactor.taken), 1)
        self.assertNothingLeft()

    def test_noPort(self) -> None:
        """If no port is free, the query fails after a number of attempts."""
        self.reactor.taken = [OSError(errno.EADDRINUSE, "")] * 1000
        self.failureResultOf(self.ask(), CannotListenError)
        self.assertGreater(len(self.reactor.taken), 0)


class AnswerTests(NameServersTestCase):
    """The answers that count."""

    def setUp(self) -> None:
        super().setUp()
        self.answered = self.ask("www.example")
        self.port = self.reactor.ports[0]
        self.wire = self.port.sent[0][0]

    def test_answer(self) -> None:
        """An answer ends the query, and closes its socket."""
        self.port.receive(reply(self.wire, ADDRESS), FIRST)
        self.assertEqual(payloads(self.successResultOf(self.answered)), [ADDRESS])
        self.assertNothingLeft()

    def test_code(self) -> None:
        """An error code is an answer."""
        self.port.receive(reply(self.wire, code=dns.ESERVER), FIRST)
        self.assertEqual(self.successResultOf(self.answered).rCode, dns.ESERVER)

    def test_late(self) -> None:
        """A late answer counts even if another server has been queried since."""
        self.reactor.advance(6)
        self.port.receive(reply(self.wire, ADDRESS), FIRST)
        self.successResultOf(self.answered)
        self.assertNothingLeft()

    def test_strangers(self) -> None:
        """Only servers that were queried can answer, and only from the port that was queried."""
        for sender in (SECOND, ("192.0.2.1", 54), ("198.51.100.9", 53)):
            self.port.receive(reply(self.wire, ADDRESS), sender)
        self.assertNoResult(self.answered)

    def test_notTheAnswer(self) -> None:
        """A message with another id, name, type or number of questions is ignored, and so is a query."""
        identity = parsed(self.wire).id
        mistakes: list[dict[str, Any]] = [
            {"id": identity ^ 1},
            {"answer": 0},
            {"queries": [dns.Query("other.example", dns.A)]},
            {"queries": [dns.Query("www.example", dns.AAAA)]},
            {"queries": []},
        ]
        for mistake in mistakes:
            self.port.receive(reply(self.wire, ADDRESS, **mistake), FIRST)
            self.assertNoResult(self.answered)

    def test_case(self) -> None:
        """The case of the name does not matter."""
        self.port.receive(reply(self.wire, ADDRESS, queries=[dns.Query("WWW.example", dns.A)]), FIRST)
        self.successResultOf(self.answered)

    def test_undecodable(self) -> None:
        """Messages that cannot be decoded, or end too early, are ignored without a log line."""
        whole = reply(self.wire, ADDRESS)
        question = len(self.wire)
        loop = whole[:question] + b"\xc0" + bytes([question]) + whole[question + 2 :]
        for data in (b"", whole[:1], whole[:11], whole[:question], whole[:-1], loop, whole[:2] + b"\xff" * 200):
            self.port.receive(data, FIRST)
            self.assertNoResult(self.answered)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unsuitable(self) -> None:
        """An unsuitable answer is ignored. The next server is queried at its usual time."""
        self.port.receive(reply(self.wire, OTHER), FIRST)
        self.assertNoResult(self.answered)
        self.assertEqual(self.sentTo(), ["192.0.2.1"])
        self.reactor.advance(5)
        self.port.receive(reply(self.wire, ADDRESS), SECOND)
        self.successResultOf(self.answered)

    def test_twice(self) -> None:
        """A second answer is ignored."""
        self.port.protocol.datagramReceived(reply(self.wire, ADDRESS), FIRST)
        self.port.protocol.datagramReceived(reply(self.wire, ADDRESS), FIRST)
        self.successResultOf(self.answered)

    def test_timeout(self) -> None:
        """Without an answer the query fails after the timeout, and closes its socket."""
        self.reactor.pump([5] * 5)
        self.assertNoResult(self.answered)
        self.reactor.advance(5)
        self.failureResultOf(self.answered, TimeoutError)
        self.assertNothingLeft()

    def test_cancelled(self) -> None:
        """A cancelled query closes its socket."""
        self.answered.cancel()
        self.failureResultOf(self.answered, CancelledError)
        self.assertNothingLeft()

    def test_close(self) -> None:
        """close waits for sockets that are being closed."""
        self.answered.cancel()
        self.failureResultOf(self.answered, CancelledError)
        closed = self.servers.close()
        self.assertNoResult(closed)
        self.reactor.advance(0)
        self.successResultOf(closed)
        self.successResultOf(self.servers.close())


class StreamTests(NameServersTestCase):
    """A truncated answer makes the query go over TCP."""

    def setUp(self) -> None:
        super().setUp()
        self.answered = self.ask()
        port = self.reactor.ports[0]
        port.receive(reply(port.sent[0][0], cut=True), FIRST)

    def connect(self) -> StringTransport:
        """Establish the latest connection."""
        factory: Any = self.reactor.tcpClients[-1][2]
        self.stream = factory.buildProtocol(None)
        transport = StringTransport()
        self.stream.makeConnection(transport)
        return transport

    def test_whole(self) -> None:
        """The query goes to the same server and port. Then the connection is closed."""
        self.assertEqual(self.reactor.tcpClients[0][:2], FIRST)
        self.assertEqual(self.reactor.open, [])
        transport = self.connect()
        wire = transport.value()
        self.assertEqual(int.from_bytes(wire[:2], "big"), len(wire) - 2)
        answer = reply(wire[2:], ADDRESS)
        self.stream.dataReceived(len(answer).to_bytes(2, "big") + answer)
        self.assertEqual(payloads(self.successResultOf(self.answered)), [ADDRESS])
        self.assertTrue(transport.disconnected)
        self.stream.connectionLost(Failure(ConnectionDone()))
        self.assertNothingLeft()

    def test_refused(self) -> None:
        """If the server refuses connections, the next one is queried five seconds later."""
        refused = Failure(ConnectionRefusedError())
        self.reactor.tcpClients[0][2].clientConnectionFailed(self.reactor.connectors[0], refused)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.reactor.advance(5)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_lost(self) -> None:
        """If the server closes the connection without an answer, the next one is queried."""
        self.connect()
        self.stream.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(5)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_silent(self) -> None:
        """If the server sends nothing for five seconds, the next one is queried."""
        transport = self.connect()
        self.reactor.advance(5)
        self.assertTrue(transport.disconnected)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_unconnected(self) -> None:
        """If the connection attempt gets no answer, the next server is queried."""
        self.reactor.advance(5)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_timeout(self) -> None:
        """After the timeout the query fails, and everything is closed."""
        self.reactor.pump([5] * 6)
        self.failureResultOf(self.answered, TimeoutError)
        self.assertNothingLeft()

    def test_cancelled(self) -> None:
        """A cancelled query closes everything."""
        self.answered.cancel()
        self.failureResultOf(self.answered, CancelledError)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertNothingLeft()
