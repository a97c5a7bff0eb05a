"""
Tests for L{mailgate.frontend.factory}.
"""

from __future__ import annotations

from twisted.internet.interfaces import IProtocolFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.directives import ListenAddress
from mailgate.protocols.pop3.server import POP3Server
from mailgate.test.support.factories import makeFactory
from mailgate.testing import CLIENT, FakeTransport


class ProxyServerFactoryTests(SynchronousTestCase):
    """L{mailgate.frontend.factory.ProxyServerFactory}."""

    def test_protocol(self) -> None:
        """It makes a new dialogue of its protocol for each connection."""
        factory = makeFactory(ListenAddress("127.0.0.1", 110))
        self.assertTrue(verifyObject(IProtocolFactory, factory))
        first, second = factory.buildProtocol(CLIENT), factory.buildProtocol(CLIENT)
        self.assertIsInstance(first, POP3Server)
        self.assertIsNot(first, second)

    def test_connections(self) -> None:
        """It keeps the connections that have not ended."""
        factory = makeFactory(ListenAddress("127.0.0.1", 110))
        transport = FakeTransport()
        protocol = factory.buildProtocol(CLIENT)
        self.assertEqual(factory.connections, set())
        transport.connect(protocol)
        self.assertEqual(factory.connections, {protocol})
        transport.lose()
        self.assertEqual(factory.connections, set())
        self.assertEqual(factory.clock.getDelayedCalls(), [])
