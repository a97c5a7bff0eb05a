"""
Tests of persistent connections of the agent.
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
        """A connection whose response ends after the agent was closed is not kept, and leaves no timer."""
        connection = self.exchange(RESPONSE[:-2])
        self.agent.close()
        connection.dataReceived(RESPONSE[-2:])
        self.assertTrue(connection.transport.disconnecting)
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_twoAtOnce(self):
        """Two concurrent requests use two connections."""
        self.ask()
        self.ask()
        first, second = self.endpoint.accept(), self.endpoint.accept()
        self.assertEqual((first.transport.value(), second.transport.value()), (REQUEST, REQUEST))

    def test_bodyAwaited(self):
        """A connection is used again once its body is over; before that, a new one is opened."""
        connection = self.exchange(RESPONSE[:-2])
        self.ask()
        self.endpoint.accept()
        connection.dataReceived(RESPONSE[-2:])
        self.ask()
        self.assertEqual(connection.transport.value(), REQUEST)
        self.clock.advance(BODY_PATIENCE)
        self.assertFalse(connection.transport.aborting)

    def test_bodyNotAwaitedForLong(self):
        """A body that does not end closes the connection; the answer was given before."""
        connection = self.exchange(RESPONSE[:-2])
        self.clock.advance(BODY_PATIENCE - 0.1)
        connection.dataReceived(RESPONSE[-2:-1])
        self.assertFalse(connection.transport.aborting)
        self.clock.advance(0.1)
        self.assertTrue(connection.transport.aborting)

    def test_lostInBody(self):
        """A connection that is lost within a body leaves no deadline."""
        self.lose(self.exchange(RESPONSE[:-2]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_noFuture(self):
        """After HTTP/1.0, C{close}, or a body that is too long or has no length, the connection is closed at once."""
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
        """A connection whose orderly close takes too long is aborted."""
        connection = self.exchange(b"HTTP/1.0 204 No Content\r\n\r\n")
        self.assertFalse(connection.transport.aborting)
        self.clock.advance(BODY_PATIENCE)
        self.assertTrue(connection.transport.aborting)

    def test_speaksUnasked(self):
        """If a server sends data without a request, the connection is closed, and the data are no answer."""
        connection = self.exchange()
        connection.dataReceived(RESPONSE)
        self.assertTrue(connection.transport.aborting)
        self.lose(connection)
        asked = self.ask()
        self.assertNoResult(asked)
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_closedWhileIdle(self):
        """A connection that ended while it was idle is not used."""
        self.lose(self.exchange())
        self.ask()
        self.assertEqual(len(self.endpoint.connecting), 1)

    def test_repeatedOnce(self):
        """If a used connection ends before any byte, the request is repeated once, over a new connection."""
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
        """If a new connection ends, the request fails and is not repeated."""
        asked = self.ask()
        self.lose(self.endpoint.accept())
        self.failureResultOf(asked, ExchangeFailed)
        self.assertEqual(self.endpoint.connecting, [])

    def test_bounded(self):
        """At most MAX_IDLE connections are kept."""
        asked = [self.ask() for _ in range(MAX_IDLE + 1)]
        connections = [self.endpoint.accept() for _ in asked]
        for connection in connections:
            connection.dataReceived(RESPONSE)
        self.assertEqual([connection.transport.left for connection in connections], [False] * MAX_IDLE + [True])

    def test_idleTimeout(self):
        """Each idle connection is closed after IDLE_TIMEOUT; after the last one no timer runs."""
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
        """A connection that was used meanwhile is kept, and one that is in use is not closed."""
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
        """Closing the agent closes idle connections and stops their timer."""
        connection = self.exchange()
        self.agent.close()
        self.agent.close()
        self.assertTrue(connection.transport.aborting)
        self.lose(connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])
