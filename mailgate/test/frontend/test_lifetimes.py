"""
Tests for L{IConnection} before a login: goodbyes on request, and limits of a session's time.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailgate.frontend.dialogue import ProxyServer
from mailgate.frontend.realip import HeaderReader
from mailgate.interfaces import IConnection
from mailgate.login import Denial, LoginRequest, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.relay.portable import Relay
from mailgate.session import Outcome, Phase
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeClient, FakeConnector

HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
LOGIN = (b"USER joe", b"PASS sesame")


def waiting(**given: Any) -> Conversation:
    """A connection that waits for its PROXY header."""
    return Conversation(POP3, proxyProtocol=True, **given)


class LifetimeCase(SynchronousTestCase):
    """Shared by the tests here."""

    def assertExpired(self, conversation: Conversation, goodbye: bytes) -> None:
        """The client got C{goodbye}, and no timer is left after the end."""
        self.assertEqual(conversation.hear(), goodbye)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.EXPIRED)
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])


class DialogueTests(LifetimeCase):
    """L{ProxyServer}."""

    def test_interface(self) -> None:
        """The dialogue of each protocol implements the interface."""
        for record in (IMAP4, POP3, SMTP):
            server = Conversation(record).server
            self.assertIsInstance(server, ProxyServer)
            self.assertTrue(verifyObject(IConnection, server))

    def test_dismissed(self) -> None:
        """The caller's trouble goes to the client, and its outcome to the log."""
        conversation = Conversation(IMAP4)
        conversation.hear()
        conversation.server.dismiss(Outcome.DENIED, Trouble.REFUSED)
        self.assertEqual(conversation.hear(), IMAP4.server.wording[Trouble.REFUSED] + b"\r\n")
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.DENIED)

    def test_limit(self) -> None:
        """At the limit the client gets a goodbye, even if it is active."""
        for record, word, goodbye in (
            (IMAP4, b"a NOOP", b"* BYE Timeout, closing connection\r\n"),
            (POP3, b"NOOP", b"-ERR Timeout, closing connection\r\n"),
            (SMTP, b"NOOP", b"421 4.4.2 Timeout, closing connection\r\n"),
        ):
            conversation = Conversation(record)
            conversation.server.limit(conversation.clock.seconds() + 90)
            for _ in range(2):
                conversation.clock.advance(44)
                self.assertTrue(conversation.says(word))
                self.assertFalse(conversation.closed)
            conversation.clock.advance(2)
            self.assertExpired(conversation, goodbye)

    def test_later(self) -> None:
        """If the dialogue's own deadline is earlier, that one counts."""
        conversation = Conversation(POP3)
        conversation.server.limit(conversation.clock.seconds() + 61)
        conversation.clock.advance(60)
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)
        conversation.clock.advance(1)
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)

    def test_past(self) -> None:
        """A limit in the past ends the dialogue at once."""
        conversation = Conversation(POP3)
        conversation.hear()
        conversation.server.limit(conversation.clock.seconds() - 1)
        conversation.clock.advance(0)
        self.assertExpired(conversation, b"-ERR Timeout, closing connection\r\n")

    def test_lifted(self) -> None:
        """The latest limit counts, and it can be lifted."""
        for moment in (None, 3600.0):
            conversation = Conversation(POP3)
            conversation.server.limit(conversation.clock.seconds() + 5)
            conversation.server.limit(moment)
            conversation.clock.advance(50)
            self.assertFalse(conversation.closed)
            conversation.clock.advance(10)
            self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_duringLogin(self) -> None:
        """A running login is cancelled."""
        for authenticator, connector in (
            (FakeAuthenticator(None), FakeConnector()),
            (FakeAuthenticator(Denial(Trouble.DENIED, wait=30.0)), FakeConnector()),
            (FakeAuthenticator(), FakeConnector(None)),
        ):
            conversation = Conversation(POP3, authenticator=authenticator, connector=connector)
            conversation.server.limit(conversation.clock.seconds() + 5)
            conversation.says(*LOGIN)
            conversation.clock.advance(5)
            self.assertExpired(conversation, b"-ERR Timeout, closing connection\r\n")

    def test_ended(self) -> None:
        """A client that got a goodbye gets no second one."""
        conversation = Conversation(POP3)
        conversation.says(b"QUIT")
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.clock.advance(5)
        self.assertEqual(conversation.hear(), b"")
        self.assertIs(conversation.server.session.outcome, Outcome.QUIT)
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_relay(self) -> None:
        """The relay keeps the limit of the dialogue. It writes no goodbye into the stream."""
        backend = FakeClient(b"+OK\r\n")
        conversation = Conversation(POP3, connector=FakeConnector(backend))
        conversation.server.limit(conversation.clock.seconds() + 100)
        conversation.says(*LOGIN)
        (relay,) = conversation.factory.connections
        self.assertIsInstance(relay, Relay)
        conversation.clock.advance(99)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertEqual(conversation.hear(), b"")
        self.assertTrue(conversation.closed)
        self.assertIs(relay.session.outcome, Outcome.EXPIRED)


class Stubborn(FakeAuthenticator):
    """An authenticator whose requests cannot be cancelled."""

    def authenticate(self, request: LoginRequest) -> Deferred[Any]:
        super().authenticate(request)

        def refuse(question: object) -> None:
            raise RuntimeError("it cannot be cancelled")

        return Deferred(refuse)


class Rude(FakeAuthenticator):
    """An authenticator during whose work the client leaves."""

    conversation: Conversation

    def authenticate(self, request: LoginRequest) -> Deferred[Any]:
        self.conversation.transport.lose()
        return super().authenticate(request)


class AuthenticatorTests(SynchronousTestCase):
    """Authenticators that misbehave when the client leaves."""

    def test_stubborn(self) -> None:
        """
        An authenticator that cannot be cancelled is logged as an error. The connection has ended and is no longer
        counted.
        """
        conversation = Conversation(POP3, authenticator=Stubborn(None))
        conversation.says(*LOGIN)
        conversation.transport.lose()
        self.assertEqual(conversation.factory.connections, set())
        self.assertEqual(conversation.clock.getDelayedCalls(), [])
        failures = [str(event["log_failure"].value) for event in conversation.events if "log_failure" in event]
        self.assertEqual(failures, ["it cannot be cancelled"])

    def test_rude(self) -> None:
        """No backend is contacted for a client that left while the authenticator worked."""
        authenticator, connector = Rude(ROUTE), FakeConnector()
        authenticator.conversation = conversation = Conversation(POP3, authenticator=authenticator, connector=connector)
        conversation.says(*LOGIN)
        self.assertEqual((connector.routes, conversation.factory.connections), ([], set()))
        self.assertIs(conversation.server.session.phase, Phase.END)


class HeaderTests(LifetimeCase):
    """L{HeaderReader}."""

    def test_interface(self) -> None:
        """The reader of a PROXY header implements the interface."""
        server = waiting().server
        self.assertIsInstance(server, HeaderReader)
        self.assertTrue(verifyObject(IConnection, server))

    def test_limit(self) -> None:
        """If the limit passes before the header, the client gets no goodbye."""
        conversation = waiting()
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.clock.advance(4)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertExpired(conversation, b"")

    def test_lifted(self) -> None:
        """Without a limit, or with a late one, the header has its usual time."""
        for moment in (None, 3600.0):
            conversation = waiting()
            conversation.server.limit(conversation.clock.seconds() + 5)
            conversation.server.limit(moment)
            conversation.clock.advance(59)
            self.assertFalse(conversation.closed)
            conversation.clock.advance(1)
            self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)

    def test_kept(self) -> None:
        """The dialogue that follows has the same limit."""
        conversation = waiting()
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.send(HEADER)
        self.assertEqual(conversation.server.session.expires, 1005.0)
        conversation.clock.advance(4)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertExpired(conversation, b"-ERR Timeout, closing connection\r\n")

    def test_refused(self) -> None:
        """A connection that is closing stays so."""
        conversation = waiting()
        conversation.send(b"EHLO\r\n")
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.clock.advance(5)
        self.assertIs(conversation.server.session.outcome, Outcome.BAD_HEADER)
