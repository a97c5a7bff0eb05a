"""Tests for L{mailgate.frontend.lifetime}: how long a session may last after its login."""

from __future__ import annotations

from math import inf, nan
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.config import parse
from mailgate.directives import ConfigurationError
from mailgate.frontend.lifetime import OVER, lifetimeOf
from mailgate.login import Denial, RouteOptions, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.smtp import SMTP
from mailgate.relay.portable import Relay
from mailgate.relay.settings import RelaySettings
from mailgate.session import Outcome
from mailgate.testing import ROUTE, Conversation, FakeAuthenticator, FakeClient, FakeConnector

LOGIN = (b"USER joe", b"PASS sesame")


def short(lifetime: float) -> Any:
    """A route whose session may last C{lifetime} seconds."""
    return evolve(ROUTE, options=RouteOptions(lifetime=lifetime))


class ArithmeticTests(SynchronousTestCase):
    """L{lifetimeOf}."""

    def test_shorter(self) -> None:
        """The shorter limit counts."""
        for lifetime, maxAge, expected in (
            (None, 0.0, None),
            (5.0, 0.0, 5.0),
            (None, 60.0, 60.0),
            (5.0, 60.0, 5.0),
            (90.0, 60.0, 60.0),
            (inf, 0.0, None),
            (1e30, 0.0, None),
        ):
            self.assertEqual(lifetimeOf(RouteOptions(lifetime=lifetime), maxAge), expected)
        self.assertIsNone(lifetimeOf(None, 0.0))
        self.assertEqual(lifetimeOf(None, 60.0), 60.0)

    def test_over(self) -> None:
        """No time is a refusal."""
        for lifetime in (0.0, -1.0, nan):
            self.assertIs(lifetimeOf(RouteOptions(lifetime=lifetime), 60.0), OVER)
        self.assertFalse(OVER.refusesCredentials)

    def test_directive(self) -> None:
        """C{session_max_age} is a time in [mail] and [server]; 0, the default, is no limit."""
        text = "[mail]\n{}\n[server pop3]\nlisten = 127.0.0.1:10110\nprotocol = pop3\nproxy_pass = 192.0.2.1:110\n{}"
        for mail, server, expected in (
            ("", "", 0.0),
            ("session_max_age = 1h", "", 3600.0),
            ("session_max_age = 1h", "session_max_age = 0", 0.0),
            ("", "session_max_age = 90", 90.0),
        ):
            (parsed,) = parse(text.format(mail, server)).servers
            self.assertEqual(parsed[RelaySettings].maxAge, expected)
        self.assertRaises(ConfigurationError, parse, text.format("session_max_age = never", ""))


class LoginTests(SynchronousTestCase):
    """Logins at a gateway."""

    def test_slowBackend(self) -> None:
        """The time counts from the authenticator's answer. Before the login is done the client gets a goodbye."""
        for record, lines, goodbye in (
            (IMAP4, (b"a LOGIN joe sesame",), b"* BYE Timeout, closing connection\r\n"),
            (POP3, LOGIN, b"-ERR Timeout, closing connection\r\n"),
            (SMTP, (b"EHLO client", b"AUTH PLAIN AGpvZQBzZXNhbWU="), b"421 4.4.2 Timeout, closing connection\r\n"),
        ):
            conversation = Conversation(
                record, authenticator=FakeAuthenticator(short(5.0)), connector=FakeConnector(None)
            )
            conversation.clock.advance(20)
            conversation.says(*lines)
            conversation.clock.advance(4.9)
            self.assertEqual(conversation.hear(), b"")
            conversation.clock.advance(0.1)
            self.assertEqual(conversation.hear(), goodbye)
            self.assertTrue(conversation.closed)
            self.assertIs(conversation.server.session.outcome, Outcome.EXPIRED)
            conversation.transport.lose()
            self.assertEqual(conversation.clock.getDelayedCalls(), [])

    def test_relay(self) -> None:
        """The relay ends at the same time, and nothing is written into the stream."""
        settings = RelaySettings(maxAge=7.0)
        for route, seconds in ((ROUTE, 7.0), (short(5.0), 5.0), (short(9.0), 7.0)):
            conversation = Conversation(
                POP3, settings, authenticator=FakeAuthenticator(route), connector=FakeConnector(FakeClient(b"+OK\r\n"))
            )
            conversation.says(*LOGIN)
            (relay,) = conversation.factory.connections
            assert isinstance(relay, Relay)
            conversation.clock.advance(seconds - 0.5)
            self.assertFalse(conversation.closed)
            conversation.clock.advance(0.5)
            self.assertEqual(conversation.hear(), b"")
            self.assertTrue(conversation.closed)
            self.assertIs(relay.session.outcome, Outcome.EXPIRED)

    def test_earlier(self) -> None:
        """A limit that the application has set stays, if it is earlier."""
        conversation = Conversation(POP3, authenticator=FakeAuthenticator(short(50.0)))
        conversation.server.limit(conversation.clock.seconds() + 5)
        conversation.says(*LOGIN)
        (relay,) = conversation.factory.connections
        self.assertEqual(relay.session.expires, 1005.0)

    def test_refused(self) -> None:
        """A login that the backend refuses limits nothing: the client may log in again."""
        refusal = Denial(Trouble.DENIED)
        conversation = Conversation(
            POP3, authenticator=FakeAuthenticator(short(5.0), ROUTE), connector=FakeConnector(refusal)
        )
        conversation.says(*LOGIN)
        self.assertIsNone(conversation.server.session.expires)
        conversation.clock.advance(50)
        self.assertFalse(conversation.closed)

    def test_applicationsLimit(self) -> None:
        """A limit that the application sets during the login outlives the refusal."""
        connector = FakeConnector(None)
        conversation = Conversation(POP3, authenticator=FakeAuthenticator(short(5.0)), connector=connector)
        conversation.says(*LOGIN)
        conversation.server.limit(1030.0)
        connector.pending[0].callback(Denial(Trouble.DENIED))
        self.assertEqual(conversation.server.session.expires, 1030.0)

    def test_noTime(self) -> None:
        """A session without time is refused as a temporary failure. No backend is tried."""
        for lifetime in (0.0, -5.0):
            connector = FakeConnector()
            conversation = Conversation(POP3, authenticator=FakeAuthenticator(short(lifetime)), connector=connector)
            heard = conversation.says(*LOGIN)
            self.assertIn(b"-ERR [SYS/TEMP]", heard)
            self.assertFalse(conversation.closed)
            self.assertEqual(connector.routes, [])
            (line,) = [line for line in conversation.logged() if "login failed" in line]
            self.assertIn("the time of the session is over before it begins", line)

    def test_off(self) -> None:
        """Without limits a login sets no timer and no limit."""
        conversation = Conversation(POP3)
        conversation.says(*LOGIN)
        (relay,) = conversation.factory.connections
        self.assertIsNone(relay.session.expires)
