"""
Tests of L{mailgate.testing}.
"""

from __future__ import annotations

from typing import Any

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
from mailgate.session import Outcome, Phase
from mailgate.testing import Conversation, FakeAuthenticator, FakeClient, FakeTransport, makeSession


class PublicTests(SynchronousTestCase):
    """The public names for other projects."""

    def test_explained(self) -> None:
        """Each public name exists, and each class and function has a docstring."""
        for name in testing.__all__:
            public = getattr(testing, name)
            self.assertTrue(not callable(public) or public.__doc__, name)


class FakeTests(SynchronousTestCase):
    """Every fake provides its interface."""

    def test_session(self) -> None:
        """A record may be made as it is at the end of a connection."""
        known: dict[str, Any] = {
            "outcome": Outcome.TIMEOUT,
            "reason": "silence",
            "reached": Phase.TLS,
            "received": 3,
            "sent": 4,
        }
        session = makeSession("pop3", "0.0.0.0:995", "192.0.2.7:40123", 5.0, Phase.END, id="s1", user=b"joe", **known)
        self.assertEqual({name: getattr(session, name) for name in known}, known)
        about = (session.protocol, session.server, session.client, session.started, session.phase, session.id)
        self.assertEqual(about, ("pop3", "0.0.0.0:995", "192.0.2.7:40123", 5.0, Phase.END, "s1"))
        self.assertEqual(session.user, b"joe")

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
