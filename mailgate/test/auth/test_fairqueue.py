"""
Tests of L{mailgate.auth.fairqueue}.
"""

from __future__ import annotations

from random import Random

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.auth.fairqueue import MOST_OF_ONE, MOST_WAITING, FairQueue, Overloaded

PATIENCE = 30.0


class Asker:
    """Asks for places, and notes in C{started} whose questions have one, in that order."""

    def __init__(self, places: int) -> None:
        self.clock = Clock()
        self.queue = FairQueue(places, self.clock)
        self.started: list[str] = []

    def ask(self, client: str) -> Deferred[None] | None:
        """A question of C{client}; L{None} where it has its place at once."""
        place = self.queue.take(client, PATIENCE)
        if place is None:
            self.started.append(client)
        else:
            place.addCallback(lambda _: self.started.append(client))
        return place


class FairQueueTests(SynchronousTestCase):
    """Who gets a place when."""

    def test_places(self) -> None:
        """As many as there are have one at once; the next has one when one is left."""
        asker = Asker(2)
        for client in "abc":
            asker.ask(client)
        self.assertEqual(asker.started, ["a", "b"])
        self.assertEqual(len(asker.queue), 1)
        asker.queue.leave("a")
        self.assertEqual(asker.started, ["a", "b", "c"])
        self.assertEqual(len(asker.queue), 0)

    def test_endedAtOnce(self) -> None:
        """A thousand questions that end as they begin are answered one after the other, not one within the other."""
        asker = Asker(1)
        asker.ask("first")

        def leave(_: object, client: str) -> None:
            asker.queue.leave(client)

        for number in range(1000):
            place = asker.ask(str(number))
            assert place is not None
            place.addCallback(leave, str(number))
        asker.queue.leave("first")
        self.assertEqual(len(asker.started), 1001)
        self.assertIsNone(asker.ask("last"))

    def test_owner(self) -> None:
        """Behind any number of one client's questions another's is the next to start, however many places there are."""
        for places in (1, 2, 3, 8):
            asker = Asker(places)
            waiting = [asker.ask("attacker") for _ in range(300)]
            asker.ask("owner")
            self.assertEqual(asker.started, ["attacker"] * places)
            asker.queue.leave("attacker")
            self.assertEqual(asker.started[places:], ["owner"])
            refused = [place for place in waiting if place is not None and place.called]
            self.assertEqual(len(refused), 300 - places - MOST_OF_ONE)
            for place in refused:
                self.failureResultOf(place, Overloaded)

    def test_ownerAgain(self) -> None:
        """It stays so while the attacker asks again as soon as it is answered, and the owner from time to time."""
        asker = Asker(1)
        for _ in range(4):
            asker.ask("attacker")
        for _ in range(5):
            running = asker.started[-1]
            asker.ask("owner")
            asker.queue.leave(running)
            self.assertEqual(asker.started[-1], "owner")
            asker.queue.leave("owner")
            self.assertEqual(asker.started[-1], "attacker")
            asker.ask("attacker")

    def test_manyAddresses(self) -> None:
        """Clients take turns; newcomers, however many come, do not push back who waits already."""
        asker = Asker(1)
        asker.ask("first")
        for client in ("a1", "a2", "owner"):
            asker.ask(client)
        for number in range(20):
            asker.ask(f"new{number}")
            asker.queue.leave(asker.started[-1])
        self.assertEqual(asker.started[:4], ["first", "a1", "a2", "owner"])

    def test_fewestPlaces(self) -> None:
        """Who holds fewer places goes first, and waits for no turn."""
        asker = Asker(3)
        for client in ("a", "a", "b", "a", "b", "c"):
            asker.ask(client)
        asker.queue.leave("a")
        self.assertEqual(asker.started[3:], ["c"])
        asker.queue.leave("b")
        self.assertEqual(asker.started[4:], ["b"])

    def test_patience(self) -> None:
        """Who has waited too long is told, and has no place in the queue any more."""
        asker = Asker(1)
        asker.ask("a")
        waiting = asker.ask("b")
        assert waiting is not None
        asker.clock.advance(PATIENCE - 1)
        self.assertNoResult(waiting)
        asker.clock.advance(1)
        self.failureResultOf(waiting, TimeoutError)
        asker.queue.leave("a")
        self.assertEqual(asker.started, ["a"])
        self.assertIsNone(asker.ask("c"))
        self.assertEqual(asker.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """Who has left is passed over."""
        asker = Asker(1)
        asker.ask("a")
        gone = asker.ask("b")
        asker.ask("c")
        assert gone is not None
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        asker.queue.leave("a")
        self.assertEqual(asker.started, ["a", "c"])
        asker.queue.leave("c")
        self.assertEqual(asker.clock.getDelayedCalls(), [])

    def test_full(self) -> None:
        """So many wait in all, whoever they are."""
        asker = Asker(1)
        for number in range(MOST_WAITING + 1):
            self.assertFalse((asker.ask(f"client {number}") or Deferred()).called and number > 0)
        last = asker.ask("one more")
        assert last is not None
        self.failureResultOf(last, Overloaded)

    def test_fullOfFew(self) -> None:
        """Some clients that fill the queue keep nobody out: the last question of who has the most makes room."""
        asker = Asker(1)
        asker.ask("a0")
        many = MOST_WAITING // MOST_OF_ONE
        waiting = [[asker.ask(f"a{number}") for _ in range(MOST_OF_ONE)] for number in range(many)]
        newcomers = [asker.ask("owner"), asker.ask("owner"), asker.ask("other")]
        self.assertEqual(len(asker.queue), MOST_WAITING)
        told = [place for places in waiting for place in places if place is not None and place.called]
        self.assertEqual(told, [places[-1] for places in waiting[:3]])
        for place in told:
            assert place is not None
            self.failureResultOf(place, Overloaded)
        refused = asker.ask("a0")
        assert refused is not None
        self.failureResultOf(refused, Overloaded)
        for _ in range(2 * many + 4):
            asker.queue.leave(asker.started[-1])
        self.assertEqual([place is not None and place.called for place in newcomers], [True] * 3)
        self.assertEqual(len(asker.clock.getDelayedCalls()), len(asker.queue))

    def test_unlimited(self) -> None:
        """0 places are no limit."""
        asker = Asker(0)
        for number in range(100):
            self.assertIsNone(asker.ask("a"), number)
        asker.queue.leave("a")

    def test_nothingKept(self) -> None:
        """After any sequence of questions, answers and departures nothing is left of clients, and all places are."""
        random = Random(7)
        asker = Asker(3)
        running: list[str] = []
        waiting: list[Deferred[None]] = []
        for _ in range(3000):
            step = random.random()
            if step < 0.5:
                place = asker.ask(random.choice("abcdefg"))
                if place is not None:
                    place.addErrback(lambda failure: failure.trap(Overloaded, CancelledError))
                    waiting.append(place)
            elif step < 0.6 and waiting:
                waiting.pop(random.randrange(len(waiting))).cancel()
            elif len(asker.started) > len(running):
                running.append("left")
                asker.queue.leave(self._oldest(asker, running))
            self.assertLessEqual(len(asker.started) - len(running), 3)
        while len(asker.started) > len(running):
            running.append("left")
            asker.queue.leave(self._oldest(asker, running))
        self.assertEqual(len(asker.queue), 0)
        self.assertEqual(asker.queue._clients, {})
        self.assertEqual(asker.clock.getDelayedCalls(), [])
        for _ in range(3):
            self.assertIsNone(asker.queue.take("z", PATIENCE))

    def _oldest(self, asker: Asker, left: list[str]) -> str:
        """Whose place is the one that was given before all that have not been left."""
        return asker.started[len(left) - 1]
