"""
Host names are resolved once for all waiting logins, and only some at a time.
"""

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

from mailgate.net.endpoints import MOST_LOOKUPS, SharedLookups, beginning, endpointFor
from mailgate.net.naming import NamingReactor
from mailgate.test.support.resolver import FakeResolver
from mailgate.testing import FakeTransport


@implementer(IResolutionReceiver)
class Receiver:
    """Records its calls."""

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
    """Tests for L{SharedLookups}."""

    def setUp(self) -> None:
        self.resolver = FakeResolver()
        self.shared = SharedLookups(self.resolver)

    def ask(self, name: str) -> Receiver:
        """Resolve C{name} for another receiver."""
        receiver = Receiver()
        self.shared.resolveHostName(receiver, name, 143)
        return receiver

    def test_noThread(self) -> None:
        """If the system cannot start a thread, a name has no address. The next lookup is made again."""

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
        """All objects provide their interfaces."""
        self.assertTrue(verifyObject(IHostnameResolver, self.shared))
        self.assertTrue(verifyObject(IHostResolution, self.ask("a.test").began))
        self.assertTrue(verifyObject(IResolutionReceiver, self.resolver.asked[0][0]))
        self.assertTrue(verifyObject(IResolutionReceiver, Receiver()))
        self.assertTrue(verifyObject(IHostnameResolver, FakeResolver()))

    def test_shared(self) -> None:
        """All receivers of one name share a lookup. After its end a new lookup is made."""
        receivers = [self.ask("a.test") for _ in range(20)]
        self.assertEqual(len(self.resolver.asked), 1)
        self.resolver.answer("192.0.2.1", "192.0.2.2")
        for receiver in receivers:
            self.assertEqual((receiver.hosts, receiver.complete), (["192.0.2.1", "192.0.2.2"], 1))
        self.ask("a.test")
        self.assertEqual(len(self.resolver.asked), 1)

    def test_bounded(self) -> None:
        """Beyond the limit a name has no address. When a lookup ends, another one can be made."""
        for number in range(MOST_LOOKUPS):
            self.assertEqual(self.ask(f"{number}.test").complete, 0)
        refused = self.ask("one.too.many.test")
        self.assertEqual((refused.hosts, refused.complete), ([], 1))
        self.assertEqual(len(self.resolver.asked), MOST_LOOKUPS)
        self.assertEqual(self.ask("0.test").complete, 0)
        self.resolver.answer("192.0.2.1")
        self.assertEqual(self.ask("one.too.many.test").complete, 0)

    def test_cancel(self) -> None:
        """If one receiver cancels, the others get the answer all the same."""
        first, second = self.ask("a.test"), self.ask("a.test")
        first.began.cancel()
        self.resolver.answer("192.0.2.1")
        self.assertEqual(second.hosts, ["192.0.2.1"])


class NamingReactorTests(SynchronousTestCase):
    """Twisted's endpoints resolve names through the reactor."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.resolver = FakeResolver()
        self.reactor.installNameResolver(self.resolver)
        self.naming = NamingReactor(self.reactor)

    def test_interface(self) -> None:
        """It provides a resolver. All other attributes are those of the reactor."""
        self.assertTrue(verifyObject(IReactorPluggableNameResolver, self.naming))
        self.assertEqual(self.naming.seconds(), self.reactor.seconds())
        other = FakeResolver()
        self.naming.installNameResolver(other)
        self.assertIs(self.reactor.nameResolver, other)

    def test_endpoint(self) -> None:
        """Endpoints share a lookup, and connect separately."""
        for _ in range(3):
            HostnameEndpoint(self.naming, "a.test", 143).connect(Factory.forProtocol(Protocol))
        self.resolver.answer("192.0.2.1")
        self.assertEqual([client[:2] for client in self.reactor.tcpClients], [("192.0.2.1", 143)] * 3)

    def test_underscore(self) -> None:
        """The system resolves any host name that is possible, also with an underscore."""
        for name in ("mail_auth", "a_b.example", "r3---a.example", "xn--a", "mail.example.com."):
            endpointFor(self.naming, name, 143, 7.0).connect(Factory.forProtocol(Protocol))
            self.assertEqual([asked for _, asked in self.resolver.asked], [name])
            self.resolver.answer("192.0.2.1")
            self.assertEqual(self.reactor.tcpClients.pop()[:2], ("192.0.2.1", 143))

    def test_noName(self) -> None:
        """A text that cannot be a host name is not resolved."""
        for name in ("a_..b", "a b", "a_/b", "_" * 64, "a_\0"):
            connecting = endpointFor(self.naming, name, 143, 7.0).connect(Factory.forProtocol(Protocol))
            self.failureResultOf(connecting, ValueError)
        self.assertEqual(self.resolver.asked, [])

    def test_tooMany(self) -> None:
        """Beyond the limit a connection fails like one to an unknown name."""
        for number in range(MOST_LOOKUPS):
            HostnameEndpoint(self.naming, f"{number}.test", 143).connect(Factory.forProtocol(Protocol))
        connecting = HostnameEndpoint(self.naming, "b.test", 143).connect(Factory.forProtocol(Protocol))
        self.failureResultOf(connecting, DNSLookupError)


@implementer(IHalfCloseableProtocol)
class HalfClosing(Protocol):
    """A protocol with half-closes."""

    def readConnectionLost(self) -> None:
        pass

    def writeConnectionLost(self) -> None:
        pass


class BeginTests(SynchronousTestCase):
    """L{beginning} with an endpoint of Twisted."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.endpoint = endpointFor(self.reactor, "192.0.2.1", 143, None)
        self.failures: list[Failure] = []

    def connected(self, protocol: Protocol, transport: StringTransport) -> StringTransport:
        """Connect C{protocol}, and return its transport."""
        connecting = beginning(self.endpoint)(protocol, self.failures.append, False)
        wrapper: Any = self.reactor.tcpClients[-1][2].buildProtocol(None)
        transport.protocol = wrapper  # type: ignore[attr-defined]
        wrapper.makeConnection(transport)
        connecting.cancel()
        self.assertEqual(self.failures, [])
        return transport

    def test_connected(self) -> None:
        """The given protocol is connected. It is too late to cancel then."""
        protocol = Protocol()
        transport = self.connected(protocol, StringTransport())
        self.assertIs(protocol.transport, transport)
        self.assertFalse(IHalfCloseableProtocol.providedBy(transport.protocol))  # type: ignore[attr-defined]

    def test_noDelay(self) -> None:
        """The connection sends small writes at once."""
        transport = FakeTransport()
        self.connected(Protocol(), transport)
        self.assertTrue(transport.noDelay)

    def test_halfClose(self) -> None:
        """A wrapped protocol keeps its half-closes. With TLS there are none."""
        transport = self.connected(HalfClosing(), StringTransport())
        self.assertTrue(IHalfCloseableProtocol.providedBy(transport.protocol))  # type: ignore[attr-defined]
        overTLS = StringTransport()
        alsoProvides(overTLS, ISSLTransport)
        self.connected(HalfClosing(), overTLS)
        wrapper: Any = overTLS.protocol  # type: ignore[attr-defined]
        self.assertNotIn(IHalfCloseableProtocol, list(directlyProvidedBy(wrapper))[1:])

    def test_failed(self) -> None:
        """A failed connection is reported."""
        beginning(self.endpoint)(Protocol(), self.failures.append, False)
        factory, connector = self.reactor.tcpClients[-1][2], self.reactor.connectors[0]
        factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        self.assertEqual([failure.type for failure in self.failures], [ConnectionRefusedError])

    def test_cancelled(self) -> None:
        """A cancelled connection is reported."""
        beginning(self.endpoint)(Protocol(), self.failures.append, False).cancel()
        self.assertEqual([failure.type for failure in self.failures], [ConnectingCancelledError])
        self.assertTrue(self.reactor.connectors[0].stoppedConnecting)
