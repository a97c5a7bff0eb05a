"""
Tests of L{mailgate.auth.http.agent}: that nothing which belongs to one request becomes the answer to another, and how
many connections there are.
"""

from __future__ import annotations

import socket

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import ISSLTransport
from twisted.trial.unittest import TestCase

from mailgate.auth.http.agent import COOLING, KeepAliveAgent
from mailgate.auth.http.connection import BODY_PATIENCE, ExchangeCancelled, ExchangeFailed, HTTPConnection
from mailgate.lean.reactor import LeanReactor
from mailgate.net.endpoints import endpointFor
from mailgate.test.support.httpagent import REQUEST, RESPONSE, AgentTestCase
from mailgate.tls.backend import backendTLS

OLD_REQUEST = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")
SMUGGLED = b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-User: admin\r\nContent-Length: 0\r\n\r\n"


class FakeSocket:
    """A socket on which the bytes C{waiting} have come; L{None} is for none, empty for the end."""

    waiting: bytes | None = None

    def fileno(self) -> int:
        return -1

    def recv(self, size: int, flags: int) -> bytes:
        if self.waiting is None:
            raise BlockingIOError
        assert flags & socket.MSG_PEEK
        return self.waiting[:size]


class DistrustCase(AgentTestCase):
    """An agent that counts how often it has lost its trust."""

    cooling: float | None = 0.0
    most = 0

    def setUp(self):
        super().setUp()
        self.distrusted = 0
        self.agent = KeepAliveAgent(
            self.endpoint, self.clock, b"127.0.0.1", b"/auth?x", cooling=self.cooling, most=self.most
        )
        self.agent.whenDistrusted = self._count

    def _count(self):
        self.distrusted += 1

    def idle(self, count=1):
        """So many connections that have served, and are kept."""
        asked = [self.ask() for _ in range(count)]
        connections = [self.endpoint.accept() for _ in asked]
        for connection in connections:
            connection.transport.socket = FakeSocket()
            connection.dataReceived(RESPONSE)
            connection.transport.clear()
        return connections

    def assertNothingKept(self):
        """Each request has a connection of its own, as with nginx."""
        for _ in range(2):
            asked = self.ask()
            connection = self.endpoint.accept()
            self.assertEqual(connection.transport.value(), OLD_REQUEST)
            connection.dataReceived(RESPONSE)
            self.successResultOf(asked)
            self.assertTrue(connection.transport.left)
        self.assertEqual(self.distrusted, 1)

    def status(self, asked):
        """Whom the answer to C{asked} is about."""
        return self.successResultOf(asked).headers.getRawHeaders(b"Auth-User")


class CoolingTests(DistrustCase):
    """Connections that are used again after a moment of silence."""

    cooling = COOLING

    def test_cooling(self):
        """A connection is used again after COOLING seconds, and not before: until then another is made."""
        (first,) = self.idle()
        self.clock.advance(COOLING - 0.001)
        self.ask()
        self.assertEqual(first.transport.value(), b"")
        self.assertEqual(len(self.endpoint.connecting), 1)
        self.clock.advance(0.002)
        self.ask()
        self.assertEqual(first.transport.value(), REQUEST)
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_coolsAnew(self):
        """After each answer it is silent anew."""
        (first,) = self.idle()
        self.clock.advance(COOLING + 0.001)
        self.ask()
        first.dataReceived(RESPONSE)
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_unasked(self):
        """What comes while it cools is the end of trust."""
        (first,) = self.idle()
        self.clock.advance(COOLING / 2)
        first.dataReceived(SMUGGLED)
        self.assertNothingKept()


class PeekTests(DistrustCase):
    """What has come on an idle connection, and nobody has read yet."""

    def test_nothing(self):
        """A connection on which nothing has come is used."""
        (first,) = self.idle()
        self.ask()
        self.assertEqual(first.transport.value(), REQUEST)

    def test_noSocket(self):
        """So is one that has no socket to look at."""
        (first,) = self.idle()
        del first.transport.socket
        self.ask()
        self.assertEqual(first.transport.value(), REQUEST)

    def test_bytes(self):
        """One byte is the end of trust: the request goes over a new connection, and all that are kept are closed."""
        first, second = self.idle(2)
        second.transport.socket.waiting = SMUGGLED
        asked = self.ask()
        self.assertTrue(first.transport.aborting and second.transport.aborting)
        connection = self.endpoint.accept()
        self.assertEqual(connection.transport.value(), OLD_REQUEST)
        connection.dataReceived(RESPONSE)
        self.assertIsNone(self.status(asked))
        self.assertNothingKept()

    def test_end(self):
        """One that has ended is passed over, and no reason to mistrust the others."""
        first, second = self.idle(2)
        second.transport.socket.waiting = b""
        self.ask()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, b""))
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)
        self.lose(second)
        self.assertEqual(self.distrusted, 0)

    def test_error(self):
        """So is one that has been reset."""

        class Reset(FakeSocket):
            def recv(self, size, flags):
                raise ConnectionResetError

        (first,) = self.idle()
        first.transport.socket = Reset()
        self.ask()
        self.assertEqual((len(self.endpoint.connecting), self.distrusted), (1, 0))


class TLSPeekTests(DistrustCase):
    """The same under TLS, which has things of its own to say."""

    cooling = COOLING

    def setUp(self):
        super().setUp()
        self.endpoint._interfaces = (ISSLTransport,)
        self.agent.tls = "a context"

    def idle(self, count=1):
        self.patch(HTTPConnection, "connectionMade", lambda connection: self.agent.opened(connection))
        return super().idle(count)

    def test_bytes(self):
        """Bytes of TLS prove nothing: another connection is used, and this one after another silence."""
        first, second = self.idle(2)
        self.clock.advance(COOLING + 0.001)
        second.transport.socket.waiting = b"\x17"
        self.ask()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, b""))
        second.transport.socket.waiting = None
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)
        self.clock.advance(COOLING + 0.001)
        self.ask()
        self.assertEqual(second.transport.value(), REQUEST)
        self.assertEqual(self.distrusted, 0)

    def test_unasked(self):
        """What comes out of it is proof."""
        (first,) = self.idle()
        first.dataReceived(b"x")
        self.assertNothingKept()


class RecordTests(DistrustCase):
    """Over Twisted's TLS, which has read more than the record that it gives."""

    def setUp(self):
        super().setUp()
        self.endpoint._interfaces = (ISSLTransport,)
        self.agent.tls = "a context"
        self.patch(HTTPConnection, "connectionMade", lambda connection: self.agent.opened(connection))

    def test_askedWhileRead(self):
        """What is asked because of an answer goes elsewhere: the surplus may be the next record."""
        first, last = self.ask(), []
        first.addCallback(lambda _: last.append(self.ask()))
        connection = self.endpoint.accept()
        connection.dataReceived(RESPONSE)
        self.assertEqual(connection.transport.value(), REQUEST)
        connection.dataReceived(SMUGGLED)
        self.assertNoResult(last[0])
        self.endpoint.accept().dataReceived(RESPONSE)
        self.assertIsNone(self.status(last[0]))
        self.assertEqual(self.distrusted, 1)

    def test_askedLater(self):
        """All that has been read has been given by then: the connection is used again."""
        (first,) = self.idle()
        self.ask()
        self.assertEqual(first.transport.value(), REQUEST)


class DistrustTests(DistrustCase):
    """A server that has sent what nobody asked for."""

    def test_idle(self):
        """A byte on an idle connection closes all that are idle, and the server is trusted no more."""
        connections = self.idle(3)
        connections[1].dataReceived(b"x")
        self.assertEqual([each.transport.aborting for each in connections], [True] * 3)
        self.assertNothingKept()

    def test_behindFirst(self):
        """Behind the first answer of a connection it is the answer that is believed, and nothing else any more."""
        for response in (
            RESPONSE + SMUGGLED,
            b"HTTP/1.1 204 No Content\r\nAuth-Status: no\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nAuth-Status: no\r\nContent-Length: 0\r\n\r\nx",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\nx",
        ):
            self.setUp()
            asked = self.ask()
            connection = self.endpoint.accept()
            connection.dataReceived(response)
            self.assertIsNone(self.status(asked))
            self.assertTrue(connection.transport.left)
            self.assertNothingKept()

    def test_behindBody(self):
        """So it is behind a body that comes after the answer has been given."""
        (connection,) = self.idle()
        asked = self.ask()
        connection.dataReceived(RESPONSE[:-2])
        self.successResultOf(asked)
        connection.dataReceived(RESPONSE[-2:] + b"x")
        self.assertTrue(connection.transport.aborting)
        self.assertNothingKept()

    def test_behindLater(self):
        """
        Of two answers that come at once on a connection that has served before, neither is believed: the first may be
        the surplus of before. The request is sent again.
        """
        (connection,) = self.idle()
        asked = self.ask()
        connection.dataReceived(SMUGGLED + RESPONSE)
        self.assertTrue(connection.transport.aborting)
        self.assertNoResult(asked)
        self.lose(connection)
        again = self.endpoint.accept()
        self.assertEqual(again.transport.value(), OLD_REQUEST)
        again.dataReceived(RESPONSE)
        self.assertIsNone(self.status(asked))
        self.assertNothingKept()

    def test_noHTTP(self):
        """What is no HTTP on a connection that has served before is surplus, too; on a new one it is a failure."""
        (connection,) = self.idle()
        asked = self.ask()
        connection.dataReceived(b"joe")
        again = self.endpoint.accept()
        again.dataReceived(b"joe")
        self.assertIn("the response is not HTTP/1.x", self.failureOf(asked))
        self.assertNothingKept()

    def test_underWay(self):
        """
        What is under way where others were answered before is asked again, in part answered or not; what is under way
        on a new connection is not.
        """
        connections = self.idle(3)
        asked = [self.ask() for _ in range(4)]
        new = self.endpoint.accept()
        connections[1].dataReceived(SMUGGLED[:-2])
        # This one has brought a byte behind its answer.
        connections[2].dataReceived(RESPONSE + b"x")
        self.assertEqual([each.transport.aborting for each in connections], [True] * 3)
        self.assertFalse(new.transport.aborting)
        connections[1].dataReceived(SMUGGLED[-2:])
        connections[0].dataReceived(SMUGGLED)
        for connection in connections:
            self.lose(connection)
        self.assertEqual(len(self.endpoint.connecting), 3)
        for connection in (new, *[self.endpoint.accept() for _ in range(3)]):
            connection.dataReceived(RESPONSE)
        self.assertEqual([self.status(each) for each in asked], [None] * 4)
        self.assertNothingKept()

    def test_cancelled(self):
        """What is asked again can be cancelled."""
        first, second = self.idle(2)
        asked = self.ask()
        first.dataReceived(b"x")
        self.assertTrue(second.transport.aborting)
        asked.cancel()
        self.assertEqual(self.failureResultOf(asked, ExchangeCancelled).value.phase, "connecting")
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_lastResponse(self):
        """Behind an answer after which the server closes there may be anything."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" + SMUGGLED)
        self.successResultOf(asked)
        self.assertEqual(self.distrusted, 0)

    def test_cancelledBefore(self):
        """The answer to a request that has been cancelled is not waited for: its connection is nobody's."""
        (connection,) = self.idle()
        asked = self.ask()
        connection.dataReceived(RESPONSE[:20])
        asked.cancel()
        self.failureResultOf(asked, ExchangeCancelled)
        connection.dataReceived(RESPONSE[20:])
        self.ask()
        self.assertEqual((len(self.endpoint.connecting), self.distrusted), (1, 0))


class NotKeptTests(DistrustCase):
    """An agent that keeps no connections."""

    cooling = None

    def test_surplus(self):
        """It does not matter, and is not told of, what comes behind an answer."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(RESPONSE + SMUGGLED)
        self.successResultOf(asked)
        connection.dataReceived(b"x")
        self.assertEqual(self.distrusted, 0)


class LimitTests(DistrustCase):
    """An agent that may have two connections."""

    cooling = COOLING
    most = 2

    def test_evicted(self):
        """Where all are cooling one is closed, and when it is gone a new one made."""
        first, second = self.idle(2)
        asked = self.ask()
        self.assertEqual((first.transport.aborting, second.transport.aborting), (False, True))
        self.assertEqual(self.endpoint.connecting, [])
        self.lose(second)
        self.endpoint.accept().dataReceived(RESPONSE)
        self.successResultOf(asked)

    def test_bodyGivenUp(self):
        """So it is with one whose body is still to come, its answer having been given, or that is being closed."""
        for response in (RESPONSE[:-1], b"HTTP/1.0 200 OK\r\n\r\n"):
            self.setUp()
            connection = self.exchange(response)
            self.ask()
            self.ask()
            self.assertEqual(len(self.endpoint.connecting), 1)
            self.assertTrue(connection.transport.aborting)
            self.lose(connection)
            self.assertEqual(len(self.endpoint.connecting), 2)

    def test_enough(self):
        """No more are closed than are needed."""
        first, second = self.idle(2)
        self.ask()
        self.ask()
        self.assertTrue(first.transport.aborting and second.transport.aborting)
        self.lose(second)
        self.lose(first)
        self.assertEqual(len(self.endpoint.connecting), 2)

    def test_cooledFirst(self):
        """Where one can be used it is."""
        first, second = self.idle(2)
        self.clock.advance(COOLING + 0.001)
        self.ask()
        self.ask()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, REQUEST))

    def test_unreachable(self):
        """A connection that could not be made leaves its room to the next."""
        asked = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.endpoint.connecting), 2)
        self.endpoint.refuse()
        self.failureResultOf(asked[0], ExchangeFailed)
        self.assertEqual(len(self.endpoint.connecting), 2)

    def test_cancelled(self):
        """Who waits for room, or to be connected, and cancels leaves it to the next."""
        asked = [self.ask() for _ in range(4)]
        for each in (asked[2], asked[0]):
            each.cancel()
            self.assertEqual(self.failureResultOf(each, ExchangeCancelled).value.phase, "connecting")

    def test_askedAgain(self):
        """What is asked again waits until the connection of before is gone."""
        first, second = self.idle(2)
        self.clock.advance(COOLING + 0.001)
        asked = self.ask()
        first.dataReceived(b"x")
        self.assertEqual(self.endpoint.connecting, [])
        self.lose(second)
        self.lose(first)
        self.endpoint.accept().dataReceived(RESPONSE)
        self.successResultOf(asked)

    def test_deadOne(self):
        """A connection that was dead when it was asked makes room for the one that takes its place."""
        first, second = self.idle(2)
        self.clock.advance(COOLING + 0.001)
        self.ask()
        self.lose(second)
        self.assertEqual(len(self.endpoint.connecting), 1)
        self.clock.advance(BODY_PATIENCE)
        self.assertFalse(first.transport.aborting)


class SocketTests(TestCase):
    """What can be seen of real connections before it is read."""

    timeout = 30

    def endpoint(self, reactor, port):
        """Where the server is."""
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    async def connected(self, tls):
        """A connection, under C{tls} if that is not L{None}, and the server's end of it."""
        from twisted.internet import reactor

        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        endpoint = self.endpoint(reactor, listening.getsockname()[1])
        agent = KeepAliveAgent(endpoint, reactor, b"a", b"/", tls)
        lost = Deferred()
        agent.lost = lost.callback
        connection = await endpoint.connect(agent._connections)
        server, _ = listening.accept()
        self.addCleanup(lambda: lost)
        self.addCleanup(connection.transport.abortConnection)
        self.addCleanup(server.close)
        return connection, server

    async def assertSeen(self, tls=None):
        """Nothing, a byte, and the end are seen, and not taken."""
        connection, server = await self.connected(tls)
        self.assertIsNone(connection.peek())
        server.sendall(b"xy")
        self.assertEqual((connection.peek(), connection.peek()), (b"x", b"x"))
        connection, server = await self.connected(tls)
        server.shutdown(socket.SHUT_WR)
        self.assertEqual(connection.peek(), b"")

    def test_plain(self):
        """Of a plain connection."""
        return self.assertSeen()

    def test_tls(self):
        """Under TLS."""
        return self.assertSeen(backendTLS("127.0.0.1", False, None))


class LeanSocketTests(SocketTests):
    """The same over lean transports."""

    def endpoint(self, reactor, port):
        return endpointFor(LeanReactor(reactor), "127.0.0.1", port, 5.0)


class NamedSocketTests(SocketTests):
    """The same where a name leads to the server."""

    def endpoint(self, reactor, port):
        return endpointFor(reactor, "localhost", port, 5.0)
