"""
Tests for L{mailgate.process.workers.outbox}.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from mailgate.process.workers.messages import Announce, Lines, Message, Order, Tell
from mailgate.process.workers.outbox import MOST_UNSENT, Outbox


class OutboxTests(SynchronousTestCase):
    """A channel whose other end reads when the test does."""

    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        for end in (self.ours, self.theirs):
            end.setblocking(False)
            self.addCleanup(end.close)
        self.watched: list[bool] = []
        self.outbox = Outbox(self.ours, self.watched.append)
        self.lines = Lines()

    def read(self) -> list[Message]:
        """Everything that the channel has taken."""
        found = []
        while True:
            try:
                found += self.lines.feed(self.theirs.recv(65536))
            except BlockingIOError:
                return found

    def test_atOnce(self) -> None:
        """A message is sent at once, and nothing is watched."""
        self.assertTrue(self.outbox.send(Tell(Order.STOP)))
        self.assertEqual((self.read(), self.watched), ([Tell(Order.STOP)], []))

    def test_full(self) -> None:
        """What the channel does not take is sent later, in order."""
        notices = [Announce("rest", f"{number}:143", "x" * 15000, 0) for number in range(50)]
        for notice in notices:
            self.assertTrue(self.outbox.send(notice))
        self.assertEqual(self.watched, [True])
        found = self.read()
        while len(found) < len(notices):
            self.outbox.flush()
            found += self.read()
        self.assertEqual((found, self.watched), (notices, [True, False]))

    def test_bound(self) -> None:
        """Notices are dropped if too much waits; orders are not."""
        notice = Announce("rest", "a:143", "x" * 16000, 0)
        sent = 0
        while self.outbox.send(notice):
            sent += 1
            self.assertLess(sent * 16000, 2 * MOST_UNSENT)
        self.assertTrue(self.outbox.send(Tell(Order.STOP)))
        found = self.read()
        while found[-1] != Tell(Order.STOP):
            self.outbox.flush()
            found += self.read()
        self.assertEqual(len(found), sent + 1)

    def test_closed(self) -> None:
        """If the other process has exited, messages are dropped without an error."""
        self.theirs.close()
        self.outbox.send(Tell(Order.STOP))
        self.assertFalse(self.outbox.send(Tell(Order.STOP)))

    def test_finish(self) -> None:
        """Before the process exits, the rest is sent, but no process is waited for without end."""
        while not self.watched:
            self.outbox.send(Announce("rest", "a:143", "x" * 15000, 0))
        self.outbox.finish(0.01)
        self.outbox.finish(0.01)

    def test_ownNotice(self) -> None:
        """A worker waits for the notice that it has published: that one is never dropped."""
        while self.outbox.send(Announce("rest", "a:143", "x" * 16000, 0)):
            pass
        self.assertTrue(self.outbox.send(Announce("rest", "b:143", 1, 0, slot=1)))
        self.assertFalse(self.outbox.send(Announce("rest", "c:143", 1, 0)))
