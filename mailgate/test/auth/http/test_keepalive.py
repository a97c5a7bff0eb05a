"""
Tests of connections that the agent keeps.
"""

from __future__ import annotations

from mailgate.auth.http.agent import IDLE_TIMEOUT, MAX_IDLE
from mailgate.auth.http.connection import BODY_PATIENCE, ExchangeFailed
from mailgate.test.support.httpagent import REQUEST, RESPONSE, AgentTestCase


class KeepAliveTests(AgentTestCase):
    """Connections that are used again."""

    def test_reused(self):
        """A connection whose response is over serves the next request."""
        connection = self.exchange()
        asked = self.ask()
        self.assertEqual(connection.transport.value(), REQUEST)
        connection.dataReceived(RESPONSE)
        self.successResultOf(asked)
        self.assertEqual(len(self.endpoint.connections), 1)

    def test_closedMeanwhile(self):
        """A connection whose response ends after the agent was closed is not kept, and leaves no timer behind."""
        connection = self.exchange(RESPONSE[:-2])
        self.agent.close()
        connection.dataReceived(RESPONSE[-2:])
        self.assertTrue(connection.transport.disconnecting)
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_twoAtOnce(self):
        """Two requests at once go over two connections, never over one."""
        self.ask()
        self.ask()
        first, second = self.endpoint.accept(), self.endpoint.accept()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, REQUEST))

    def test_bodyAwaited(self):
        """A connection is used again once its body is over; until then another is made."""
        connection = self.exchange(RESPONSE[:-2])
        self.ask()
        self.endpoint.accept()
        connection.dataReceived(RESPONSE[-2:])
        self.ask()
        self.assertEqual(connection.transport.value(), REQUEST)
        self.clock.advance(BODY_PATIENCE)
        self.assertFalse(connection.transport.aborting)

    def test_bodyNotAwaitedForLong(self):
        """A body that does not come to its end costs the connection, the answer having been given."""
        connection = self.exchange(RESPONSE[:-2])
        self.clock.advance(BODY_PATIENCE - 0.1)
        connection.dataReceived(RESPONSE[-2:-1])
        self.assertFalse(connection.transport.aborting)
        self.clock.advance(0.1)
        self.assertTrue(connection.transport.aborting)

    def test_lostInBody(self):
        """A connection that is lost in a body is forgotten, with its deadline."""
        self.lose(self.exchange(RESPONSE[:-2]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noFuture(self):
        """After HTTP/1.0, C{close}, a body without a length, or too much, the connection is closed at once."""
        for response in (
            b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhe",
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            RESPONSE + b"HTTP/1.1 200 OK\r\n",
        ):
            connection = self.exchange(response)
            self.assertTrue(connection.transport.left)
            connection.dataReceived(b"more of the body")
            self.lose(connection)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lingering(self):
        """A connection that is closed in good order and does not end is aborted."""
        connection = self.exchange(b"HTTP/1.0 204 No Content\r\n\r\n")
        self.assertFalse(connection.transport.aborting)
        self.clock.advance(BODY_PATIENCE)
        self.assertTrue(connection.transport.aborting)

    def test_speaksUnasked(self):
        """A server that speaks unasked loses the connection; nobody takes its words for an answer."""
        connection = self.exchange()
        connection.dataReceived(RESPONSE)
        self.assertTrue(connection.transport.aborting)
        self.lose(connection)
        asked = self.ask()
        self.assertNoResult(asked)
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_closedWhileIdle(self):
        """A connection that ends while it is idle is not used."""
        self.lose(self.exchange())
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_repeatedOnce(self):
        """A used connection that dies before a byte came is replaced once, by a new one, not by another idle one."""
        self.ask()
        self.ask()
        idle = [self.endpoint.accept(), self.endpoint.accept()]
        for connection in idle:
            connection.dataReceived(RESPONSE)
        asked = self.ask()
        self.lose(idle[1])
        connection = self.endpoint.accept()
        self.assertEqual(connection.transport.value(), REQUEST)
        self.lose(connection)
        self.assertIn("while waiting for the response: ", self.failureOf(asked))
        self.assertEqual(self.endpoint.connecting, [])

    def test_newOneNotRepeated(self):
        """A new connection that dies is a failure, not a reason to ask again."""
        asked = self.ask()
        self.lose(self.endpoint.accept())
        self.failureResultOf(asked, ExchangeFailed)
        self.assertEqual(self.endpoint.connecting, [])

    def test_bounded(self):
        """Not more than MAX_IDLE connections are kept."""
        asked = [self.ask() for _ in range(MAX_IDLE + 1)]
        connections = [self.endpoint.accept() for _ in asked]
        for connection in connections:
            connection.dataReceived(RESPONSE)
        self.assertEqual([connection.transport.left for connection in connections], [False] * MAX_IDLE + [True])

    def test_idleTimeout(self):
        """An idle connection is closed after IDLE_TIMEOUT, each in its time, and then no timer runs."""
        self.ask()
        self.ask()
        first, second = self.endpoint.accept(), self.endpoint.accept()
        first.dataReceived(RESPONSE)
        self.clock.advance(10)
        second.dataReceived(RESPONSE)
        self.clock.advance(IDLE_TIMEOUT - 10)
        self.assertEqual((first.transport.left, second.transport.left), (True, False))
        self.lose(first)
        self.clock.advance(10)
        self.assertTrue(second.transport.left)
        self.lose(second)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_usedMeanwhile(self):
        """A connection that has been used meanwhile is kept, and one that is in use is not closed."""
        connection = self.exchange()
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.ask()
        self.clock.advance(1)
        self.assertFalse(connection.transport.left)
        connection.dataReceived(RESPONSE)
        self.clock.advance(IDLE_TIMEOUT - 1)
        self.assertFalse(connection.transport.left)
        self.clock.advance(1)
        self.assertTrue(connection.transport.left)

    def test_close(self):
        """Closing the agent ends what is idle, and its timer."""
        connection = self.exchange()
        self.agent.close()
        self.agent.close()
        self.assertTrue(connection.transport.aborting)
        self.lose(connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])
