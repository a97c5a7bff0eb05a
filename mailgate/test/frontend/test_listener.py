"""
Tests for L{mailgate.frontend.listener}.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from typing import Any

from attrs import evolve
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailgate.directives import ConfigurationError, ListenAddress
from mailgate.frontend.listener import Listener
from mailgate.net.sockets import ListenError
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.server import POP3Server
from mailgate.test.support.descriptors import settleDescriptors
from mailgate.test.support.factories import makeFactory
from mailgate.test.support.loopback import speaksIPv6


class ServiceTests(SynchronousTestCase):
    """When a L{Listener} binds, and its errors."""

    def listener(self, host: str = "127.0.0.1", port: int = 0, reactor: Any = None) -> Listener:
        address = ListenAddress(host, port)
        return Listener(address, makeFactory(address), reactor or MemoryReactorClock())

    def test_privileged(self) -> None:
        """It binds in the privileged start, once."""
        reactor = MemoryReactorClock()
        listener = self.listener(reactor=reactor)
        self.assertIsNone(listener.port)
        listener.privilegedStartService()
        port = listener.port
        self.assertIsNotNone(port)
        listener.startService()
        self.assertIs(listener.port, port)
        self.assertEqual(len(reactor.adoptedPorts), 1)

    def test_unprivileged(self) -> None:
        """C{twist} has no privileged start, so it binds in the ordinary one."""
        listener = self.listener()
        listener.startService()
        self.assertTrue(listener.running)
        self.assertIsNotNone(listener.port)

    def test_childOfStartedService(self) -> None:
        """If it is added to a running service, it binds at once."""
        parent = MultiService()
        parent.startService()
        listener = self.listener()
        listener.setServiceParent(parent)
        self.assertIsNotNone(listener.port)

    def test_stopUnstarted(self) -> None:
        """A listener that was never started can be stopped."""
        listener = self.listener()
        self.successResultOf(listener.stopService())

    def assertCannot(self, host: str, port: int, reason: str) -> None:
        reactor = MemoryReactorClock()
        listener = self.listener(host, port, reactor)
        error = self.assertRaises(ListenError, listener.privilegedStartService)
        self.assertIsInstance(error, ConfigurationError)
        (problem,) = error.problems
        self.assertEqual((problem.section, problem.option), ("server pop3", "listen"))
        self.assertEqual(problem.value, str(listener.address))
        self.assertIn("cannot be bound: ", problem.message)
        self.assertIn(reason, problem.message)
        self.assertEqual(len(str(error).splitlines()), 1)
        self.assertIsNone(listener.port)
        self.assertEqual(reactor.adoptedPorts, [])

    def test_taken(self) -> None:
        """The error about a port in use names the section of the port."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            self.assertCannot("127.0.0.1", other.getsockname()[1], "Address already in use")

    def test_foreignAddress(self) -> None:
        """So does the error about an address that is not of this host."""
        self.assertCannot("192.0.2.1", 0, "Cannot assign requested address")

    def test_unixFolderGone(self) -> None:
        """So does the error about a unix socket in a missing folder."""
        folder = tempfile.mkdtemp()
        os.rmdir(folder)
        self.assertCannot(f"unix:{folder}/imap", 0, "No such file or directory")

    def test_unixPathTooLong(self) -> None:
        """So does the error about a path that is too long for a unix socket."""
        self.assertCannot("unix:/" + "x" * 200, 0, "path too long")


class Other(POP3Server):
    """A server that greets in another way."""

    def greet(self) -> None:
        self.transport.write(b"other\r\n")


class Greeted(Protocol):
    """A client that waits for the first line and for the end."""

    def __init__(self) -> None:
        self.line: Deferred[bytes] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.line.callback(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


class GreetedFactory(ClientFactory):
    """Makes one client."""

    noisy = False

    def __init__(self) -> None:
        self.client = Greeted()

    def buildProtocol(self, addr: Any) -> Protocol:
        return self.client

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.client.line.errback(reason)


class SocketTests(TestCase):
    """A L{Listener} with real sockets."""

    timeout = 30

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        # Not mktemp: a unix socket's path must be short.
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = os.path.join(self.folder, "pop3")

    def listen(self, host: str, port: int = 0) -> Listener:
        """Start a listener, and stop it after the test."""
        address = ListenAddress(host, port)
        listener = Listener(address, makeFactory(address), self.reactor)
        listener.startService()
        self.addCleanup(listener.stopService)
        return listener

    def portOf(self, listener: Listener) -> int:
        assert listener.port is not None
        port: int = listener.port.getHost().port  # type: ignore[attr-defined]
        return port

    async def greeting(self, listener: Listener) -> bytes:
        """Return the first line that a client of C{listener} gets. The client then leaves."""
        factory = GreetedFactory()
        address = listener.address
        if address.host.startswith("unix:"):
            self.reactor.connectUNIX(address.host.removeprefix("unix:"), factory)
        else:
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
            self.reactor.connectTCP(host, self.portOf(listener), factory)
        line = await factory.client.line
        connections: Any = listener.factory.connections
        (server,) = connections
        left: Deferred[None] = Deferred()
        lost = server.connectionLost

        def connectionLost(reason: Failure = connectionDone) -> None:
            lost(reason)
            left.callback(None)

        server.connectionLost = connectionLost
        factory.client.transport.loseConnection()  # type: ignore[union-attr]
        await factory.client.gone
        await left
        self.assertEqual(listener.factory.connections, set())
        return line

    async def test_ipv4(self) -> None:
        """Clients over IPv4 are greeted."""
        self.assertEqual(await self.greeting(self.listen("127.0.0.1")), b"+OK POP3 ready\r\n")

    async def test_ipv6(self) -> None:
        """Clients over IPv6 are greeted."""
        self.assertEqual(await self.greeting(self.listen("::1")), b"+OK POP3 ready\r\n")

    async def test_bothWildcards(self) -> None:
        """C{[::]} and C{0.0.0.0} can be used side by side, as in nginx, and each gets its own clients."""
        old = self.listen("0.0.0.0")
        new = self.listen("::", self.portOf(old))
        await self.greeting(old)
        await self.greeting(new)

    async def test_specific(self) -> None:
        """An address beside its wildcard has no socket of its own. The client's destination selects the factory."""
        address = ListenAddress("0.0.0.0", 0)
        own, others = makeFactory(ListenAddress("127.0.0.1", 110)), makeFactory(address)
        own.record = evolve(POP3, server=Other)
        listener = Listener(address, others, self.reactor, {"127.0.0.1": own})
        self.assertEqual(listener.serverNames, {own.settings.name, others.settings.name})
        listener.startService()
        self.addCleanup(listener.stopService)
        for host, line, factory in (("127.0.0.1", b"other\r\n", own), ("127.0.0.2", b"+OK POP3 ready\r\n", others)):
            client = GreetedFactory()
            self.reactor.connectTCP(host, self.portOf(listener), client)
            self.assertEqual(await client.client.line, line)
            self.assertEqual([server.session.server for server in factory.connections], [str(factory.address)])
            connections: Any = list(factory.connections)
            for server in connections:
                server.transport.abortConnection()
            await client.client.gone
        self.assertEqual((own.connections, others.connections), (set(), set()))

    async def test_unix(self) -> None:
        """Clients of a unix socket, which every user may open, are greeted."""
        listener = self.listen(f"unix:{self.path}")
        self.assertEqual(await self.greeting(listener), b"+OK POP3 ready\r\n")
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o666)

    async def test_stop(self) -> None:
        """A stopped listener releases its address and can start again."""
        listener = self.listen("127.0.0.1")
        port = self.portOf(listener)
        await listener.stopService()
        self.assertIsNone(listener.port)
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex(("127.0.0.1", port)), 0)
        listener.startService()
        await self.greeting(listener)

    async def test_stopUnix(self) -> None:
        """The file of a unix socket is removed if it still exists."""
        listener = self.listen(f"unix:{self.path}")
        await listener.stopService()
        self.assertFalse(os.path.exists(self.path))
        listener.startService()
        os.unlink(self.path)
        await listener.stopService()
        self.assertFalse(listener.running)

    async def test_restart(self) -> None:
        """An address can be bound right after we closed its last connection."""
        listener = self.listen("127.0.0.1")
        port = self.portOf(listener)
        factory = GreetedFactory()
        self.reactor.connectTCP("127.0.0.1", port, factory)
        await factory.client.line
        connections: Any = listener.factory.connections
        (server,) = connections
        server.transport.loseConnection()
        await factory.client.gone
        await listener.stopService()
        again = self.listen("127.0.0.1", port)
        await self.greeting(again)

    async def test_staleSocket(self) -> None:
        """A unix socket that a killed gateway left behind is replaced."""
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(self.path)
            killed.listen()
        self.assertTrue(os.path.exists(self.path))
        await self.greeting(self.listen(f"unix:{self.path}"))

    async def test_liveSocket(self) -> None:
        """A unix socket on which another process listens is left alone."""
        listener = self.listen(f"unix:{self.path}")
        with self.assertRaises(ListenError) as caught:
            self.listen(f"unix:{self.path}")
        self.assertIn("Address already in use", str(caught.exception))
        await self.drop(listener)
        await self.greeting(listener)

    async def drop(self, listener: Listener) -> None:
        """Let C{listener} notice a probe that has connected and closed."""
        while not listener.factory.connections:
            await self.turn()
        while listener.factory.connections:
            await self.turn()

    def turn(self) -> Deferred[None]:
        """Fires in the reactor's next turn."""
        turned: Deferred[None] = Deferred()
        self.reactor.callLater(0, turned.callback, None)
        return turned

    async def test_noSocket(self) -> None:
        """A file that is not a socket is never removed, whatever follows C{unix:}."""
        with open(self.path, "w") as stream:
            stream.write("precious")
        link = os.path.join(self.folder, "link")
        os.symlink(self.path, link)
        for path in (self.path, link, self.folder):
            with self.assertRaises(ListenError):
                self.listen(f"unix:{path}")
        with open(self.path) as stream:
            self.assertEqual(stream.read(), "precious")
        self.assertTrue(os.path.islink(link))

    async def test_noDescriptorLeft(self) -> None:
        """An address that cannot be bound leaves no open descriptor."""
        if not os.path.isdir("/proc/self/fd"):
            raise self.skipTest("descriptors are counted in /proc")
        listener = self.listen("127.0.0.1")
        settleDescriptors()
        before = len(os.listdir("/proc/self/fd"))
        for host, port in (("127.0.0.1", self.portOf(listener)), (f"unix:{self.folder}", 0)):
            with self.assertRaises(ListenError):
                self.listen(host, port)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


if not speaksIPv6():
    for _test in (SocketTests.test_ipv6, SocketTests.test_bothWildcards):
        _test.skip = "this host has no IPv6"  # type: ignore[attr-defined]
