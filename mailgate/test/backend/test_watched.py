"""
Tests of what logins at backends report to a watch.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.errors import LoginRefused
from mailgate.lean.connecting import Outgoing
from mailgate.login import Backend
from mailgate.protocols.pop3 import POP3
from mailgate.session import Phase
from mailgate.test.support.watching import RecordingWatch
from mailgate.testing import Attempt, FakeTransport, routeTo

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
        transport.handshakeTime = lambda transport: 0.5
        self.addCleanup(delattr, transport, "handshakeTime")
        attempt.accept()
        attempt.says(b"+OK ready\r\n", b"+OK\r\n", b"+OK\r\n")
        self.successResultOf(attempt.result)
        self.assertEqual(self.reports(), [("192.0.2.1:110", None, 0.5, 2.0)])
        attempt.session.enter(Phase.RELAY)
        self.assertIn("connect=500 backend-tls=0 backend-login=1500", attempt.session.times)


class LoopbackTests(SynchronousTestCase):
    """What Linux says of a connection."""

    def test_handshakeTime(self) -> None:
        """A real connection to this host takes some microseconds; a unix socket none."""
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as made:
            outgoing = Outgoing.__new__(Outgoing)
            outgoing.family, outgoing.fd = made.family, made.fileno()
            self.assertIsNone(outgoing.handshakeTime())
            outgoing._isGreeted = True
            seconds = outgoing.handshakeTime()
            assert seconds is not None
            self.assertTrue(0 < seconds < 1.0, seconds)
            outgoing.family = socket.AF_UNIX
            self.assertEqual(outgoing.handshakeTime(), 0.0)
            outgoing.fd = -1
