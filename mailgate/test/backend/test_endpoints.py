"""
Tests of the endpoints of backends and the look-up of their names.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IHostnameResolver
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.backend.caller import Caller
from mailgate.backend.client import ProxyClient
from mailgate.backend.place import Place
from mailgate.login import Backend
from mailgate.net.endpoints import beginning, endpointFor
from mailgate.protocols.pop3 import POP3
from mailgate.test.backend.test_client import FIRST, SlowResolver
from mailgate.testing import Attempt, routeTo, settingsOf


class EndpointTests(SynchronousTestCase):
    """L{endpointFor}."""

    def endpoint(self, host: str, port: int = 110) -> Any:
        return endpointFor(MemoryReactorClock(), host, port, 7.0)

    def test_ipv4(self) -> None:
        """The connect to an IPv4 address needs no resolver."""
        self.assertIsInstance(self.endpoint("192.0.2.1"), TCP4ClientEndpoint)

    def test_ipv6(self) -> None:
        """Neither does that to an IPv6 address."""
        self.assertIsInstance(self.endpoint("2001:db8::1"), TCP6ClientEndpoint)

    def test_unix(self) -> None:
        """C{unix:} is followed by the path of a socket; there is no TCP connection."""
        reactor = MemoryReactorClock()
        endpoint = endpointFor(reactor, "unix:/run/imap", 0, 7.0)
        self.assertIsInstance(endpoint, UNIXClientEndpoint)
        client = ProxyClient(Caller(settingsOf("pop3"), "mx.test"), Place(str(FIRST), FIRST, beginning(endpoint), None))
        endpoint.connect(client)  # type: ignore[arg-type]
        self.assertEqual([path for path, *_ in reactor.unixClients], ["/run/imap"])
        self.assertEqual(reactor.tcpClients, [])

    def test_name(self) -> None:
        """Anything else is a host name."""
        self.assertIsInstance(self.endpoint("mail.example.com"), HostnameEndpoint)

    def test_timeout(self) -> None:
        """The given timeout is that of the connect."""
        attempt = Attempt(POP3, timeout=7.0)
        self.assertIs(attempt.reactor.tcpClients[0][3], None)

    def test_nameResolvedAtEachConnection(self) -> None:
        """A name is looked up for every connection, so changes in the DNS take effect."""
        resolver = SlowResolver()
        self.assertTrue(verifyObject(IHostnameResolver, resolver))
        attempt = Attempt(POP3, route=routeTo(Backend("mail.example.com", 110)), resolver=resolver)
        for address in ("192.0.2.1", "192.0.2.2"):
            resolver.answer(address)
            self.assertEqual(attempt.tried[-1], (address, 110))
            attempt.refuse()
            attempt.reactor.advance(1)
            self.successResultOf(attempt.result)
            attempt.result = attempt.again()
        self.assertEqual(len(resolver.receivers), 3)
        attempt.result.cancel()
        self.failureResultOf(attempt.result, CancelledError)
