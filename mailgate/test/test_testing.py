"""The fakes are what they stand for."""

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
    """What other distributions may rely on."""

    def test_explained(self) -> None:
        """Each public name is there, and what can be called is explained."""
        for name in testing.__all__:
            public = getattr(testing, name)
            self.assertTrue(not callable(public) or public.__doc__, name)


class FakeTests(SynchronousTestCase):
    """Every stand-in provides its interface."""

    def test_transport(self) -> None:
        """The fake transport is a TCP transport on which TLS can be started."""
        transport = FakeTransport()
        self.assertTrue(verifyObject(ITCPTransport, transport))
        self.assertTrue(verifyObject(ITLSTransport, transport))

    def test_authenticator(self) -> None:
        """The fake authenticator is one."""
        self.assertTrue(verifyObject(IAuthenticator, FakeAuthenticator()))

    def test_protocols(self) -> None:
        """Both halves provide what transports look for."""
        server = Conversation(POP3).server
        for interface in (IHalfCloseableProtocol, IHandshakeListener, IPushProducer):
            self.assertTrue(verifyObject(interface, server))
        for interface in (IHalfCloseableProtocol, IHandshakeListener):
            self.assertTrue(verifyObject(interface, FakeClient()))
