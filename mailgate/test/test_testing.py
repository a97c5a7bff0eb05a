"""
Tests of L{mailgate.testing}.
"""

from __future__ import annotations

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IPushProducer,
    ITCPTransport,
    ITLSTransport,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate import testing
from mailgate.interfaces import IAuthenticator
from mailgate.protocols.pop3 import POP3
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeTransport


class PublicTests(SynchronousTestCase):
    """The public names for other projects."""

    def test_explained(self) -> None:
        """Each public name exists, and each class and function has a docstring."""
        for name in testing.__all__:
            public = getattr(testing, name)
            self.assertTrue(not callable(public) or public.__doc__, name)


class FakeTests(SynchronousTestCase):
    """Every fake provides its interface."""

    def test_transport(self) -> None:
        """The fake transport is a TCP transport on which TLS can be started."""
        transport = FakeTransport()
        self.assertTrue(verifyObject(ITCPTransport, transport))
        self.assertTrue(verifyObject(ITLSTransport, transport))

    def test_authenticator(self) -> None:
        """The fake authenticator provides its interface."""
        self.assertTrue(verifyObject(IAuthenticator, FakeAuthenticator()))

    def test_protocols(self) -> None:
        """Both protocols provide the interfaces that transports look for."""
        server = Conversation(POP3).server
        for interface in (IHalfCloseableProtocol, IHandshakeListener, IPushProducer):
            self.assertTrue(verifyObject(interface, server))
        for interface in (IHalfCloseableProtocol, IHandshakeListener):
            self.assertTrue(verifyObject(interface, FakeClient()))
