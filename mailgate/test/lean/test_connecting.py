"""
Tests for L{mailgate.lean.connecting}: what L{mailgate.test.lean.test_transport_contract} cannot have happen to an
attempt, on real sockets with a reactor that does nothing by itself.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectBindError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionAborted,
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
from mailgate.net.endpoints import begin, endpointFor
from mailgate.net.naming import NamingReactor
from mailgate.test.support.pollers import Reactor
from mailgate.test.support.resolver import FakeResolver


class Said(Protocol):
    """Knows what it is told; C{made} is called with it when it is connected."""

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
    """Makes a L{Said}, unless C{build} makes something else; C{told} is what it was told, with the reason."""

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
    """Somebody who listens, and attempts that leave nothing behind, whatever comes of them."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.lean = LeanReactor(self.reactor)
        self.fars: list[socket.socket] = []
        # The poller's epoll stays: it is there before descriptors are counted.
        near, far = socket.socketpair()
        far.close()
        fd = near.detach()
        self.lean.poller.watch(fd, self, READABLE)  # type: ignore[arg-type]
        self.lean.poller.release(fd)
        # What other tests have left to the collector must not be closed in the middle of this one.
        gc.collect()
        self.before = self.descriptors()
        self.addCleanup(self.assertNothingLeft)

    def descriptors(self) -> int:
        """How many this process has."""
        return len(os.listdir("/proc/self/fd"))

    def assertNothingLeft(self) -> None:
        """No descriptor, none that is watched, and no timer."""
        for far in self.fars:
            far.close()
        self.reactor.advance(0)
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), ([], []))
        self.assertEqual(self.descriptors(), self.before)

    def listen(self, backlog: int = 10) -> tuple[str, int]:
        """Somebody who listens; gives the address."""
        bound = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self.fars.append(bound)
        return "127.0.0.1", bound.getsockname()[1]

    def accept(self) -> socket.socket:
        """The other end of the connection."""
        far, _ = self.fars[0].accept()
        self.fars.append(far)
        return far

    def crowded(self) -> tuple[str, int]:
        """The address of somebody who listens, but has no place for anybody."""
        address = self.listen(0)
        self.fars.append(socket.create_connection(address))
        return address

    def nowhere(self) -> tuple[str, int]:
        """An address where nobody listens."""
        with socket.create_server(("127.0.0.1", 0)) as bound:
            return "127.0.0.1", bound.getsockname()[1]

    def turn(self) -> None:
        """Wait for an event, and deal with that."""
        self.assertEqual(select.select([self.lean.poller], [], [], 10)[0], [self.lean.poller])
        self.lean.poller.doRead()

    def exhaust(self) -> Callable[[], None]:
        """Leave this process without a descriptor; what is given ends that."""
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
        """There is no connection, for a reason of C{kind}; the factory was asked for nothing; nothing is left."""
        failure = self.failureResultOf(connected, kind)
        self.assertEqual(factory.made, [])
        self.assertNothingLeft()
        return failure.value

    def test_interface(self) -> None:
        """It is an endpoint as Twisted's."""
        self.assertTrue(verifyObject(IStreamClientEndpoint, self.lean.leanEndpoint("127.0.0.1", 1, 20)))

    def test_connects(self) -> None:
        """It gives the factory's own protocol, which is connected, and no timer goes on."""
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
        """A name leads here too, when it is looked up; it may have an underscore."""
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
        """What the server has said by then is heard at once, after the one who waits has the protocol."""
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
        """L{begin} needs no factory and no Deferred: the protocol is told alone, or the failure."""
        failures: list[Failure] = []
        protocol = Said()
        begin(self.lean.leanEndpoint(*self.listen(), None), protocol, failures.append)
        self.assertIs(protocol.transport, None)
        self.turn()
        self.assertEqual((protocol.transport.connected, failures), (True, []))
        protocol.transport.abortConnection()
        begin(self.lean.leanEndpoint(*self.nowhere(), None), Said(), failures.append)
        self.assertEqual(failures, [])
        self.turn()
        self.assertEqual([failure.type for failure in failures], [ConnectionRefusedError])
        self.assertNothingLeft()

    def test_beginCancelled(self) -> None:
        """What it gives can be cancelled, once."""
        failures: list[Failure] = []
        attempt = begin(self.lean.leanEndpoint(*self.crowded(), None), Said(), failures.append)
        for _ in range(2):
            attempt.cancel()
        self.assertEqual([failure.type for failure in failures], [ConnectingCancelledError])

    def test_refused(self) -> None:
        """Where nobody listens it fails, refused."""
        factory = Told()
        connected = self.connect(self.nowhere(), factory)
        self.assertNoResult(connected)
        self.turn()
        self.assertFails(connected, ConnectionRefusedError, factory)

    def test_refusedUNIX(self) -> None:
        """So it does on a unix socket where nobody listens, or that is not there; not before the Deferred is given."""
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
        """An address that the system does not take, and a path that it finds too long, are failures."""
        for address in (("fe80::1%nosuch0", 25), "/" + 200 * "x", ("255.255.255.255", 25)):
            factory = Told()
            connected = self.connect(address, factory)
            self.assertNoResult(connected)
            self.reactor.advance(0)
            self.assertFails(connected, ConnectError, factory)

    def test_noDescriptor(self) -> None:
        """Without a descriptor it fails, and says why; the next attempt succeeds when there is one."""
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
        """What cannot be watched is a failure too, and closed."""

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
        """Where nobody answers it fails after the timeout, by the clock that it has, or within the second after."""
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
        """It can be cancelled while it waits: at once there is nothing left of it, and nothing comes of it later."""
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
        """When it has failed already, but not said so yet, it can be cancelled too, and does not say so any more."""
        connected = self.connect(self.mktemp(), Told())
        connected.cancel()
        self.failureResultOf(connected, ConnectingCancelledError)
        self.reactor.advance(0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancelLate(self) -> None:
        """Once connected there is nothing to cancel."""
        connected = self.connect(self.listen(), Told())
        self.turn()
        connected.cancel()
        protocol = self.successResultOf(connected)
        self.reactor.advance(100)
        self.assertTrue(protocol.transport.connected)
        protocol.transport.abortConnection()

    def test_cancelInBatch(self) -> None:
        """Cancelled by another one's event, of one batch with its own, it hears no more of that."""
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
        """A factory that raises fails the attempt with that, which is logged once; one that makes nothing, too."""

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
        """A protocol that raises when it is connected loses its connection; whoever waits for it is told why."""
        protocol = Said(lambda _: 1 // 0)
        connected = self.connect(self.listen(), Told(lambda: protocol))
        self.turn()
        self.failureResultOf(connected, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([type(reason) for reason in protocol.reasons], [ZeroDivisionError])
        self.assertEqual(self.accept().recv(1), b"")

    def test_shutdown(self) -> None:
        """When the reactor stops the attempt fails."""
        connected = self.connect(self.crowded(), Told())
        self.lean.poller.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(connected, ConnectionLost)


class ConnectorTests(Case):
    """L{mailgate.lean.connecting.LeanConnector}"""

    def assertFailed(self, factory: Told, kind: type[Exception]) -> None:
        """C{factory} was told once that there is no connection, and why; nothing is left."""
        self.assertEqual((factory.told, factory.made), (["start", "failed", kind, "stop"], []))
        self.assertNothingLeft()

    def test_interface(self) -> None:
        """It is a connector as Twisted's."""
        connector = self.lean.connectTCP(*self.crowded(), Told())
        self.assertTrue(verifyObject(IConnector, connector))
        connector.disconnect()

    def test_refused(self) -> None:
        """Where nobody listens the factory is told so, not before the connector was given."""
        factory = Told()
        self.lean.connectTCP(*self.nowhere(), factory)
        self.assertEqual(factory.told, ["start"])
        self.turn()
        self.assertFailed(factory, ConnectionRefusedError)

    def test_atOnce(self) -> None:
        """So it is where the system refuses at once."""
        factory = Told()
        self.lean.connectUNIX(self.mktemp(), factory)
        self.assertEqual(factory.told, ["start"])
        self.reactor.advance(0)
        self.assertFailed(factory, ConnectError)

    def test_stopAtOnce(self) -> None:
        """An attempt that has failed already, but not said so yet, can be given up, and then fails for that."""
        factory = Told()
        self.lean.connectUNIX(self.mktemp(), factory).stopConnecting()
        self.assertFailed(factory, UserError)

    def test_bound(self) -> None:
        """An address to come from that is not ours, or taken, is a failure."""
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
        """It fails after the timeout, by the clock that it has; it cannot be given up then."""
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
        """A factory that is told of a failure, or of the end, may connect again; it is stopped when it does not."""

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
        """A factory that raises has failed."""

        def build() -> None:
            raise KeyError("factory")

        factory = Told(build)
        self.lean.connectTCP(*self.listen(), factory)
        self.turn()
        self.assertEqual(factory.told, ["start", "failed", KeyError, "stop"])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_madeFails(self) -> None:
        """So has one whose protocol raises when it is connected, and that loses its connection."""
        protocol = Said(lambda _: 1 // 0)
        factory = Told(lambda: protocol)
        connector = self.lean.connectTCP(*self.listen(), factory)
        self.turn()
        self.assertEqual(factory.told, ["start", "failed", ZeroDivisionError, "stop"])
        self.assertEqual(len(protocol.reasons), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertRaises(NotConnectingError, connector.stopConnecting)

    def test_stopInBuild(self) -> None:
        """An attempt that is given up while its factory makes the protocol comes to nothing, and is closed."""

        def build() -> Said:
            connector.stopConnecting()
            return Said()

        factory = Told(build)
        connector = self.lean.connectTCP(*self.listen(), factory)
        self.turn()
        self.assertEqual(factory.told, ["start", "failed", UserError, "stop"])
        self.assertEqual((factory.made[0].transport, factory.made[0].reasons), (None, []))
        self.assertEqual(self.accept().recv(1), b"")
