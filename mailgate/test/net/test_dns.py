"""Whom a question goes to, and which answer counts."""

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
        """No socket is open, and no timer but those that close sockets waits."""
        self.assertEqual(self.reactor.open, [])
        self.reactor.advance(0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


def payloads(message: dns.Message) -> list[object]:
    """What the answers of C{message} say."""
    return [record.payload for record in message.answers]


class FakeTests(NameServersTestCase):
    """The reactor of these tests."""

    def test_interfaces(self) -> None:
        """It and its sockets are what they stand for."""
        self.ask()
        self.assertTrue(verifyObject(IReactorUDP, self.reactor))
        self.assertTrue(verifyObject(IListeningPort, self.reactor.ports[0]))
        self.assertTrue(verifyObject(IUDPTransport, self.reactor.ports[0]))


class TurnsTests(NameServersTestCase):
    """Who is asked."""

    def test_turns(self) -> None:
        """Each question goes to the next server, the first to the first."""
        for _ in range(3):
            self.ask()
        self.assertEqual(self.sentTo(), ["192.0.2.1", "192.0.2.2", "192.0.2.1"])

    def test_resend(self) -> None:
        """Without an answer the next one is asked every five seconds, from the same socket and with the same id."""
        self.ask()
        for _ in range(2):
            self.reactor.advance(4.9)
            self.reactor.advance(0.1)
        (port,) = self.reactor.ports
        self.assertEqual([server for _, server in port.sent], [FIRST, SECOND, FIRST])
        self.assertEqual(len({wire for wire, _ in port.sent}), 1)

    def test_unpredictable(self) -> None:
        """Each question has a port and an id of its own."""
        for _ in range(20):
            self.ask()
        self.assertGreater(len({port.number for port in self.reactor.ports}), 15)
        self.assertGreater(len({parsed(port.sent[0][0]).id for port in self.reactor.ports}), 15)

    def test_recursion(self) -> None:
        """The server is asked to find out, if it does not know."""
        self.ask()
        self.assertTrue(parsed(self.reactor.ports[0].sent[0][0]).recDes)

    def test_families(self) -> None:
        """A server of IPv6 is asked from a socket of that, one of IPv4 from another."""
        self.servers = NameServers((FIRST, THIRD), self.reactor)
        self.ask()
        self.reactor.advance(5)
        self.assertEqual([port.interface for port in self.reactor.ports], ["", "::"])
        self.assertEqual(self.reactor.ports[1].sent[0][1], THIRD)

    def test_unreachable(self) -> None:
        """If there is no way to one, the next is asked at once; if there is none to any, they all are again later."""
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
        """A port that is taken, or that is not ours to take, is not the last one."""
        self.reactor.taken = [OSError(errno.EADDRINUSE, ""), OSError(errno.EACCES, "")]
        self.ask()
        self.assertEqual(len(self.reactor.ports), 1)

    def test_noFamily(self) -> None:
        """To a server of IPv6 there is no way from a host that has none."""
        for reason in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            self.servers = NameServers((THIRD, FIRST), self.reactor)
            self.reactor.taken = [OSError(reason, "")]
            self.assertNoResult(self.ask())
        self.assertEqual(self.sentTo(), ["192.0.2.1", "192.0.2.1"])

    def test_noSocket(self) -> None:
        """If there are no sockets left that is said at once, and not tried again and again."""
        self.reactor.taken = [OSError(errno.EMFILE, "Too many open files")] * 2
        self.failureResultOf(self.ask(), CannotListenError)
        self.assertEqual(len(self.reactor.taken), 1)
        self.assertNothingLeft()

    def test_noPort(self) -> None:
        """Some day it is given up to look for a port."""
        self.reactor.taken = [OSError(errno.EADDRINUSE, "")] * 1000
        self.failureResultOf(self.ask(), CannotListenError)
        self.assertGreater(len(self.reactor.taken), 0)


class AnswerTests(NameServersTestCase):
    """What counts as an answer."""

    def setUp(self) -> None:
        super().setUp()
        self.answered = self.ask("www.example")
        self.port = self.reactor.ports[0]
        self.wire = self.port.sent[0][0]

    def test_answer(self) -> None:
        """It ends the question, which leaves nothing behind."""
        self.port.receive(reply(self.wire, ADDRESS), FIRST)
        self.assertEqual(payloads(self.successResultOf(self.answered)), [ADDRESS])
        self.assertNothingLeft()

    def test_code(self) -> None:
        """That there is an error is an answer."""
        self.port.receive(reply(self.wire, code=dns.ESERVER), FIRST)
        self.assertEqual(self.successResultOf(self.answered).rCode, dns.ESERVER)

    def test_late(self) -> None:
        """One that comes when another server has been asked is still good."""
        self.reactor.advance(6)
        self.port.receive(reply(self.wire, ADDRESS), FIRST)
        self.successResultOf(self.answered)
        self.assertNothingLeft()

    def test_strangers(self) -> None:
        """Only of those who have been asked is one taken, and from the port where they were."""
        for sender in (SECOND, ("192.0.2.1", 54), ("198.51.100.9", 53)):
            self.port.receive(reply(self.wire, ADDRESS), sender)
        self.assertNoResult(self.answered)

    def test_notTheAnswer(self) -> None:
        """Another id, name, type, number of questions, or a question, is no answer."""
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
        """What cannot be decoded, or ends too soon, is passed over, and nothing is logged of it."""
        whole = reply(self.wire, ADDRESS)
        question = len(self.wire)
        loop = whole[:question] + b"\xc0" + bytes([question]) + whole[question + 2 :]
        for data in (b"", whole[:1], whole[:11], whole[:question], whole[:-1], loop, whole[:2] + b"\xff" * 200):
            self.port.receive(data, FIRST)
            self.assertNoResult(self.answered)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_unsuitable(self) -> None:
        """One that does not suit is passed over; the next server is asked in its turn and not earlier."""
        self.port.receive(reply(self.wire, OTHER), FIRST)
        self.assertNoResult(self.answered)
        self.assertEqual(self.sentTo(), ["192.0.2.1"])
        self.reactor.advance(5)
        self.port.receive(reply(self.wire, ADDRESS), SECOND)
        self.successResultOf(self.answered)

    def test_twice(self) -> None:
        """A second answer is nobody's."""
        self.port.protocol.datagramReceived(reply(self.wire, ADDRESS), FIRST)
        self.port.protocol.datagramReceived(reply(self.wire, ADDRESS), FIRST)
        self.successResultOf(self.answered)

    def test_timeout(self) -> None:
        """Without one it ends in time, and leaves nothing behind."""
        self.reactor.pump([5] * 5)
        self.assertNoResult(self.answered)
        self.reactor.advance(5)
        self.failureResultOf(self.answered, TimeoutError)
        self.assertNothingLeft()

    def test_cancelled(self) -> None:
        """Who cancels leaves nothing behind."""
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
    """An answer that is cut off is asked for again, over TCP."""

    def setUp(self) -> None:
        super().setUp()
        self.answered = self.ask()
        port = self.reactor.ports[0]
        port.receive(reply(port.sent[0][0], cut=True), FIRST)

    def connect(self) -> StringTransport:
        """The latest connection is made."""
        factory: Any = self.reactor.tcpClients[-1][2]
        self.stream = factory.buildProtocol(None)
        transport = StringTransport()
        self.stream.makeConnection(transport)
        return transport

    def test_whole(self) -> None:
        """The same server is asked, at its port, and the connection ended."""
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
        """If it does not accept connections the next one is asked, five seconds later."""
        refused = Failure(ConnectionRefusedError())
        self.reactor.tcpClients[0][2].clientConnectionFailed(self.reactor.connectors[0], refused)
        self.assertEqual(len(self.reactor.tcpClients), 1)
        self.reactor.advance(5)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_lost(self) -> None:
        """As when it ends the connection without an answer."""
        self.connect()
        self.stream.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(5)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_silent(self) -> None:
        """If it says nothing for five seconds the next one is asked."""
        transport = self.connect()
        self.reactor.advance(5)
        self.assertTrue(transport.disconnected)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_unconnected(self) -> None:
        """As when no connection comes about."""
        self.reactor.advance(5)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertEqual(self.reactor.tcpClients[1][:2], SECOND)

    def test_timeout(self) -> None:
        """In the end there is no answer, and nothing is left behind."""
        self.reactor.pump([5] * 6)
        self.failureResultOf(self.answered, TimeoutError)
        self.assertNothingLeft()

    def test_cancelled(self) -> None:
        """Nor is when it is cancelled."""
        self.answered.cancel()
        self.failureResultOf(self.answered, CancelledError)
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
        self.assertNothingLeft()
