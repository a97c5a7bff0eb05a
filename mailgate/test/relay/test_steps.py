"""
Tests for the lines of relays at level debug.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.journal import Journal
from mailgate.relay.portable import Relay, Relays
from mailgate.relay.terms import Terms
from mailgate.session import FollowedSession
from mailgate.test.relay.test_portable import Listening
from mailgate.test.support.relaytransport import RelayTransport
from mailgate.testing.fakes import makeSession


class StepTests(SynchronousTestCase):
    """A relay whose session is debugged, or not."""

    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.journal = Journal(LogLevel.debug, cast(ILogObserver, self.events.append))
        self.client, self.backend = RelayTransport(), RelayTransport()

    def start(self, debugging: Journal | None) -> None:
        session = makeSession(
            "imap", "127.0.0.1:143", "192.0.2.7:40123", 0.0, id="5g0qa.7k", debugging=debugging, kind=FollowedSession
        )
        for side in (self.client, self.backend):
            side.connect(Listening())
        done: Any = lambda relay: None  # noqa: E731
        clock = Clock()
        relay = Relay(Terms(Relays(clock), 100.0, 10.0, done), self.client.protocol, self.backend.protocol, session)
        relay.start(b"", b"")

    def told(self) -> list[str]:
        """Return the event and the words of each line."""
        lines = [formatEvent(event) for event in self.events]
        return [line.replace("client 192.0.2.7:40123, ", "").partition(", server ")[0] for line in lines]

    def test_halfClosed(self) -> None:
        """The side that ends first is named first."""
        self.start(self.journal)
        self.client.protocol.dataReceived(b"a LOGOUT")
        self.client.protocol.readConnectionLost()
        self.backend.protocol.dataReceived(b"bye")
        self.backend.protocol.readConnectionLost()
        self.backend.lose()
        self.client.lose()
        self.assertEqual(
            self.told(),
            [
                "relay half closed: the client sends no more, protocol imap",
                "relay half closed: the backend sends no more, protocol imap",
                "relay side closed: the connection to the backend is closed, protocol imap",
                "relay side closed: the connection to the client is closed, protocol imap",
                "relay ended: relayed, protocol imap, received 8, sent 3",
            ],
        )

    def test_lost(self) -> None:
        """A connection that breaks is named first."""
        self.start(self.journal)
        self.backend.lose(ConnectionLost())
        self.client.lose()
        self.assertEqual(
            self.told(),
            [
                "relay side closed: the connection to the backend is closed, protocol imap",
                "relay side closed: the connection to the client is closed, protocol imap",
                "relay ended: relayed, protocol imap, received 0, sent 0",
            ],
        )

    def test_off(self) -> None:
        """A session that is not debugged has none of these lines."""
        self.start(None)
        self.client.protocol.readConnectionLost()
        self.backend.lose()
        self.client.lose()
        self.assertEqual(self.events, [])
