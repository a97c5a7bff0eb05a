"""
Tests for L{mailgate.lean.connecting}: cases that L{mailgate.test.lean.test_transport_contract} cannot cause, with real
sockets and a reactor that the tests drive.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    NotConnectingError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import IConnector, IStreamClientEndpoint
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.lean.poller import READABLE
from mailgate.lean.reactor import LeanReactor
from mailgate.lean.transport import StreamTransport
from mailgate.net.endpoints import beginning, endpointFor, settle
from mailgate.net.naming import NamingReactor
from mailgate.test.support.descriptors import settleDescriptors
from mailgate.test.support.pollers import Owner, Reactor
from mailgate.test.support.resolver import FakeResolver


class Said(Protocol):
    """A protocol that notes its events. C{made} is called when it is connected."""

    transport: Any

    def __init__(self, made: Callable[[Said], object] | None = None) -> None:
        self.received = b""
        self.reasons: list[BaseException] = []
        self._made = made

    def connectionMade(self) -> None:
        if self._made is not None:
            self._made(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.reasons.append(reason.value)


class Told(ClientFactory):
    """A factory of L{Said}, or of what C{build} makes. C{told} has its events with their reasons."""

    noisy = False

    def __init__(self, build: Callable[[], Any] = Said) -> None:
        self.told: list[Any] = []
        self.made: list[Any] = []
        self._build = build

    def startFactory(self) -> None:
        self.told.append("start")

    def stopFactory(self) -> None:
        self.told.append("stop")

    def buildProtocol(self, addr: Any) -> Any:
        self.made.append(self._build())
        return self.made[-1]

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.told += ["failed", type(reason.value)]

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        self.told += ["lost", type(reason.value)]


class Case(SynchronousTestCase):
    """A listening socket, and attempts that leave nothing behind."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.lean = LeanReactor(self.reactor)
        self.fars: list[socket.socket] = []
        # Create the poller's epoll before counting descriptors: it stays open.
        near, far = socket.socketpair()
        far.close()
        fd = near.detach()
        self.lean.poller.watch(fd, Owner(), READABLE)
        self.lean.poller.release(fd)
        settleDescriptors()
        self.before = self.descriptors()
        self.addCleanup(self.assertNothingLeft)

    def descriptors(self) -> int:
        """The number of open descriptors of this process."""
        return len(os.listdir("/proc/self/fd"))

    def assertNothingLeft(self) -> None:
        """No open or watched descriptor is left, and no timer."""
        for far in self.fars:
            far.close()
        self.reactor.advance(0)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))
        self.assertEqual(self.descriptors(), self.before)

    def listen(self, backlog: int = 10) -> tuple[str, int]:
        """Listen, and return the address."""
        bound = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.fars.append(bound)
        return "127.0.0.1", bound.getsockname()[1]

    def accept(self) -> socket.socket:
        """The other end of the connection."""
        far, _ = self.fars[0].accept()
        self.fars.append(far)
        return far

    def crowded(self) -> tuple[str, int]:
        """The address of a listening socket with a full queue."""
        address = self.listen(0)
        self.fars.append(socket.create_connection(address))
        return address

    def nowhere(self) -> tuple[str, int]:
        """An address without a listening socket."""
        with socket.create_server(("127.0.0.1", 0)) as bound:
            return "127.0.0.1", bound.getsockname()[1]

    def turn(self) -> None:
        """Wait for an event, and handle it."""
        self.assertEqual(select.select([self.lean.poller], [], [], 10)[0], [self.lean.poller])
        self.lean.poller.doRead()

    def exhaust(self) -> Callable[[], None]:
        """Use up all descriptors of this process. The result releases them."""
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)

        def end() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        self.addCleanup(end)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
        return end


class EndpointTests(Case):
    """L{mailgate.lean.connecting.LeanEndpoint}"""

    def connect(self, address: Any, factory: Any, timeout: float | None = 20) -> Deferred[Any]:
        host, port = address if isinstance(address, tuple) else (f"unix:{address}", 0)
        return self.lean.leanEndpoint(host, port, timeout).connect(factory)

    def assertFails(self, connected: Deferred[Any], kind: type[Exception], factory: Told) -> Any:
        """The attempt fails with an error of C{kind}. The factory builds no protocol, and nothing is left."""
        failure = self.failureResultOf(connected, kind)
        self.assertEqual(factory.made, [])
        self.assertNothingLeft()
        return failure.value

    def test_interface(self) -> None:
        """It provides Twisted's interface."""
        self.assertTrue(verifyObject(IStreamClientEndpoint, self.lean.leanEndpoint("127.0.0.1", 1, 20)))

    def test_connects(self) -> None:
        """It returns the factory's own protocol, connected, and leaves no timer."""
        factory = Told()
        connected = self.connect(self.listen(), factory)
        self.assertNoResult(connected)
        self.assertEqual(factory.made, [])
        self.turn()
        protocol = self.successResultOf(connected)
        self.assertEqual((factory.made, protocol.transport.connected), ([protocol], True))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertTrue(protocol.transport.getTcpNoDelay())
        self.accept().close()
        self.turn()
        self.assertEqual(len(protocol.reasons), 1)

    def test_named(self) -> None:
        """A resolved name, which may have an underscore, uses it, too."""
        resolver = self.reactor.nameResolver = FakeResolver()  # type: ignore[attr-defined]
        host, port = self.listen()
        connected = endpointFor(NamingReactor(self.lean), "mail_backend", port, 20).connect(Told())
        ((receiver, name),) = resolver.asked
        self.assertEqual(name, "mail_backend")
        receiver.addressResolved(IPv4Address("TCP", host, port))
        receiver.resolutionComplete()
        self.turn()
        wrapped: Any = self.successResultOf(connected)
        self.assertIsInstance(wrapped.transport, StreamTransport)
        wrapped.transport.abortConnection()

    def test_greeted(self) -> None:
        """Bytes that the server has sent by then are delivered at once, after the Deferred has fired."""
        connected = self.connect(self.listen(), Told())
        heard: list[bytes] = []

        def take(protocol: Said) -> Said:
            heard.append(protocol.received)
            return protocol

        connected.addCallback(take)
        self.accept().send(b"* OK\r\n")
        self.turn()
        protocol = self.successResultOf(connected)
        while not protocol.received:
            self.turn()
        self.assertEqual((heard, protocol.received), ([b""], b"* OK\r\n"))
        protocol.transport.abortConnection()

    def test_begin(self) -> None:
        """L{begin} needs no factory and no Deferred. It passes events to the protocol, or a failure to the callback."""
        failures: list[Failure] = []
        protocol = Said()
        beginning(self.lean.leanEndpoint(*self.listen(), None))(protocol, failures.append, False)
        self.assertIs(protocol.transport, None)
        self.turn()
        self.assertEqual((protocol.transport.connected, failures), (True, []))
        protocol.transport.abortConnection()
        beginning(self.lean.leanEndpoint(*self.nowhere(), None))(Said(), failures.append, False)
        self.assertEqual(failures, [])
        self.turn()
        self.assertEqual([failure.type for failure in failures], [ConnectionRefusedError])
        self.assertNothingLeft()

    def test_beginCancelled(self) -> None:
        """The result of L{begin} can be cancelled once."""
        failures: list[Failure] = []
        attempt = beginning(self.lean.leanEndpoint(*self.crowded(), None))(Said(), failures.append, False)
        for _ in range(2):
            attempt.cancel()
        self.assertEqual([failure.type for failure in failures], [ConnectingCancelledError])

    def test_refused(self) -> None:
        """Without a listening socket it fails with ConnectionRefusedError."""
        factory = Told()
        connected = self.connect(self.nowhere(), factory)
        self.assertNoResult(connected)
        self.turn()
        self.assertFails(connected, ConnectionRefusedError, factory)

    def test_refusedUNIX(self) -> None:
        """The same on a unix socket without a listener, and on a missing one, after the Deferred is returned."""
        path = self.mktemp()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
        for where, kind in ((path, ConnectionRefusedError), (self.mktemp(), ConnectError)):
            factory = Told()
            connected = self.connect(where, factory)
            self.assertNoResult(connected)
            self.reactor.advance(0)
            self.assertFails(connected, kind, factory)

    def test_badAddress(self) -> None:
        """An address that the system refuses, and a path that is too long, fail."""
        for address in (("fe80::1%nosuch0", 25), "/" + 200 * "x", ("255.255.255.255", 25)):
            factory = Told()
            connected = self.connect(address, factory)
            self.assertNoResult(connected)
            self.reactor.advance(0)
            self.assertFails(connected, ConnectError, factory)

    def test_noDescriptor(self) -> None:
        """Without a descriptor it fails with the reason. The next attempt succeeds when there is one."""
        address = self.listen()
        factory = Told()
        end = self.exhaust()
        connected = self.connect(address, factory)
        end()
        self.assertNoResult(connected)
        self.reactor.advance(0)
        error: Any = self.failureResultOf(connected, ConnectError).value
        self.assertEqual((error.osError, factory.made), (errno.EMFILE, []))
        connected = self.connect(address, factory)
        self.turn()
        self.successResultOf(connected).transport.abortConnection()

    def test_unwatchable(self) -> None:
        """A descriptor that cannot be watched fails, and is closed."""

        class Full:
            def register(self, fd: int, events: int) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        address = self.listen()
        before = self.descriptors()
        real, self.lean.poller._epoll = self.lean.poller._epoll, Full()
        connected = self.connect(address, Told())
        self.lean.poller._epoll = real
        self.reactor.advance(0)
        self.failureResultOf(connected, ConnectError)
        self.assertEqual(self.descriptors(), before)

    def test_timeout(self) -> None:
        """Without an answer it fails after the timeout, or within the second after it."""
        for timeout, least, most in ((2, 2, 2), (60, 60, 61)):
            factory = Told()
            connected = self.connect(self.crowded(), factory, timeout)
            self.reactor.pump([0.5] * (least * 2 - 1))
            self.lean.poller.doRead()
            self.assertNoResult(connected)
            self.reactor.pump([0.5] * (1 + 2 * (most - least)))
            self.assertFails(connected, TimeoutError, factory)

    def test_noTimeout(self) -> None:
        """Without a timeout there is no timer."""
        connected = self.connect(self.crowded(), Told(), None)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        connected.cancel()
        self.failureResultOf(connected, ConnectingCancelledError)

    def test_cancel(self) -> None:
        """It can be cancelled while it waits. Nothing is left, and nothing happens later."""
        for address in (self.crowded(), self.nowhere(), self.listen()):
            factory = Told()
            connected = self.connect(address, factory)
            connected.cancel()
            error = self.assertFails(connected, ConnectingCancelledError, factory)
            self.assertEqual((error.address.host, error.address.port), address)
            self.lean.poller._epoll.poll(0)
            self.reactor.advance(100)
            self.assertEqual(factory.made, [])

    def test_cancelFailed(self) -> None:
        """It can be cancelled after it has failed, but before the Deferred fires."""
        connected = self.connect(self.mktemp(), Told())
        connected.cancel()
        self.failureResultOf(connected, ConnectingCancelledError)
        self.reactor.advance(0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelLate(self) -> None:
        """Once connected it cannot be cancelled."""
        connected = self.connect(self.listen(), Told())
        self.turn()
        connected.cancel()
        protocol = self.successResultOf(connected)
        self.reactor.advance(100)
        self.assertTrue(protocol.transport.connected)
        protocol.transport.abortConnection()

    def test_cancelInBatch(self) -> None:
        """If an earlier event of the same batch cancels it, its own event is ignored."""
        addresses = [self.listen(), self.listen()]
        made: list[Said] = []

        def build() -> Said:
            made.append(Said())
            for connected in attempts:
                connected.addErrback(lambda _: None)
                connected.cancel()
            return made[-1]

        attempts = [self.connect(address, Told(build)) for address in addresses]
        for far in list(self.fars):
            self.fars.append(far.accept()[0])
        self.turn()
        self.assertEqual((len(made), made[0].transport), (1, None))

    def test_buildFails(self) -> None:
        """
        A factory that raises fails the attempt with that error, which is logged once. So does one that builds nothing.
        """

        def build() -> None:
            raise KeyError("factory")

        connected = self.connect(self.listen(), Told(build))
        self.turn()
        self.failureResultOf(connected, KeyError)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.accept().recv(1), b"")
        connected = self.connect(self.fars[0].getsockname(), Told(lambda: None))
        self.turn()
        self.failureResultOf(connected, ConnectionAborted)
        self.assertEqual(self.accept().recv(1), b"")

    def test_madeFails(self) -> None:
        """A protocol that raises in makeConnection loses its connection, and the Deferred fails with the reason."""
        protocol = Said(lambda _: 1 // 0)
        connected = self.connect(self.listen(), Told(lambda: protocol))
        self.turn()
        self.failureResultOf(connected, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([type(reason) for reason in protocol.reasons], [ZeroDivisionError])
        self.assertEqual(self.accept().recv(1), b"")

    def test_shutdown(self) -> None:
        """If the reactor stops, the attempt fails."""
        connected = self.connect(self.crowded(), Told())
        self.lean.poller.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(connected, ConnectionLost)


class GreetedTests(Case):
    """Attempts whose protocol may be connected as late as the peer's first bytes."""

    def begin(self, address: tuple[str, int]) -> Any:
        """Begin an attempt of C{self.protocol}."""
        self.protocol = Said()
        self.failures: list[type[BaseException] | None] = []
        endpoint = self.lean.leanEndpoint(*address, None)
        return beginning(endpoint)(self.protocol, lambda failure: self.failures.append(failure.type), True)

    def assertWaits(self) -> None:
        """No event comes, and the protocol is not connected."""
        self.assertEqual(select.select([self.lean.poller], [], [], 0.05)[0], [])
        self.assertEqual((self.protocol.transport, self.failures), (None, []))

    def test_greeted(self) -> None:
        """The event that brings the first bytes connects the protocol. It is watched for reading from the start."""
        changes: list[object] = []
        self.patch(self.lean.poller, "change", lambda *change: changes.append(change))
        self.begin(self.listen())
        far = self.accept()
        self.assertWaits()
        far.send(b"* OK\r\n")
        self.turn()
        self.assertEqual((self.protocol.received, self.failures, changes), (b"* OK\r\n", [], []))
        far.close()
        self.turn()
        self.assertEqual([type(reason) for reason in self.protocol.reasons], [ConnectionDone])

    def test_settled(self) -> None:
        """It can be asked whether there is a connection. Then the protocol is connected before the peer's bytes."""
        attempt = self.begin(self.listen())
        far = self.accept()
        for _ in range(2):
            settle(attempt)
            self.assertTrue(self.protocol.transport.connected)
        far.send(b"* OK\r\n")
        self.turn()
        self.assertEqual(self.protocol.received, b"* OK\r\n")
        self.protocol.transport.abortConnection()

    def test_notSettled(self) -> None:
        """If not, nothing changes."""
        attempt = self.begin(self.crowded())
        settle(attempt)
        self.assertWaits()
        attempt.cancel()
        settle(attempt)
        self.assertEqual((self.protocol.transport, self.failures), (None, [ConnectingCancelledError]))

    def test_settledAtOnce(self) -> None:
        """The same if the system has refused at once."""
        attempt = beginning(self.lean.leanEndpoint(f"unix:{self.mktemp()}", 0, None))(Said(), lambda _: None, True)
        settle(attempt)
        self.reactor.advance(0)

    def test_refused(self) -> None:
        """Without a listening socket it fails."""
        self.begin(self.nowhere())
        self.turn()
        self.assertEqual((self.protocol.transport, self.failures), (None, [ConnectionRefusedError]))

    def test_reset(self) -> None:
        """A peer that resets the connection without a word was connected: the connection is lost."""
        self.begin(self.listen())
        self.abort(self.accept())
        self.turn()
        self.assertEqual(([type(reason) for reason in self.protocol.reasons], self.failures), ([ConnectionLost], []))
        self.assertIn("reset by peer", str(self.protocol.reasons[0]))

    def test_greetedAndReset(self) -> None:
        """Bytes before the reset are received first."""
        self.begin(self.listen())
        far = self.accept()
        far.send(b"* BYE\r\n")
        self.abort(far)
        self.turn()
        while not self.protocol.reasons:
            self.turn()
        self.assertEqual((self.protocol.received, self.failures), (b"* BYE\r\n", []))
        self.assertIn("reset by peer", str(self.protocol.reasons[0]))

    def test_ended(self) -> None:
        """A peer that closes without a word was connected, too."""
        self.begin(self.listen())
        self.accept().close()
        self.turn()
        self.assertEqual([type(reason) for reason in self.protocol.reasons], [ConnectionDone])

    def test_cancelled(self) -> None:
        """A connection that the peer has accepted is aborted."""
        attempt = self.begin(self.listen())
        far = self.accept()
        attempt.cancel()
        self.assertEqual(self.failures, [ConnectingCancelledError])
        self.assertRaises(ConnectionResetError, far.recv, 1)

    def abort(self, far: socket.socket) -> None:
        """Reset the connection of C{far}."""
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()


class ConnectorTests(Case):
    """L{mailgate.lean.connecting.LeanConnector}"""

    def assertFailed(self, factory: Told, kind: type[Exception]) -> None:
        """C{factory} received one clientConnectionFailed with the reason. Nothing is left."""
        self.assertEqual((factory.told, factory.made), (["start", "failed", kind, "stop"], []))
        self.assertNothingLeft()

    def test_interface(self) -> None:
        """It provides Twisted's interface."""
        connector = self.lean.connectTCP(*self.crowded(), Told())
        self.assertTrue(verifyObject(IConnector, connector))
        connector.disconnect()

    def test_refused(self) -> None:
        """Without a listening socket the factory receives the failure, after the connector is returned."""
        factory = Told()
        self.lean.connectTCP(*self.nowhere(), factory)
        self.assertEqual(factory.told, ["start"])
        self.turn()
        self.assertFailed(factory, ConnectionRefusedError)

    def test_atOnce(self) -> None:
        """The same if the system refuses at once."""
        factory = Told()
        self.lean.connectUNIX(self.mktemp(), factory)
        self.assertEqual(factory.told, ["start"])
        self.reactor.advance(0)
        self.assertFailed(factory, ConnectError)

    def test_stopAtOnce(self) -> None:
        """An attempt that has failed, but has not reported it, can be stopped, and fails for that reason."""
        factory = Told()
        self.lean.connectUNIX(self.mktemp(), factory).stopConnecting()
        self.assertFailed(factory, UserError)

    def test_bound(self) -> None:
        """A source address that is not local, or in use, fails."""
        address = self.listen()
        for source in (("192.0.2.1", 0), address):
            factory = Told()
            self.lean.connectTCP(*address, factory, 20, source)
            self.assertEqual(factory.told, ["start"])
            self.reactor.advance(0)
            self.assertEqual(factory.told[:2], ["start", "failed"])
            self.assertIn(factory.told[2], (ConnectError, ConnectBindError))
            self.assertEqual(factory.told[3:], ["stop"])

    def test_noDescriptor(self) -> None:
        """Without a descriptor it fails."""
        factory = Told()
        end = self.exhaust()
        self.lean.connectTCP("127.0.0.1", 9, factory)
        end()
        self.reactor.advance(0)
        self.assertFailed(factory, ConnectError)

    def test_timeout(self) -> None:
        """It fails after the timeout, and then cannot be stopped."""
        factory = Told()
        connector = self.lean.connectTCP(*self.crowded(), factory, 2)
        self.reactor.advance(1.9)
        self.assertEqual(factory.told, ["start"])
        self.reactor.advance(0.1)
        self.assertFailed(factory, TimeoutError)
        self.assertRaises(NotConnectingError, connector.stopConnecting)
        connector.disconnect()
        self.assertEqual(len(factory.told), 4)

    def test_again(self) -> None:
        """A factory may connect again after a failure or a lost connection. Otherwise it is stopped."""

        class Persistent(Told):
            tries = 2

            def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
                super().clientConnectionFailed(connector, reason)
                if self.tries > 0:
                    self.tries -= 1
                    connector.connect()

        factory = Persistent()
        self.lean.connectTCP(*self.nowhere(), factory)
        while factory.told[-1] != "stop":
            self.turn()
        self.assertEqual(factory.told, ["start", *["failed", ConnectionRefusedError] * 3, "stop"])

    def test_buildFails(self) -> None:
        """A factory that raises fails the attempt."""

        def build() -> None:
            raise KeyError("factory")

        factory = Told(build)
        self.lean.connectTCP(*self.listen(), factory)
        self.turn()
        self.assertEqual(factory.told, ["start", "failed", KeyError, "stop"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_madeFails(self) -> None:
        """So does a protocol that raises in makeConnection. It loses its connection."""
        protocol = Said(lambda _: 1 // 0)
        factory = Told(lambda: protocol)
        connector = self.lean.connectTCP(*self.listen(), factory)
        self.turn()
        self.assertEqual(factory.told, ["start", "failed", ZeroDivisionError, "stop"])
        self.assertEqual(len(protocol.reasons), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertRaises(NotConnectingError, connector.stopConnecting)

    def test_stopInBuild(self) -> None:
        """An attempt that is stopped in buildProtocol fails, and is closed."""

        def build() -> Said:
            connector.stopConnecting()
            return Said()

        factory = Told(build)
        connector = self.lean.connectTCP(*self.listen(), factory)
        self.turn()
        self.assertEqual(factory.told, ["start", "failed", UserError, "stop"])
        self.assertEqual((factory.made[0].transport, factory.made[0].reasons), (None, []))
        self.assertEqual(self.accept().recv(1), b"")
