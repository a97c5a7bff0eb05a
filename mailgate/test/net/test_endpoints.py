"""Host names are looked up once for all who wait, and not too many at a time."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectingCancelledError, ConnectionRefusedError, DNSLookupError
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides, directlyProvidedBy, implementer
from zope.interface.verify import verifyObject

from mailgate.net.endpoints import MOST_LOOKUPS, SharedLookups, begin, endpointFor
from mailgate.net.naming import NamingReactor
from mailgate.test.support.resolver import FakeResolver


@implementer(IResolutionReceiver)
class Receiver:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.began: Any = None
        self.hosts: list[str] = []
        self.complete = 0

    def resolutionBegan(self, resolutionInProgress):
        self.began = resolutionInProgress

    def addressResolved(self, address):
        self.hosts.append(address.host)

    def resolutionComplete(self):
        self.complete += 1


class SharedLookupsTests(SynchronousTestCase):
    """One lookup for many."""

    def setUp(self) -> None:
        self.resolver = FakeResolver()
        self.shared = SharedLookups(self.resolver)

    def ask(self, name: str) -> Receiver:
        """Somebody asks for C{name}."""
        receiver = Receiver()
        self.shared.resolveHostName(receiver, name, 143)
        return receiver

    def test_noThread(self) -> None:
        """Where the system has no thread left a name has no address, and is looked up the next time."""

        def refuse(*_: Any) -> Any:
            raise RuntimeError("can't start new thread")

        self.patch(self.resolver, "resolveHostName", refuse)
        for _ in range(MOST_LOOKUPS + 1):
            receiver = self.ask("a.test")
            self.assertEqual((receiver.hosts, receiver.complete), ([], 1))
        self.patch(self.resolver, "resolveHostName", FakeResolver.resolveHostName.__get__(self.resolver))
        receiver = self.ask("a.test")
        self.resolver.answer("192.0.2.1")
        self.assertEqual((receiver.hosts, receiver.complete), (["192.0.2.1"], 1))

    def test_interfaces(self) -> None:
        """Everything is what it stands for."""
        self.assertTrue(verifyObject(IHostnameResolver, self.shared))
        self.assertTrue(verifyObject(IHostResolution, self.ask("a.test").began))
        self.assertTrue(verifyObject(IResolutionReceiver, self.resolver.asked[0][0]))
        self.assertTrue(verifyObject(IResolutionReceiver, Receiver()))
        self.assertTrue(verifyObject(IHostnameResolver, FakeResolver()))

    def test_shared(self) -> None:
        """All who ask for a name while it is looked up get that answer; whoever comes later asks anew."""
        receivers = [self.ask("a.test") for _ in range(20)]
        self.assertEqual(len(self.resolver.asked), 1)
        self.resolver.answer("192.0.2.1", "192.0.2.2")
        for receiver in receivers:
            self.assertEqual((receiver.hosts, receiver.complete), (["192.0.2.1", "192.0.2.2"], 1))
        self.ask("a.test")
        self.assertEqual(len(self.resolver.asked), 1)

    def test_bounded(self) -> None:
        """Beyond the bound a name has no address at once; when a lookup ends there is room again."""
        for number in range(MOST_LOOKUPS):
            self.assertEqual(self.ask(f"{number}.test").complete, 0)
        refused = self.ask("one.too.many.test")
        self.assertEqual((refused.hosts, refused.complete), ([], 1))
        self.assertEqual(len(self.resolver.asked), MOST_LOOKUPS)
        self.assertEqual(self.ask("0.test").complete, 0)
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.ask("one.too.many.test").complete, 0)

    def test_cancel(self) -> None:
        """One who cancels does not take the answer from the others."""
        first, second = self.ask("a.test"), self.ask("a.test")
        first.began.cancel()
        self.resolver.answer("192.0.2.1")
        self.assertEqual(second.hosts, ["192.0.2.1"])


class NamingReactorTests(SynchronousTestCase):
    """Twisted's endpoints look names up by it."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.resolver = FakeResolver()
        self.reactor.installNameResolver(self.resolver)
        self.naming = NamingReactor(self.reactor)

    def test_interface(self) -> None:
        """It says that it has a resolver; the rest is the reactor's."""
        self.assertTrue(verifyObject(IReactorPluggableNameResolver, self.naming))
        self.assertEqual(self.naming.seconds(), self.reactor.seconds())
        other = FakeResolver()
        self.naming.installNameResolver(other)
        self.assertIs(self.reactor.nameResolver, other)

    def test_endpoint(self) -> None:
        """Endpoints share a lookup and each connect."""
        for _ in range(3):
            HostnameEndpoint(self.naming, "a.test", 143).connect(Factory.forProtocol(Protocol))
        self.resolver.answer("192.0.2.1")
        self.assertEqual([client[:2] for client in self.reactor.tcpClients], [("192.0.2.1", 143)] * 3)

    def test_underscore(self) -> None:
        """A name is the system's to look up, whatever it is made of, as long as it can be one."""
        for name in ("mail_auth", "a_b.example", "r3---a.example", "xn--a", "mail.example.com."):
            endpointFor(self.naming, name, 143, 7.0).connect(Factory.forProtocol(Protocol))
            self.assertEqual([asked for _, asked in self.resolver.asked], [name])
            self.resolver.answer("192.0.2.1")
            self.assertEqual(self.reactor.tcpClients.pop()[:2], ("192.0.2.1", 143))

    def test_noName(self) -> None:
        """What can be none is not asked for."""
        for name in ("a_..b", "a b", "a_/b", "_" * 64, "a_\0"):
            connecting = endpointFor(self.naming, name, 143, 7.0).connect(Factory.forProtocol(Protocol))
            self.failureResultOf(connecting, ValueError)
        self.assertEqual(self.resolver.asked, [])

    def test_tooMany(self) -> None:
        """Beyond the bound a connection fails as one to an unknown name does."""
        for number in range(MOST_LOOKUPS):
            HostnameEndpoint(self.naming, f"{number}.test", 143).connect(Factory.forProtocol(Protocol))
        connecting = HostnameEndpoint(self.naming, "b.test", 143).connect(Factory.forProtocol(Protocol))
        self.failureResultOf(connecting, DNSLookupError)


@implementer(IHalfCloseableProtocol)
class HalfClosing(Protocol):
    """Wants to know when its peer sends no more."""

    def readConnectionLost(self) -> None:
        pass

    def writeConnectionLost(self) -> None:
        pass


class BeginTests(SynchronousTestCase):
    """L{begin} at an endpoint of Twisted's."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.endpoint = endpointFor(self.reactor, "192.0.2.1", 143, None)
        self.failures: list[Failure] = []

    def connected(self, protocol: Protocol, transport: StringTransport) -> StringTransport:
        """The transport over which C{protocol} is connected."""
        connecting = begin(self.endpoint, protocol, self.failures.append)
        wrapper: Any = self.reactor.tcpClients[-1][2].buildProtocol(None)
        transport.protocol = wrapper  # type: ignore[attr-defined]
        wrapper.makeConnection(transport)
        connecting.cancel()
        self.assertEqual(self.failures, [])
        return transport

    def test_connected(self) -> None:
        """The protocol that is given is connected; to cancel that is too late then."""
        protocol = Protocol()
        transport = self.connected(protocol, StringTransport())
        self.assertIs(protocol.transport, transport)
        self.assertFalse(IHalfCloseableProtocol.providedBy(transport.protocol))  # type: ignore[attr-defined]

    def test_halfClose(self) -> None:
        """A protocol that has half-closes has them, though an endpoint wraps it; under TLS there are none."""
        transport = self.connected(HalfClosing(), StringTransport())
        self.assertTrue(IHalfCloseableProtocol.providedBy(transport.protocol))  # type: ignore[attr-defined]
        overTLS = StringTransport()
        alsoProvides(overTLS, ISSLTransport)
        self.connected(HalfClosing(), overTLS)
        wrapper: Any = overTLS.protocol  # type: ignore[attr-defined]
        self.assertNotIn(IHalfCloseableProtocol, list(directlyProvidedBy(wrapper))[1:])

    def test_failed(self) -> None:
        """The failure of the connection is told."""
        begin(self.endpoint, Protocol(), self.failures.append)
        factory, connector = self.reactor.tcpClients[-1][2], self.reactor.connectors[0]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.assertEqual([failure.type for failure in self.failures], [ConnectionRefusedError])

    def test_cancelled(self) -> None:
        """So it is that the connection has been given up."""
        begin(self.endpoint, Protocol(), self.failures.append).cancel()
        self.assertEqual([failure.type for failure in self.failures], [ConnectingCancelledError])
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
