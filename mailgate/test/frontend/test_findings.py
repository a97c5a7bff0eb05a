"""
Tests for L{mailgate.frontend.findings}.
"""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from mailgate.directives import ListenAddress
from mailgate.frontend.findings import hostAndPort
from mailgate.login import Client, Denial, TLSDetails, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.test.support.factories import makeFactory
from mailgate.testing import Conversation, FakeAuthenticator, FakeConnector, FakeTransport
from mailgate.tls.settings import TLSSettings

LOGIN = (b"USER joe", b"PASS sesame")
LOCAL = IPv4Address("TCP", "198.51.100.1", 110)
DETAILS = TLSDetails("mail.example.com")


class FakeTLS:
    """A server's TLS whose details are L{DETAILS}."""

    def __init__(self) -> None:
        self.asked = 0

    def details(self, connection: Any) -> TLSDetails:
        self.asked += 1
        return DETAILS


class AddressTests(SynchronousTestCase):
    """L{hostAndPort}."""

    def test_forms(self) -> None:
        """
        An address has no brackets, an IPv4-mapped address is IPv4, and a unix socket has neither address nor port.
        """
        for address, expected in (
            (IPv4Address("TCP", "192.0.2.7", 1), ("192.0.2.7", 1)),
            (IPv6Address("TCP", "2001:db8::7", 2), ("2001:db8::7", 2)),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 3), ("192.0.2.7", 3)),
            (UNIXAddress("/run/x.sock"), ("unix:", 0)),
            (None, ("unix:", 0)),
        ):
            self.assertEqual(hostAndPort(address), expected)


class FindingsTests(SynchronousTestCase):
    """L{mailgate.frontend.findings.DialogueFindings}, through the clients in login requests."""

    def converse(self, *answers: Any, wildcard: bool = True, tls: bool = True, **given: Any) -> Conversation:
        """A login at a wildcard or at one address. It counts how often the transport is asked for its local address."""
        self.asked = 0
        authenticator = FakeAuthenticator(*answers)
        starttls = TLSSettings(starttls="on")
        conversation = Conversation(POP3, starttls, authenticator=authenticator, **given)
        factory: Any = conversation.factory
        factory.tls = FakeTLS()
        if wildcard:
            factory.isWildcard, factory.localHost, factory.localPort = True, "", 0
        self.patch(FakeTransport, "getHost", self._getHost)
        if tls:
            conversation.says(b"STLS")
            conversation.transport.shakeHands()
        conversation.says(*LOGIN)
        return conversation

    def _getHost(self) -> Any:
        self.asked += 1
        return LOCAL

    def clientOf(self, conversation: Conversation) -> Client:
        return conversation.requests[-1].client

    def test_notAsked(self) -> None:
        """A login whose authenticator needs no details causes no system call and no TLS work."""
        conversation = self.converse(connector=FakeConnector(None))
        tls: Any = conversation.factory.tls
        self.assertEqual(len(conversation.connector.pending), 1)
        self.assertEqual((self.asked, tls.asked), (0, 0))

    def test_asked(self) -> None:
        """During the login all details can be read."""
        for answers, connector in (((None,), None), ((), FakeConnector(None)), ((Denial(Trouble.DENIED),), None)):
            conversation = self.converse(*answers, connector=connector)
            client = self.clientOf(conversation)
            self.assertEqual((client.local, client.localPort, client.details), ("198.51.100.1", 110, DETAILS))
            self.assertEqual(self.asked, 1)

    def test_known(self) -> None:
        """The address in listen is known without a system call, and after the connection too."""
        conversation = self.converse(None, wildcard=False)
        conversation.transport.lose()
        client = self.clientOf(conversation)
        self.assertEqual((client.local, client.localPort), ("127.0.0.1", 143))
        self.assertEqual(self.asked, 0)

    def test_inClear(self) -> None:
        """Without TLS there are no details. After STARTTLS the next login has them."""
        conversation = self.converse(Denial(Trouble.DENIED), None, tls=False)
        first = self.clientOf(conversation)
        conversation.says(b"STLS")
        conversation.transport.shakeHands()
        conversation.says(*LOGIN)
        self.assertIsNone(first.details)
        self.assertEqual(self.clientOf(conversation).details, DETAILS)

    def test_gone(self) -> None:
        """Details that were not read are unknown after the client has left, and stay unknown. Nothing is raised."""
        conversation = self.converse(None)
        client = self.clientOf(conversation)
        conversation.transport.lose()
        self.assertEqual((client.local, client.localPort, client.details), ("", 0, None))
        self.assertEqual(repr(client), repr(evolve(client)))
        self.assertEqual(self.asked, 0)

    def test_readBefore(self) -> None:
        """Details that were read stay."""
        conversation = self.converse(None)
        client = self.clientOf(conversation)
        self.assertEqual((client.local, client.details), ("198.51.100.1", DETAILS))
        conversation.transport.lose()
        self.assertEqual((client.local, client.localPort, client.details), ("198.51.100.1", 110, DETAILS))

    def test_relayed(self) -> None:
        """After the hand-over the connection is not asked."""
        conversation = self.converse()
        self.assertTrue(conversation.server.relayed)
        client = self.clientOf(conversation)
        self.assertEqual((client.local, client.localPort, client.details), ("", 0, None))
        self.assertEqual(self.asked, 0)

    def test_kept(self) -> None:
        """A client object that someone keeps does not keep the dialogue or its connection alive."""
        conversation = self.converse(None)
        client = self.clientOf(conversation)
        kept = ref(conversation.server), ref(conversation.transport)
        conversation.transport.lose()
        del conversation
        gc.collect()
        self.assertEqual([each() for each in kept], [None, None])
        self.assertEqual((client.local, client.details), ("", None))


class ListenTests(SynchronousTestCase):
    """Listeners whose local address is known beforehand."""

    def test_addresses(self) -> None:
        """A listener with an address and a port has one; wildcards, unix sockets and chosen ports have none."""
        for host, port, local in (
            ("127.0.0.1", 143, (False, "127.0.0.1", 143)),
            ("::1", 143, (False, "::1", 143)),
            ("0.0.0.0", 143, (True, "", 0)),
            ("::", 143, (True, "", 0)),
            ("127.0.0.1", 0, (True, "", 0)),
            ("unix:/run/x.sock", 0, (True, "", 0)),
        ):
            factory = makeFactory(ListenAddress(host, port))
            self.assertEqual((factory.isWildcard, factory.localHost, factory.localPort), local)
