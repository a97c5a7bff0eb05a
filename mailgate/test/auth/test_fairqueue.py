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
    """Takes places, and records in C{started} the clients whose requests start, in order."""

    def __init__(self, places: int) -> None:
        self.clock = Clock()
        self.queue = FairQueue(places, self.clock)
        self.started: list[str] = []

    def ask(self, client: str) -> Deferred[None] | None:
        """Take a place for C{client}. Return L{None} if it is free at once."""
        place = self.queue.take(client, PATIENCE)
        if place is None:
            self.started.append(client)
        else:
            place.addCallback(lambda _: self.started.append(client))
        return place


class FairQueueTests(SynchronousTestCase):
    """Which request gets a place, and when."""

    def test_places(self) -> None:
        """All places are given at once; the next request waits for a free one."""
        asker = Asker(2)
        for client in "abc":
            asker.ask(client)
        self.assertEqual(asker.started, ["a", "b"])
        self.assertEqual(len(asker.queue), 1)
        asker.queue.leave("a")
        self.assertEqual(asker.started, ["a", "b", "c"])
        self.assertEqual(len(asker.queue), 0)

    def test_endedAtOnce(self) -> None:
        """A thousand requests that end at once are served in a loop, without recursion."""
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
        """After any number of requests of one client, another client's request is the next to start."""
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
        """This also holds if the first client repeats its requests at once, and the other one now and then."""
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
        """Clients take turns; any number of new clients does not delay those that wait already."""
        asker = Asker(1)
        asker.ask("first")
        for client in ("a1", "a2", "owner"):
            asker.ask(client)
        for number in range(20):
            asker.ask(f"new{number}")
            asker.queue.leave(asker.started[-1])
        self.assertEqual(asker.started[:4], ["first", "a1", "a2", "owner"])

    def test_fewestPlaces(self) -> None:
        """A client with fewer places goes first, without waiting for its turn."""
        asker = Asker(3)
        for client in ("a", "a", "b", "a", "b", "c"):
            asker.ask(client)
        asker.queue.leave("a")
        self.assertEqual(asker.started[3:], ["c"])
        asker.queue.leave("b")
        self.assertEqual(asker.started[4:], ["b"])

    def test_patience(self) -> None:
        """A request that has waited too long fails and leaves the queue."""
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
        """A cancelled request is skipped."""
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
        """The number of waiting requests is limited over all clients."""
        asker = Asker(1)
        for number in range(MOST_WAITING + 1):
            self.assertFalse((asker.ask(f"client {number}") or Deferred()).called and number > 0)
        last = asker.ask("one more")
        assert last is not None
        self.failureResultOf(last, Overloaded)

    def test_fullOfFew(self) -> None:
        """If few clients fill the queue, the last request of the client with the most makes room for others."""
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
        """0 places means no limit."""
        asker = Asker(0)
        for number in range(100):
            self.assertIsNone(asker.ask("a"), number)
        asker.queue.leave("a")

    def test_nothingKept(self) -> None:
        """After any sequence of requests, answers and cancellations, no client is left and all places are free."""
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
        """Return the client whose place was given first among those not yet left."""
        return asker.started[len(left) - 1]
