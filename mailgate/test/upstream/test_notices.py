"""
Tests for L{mailgate.upstream.notices}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.upstream.notices import Notices


class NoticesTests(SynchronousTestCase):
    """What subscribers and other processes receive."""

    def setUp(self):
        self.clock = Clock()
        self.notices = Notices(self.clock)
        self.received = []

    def subscriber(self, key, body, age):
        """Keep a notice."""
        self.received.append((key, body, age))

    def test_published(self):
        """A notice reaches the subscribers of its topic and the other processes."""
        told = []
        self.notices.tell = told.append
        self.notices.subscribe("order", self.subscriber)
        self.notices.publish("order", "a:1", {"word": "drain"})
        self.notices.publish("other", "a:1", 1)
        self.assertEqual(self.received, [("a:1", {"word": "drain"}, 0.0)])
        self.assertEqual([(notice.topic, notice.key) for notice in told], [("order", "a:1"), ("other", "a:1")])

    def test_received(self):
        """A notice of another process is not told on."""
        self.notices.tell = self.fail
        self.notices.subscribe("order", self.subscriber)
        self.notices.receive("order", "a:1", 1, age=2.0)
        self.assertEqual(self.received, [("a:1", 1, 2.0)])

    def test_late(self):
        """A later subscriber receives what holds, with its age; what was taken back does not hold."""
        self.notices.publish("order", "a:1", 1)
        self.notices.publish("order", "b:1", 1)
        self.clock.advance(5)
        self.notices.publish("order", "b:1", None)
        self.notices.subscribe("order", self.subscriber)
        self.assertEqual(self.received, [("a:1", 1, 5.0)])

    def test_found(self):
        """A notice is found by its topic and its key, as long as it holds."""
        self.notices.publish("order", "a", 1)
        found = self.notices.find("order", "a")
        self.assertEqual(found.body, 1)
        self.assertIsNone(self.notices.find("health", "a"))
        self.notices.publish("order", "a", None)
        self.assertIsNone(self.notices.find("order", "a"))

    def test_unsubscribed(self):
        """A subscriber that has left receives nothing more."""
        self.notices.subscribe("order", self.subscriber)
        self.notices.unsubscribe(self.subscriber)
        self.notices.publish("order", "a:1", 1)
        self.assertEqual(self.received, [])

    def test_bounded(self):
        """The oldest notices are forgotten when there are too many."""
        for number in range(10000):
            self.notices.publish("order", f"a:{number}", 1)
        held = list(self.notices.held())
        self.assertEqual((len(held), held[-1].key), (8192, "a:9999"))

    def test_ordersStay(self):
        """An operator's order holds, however many backends an authentication service names."""
        self.notices.publish("order", "a:1", {"word": "down"})
        for number in range(10000):
            self.notices.publish("rest", f"/b:{number}", {"fails": 1, "seconds": 10.0})
        self.assertEqual(self.notices.find("order", "a:1").body, {"word": "down"})
        self.assertEqual([notice.topic for notice in self.notices.held()].count("rest"), 8192)

    def test_broken(self):
        """A subscriber that fails is logged: neither the publisher nor other subscribers notice it."""
        told = []
        self.notices.tell = told.append
        self.notices.subscribe("order", lambda *_: 1 / 0)
        self.notices.subscribe("order", self.subscriber)
        self.notices.publish("order", "a:1", 1)
        self.assertEqual((self.received, len(told)), ([("a:1", 1, 0.0)], 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
