"""
Tests for L{mailgate.lean.reactor}: what it does itself, and what it leaves to the wrapped reactor; and the whole under
each of Twisted's reactors that runs here.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ClientFactory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import mailgate
from mailgate.lean.connecting import LeanConnector, LeanEndpoint
from mailgate.lean.reactor import EventSettings, LeanReactor

ECHO = """
import socket
from twisted.internet import REACTOR
REACTOR.install()
from twisted.internet import reactor
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from mailgate.lean.reactor import LeanReactor

lean = LeanReactor(reactor)

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

class Ask(Protocol):
    question = b"bonjour" * 100000

    def connectionMade(self):
        self.received = b""
        self.transport.write(self.question)

    def dataReceived(self, data):
        self.received += data
        if self.received == self.question:
            self.transport.loseConnection()

    def connectionLost(self, reason):
        print("lost", reason.type.__name__, self.received == self.question)
        port.stopListening()
        limit.cancel()
        lean.callLater(0, end)

def end():
    print(type(port).__name__, lean.poller in reactor.getReaders(), lean.getDelayedCalls())
    reactor.stop()

bound = socket.socket()
bound.bind(("127.0.0.1", 0))
bound.listen()
bound.setblocking(False)
port = lean.adoptStreamPort(bound.fileno(), bound.family, Factory.forProtocol(Echo))
lean.connectTCP(*bound.getsockname(), ClientFactory.forProtocol(Ask))
print(type(reactor).__name__, lean.poller in reactor.getReaders())
limit = reactor.callLater(20, reactor.stop)
reactor.run()
"""


class Never(ClientFactory):
    """A protocol that is never connected."""

    noisy = False


class LeanReactorTests(SynchronousTestCase):
    """The reactor from a program's side."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactorClock()
        self.lean = LeanReactor(self.reactor)

    def crowded(self) -> tuple[str, int]:
        """The address of a listening socket with a full queue."""
        bound = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.addCleanup(bound.close)
        self.addCleanup(socket.create_connection(bound.getsockname()).close)
        return "127.0.0.1", bound.getsockname()[1]

    def test_time(self) -> None:
        """Its time is the wrapped reactor's. All timers are listed, coarse and exact ones."""
        self.assertTrue(verifyObject(IReactorTime, self.lean))
        self.reactor.advance(7)
        self.assertEqual(self.lean.seconds(), 7)
        calls: list[str] = []
        timers = [self.lean.callLater(delay, calls.append, str(delay)) for delay in (1, 60)]
        for timer in timers:
            self.assertIn(timer, self.lean.getDelayedCalls())
        self.reactor.advance(1)
        self.assertEqual(calls, ["1"])
        timers[1].cancel()
        self.assertEqual(self.lean.getDelayedCalls(), [])

    def test_rest(self) -> None:
        """Everything else is done by the wrapped reactor."""
        self.lean.listenTCP(143, Never())
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [143])
        self.assertRaises(AttributeError, lambda: self.lean.adoptNobody)

    def test_addresses(self) -> None:
        """It connects to addresses of both families itself."""
        for host in ("127.0.0.1", "::1"):
            connector: Any = self.lean.connectTCP(host, self.crowded()[1], Never(), 20)
            self.assertIsInstance(connector, LeanConnector)
            self.assertEqual((connector.getDestination().host, self.reactor.tcpClients), (host, []))
            connector.disconnect()
            self.reactor.advance(0)

    def test_names(self) -> None:
        """For a host name the wrapped reactor resolves and connects."""
        factory = Never()
        self.lean.connectTCP("mail.example.com", 143, factory, 7, ("127.0.0.1", 0))
        self.assertEqual(self.reactor.tcpClients, [("mail.example.com", 143, factory, 7, ("127.0.0.1", 0))])

    def test_endpoint(self) -> None:
        """It has its own endpoints."""
        self.assertIsInstance(self.lean.leanEndpoint("127.0.0.1", 143, 20), LeanEndpoint)

    def test_idle(self) -> None:
        """Without connections the wrapped reactor has no reader and no timer."""
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))
        connector = self.lean.connectTCP(*self.crowded(), Never(), 20)
        self.assertEqual(self.reactor.readers, {self.lean.poller})
        connector.disconnect()
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))


class EventSettingsTests(SynchronousTestCase):
    """The values of C{use}."""

    def test_method(self) -> None:
        """Connections are lean by default, unless there is no epoll."""
        self.assertEqual(EventSettings().isLean, hasattr(select, "epoll"))
        self.assertFalse(EventSettings("reactor").isLean)


class ReactorTests(SynchronousTestCase):
    """The poller under each of Twisted's reactors."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def assertEchoes(self, module: str, name: str) -> None:
        """A server and a client exchange data under the reactor C{name} of C{module}, which is left clean."""
        root = os.path.dirname(os.path.dirname(os.path.abspath(mailgate.__file__)))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
        script = ECHO.replace("REACTOR", module)
        done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=60)
        expected = f"{name} True\nlost ConnectionDone True\nLeanPort False []\n"
        self.assertEqual((done.stdout.decode(), done.stderr.decode()), (expected, ""))

    def test_select(self) -> None:
        """With C{select}."""
        self.assertEchoes("selectreactor", "SelectReactor")

    def test_poll(self) -> None:
        """With C{poll}."""
        self.assertEchoes("pollreactor", "PollReactor")

    def test_epoll(self) -> None:
        """With C{epoll}."""
        self.assertEchoes("epollreactor", "EPollReactor")

    def test_asyncio(self) -> None:
        """With C{asyncio}."""
        self.assertEchoes("asyncioreactor", "AsyncioSelectorReactor")
