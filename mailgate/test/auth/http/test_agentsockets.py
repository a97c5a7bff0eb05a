"""
Tests of the agent over real sockets.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.auth.http.agent import KeepAliveAgent
from mailgate.auth.http.connection import ExchangeFailed
from mailgate.auth.http.headers import PreparedHeaders
from mailgate.net.endpoints import endpointFor
from mailgate.test.support.httpagent import FIELDS, REQUEST, RESPONSE


class EndpointTests(SynchronousTestCase):
    """How the agent connects."""

    def setUp(self):
        self.reactor = MemoryReactorClock()

    def connect(self, host, port=80):
        """Connect to C{host}."""
        endpointFor(self.reactor, host, port, 7.0).connect(Factory.forProtocol(Protocol))

    def test_literals(self):
        """Addresses are used without a look-up, within the time-out."""
        for host in ("127.0.0.1", "::1"):
            self.connect(host)
            self.assertEqual(self.reactor.tcpClients[-1][:2], (host, 80))
            self.assertEqual(self.reactor.tcpClients[-1][3], 7.0)

    def test_unix(self):
        """A unix socket is used by its path."""
        self.connect("unix:/run/auth.sock", 0)
        self.assertEqual(self.reactor.unixClients[-1][0], "/run/auth.sock")
        self.assertEqual(self.reactor.unixClients[-1][2], 7.0)

    def test_name(self):
        """Only names are looked up."""
        self.assertIn("HostnameEndpoint", repr(endpointFor(self.reactor, "auth.example.com", 80, 7.0)))


class Echo(Protocol):
    """A server that answers every complete head with RESPONSE, and counts."""

    def connectionMade(self):
        self.factory.connections.append(self)
        self._buffer = b""

    def dataReceived(self, data):
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self.factory.requests.append(head + b"\r\n\r\n")
            self.transport.write(RESPONSE)

    def connectionLost(self, reason):
        self.factory.ended.callback(None)


class OneAtATime(BaseHTTPRequestHandler):
    """A server that keeps connections, and serves the next one when the current one has ended."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Auth-Status", "OK")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format, *args):
        """Log nothing."""


class SocketTests(TestCase):
    """The agent over real sockets."""

    timeout = 30

    def agents(self, **changes):
        """Return two agents for one L{OneAtATime} server."""
        from twisted.internet import reactor

        server = HTTPServer(("127.0.0.1", 0), OneAtATime)
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        self.addCleanup(server.server_close)
        self.addCleanup(serving.join)
        # It waits for the connection that it serves, which ends in the reactor's thread.
        self.addCleanup(deferToThread, server.shutdown)
        endpoint = endpointFor(reactor, "127.0.0.1", server.server_port, 5.0)
        agents = [KeepAliveAgent(endpoint, reactor, b"127.0.0.1", b"/auth", **changes) for _ in range(2)]
        for agent in agents:
            self.addCleanup(agent.close)
        return agents

    @inlineCallbacks
    def test_oneAtATime(self):
        """A server that serves one connection at a time can answer agents that keep none."""
        agents = self.agents(cooling=None)
        for _ in range(3):
            answers = yield gatherResults([agent.request(b"GET", b"http://a/") for agent in agents for _ in range(3)])
            self.assertEqual({answer.code for answer in answers}, {200})

    @inlineCallbacks
    def test_oneAtATimeKept(self):
        """If agents keep connections, the first agent blocks such a server, as documented."""
        first, second = self.agents(cooling=0.0)
        yield first.request(b"GET", b"http://a/")
        asked = second.request(b"GET", b"http://a/")
        yield first.request(b"GET", b"http://a/")
        self.assertNoResult(asked)
        first.close()
        answer = yield asked
        self.assertEqual(answer.code, 200)

    @inlineCallbacks
    def converse(self, server, hostOf):
        """Send two requests to C{server}. Check that they use one connection, with TCP_NODELAY if it has that."""
        from twisted.internet import reactor

        factory = Factory.forProtocol(Echo)
        factory.connections, factory.requests, factory.ended = [], [], Deferred()
        port = yield server.listen(factory)
        self.addCleanup(port.stopListening)
        host, number = hostOf(port)
        agent = KeepAliveAgent(endpointFor(reactor, host, number, 5.0), reactor, b"127.0.0.1", b"/auth?x", cooling=0.0)
        for _ in range(2):
            response = yield agent.request(b"GET", b"http://a/", PreparedHeaders.of(FIELDS))
            self.assertEqual(response.code, 200)
        self.assertEqual(factory.requests, [REQUEST, REQUEST])
        self.assertEqual(len(factory.connections), 1)
        agent.close()
        yield factory.ended

    def test_tcp(self):
        """Two requests use one TCP connection."""
        from twisted.internet import reactor

        return self.converse(
            TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), lambda port: ("127.0.0.1", port.getHost().port)
        )

    def test_unix(self):
        """Two requests use one connection to a unix socket."""
        from twisted.internet import reactor

        # The path of a unix socket is limited to 108 bytes, and mktemp() may exceed that.
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = f"{folder}/auth"
        return self.converse(UNIXServerEndpoint(reactor, path), lambda port: (f"unix:{path}", 0))

    @inlineCallbacks
    def test_refused(self):
        """A port without a listener is a failure while connecting."""
        from twisted.internet import reactor

        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            agent = KeepAliveAgent(endpointFor(reactor, "127.0.0.1", bound.getsockname()[1], 5.0), reactor, b"a", b"/")
            failed = yield self.assertFailure(agent.request(b"GET", b"http://a/"), ExchangeFailed)
        self.assertEqual(failed.phase, "connecting")
