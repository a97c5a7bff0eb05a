"""Tests for L{mailgate.keeper.feed}."""

from __future__ import annotations

import json
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.feed import LONGEST_USER, MOST_WAITING, PAUSE, PIECE, rowOf
from mailgate.keeper.messages import ROWS_A_PART, Sessions
from mailgate.session import Phase
from mailgate.test.keeper.processes import turn
from mailgate.test.keeper.relays import Process
from mailgate.testing.fakes import makeSession


class FeedCase(SynchronousTestCase):
    """A process, and a keeper that gets its messages."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.process = Process(self.clock, "5g0qa")
        self.relays, self.feed = self.process.relays, self.process.feed

    def turns(self, number: int) -> None:
        for _ in range(number):
            turn(self.clock)

    def attach(self) -> None:
        self.feed.attached(self.process)
        self.turns(100)

    def wait(self) -> None:
        self.clock.advance(PAUSE)
        self.turns(100)


class FeedTests(FeedCase):
    """What is told, and when."""

    def test_off(self) -> None:
        """Without a keeper that wants them, the relays of a process are nothing to its watcher."""
        self.relays.end(self.relays.begin("joe"))
        self.assertIsNone(self.relays.watcher.feed)
        self.assertEqual((self.process.told, self.clock.getDelayedCalls()), ([], []))

    def test_batches(self) -> None:
        """What happens within a tenth of a second is one message. A relay that has begun and ended in it is in none."""
        self.attach()
        self.process.told.clear()
        first = self.relays.begin("joe")
        self.clock.advance(PAUSE / 2)
        self.relays.end(self.relays.begin("ann"))
        second = self.relays.begin("jöe", "[2001:db8::1]:7", "smtp")
        self.assertEqual(self.process.told, [])
        self.wait()
        one = '["joe","imap","0.0.0.0:143","192.0.2.7:40123","10.0.0.1:143",1000.0]'
        other = '["j\xc3\xb6e","smtp","0.0.0.0:143","[2001:db8::1]:7","10.0.0.1:143",1000.05]'
        self.assertEqual(
            self.process.told,
            [
                Sessions(
                    [
                        [first, "joe", "imap", "192.0.2.7", one],
                        [second, "j\xc3\xb6e", "smtp", "2001:db8::1", other],
                    ],
                    [],
                    False,
                    False,
                )
            ],
        )
        self.relays.end(first)
        self.wait()
        self.assertEqual(self.process.told[1:], [Sessions([], [first], False, False)])
        self.clock.advance(60)
        self.assertEqual(len(self.process.told), 2)

    def test_all(self) -> None:
        """A new keeper gets all relays, some in each turn; connections that are not logged in are none."""
        ids = {self.relays.begin(f"user{number}") for number in range(3 * PIECE)}
        self.relays.connect(Phase.COMMAND)
        self.feed.attached(self.process)
        self.assertEqual(self.process.told, [Sessions([], [], True, False)])
        self.turns(1)
        self.assertEqual(len(self.process.told), 2)
        self.assertLessEqual(len(self.process.ids), PIECE)
        self.turns(10)
        self.assertEqual(self.process.ids, ids)
        self.assertEqual(
            [message.isLast for message in self.process.told], [False] * (len(self.process.told) - 1) + [True]
        )
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_meanwhile(self) -> None:
        """While all are told, others begin and end: the keeper knows those of now in the end."""
        random = Random(21)
        live = [self.relays.begin("joe") for _ in range(20 * PIECE)]
        self.feed.attached(self.process)
        for _ in range(30):
            for _ in range(random.randrange(60)):
                self.relays.end(live.pop(random.randrange(len(live))))
                live.append(self.relays.begin("ann"))
            self.clock.rightNow += random.choice((0, 0, PAUSE))
            turn(self.clock)
        self.wait()
        self.assertEqual(self.process.ids, set(live))

    def test_toldAndEnded(self) -> None:
        """A relay that has just begun when all are told, and ends at once, does not stay."""
        self.feed.attached(self.process)
        id = self.relays.begin("joe")
        self.turns(1)
        self.assertEqual(self.process.ids, {id})
        self.relays.end(id)
        self.wait()
        self.assertEqual(self.process.ids, set())

    def test_full(self) -> None:
        """While the keeper does not read, news wait. It gets them when it reads."""
        self.attach()
        self.process.told.clear()
        self.process.isFull = True
        ids = {self.relays.begin("joe") for _ in range(ROWS_A_PART + 1)}
        self.wait()
        self.assertEqual(self.process.told, [])
        self.process.isFull = False
        self.feed.drained(self.process)
        self.assertEqual([len(message.began) for message in self.process.told], [ROWS_A_PART, 1])
        self.assertEqual(self.process.ids, ids)

    def test_overflow(self) -> None:
        """If it does not read for long, it gets all anew, and what waits is bounded."""
        self.attach()
        keep = [self.relays.begin("joe") for _ in range(MOST_WAITING + 10)]
        self.wait()
        self.process.isFull = True
        for id in keep[1:]:
            self.relays.end(id)
            if len(self.feed._ended) > MOST_WAITING:
                self.clock.advance(PAUSE)
        self.wait()
        self.assertLess(len(self.feed._ended), 100)
        self.process.isFull = False
        self.feed.drained(self.process)
        self.wait()
        self.assertEqual(self.process.ids, {keep[0]})
        self.assertTrue(self.process.told[-1].isLast)

    def test_pause(self) -> None:
        """A keeper that does not read stops the telling of all, which goes on when it reads."""
        ids = {self.relays.begin("joe") for _ in range(5 * PIECE)}
        self.feed.attached(self.process)
        self.turns(2)
        self.process.isFull = True
        before = len(self.process.told)
        self.turns(20)
        self.assertEqual(len(self.process.told), before)
        self.process.isFull = False
        self.feed.drained(self.process)
        self.turns(20)
        self.assertEqual(self.process.ids, ids)

    def test_detached(self) -> None:
        """Without a link nothing is kept. The next keeper gets all."""
        self.attach()
        first = self.relays.begin("joe")
        self.feed.detached(self.process)
        self.assertIsNone(self.relays.watcher.feed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.relays.end(first)
        second = self.relays.begin("ann")
        other = Process(self.clock, "other")
        self.feed.attached(other)
        # The end of an earlier link, and its reading, are nothing to the new one.
        self.feed.detached(self.process)
        self.feed.drained(self.process)
        self.turns(10)
        self.assertEqual(other.ids, {second})
        self.wait()
        self.assertEqual(self.process.ids, set())

    def test_longName(self) -> None:
        """A name that is longer than any of an account is cut off."""
        session = makeSession("imap", "0.0.0.0:143", "192.0.2.7:1", 1000.0, user=b"x" * 5000)
        row = rowOf(session, "imaps")
        self.assertEqual(row[1:4], ["x" * LONGEST_USER, "imap", "192.0.2.7"])
        self.assertEqual(json.loads(row[4])[:3], ["x" * LONGEST_USER, "imap", "imaps"])
