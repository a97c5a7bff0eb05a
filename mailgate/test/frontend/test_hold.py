"""
Tests of logins that the authenticator holds before the gateway connects to a backend.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.settings import BUDGET, DialogueSettings
from mailgate.login import RouteOptions
from mailgate.protocols.pop3 import POP3
from mailgate.testing import Conversation, FakeAuthenticator, FakeConnector, routeTo

LOGIN = (b"USER joe", b"PASS sesame")


class HoldTests(SynchronousTestCase):
    """C{Auth-Proxy-Hold}."""

    def converse(self, hold: float, *groups: Any) -> Conversation:
        """A conversation that has sent a login, which is to be held."""
        route = routeTo(options=RouteOptions(hold=hold))
        conversation = Conversation(
            POP3, *groups, authenticator=FakeAuthenticator(route), connector=FakeConnector(None)
        )
        conversation.hear()
        conversation.says(*LOGIN)
        return conversation

    def test_held(self) -> None:
        """The gateway connects only after these seconds."""
        conversation = self.converse(30.0)
        conversation.clock.advance(29.9)
        self.assertEqual(conversation.connector.pending, [])
        conversation.clock.advance(0.2)
        self.assertEqual(len(conversation.connector.pending), 1)

    def test_notHeld(self) -> None:
        """Other options hold nothing."""
        self.assertEqual(len(self.converse(0.0).connector.pending), 1)

    def test_deadline(self) -> None:
        """The hold does not use up the time of the client, which is limited as before after it."""
        timeout = 10.0
        conversation = self.converse(120.0, DialogueSettings(serverName="mx.test", timeout=timeout))
        for _ in range(12):
            conversation.clock.advance(10)
        self.assertEqual(len(conversation.connector.pending), 1)
        self.assertFalse(conversation.closed)
        for _ in range(BUDGET):
            conversation.clock.advance(timeout)
        self.assertTrue(conversation.closed)

    def test_left(self) -> None:
        """A client that leaves meanwhile leaves no timer, and no connection is made."""
        conversation = self.converse(30.0)
        conversation.transport.lose()
        self.assertEqual(conversation.clock.getDelayedCalls(), [])
        self.assertEqual(conversation.connector.pending, [])
