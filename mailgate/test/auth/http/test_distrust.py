"""
Tests of L{mailgate.auth.http.agent}: bytes of one response never answer another request, and the number of connections
is limited.
"""

from __future__ import annotations

import socket

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import ISSLTransport
from twisted.trial.unittest import TestCase

from mailgate.auth.http.agent import COOLING, SHORT_WAIT, KeepAliveAgent
from mailgate.auth.http.connection import BODY_PATIENCE, ExchangeCancelled, ExchangeFailed, HTTPConnection
from mailgate.lean.reactor import LeanReactor
from mailgate.net.endpoints import endpointFor
from mailgate.test.support.httpagent import REQUEST, RESPONSE, AgentTestCase
from mailgate.tls.backend import backendTLS

OLD_REQUEST = REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0")
SMUGGLED = b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-User: admin\r\nContent-Length: 0\r\n\r\n"


class FakeSocket:
    """A socket on which the bytes C{waiting} have arrived; L{None} means none, empty bytes mean the end."""

    waiting: bytes | None = None

    def fileno(self) -> int:
        return -1

    def recv(self, size: int, flags: int) -> bytes:
        if self.waiting is None:
            raise BlockingIOError
        assert flags & socket.MSG_PEEK
        return self.waiting[:size]


class DistrustCase(AgentTestCase):
    """An agent that counts calls of C{whenDistrusted}."""

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
        """Return so many idle connections that were used before."""
        asked = [self.ask() for _ in range(count)]
        connections = [self.endpoint.accept() for _ in asked]
        for connection in connections:
            connection.transport.socket = FakeSocket()
            connection.dataReceived(RESPONSE)
            connection.transport.clear()
        return connections

    def assertNothingKept(self):
        """Check that each request uses a new connection, as with nginx."""
        for _ in range(2):
            asked = self.ask()
            connection = self.endpoint.accept()
            self.assertEqual(connection.transport.value(), OLD_REQUEST)
            connection.dataReceived(RESPONSE)
            self.successResultOf(asked)
            self.assertTrue(connection.transport.left)
        self.assertEqual(self.distrusted, 1)

    def status(self, asked):
        """Return whose login the answer to C{asked} is about."""
        return self.successResultOf(asked).headers.getRawHeaders(b"Auth-User")


class CoolingTests(DistrustCase):
    """Connections that are used again after a short silence."""

    cooling = COOLING

    def test_cooling(self):
        """A connection is used again after COOLING seconds; before that, a new one is opened."""
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
        """The silence begins again after each answer."""
        (first,) = self.idle()
        self.clock.advance(COOLING + 0.001)
        self.ask()
        first.dataReceived(RESPONSE)
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_unasked(self):
        """A byte in this time ends the use of persistent connections."""
        (first,) = self.idle()
        self.clock.advance(COOLING / 2)
        first.dataReceived(SMUGGLED)
        self.assertNothingKept()


class PeekTests(DistrustCase):
    """Bytes that have arrived on an idle connection and have not been read."""

    def test_nothing(self):
        """A connection without such bytes is used."""
        (first,) = self.idle()
        self.ask()
        self.assertEqual(first.transport.value(), REQUEST)

    def test_noSocket(self):
        """A connection whose socket cannot be examined is used."""
        (first,) = self.idle()
        del first.transport.socket
        self.ask()
        self.assertEqual(first.transport.value(), REQUEST)

    def test_bytes(self):
        """One byte closes all idle connections: the request uses a new one."""
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
        """A connection that has ended is skipped, and the others are still used."""
        first, second = self.idle(2)
        second.transport.socket.waiting = b""
        self.ask()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, b""))
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)
        self.lose(second)
        self.assertEqual(self.distrusted, 0)

    def test_error(self):
        """A connection that was reset is skipped."""

        class Reset(FakeSocket):
            def recv(self, size, flags):
                raise ConnectionResetError

        (first,) = self.idle()
        first.transport.socket = Reset()
        self.ask()
        self.assertEqual((len(self.endpoint.connecting), self.distrusted), (1, 0))


class TLSPeekTests(DistrustCase):
    """The same under TLS, which has messages of its own."""

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
        """Decrypted data without a request ends the use of persistent connections."""
        (first,) = self.idle()
        first.dataReceived(b"x")
        self.assertNothingKept()


class RecordTests(DistrustCase):
    """Over Twisted's TLS, which may have read more than the record that it delivers."""

    def setUp(self):
        super().setUp()
        self.endpoint._interfaces = (ISSLTransport,)
        self.agent.tls = "a context"
        self.patch(HTTPConnection, "connectionMade", lambda connection: self.agent.opened(connection))

    def test_askedWhileRead(self):
        """A request that an answer causes uses another connection: the next record may be surplus."""
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
        """Later everything that was read has been delivered, and the connection is used again."""
        (first,) = self.idle()
        self.ask()
        self.assertEqual(first.transport.value(), REQUEST)


class DistrustTests(DistrustCase):
    """A server that has sent bytes that belong to no request."""

    def test_idle(self):
        """A byte on an idle connection closes all idle connections, and none are kept from then on."""
        connections = self.idle(3)
        connections[1].dataReceived(b"x")
        self.assertEqual([each.transport.aborting for each in connections], [True] * 3)
        self.assertNothingKept()

    def test_behindFirst(self):
        """After the first response of a connection, that response is accepted, and the bytes after it are not."""
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
        """This also holds after a body that ends after the answer was given."""
        (connection,) = self.idle()
        asked = self.ask()
        connection.dataReceived(RESPONSE[:-2])
        self.successResultOf(asked)
        connection.dataReceived(RESPONSE[-2:] + b"x")
        self.assertTrue(connection.transport.aborting)
        self.assertNothingKept()

    def test_behindLater(self):
        """
        Two responses at once on a connection that was used before are both rejected, because the first may be surplus.
        The request is sent again.
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
        """Bytes that are no HTTP are surplus on a connection that was used before, and a failure on a new one."""
        (connection,) = self.idle()
        asked = self.ask()
        connection.dataReceived(b"joe")
        again = self.endpoint.accept()
        again.dataReceived(b"joe")
        self.assertIn("the response is not HTTP/1.x", self.failureOf(asked))
        self.assertNothingKept()

    def test_underWay(self):
        """
        Requests on connections that were used before are sent again, even if partly answered; those on new ones are
        not.
        """
        connections = self.idle(3)
        asked = [self.ask() for _ in range(4)]
        new = self.endpoint.accept()
        connections[1].dataReceived(SMUGGLED[:-2])
        # This one received a byte after its answer.
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
        """A repeated request can be cancelled."""
        first, second = self.idle(2)
        asked = self.ask()
        first.dataReceived(b"x")
        self.assertTrue(second.transport.aborting)
        asked.cancel()
        self.assertEqual(self.failureResultOf(asked, ExchangeCancelled).value.phase, "connecting")
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_lastResponse(self):
        """After a response after which the server closes, any bytes may follow."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" + SMUGGLED)
        self.successResultOf(asked)
        self.assertEqual(self.distrusted, 0)

    def test_cancelledBefore(self):
        """The connection of a cancelled request is closed without waiting for its response."""
        (connection,) = self.idle()
        asked = self.ask()
        connection.dataReceived(RESPONSE[:20])
        asked.cancel()
        self.failureResultOf(asked, ExchangeCancelled)
        connection.dataReceived(RESPONSE[20:])
        self.ask()
        self.assertEqual((len(self.endpoint.connecting), self.distrusted), (1, 0))


class NotKeptTests(DistrustCase):
    """An agent without persistent connections."""

    cooling = None

    def test_surplus(self):
        """Bytes after a response do not matter, and are not reported."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(RESPONSE + SMUGGLED)
        self.successResultOf(asked)
        connection.dataReceived(b"x")
        self.assertEqual(self.distrusted, 0)


class LimitTests(DistrustCase):
    """An agent with at most two connections."""

    cooling = COOLING
    most = 2

    def test_evicted(self):
        """If all connections are cooling for longer, one is closed, and then a new one is opened."""
        first, second = self.idle(2)
        asked = self.ask()
        self.assertEqual((first.transport.aborting, second.transport.aborting), (False, True))
        self.assertEqual(self.endpoint.connecting, [])
        self.lose(second)
        self.endpoint.accept().dataReceived(RESPONSE)
        self.successResultOf(asked)

    def test_bodyGivenUp(self):
        """A connection whose body is still to come, or that is being closed, is closed first."""
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
        """Only as many connections are closed as are needed."""
        first, second = self.idle(2)
        self.ask()
        self.ask()
        self.assertTrue(first.transport.aborting and second.transport.aborting)
        self.lose(second)
        self.lose(first)
        self.assertEqual(len(self.endpoint.connecting), 2)

    def test_cooledFirst(self):
        """A usable connection is used."""
        first, second = self.idle(2)
        self.clock.advance(COOLING + 0.001)
        self.ask()
        self.ask()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, REQUEST))

    def idleInTurn(self, pause):
        """Return two idle connections, of which the second one's silence began C{pause} seconds later."""
        asked = [self.ask(), self.ask()]
        first, second = self.endpoint.accept(), self.endpoint.accept()
        for connection in (first, second):
            connection.dataReceived(RESPONSE)
            connection.transport.clear()
            self.clock.advance(pause)
        self.assertEqual([self.status(each) for each in asked], [None, None])
        return first, second

    def test_waits(self):
        """If a connection is usable soon, a request waits for it; none is closed or opened."""
        first, second = self.idleInTurn(0)
        self.clock.advance(COOLING - SHORT_WAIT + 0.001)
        asked = self.ask()
        self.assertEqual((first.transport.value(), second.transport.value()), (b"", b""))
        self.clock.advance(SHORT_WAIT - 0.002)
        self.assertEqual(first.transport.value(), b"")
        self.clock.advance(0.002)
        self.assertEqual((first.transport.value(), second.transport.value()), (b"", REQUEST))
        second.dataReceived(RESPONSE)
        self.assertIsNone(self.status(asked))
        self.assertFalse(first.transport.aborting or second.transport.aborting)
        self.assertEqual(self.endpoint.connecting, [])

    def test_inOrder(self):
        """Requests get connections in the order in which they wait; a new one does not overtake them."""
        first, second = self.idleInTurn(0.003)
        self.clock.advance(COOLING - 0.007)
        waiting = self.ask()
        # The timer of the reactor may be late.
        self.clock.rightNow += 0.002
        later = self.ask()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, b""))
        first.dataReceived(RESPONSE)
        self.assertIsNone(self.status(waiting))
        self.clock.advance(0.004)
        second.dataReceived(RESPONSE)
        self.assertIsNone(self.status(later))
        self.assertEqual(self.endpoint.connecting, [])

    def test_notEnough(self):
        """A request for which no connection is usable soon gets a new one, in place of another."""
        first, second = self.idleInTurn(SHORT_WAIT / 2)
        self.clock.advance(COOLING - 2 * SHORT_WAIT + 0.001)
        self.ask()
        self.assertFalse(second.transport.aborting)
        self.clock.rightNow -= 0.002
        self.ask()
        self.assertEqual((first.transport.aborting, second.transport.aborting), (False, True))
        self.lose(second)
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_unaskedWhileWaiting(self):
        """If a byte arrives meanwhile, the request that waits gets a connection of its own."""
        for isRead in (True, False):
            self.setUp()
            first, second = self.idleInTurn(0)
            self.clock.advance(COOLING - 0.002)
            asked = self.ask()
            if isRead:
                first.dataReceived(SMUGGLED)
            else:
                second.transport.socket = FakeSocket()
                second.transport.socket.waiting = SMUGGLED
            self.clock.advance(0.003)
            for connection in (first, second):
                self.assertTrue(connection.transport.aborting)
                self.assertEqual(connection.transport.value(), b"")
                self.lose(connection)
            connection = self.endpoint.accept()
            self.assertEqual(connection.transport.value(), OLD_REQUEST)
            connection.dataReceived(RESPONSE)
            self.assertIsNone(self.status(asked))
            self.assertTrue(connection.transport.left)
            self.assertEqual(self.distrusted, 1)

    def test_cancelledWhileWaiting(self):
        """A request that is cancelled while it waits is not sent, and closing the agent leaves no timer."""
        first, second = self.idleInTurn(0)
        self.clock.advance(COOLING - 0.002)
        asked = self.ask()
        asked.cancel()
        self.assertEqual(self.failureResultOf(asked, ExchangeCancelled).value.phase, "connecting")
        self.clock.advance(0.003)
        self.assertEqual((first.transport.value(), second.transport.value()), (b"", b""))
        self.ask()
        self.ask()
        for connection in (first, second):
            connection.dataReceived(RESPONSE)
        self.clock.advance(COOLING - 0.002)
        asked = self.ask()
        self.agent.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for connection in (first, second):
            self.lose(connection)
        self.endpoint.accept().dataReceived(RESPONSE)
        self.assertIsNone(self.status(asked))

    def test_unreachable(self):
        """A failed connection attempt makes room for the next one."""
        asked = [self.ask() for _ in range(3)]
        self.assertEqual(len(self.endpoint.connecting), 2)
        self.endpoint.refuse()
        self.failureResultOf(asked[0], ExchangeFailed)
        self.assertEqual(len(self.endpoint.connecting), 2)

    def test_cancelled(self):
        """A request that waits for room or a connection, and is cancelled, makes room for the next one."""
        asked = [self.ask() for _ in range(4)]
        for each in (asked[2], asked[0]):
            each.cancel()
            self.assertEqual(self.failureResultOf(each, ExchangeCancelled).value.phase, "connecting")

    def test_askedAgain(self):
        """A repeated request waits until the previous connection is closed."""
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
        """A connection that was dead when it was used makes room for its replacement."""
        first, second = self.idle(2)
        self.clock.advance(COOLING + 0.001)
        self.ask()
        self.lose(second)
        self.assertEqual(len(self.endpoint.connecting), 1)
        self.clock.advance(BODY_PATIENCE)
        self.assertFalse(first.transport.aborting)


class SocketTests(TestCase):
    """How unread bytes of real connections are seen."""

    timeout = 30

    def endpoint(self, reactor, port):
        """The address of the server."""
        return TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    async def connected(self, tls):
        """Return a connection, with C{tls} if that is not L{None}, and the server's end of it."""
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
        """Check that no bytes, a byte, and the end are seen, and left in place."""
        connection, server = await self.connected(tls)
        self.assertIsNone(connection.peek())
        server.sendall(b"xy")
        self.assertEqual((connection.peek(), connection.peek()), (b"x", b"x"))
        connection, server = await self.connected(tls)
        server.shutdown(socket.SHUT_WR)
        self.assertEqual(connection.peek(), b"")

    def test_plain(self):
        """On a plain connection."""
        return self.assertSeen()

    def test_tls(self):
        """Under TLS."""
        return self.assertSeen(backendTLS("127.0.0.1", False, None))


class LeanSocketTests(SocketTests):
    """The same over mailgate's transports."""

    def endpoint(self, reactor, port):
        return endpointFor(LeanReactor(reactor), "127.0.0.1", port, 5.0)


class NamedSocketTests(SocketTests):
    """The same if the server has a host name."""

    def endpoint(self, reactor, port):
        return endpointFor(reactor, "localhost", port, 5.0)
