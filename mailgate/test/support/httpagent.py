"""
An HTTP agent over fake connections, with requests and responses.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, implementer

from mailgate.auth.http.agent import KeepAliveAgent
from mailgate.auth.http.connection import ExchangeFailed
from mailgate.auth.http.headers import PreparedHeaders

__all__ = ["FIELDS", "REQUEST", "RESPONSE", "AgentTestCase", "FakeEndpoint", "FakeTransport", "byName"]

REQUEST = b"GET /auth?x HTTP/1.1\r\nHost: 127.0.0.1\r\nAuth-User: joe\r\nClient-IP: ::1\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nContent-Length: 5\r\n\r\nhello"
FIELDS = [(b"Auth-User", b"joe"), (b"Client-IP", b"::1")]


def byName(fields):
    """Return the values of C{fields}, pairs of bytes, by name in lower case."""
    values = {}
    for name, value in fields:
        values[name.lower()] = (*values.get(name.lower(), ()), value)
    return values


class FakeTransport(StringTransport):
    """A transport that records how it was closed, and TCP_NODELAY."""

    noDelay = False
    left = False
    aborting = False

    def setTcpNoDelay(self, enabled):
        self.noDelay = enabled

    def loseConnection(self):
        self.left = True
        super().loseConnection()

    def abortConnection(self):
        self.aborting = True


@implementer(IStreamClientEndpoint)
class FakeEndpoint:
    """An endpoint whose connections the test makes and breaks, and on which it plays the server."""

    def __init__(self, *interfaces):
        self.connecting = []
        self.connections = []
        self.cancelled = 0
        self._interfaces = interfaces

    def connect(self, protocolFactory):
        self.connecting.append((protocolFactory, Deferred(self._cancel)))
        return self.connecting[-1][1]

    def _cancel(self, connecting):
        self.connecting = [attempt for attempt in self.connecting if attempt[1] is not connecting]
        self.cancelled += 1

    def accept(self):
        """Let the oldest attempt succeed, and return the connection."""
        factory, connecting = self.connecting.pop(0)
        connection = factory.buildProtocol(None)
        transport = FakeTransport()
        alsoProvides(transport, *self._interfaces)
        connection.makeConnection(transport)
        self.connections.append(connection)
        connecting.callback(connection)
        return connection

    def refuse(self):
        """Let the oldest attempt fail."""
        self.connecting.pop(0)[1].errback(ConnectionRefusedError())


class AgentTestCase(SynchronousTestCase):
    """An agent over a fake endpoint."""

    def setUp(self):
        self.clock = Clock()
        self.endpoint = FakeEndpoint()
        self.agent = KeepAliveAgent(self.endpoint, self.clock, b"127.0.0.1", b"/auth?x", cooling=0.0)

    def ask(self):
        """Send a request."""
        return self.agent.request(b"GET", b"http://elsewhere.example/", PreparedHeaders.of(FIELDS))

    def exchange(self, response=RESPONSE):
        """Send a request over a new connection, answer it with C{response}, and return the connection."""
        asked = self.ask()
        connection = self.endpoint.accept()
        connection.dataReceived(response)
        self.successResultOf(asked)
        connection.transport.clear()
        return connection

    def lose(self, connection, reason=None):
        """End the connection."""
        connection.connectionLost(Failure(reason or ConnectionDone()))

    def failureOf(self, asked):
        """Return why the request C{asked} failed."""
        return str(self.failureResultOf(asked, ExchangeFailed).value)
