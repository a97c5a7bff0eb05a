"""
Tests for L{IConnection} as it is before a login: goodbyes that others ask for, and limits of a session's time.
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
    """One whose PROXY header has yet to come."""
    return Conversation(POP3, proxyProtocol=True, **given)


class LifetimeCase(SynchronousTestCase):
    """What the tests here have in common."""

    def assertExpired(self, conversation: Conversation, goodbye: bytes) -> None:
        """The client has been told C{goodbye}, and nothing is left when it is gone."""
        self.assertEqual(conversation.hear(), goodbye)
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.EXPIRED)
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])


class DialogueTests(LifetimeCase):
    """L{ProxyServer}."""

    def test_interface(self) -> None:
        """The dialogue of each protocol is a connection."""
        for record in (IMAP4, POP3, SMTP):
            server = Conversation(record).server
            self.assertIsInstance(server, ProxyServer)
            self.assertTrue(verifyObject(IConnection, server))

    def test_dismissed(self) -> None:
        """Who dismisses the client says why, to the client and to the log."""
        conversation = Conversation(IMAP4)
        conversation.hear()
        conversation.server.dismiss(Outcome.DENIED, Trouble.REFUSED)
        self.assertEqual(conversation.hear(), IMAP4.server.wording[Trouble.REFUSED] + b"\r\n")
        self.assertTrue(conversation.closed)
        self.assertIs(conversation.server.session.outcome, Outcome.DENIED)

    def test_limit(self) -> None:
        """At the moment that is the limit the client is told that its time is over, whatever it has said."""
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
        """Where the deadline of the dialogue is nearer it is that one that counts."""
        conversation = Conversation(POP3)
        conversation.server.limit(conversation.clock.seconds() + 61)
        conversation.clock.advance(60)
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)
        conversation.clock.advance(1)
        self.assertIs(conversation.server.session.outcome, Outcome.TIMEOUT)

    def test_past(self) -> None:
        """A moment that is over already ends the dialogue at once."""
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
        """A login that is under way is given up."""
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
        """Who has been told goodbye is not told another one."""
        conversation = Conversation(POP3)
        conversation.says(b"QUIT")
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.clock.advance(5)
        self.assertEqual(conversation.hear(), b"")
        self.assertIs(conversation.server.session.outcome, Outcome.QUIT)
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_relay(self) -> None:
        """The relay keeps the limit of the dialogue, and no word is written into its stream."""
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
    """Its questions cannot be cancelled."""

    def authenticate(self, request: LoginRequest) -> Deferred[Any]:
        super().authenticate(request)

        def refuse(question: object) -> None:
            raise RuntimeError("it cannot be cancelled")

        return Deferred(refuse)


class Rude(FakeAuthenticator):
    """While it judges, the client leaves."""

    conversation: Conversation

    def authenticate(self, request: LoginRequest) -> Deferred[Any]:
        self.conversation.transport.lose()
        return super().authenticate(request)


class AuthenticatorTests(SynchronousTestCase):
    """Authenticators that behave badly as the client leaves."""

    def test_stubborn(self) -> None:
        """One that cannot be cancelled is a defect in the log; the connection has ended, and is counted no more."""
        conversation = Conversation(POP3, authenticator=Stubborn(None))
        conversation.says(*LOGIN)
        conversation.transport.lose()
        self.assertEqual(conversation.factory.connections, set())
        self.assertEqual(conversation.clock.getDelayedCalls(), [])
        failures = [str(event["log_failure"].value) for event in conversation.events if "log_failure" in event]
        self.assertEqual(failures, ["it cannot be cancelled"])

    def test_rude(self) -> None:
        """No backend is asked for a client that has left while the authenticator was at work."""
        authenticator, connector = Rude(ROUTE), FakeConnector()
        authenticator.conversation = conversation = Conversation(POP3, authenticator=authenticator, connector=connector)
        conversation.says(*LOGIN)
        self.assertEqual((connector.routes, conversation.factory.connections), ([], set()))
        self.assertIs(conversation.server.session.phase, Phase.END)


class HeaderTests(LifetimeCase):
    """L{HeaderReader}."""

    def test_interface(self) -> None:
        """What waits for a PROXY header is a connection."""
        server = waiting().server
        self.assertIsInstance(server, HeaderReader)
        self.assertTrue(verifyObject(IConnection, server))

    def test_limit(self) -> None:
        """Nothing is said to a client whose time is over before its header has come."""
        conversation = waiting()
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.clock.advance(4)
        self.assertFalse(conversation.closed)
        conversation.clock.advance(1)
        self.assertExpired(conversation, b"")

    def test_lifted(self) -> None:
        """Without a limit, or with a late one, the header has as long as ever."""
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
        """One that is being closed already stays that."""
        conversation = waiting()
        conversation.send(b"EHLO\r\n")
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.clock.advance(5)
        self.assertIs(conversation.server.session.outcome, Outcome.BAD_HEADER)
