"""
Tests for L{mailgate.backend.offers}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, LogPublisher, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.offers import UNKNOWN, Announcement, Offers, keyOf
from mailgate.log.journal import Journal
from mailgate.login import Backend, BackendTLS
from mailgate.upstream.notices import Notices

ONE, TWO = "imap 192.0.2.1:143 off", "imap 192.0.2.2:143 off"


def common(lists):
    """What all of C{lists} have."""
    return tuple(item for item in lists[0] if all(item in each for each in lists))


class OffersTests(SynchronousTestCase):
    """What is learned, and what servers announce of it."""

    def setUp(self):
        self.events = []
        self.notices = Notices(Clock())
        self.journal = Journal(LogLevel.info, LogPublisher(self.events.append))
        self.offers = Offers(self.notices, self.journal)
        self.announcement = Announcement((b"STATIC",))
        self.keys = [ONE, TWO]
        self.offers.follow("imap", self.announcement, common, lambda: self.keys)
        self.offers.refresh()

    def logged(self):
        return [formatEvent(event) for event in self.events]

    def test_fallback(self):
        """While nothing is known, the configured list holds."""
        self.assertEqual((self.announcement.words, self.announcement.isLearned), ((b"STATIC",), False))

    def test_complete(self):
        """It is known whether there is a backend that has not been asked yet."""
        self.announcement.isClosed = True
        self.assertFalse(self.announcement.isComplete)
        for key, isComplete in ((ONE, False), (TWO, True)):
            self.offers.learn(key, (b"A",))
            self.assertIs(self.announcement.isComplete, isComplete)
        self.keys.append("imap 192.0.2.3:143 off")
        self.offers.refresh()
        self.assertEqual((self.announcement.words, self.announcement.isComplete), ((b"A",), False))

    def test_open(self):
        """If an authentication service may name other backends, it is never known of all."""
        for key in (ONE, TWO):
            self.offers.learn(key, (b"A",))
        self.assertEqual((self.announcement.isLearned, self.announcement.isComplete), (True, False))

    def test_intersection(self):
        """What all backends offer that have been asked is announced, in the order of the first one."""
        self.offers.learn(TWO, (b"C", b"B", b"A"))
        self.assertEqual((self.announcement.words, self.announcement.isLearned), ((b"STATIC",), False))
        self.offers.learn(ONE, (b"A", b"B"))
        self.assertEqual(self.announcement.words, (b"A", b"B"))

    def test_unanswered(self):
        """A backend that does not answer is not waited for, in no process; when it answers, it counts."""
        other = Notices(Clock())
        self.notices.tell = lambda notice: other.receive(notice.topic, notice.key, notice.body)
        there = Announcement((b"STATIC",))
        offers = Offers(other, self.journal)
        offers.follow("imap", there, common, lambda: self.keys)
        offers.refresh()
        self.offers.learn(TWO, (b"C", b"B"))
        self.offers.unanswered(ONE)
        self.assertEqual((self.announcement.words, there.words), ((b"C", b"B"),) * 2)
        self.offers.learn(ONE, (b"B",))
        self.assertEqual((self.announcement.words, there.words), ((b"B",),) * 2)
        self.offers.unanswered(ONE)
        self.assertEqual((self.announcement.words, there.words), ((b"B",),) * 2)

    def test_added(self):
        """A backend that is added later does not bring the configured list back until it is asked."""
        self.keys.remove(ONE)
        self.offers.learn(TWO, (b"C", b"B"))
        self.keys.append(ONE)
        self.offers.refresh()
        self.assertEqual(self.announcement.words, (b"C", b"B"))

    def test_beginning(self):
        """Before the gateway starts, the backends are not looked at; then what is known is announced at once."""
        looked = []

        def keys():
            looked.append(True)
            return self.keys

        self.offers.learn(ONE, (b"A",))
        self.offers.learn(TWO, (b"A", b"B"))
        offers, announcement = Offers(self.notices, self.journal), Announcement((b"STATIC",))
        offers.follow("imap", announcement, common, keys)
        self.offers.learn(ONE, (b"A", b"C"))
        self.assertEqual((looked, announcement.words), ([], (b"STATIC",)))
        offers.refresh()
        self.assertEqual(announcement.words, (b"A",))

    def test_gone(self):
        """A backend that leaves the group does not count."""
        self.offers.learn(ONE, (b"A",))
        self.offers.learn(TWO, (b"A", b"B"))
        self.keys.remove(ONE)
        self.offers.refresh()
        self.assertEqual(self.announcement.words, (b"A", b"B"))
        self.keys.clear()
        self.offers.refresh()
        self.assertEqual((self.announcement.words, self.announcement.isLearned), ((b"STATIC",), False))

    def test_greetings(self):
        """Greetings that were made of other words are forgotten, others are not."""
        self.keys.remove(TWO)
        self.announcement.greetings[True] = b"y"
        self.offers.refresh()
        self.assertEqual(self.announcement.greetings, {True: b"y"})
        self.offers.learn(ONE, (b"A",))
        self.assertEqual(self.announcement.greetings, {})

    def test_logged(self):
        """The first answer is logged, then only what changes, once: with what came and what went."""
        self.offers.learn(ONE, (b"A", b"SIZE 10"))
        self.offers.learn(ONE, (b"A", b"SIZE 10"))
        self.offers.learn(ONE, (b"A", b"B", b"SIZE 20"))
        self.offers.learn(ONE, (b"A", b"B"))
        self.assertEqual(
            self.logged(),
            [
                "imap backend 192.0.2.1:143 offers A, SIZE 10",
                "imap backend 192.0.2.1:143 changed what it offers: new: B, SIZE 20; gone: SIZE 10",
                "imap backend 192.0.2.1:143 changed what it offers: new: nothing; gone: SIZE 20",
            ],
        )

    def test_shared(self):
        """Others get it at once, and those that start later; they log nothing."""
        events = []
        other = Notices(Clock())
        self.notices.tell = lambda notice: other.receive(notice.topic, notice.key, notice.body)
        journal = Journal(LogLevel.info, LogPublisher(events.append))
        there = Offers(other, journal)
        self.offers.learn(ONE, (b"A",))
        self.assertEqual(there.known(ONE).items, (b"A",))
        self.assertEqual(Offers(other, journal).known(ONE).items, (b"A",))
        self.assertEqual(events, [])

    def test_closed(self):
        """A gateway without sessions follows no more."""
        self.offers.close()
        self.notices.publish("capabilities", ONE, ["A"])
        self.assertEqual(self.announcement.words, (b"STATIC",))

    def test_bounds(self):
        """Only so many items of printable ASCII are kept, none of them long."""
        self.keys.remove(TWO)
        self.offers.learn(ONE, (b"A\r\nB", b"\x1b[2J", b" A", b"A ", b"", b"x" * 201, b"\xff", b"a", b"A", b"C d"))
        self.assertEqual(self.announcement.words, (b"a", b"C d"))
        self.offers.learn(ONE, tuple(b"%d" % number for number in range(1000)))
        self.assertEqual(len(self.announcement.words), 200)

    def test_foreign(self):
        """A notice that is no list of texts changes nothing; what is in it is checked again."""
        self.keys.remove(TWO)
        for body in (None, 5, {"a": 1}, [1], "AB"):
            self.notices.publish("capabilities", ONE, body)
        self.assertEqual(self.announcement.words, (b"STATIC",))
        self.notices.publish("capabilities", ONE, ["A\r\nB", "C", "é" * 3])
        self.assertEqual(self.announcement.words, (b"C", b"???"))

    def test_most(self):
        """An endless number of backends is not remembered."""
        for number in range(5000):
            self.offers.known(f"imap 192.0.2.1:{number} off")
        self.assertIs(self.offers.known("imap 192.0.2.1:9999 off"), UNKNOWN)
        self.assertIsNone(UNKNOWN.items)

    def test_keys(self):
        """What a backend offers depends on the protocol and its TLS."""
        self.assertEqual(keyOf("imap", Backend("2001:db8::1", 143)), "imap [2001:db8::1]:143 off")
        self.assertEqual(keyOf("pop3", Backend("a", 1, BackendTLS.STARTTLS)), "pop3 a:1 starttls")
