"""
Tests of L{mailgate.store.redis.link}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.interfaces import StoreUnavailable
from mailgate.store.redis.link import MOST_BYTES, MOST_WAITING, OVERDUE, Link, ReplyError

TIMEOUT = 0.0625


class Transport(StringTransport):
    """A transport that says whether it was aborted."""

    isAborted = False

    def abortConnection(self) -> None:
        self.isAborted = True


class LinkTests(SynchronousTestCase):
    """A connection without a server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.link = Link(self.clock, TIMEOUT)
        self.transport = Transport()
        self.failures: list[str] = []
        self.lost: list[str] = []
        self.link.failed = self.failures.append
        self.link.lost = self.lost.append
        self.link.makeConnection(self.transport)

    def wait(self, seconds: float) -> None:
        """Let time pass, and the turn of the reactor in which replies are read."""
        self.clock.advance(seconds)
        self.clock.advance(0)

    def reason(self, call: Deferred[Any]) -> str:
        return str(self.failureResultOf(call, StoreUnavailable).value)

    def test_words(self) -> None:
        """Commands have the form of the protocol, with bytes, texts and numbers."""
        self.link.send((b"SET", "k\u00e4", 17))
        self.assertEqual(self.transport.value(), b"*3\r\n$3\r\nSET\r\n$3\r\nk\xc3\xa4\r\n$2\r\n17\r\n")

    def test_replies(self) -> None:
        """Replies come in the order of the calls. Values are not changed."""
        calls = [self.link.send((b"GET", b"k")) for _ in range(4)]
        self.link.dataReceived(b"$2\r\n17\r\n:5\r\n*2\r\n$2\r\n\xff\n\r\n$-1\r\n-ERR no")
        self.assertEqual([self.successResultOf(call) for call in calls[:3]], [b"17", 5, [b"\xff\n", None]])
        self.assertNoResult(calls[3])
        self.link.dataReceived(b"\r\n")
        self.assertIn("no", str(self.failureResultOf(calls[3], ReplyError).value))
        self.assertEqual((self.failures, self.lost), ([], []))

    def test_timeout(self) -> None:
        """Each call fails after its own time. A later reply is no reply to another call."""
        first = self.link.send((b"GET", b"a"))
        self.wait(TIMEOUT / 2)
        second = self.link.send((b"GET", b"b"))
        self.wait(TIMEOUT / 2)
        self.assertEqual(self.reason(first), "has not answered within 62.5 ms")
        self.assertNoResult(second)
        self.link.dataReceived(b":1\r\n:2\r\n")
        self.assertEqual(self.successResultOf(second), 2)
        self.assertEqual((len(self.failures), self.transport.isAborted), (1, False))

    def test_timeoutOfLater(self) -> None:
        """The timer goes on with calls that were made after it was set."""
        self.link.send((b"GET", b"a"))
        self.wait(TIMEOUT / 4)
        second = self.link.send((b"GET", b"b"))
        self.link.dataReceived(b":1\r\n")
        self.wait(TIMEOUT * 3 / 4)
        self.assertNoResult(second)
        self.wait(TIMEOUT / 4)
        self.reason(second)

    def test_within(self) -> None:
        """A shorter time holds at once, although the timer was set for a longer one."""
        self.link.send((b"PING",))
        self.link.dataReceived(b"+PONG\r\n")
        self.link.within(TIMEOUT / 4)
        call = self.link.send((b"GET", b"a"))
        self.wait(TIMEOUT / 4)
        self.reason(call)

    def test_again(self) -> None:
        """A call that is made because another one has failed has its own time, and one timer."""
        calls: list[Deferred[Any]] = []
        self.link.send((b"GET", b"a")).addErrback(lambda _: calls.append(self.link.send((b"GET", b"b"))))
        self.wait(TIMEOUT)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.wait(TIMEOUT)
        self.reason(calls[0])

    def test_busy(self) -> None:
        """If this process was busy for long, replies that have come meanwhile count."""
        call = self.link.send((b"GET", b"a"))
        # At the same moment, but after the timer.
        self.clock.callLater(TIMEOUT, self.link.dataReceived, b":1\r\n")
        self.wait(TIMEOUT)
        self.assertEqual(self.successResultOf(call), 1)

    def test_overdue(self) -> None:
        """A connection whose replies are late by several timeouts ends: a hung server piles up nothing."""
        call = self.link.send((b"GET", b"a"))
        for _ in range(OVERDUE):
            self.assertFalse(self.transport.isAborted)
            self.wait(TIMEOUT)
        self.reason(call)
        self.assertTrue(self.transport.isAborted)
        self.assertEqual(self.lost, ["has not answered within 62.5 ms"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.reason(self.link.send((b"GET", b"b"))), "is not connected")

    def test_bounds(self) -> None:
        """So many calls wait, and no more. A reply has an end."""
        waiting = [self.link.send((b"GET", b"a")) for _ in range(MOST_WAITING)]
        size = len(self.transport.value())
        self.assertEqual(self.reason(self.link.send((b"GET", b"b"))), "has not answered 4096 calls yet")
        self.assertEqual(len(self.transport.value()), size)
        self.link._unread = MOST_BYTES
        self.link.dataReceived(b"$99999999\r\n")
        self.assertTrue(self.transport.isAborted)
        for call in waiting:
            self.assertIn("more than", self.reason(call))

    def test_unasked(self) -> None:
        """After a reply that no call has asked for, nothing is sure any more."""
        self.link.dataReceived(b":1\r\n:2\r\n")
        self.assertTrue(self.transport.isAborted)
        self.assertEqual(len(self.lost), 1)

    def test_cancelled(self) -> None:
        """A call that is cancelled keeps its place."""
        first, second = self.link.send((b"GET", b"a")), self.link.send((b"GET", b"b"))
        first.addErrback(lambda _: None)
        first.cancel()
        self.link.dataReceived(b":1\r\n:2\r\n")
        self.assertEqual(self.successResultOf(second), 2)

    def test_lost(self) -> None:
        """Calls that wait fail when the connection ends, with its reason, once."""
        call = self.link.send((b"GET", b"a"))
        self.link.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.reason(call), "dropped the connection")
        self.link.connectionLost(Failure(ConnectionRefusedError()))
        self.assertEqual(self.lost, ["dropped the connection"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_messages(self) -> None:
        """Messages are no replies."""
        heard: list[tuple[bytes, bytes]] = []
        self.link.listen(lambda channel, message: heard.append((channel, message)))
        call = self.link.send((b"PING",))
        self.link.dataReceived(b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\n\0m\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        self.assertEqual(heard, [(b"c", b"\0m")])
        self.assertEqual(self.successResultOf(call), [b"pong", b""])
