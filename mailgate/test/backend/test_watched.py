"""
Tests of what logins at backends report to a watch.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.errors import LoginRefused
from mailgate.lean.connecting import Destination, Outgoing
from mailgate.log.journal import Journal
from mailgate.login import Backend
from mailgate.protocols.pop3 import POP3
from mailgate.session import Phase
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing import Attempt, FakeTransport, routeTo
from mailgate.watch.audience import Audience
from mailgate.watch.watcher import Watcher

FIRST, SECOND = Backend("192.0.2.1", 110), Backend("192.0.2.2", 110)


class AttemptTests(SynchronousTestCase):
    """C{attempted}: each attempt once, with its times."""

    def attempt(self, *backends: Backend) -> Attempt:
        self.watch = RecordingWatch()
        return Attempt(POP3, route=routeTo(*(backends or (FIRST,))), watch=self.watch)

    def reports(self) -> list[tuple[Any, ...]]:
        """Each attempt: its backend, the type of its error, and its times."""
        return [
            (place.name, None if error is None else type(error), connected, seconds)
            for place, error, connected, seconds in self.watch.valuesOf("attempted")
        ]

    def test_succeeded(self) -> None:
        """The time to connect, and the time of all."""
        attempt = self.attempt()
        attempt.reactor.advance(0.5)
        attempt.accept()
        attempt.reactor.advance(1.0)
        attempt.says(b"+OK ready\r\n", b"+OK\r\n", b"+OK\r\n")
        self.successResultOf(attempt.result)
        self.assertEqual(self.reports(), [("192.0.2.1:110", None, 0.5, 1.5)])

    def test_refused(self) -> None:
        """No connection; the next backend is another attempt."""
        attempt = self.attempt(FIRST, SECOND)
        attempt.reactor.advance(0.25)
        attempt.refuse()
        attempt.reactor.advance(0.5)
        attempt.accept()
        attempt.says(b"+OK ready\r\n", b"+OK\r\n", b"-ERR no\r\n")
        self.successResultOf(attempt.result)
        self.assertEqual(
            self.reports(),
            [("192.0.2.1:110", ConnectionRefusedError, None, 0.25), ("192.0.2.2:110", LoginRefused, 0.5, 0.5)],
        )

    def test_again(self) -> None:
        """The times of the client's earlier logins do not count."""
        attempt = self.attempt()
        for _ in range(2):
            attempt.reactor.advance(0.5)
            attempt.accept()
            attempt.says(b"+OK ready\r\n", b"+OK\r\n", b"-ERR no\r\n")
            attempt.session.enter(Phase.COMMAND)
            attempt.session.enter(Phase.AUTH)
            attempt.again()
        self.assertEqual([connected for *_, connected, _ in self.reports()], [0.5, 0.5])

    def test_own(self) -> None:
        """The gateway's own watch reads a success from the session. The application's beside it hears of it."""
        own, application = Watcher(Clock()), RecordingWatch()
        heard: list[str] = []
        self.patch(own, "attempted", lambda *values: heard.append("attempted"))
        for watch, expected in ((own, []), (Audience(own, application, Journal()), ["attempted"])):
            attempt = Attempt(POP3, route=routeTo(FIRST), watch=watch)
            attempt.accept()
            attempt.says(b"+OK ready\r\n", b"+OK\r\n", b"+OK\r\n")
            self.successResultOf(attempt.result)
            self.assertEqual(application.names, expected)
        self.assertEqual(heard, ["attempted"])

    def test_cancelled(self) -> None:
        """An attempt that the gateway cancels is not the backend's."""
        attempt = self.attempt()
        attempt.result.addErrback(lambda failure: None)
        attempt.result.cancel()
        self.assertEqual(self.reports(), [])

    def test_late(self) -> None:
        """
        With transports that notice a connection when the backend greets, TCP says how long it took, and the phases are
        counted so.
        """
        attempt = self.attempt()
        attempt.reactor.advance(2.0)
        transport: Any = FakeTransport
        transport.connectedAt = lambda transport, began, noticed: began + 0.5
        self.addCleanup(delattr, transport, "connectedAt")
        attempt.accept()
        attempt.says(b"+OK ready\r\n", b"+OK\r\n", b"+OK\r\n")
        self.successResultOf(attempt.result)
        self.assertEqual(self.reports(), [("192.0.2.1:110", None, 0.5, 2.0)])
        attempt.session.enter(Phase.RELAY)
        self.assertIn("connect=500 backend-tls=0 backend-login=1500", attempt.session.times)


class ConnectedTests(SynchronousTestCase):
    """When a backend was connected that is found to be when it greets."""

    def outgoing(self, address: str = "127.0.0.1", isGreeted: bool = True) -> Any:
        """A connection; what the system is asked and says of it is up to the test."""
        isTCP = address[0].isdigit()
        destination = Destination(*((socket.AF_INET, (address, 143)) if isTCP else (socket.AF_UNIX, address)))
        # No connection begins: it is given that of the test, if any.
        given: Any = Outgoing.__new__(Outgoing)
        given.family, given._destination, given._isGreeted = destination.family, destination, isGreeted
        return given

    def test_loopback(self) -> None:
        """A real connection to this host takes some microseconds; a unix socket none."""
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as made:
            outgoing = self.outgoing()
            outgoing.fd = made.fileno()
            self.assertTrue(1000.0 < outgoing.connectedAt(1000.0, 1001.0) < 1001.0)
            outgoing.fd = -1
        self.assertEqual(self.outgoing("/x").connectedAt(1000.0, 1001.0), 1000.0)

    def test_atOnce(self) -> None:
        """Where the connection itself is an event, the event says when."""
        self.assertEqual(self.outgoing(isGreeted=False).connectedAt(1000.0, 1001.0), 1001.0)

    def test_fresh(self) -> None:
        """The system is asked once a second, and for each connection that may have lost a packet."""
        outgoing = self.outgoing()
        for roundTrip, began, noticed, connected, isAsked in (
            (0.03, 1000.0, 1000.1, 1000.03, True),
            (0.05, 1000.5, 1000.6, 1000.53, False),
            # No round trip can have been longer than all.
            (0.05, 1000.5, 1000.51, 1000.51, False),
            (0.05, 1000.5, 1000.8, 1000.55, True),
            (0.01, 1001.7, 1001.75, 1001.75, False),
            (0.01, 1001.7, 1001.85, 1001.71, True),
            # The clock was set back.
            (0.02, 900.0, 900.1, 900.02, True),
            # A packet was lost, or the system does not say: the time that has passed counts, and is not remembered.
            (None, 900.0, 900.5, 900.5, True),
            (0.01, 900.6, 900.7, 900.62, False),
        ):
            answers = [roundTrip]
            outgoing._roundTrip = answers.pop
            self.assertAlmostEqual(outgoing.connectedAt(began, noticed), connected)
            self.assertEqual(answers == [], isAsked)
