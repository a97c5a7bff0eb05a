"""
Tests for L{mailgate.keeper.moves}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.moves import FIRST_ANSWER, POLL, Order, Refusal, follow, move
from mailgate.limits.attempt import Rule
from mailgate.session import Outcome
from mailgate.test.support.limitstore import StandInLimits
from mailgate.test.support.processes import Processes
from mailgate.test.support.stickygroups import stickyGroups
from mailgate.test.support.stores import SwitchedStore

ONE, TWO = "10.0.0.1:143", "10.0.0.2:143"


class MovesCase(SynchronousTestCase):
    """Two processes with sticky groups."""

    def setUp(self) -> None:
        self.processes = Processes("aaaaa", "bbbbb")
        self.keeper: Any = self.processes
        self.placing = stickyGroups(self.processes)
        self.store = SwitchedStore(self.processes.clock)
        self.placing._store = self.store
        self.keeper.limits = self.limits = StandInLimits()
        self.clock = self.processes.clock

    def begin(self, backend: str = TWO, user: str = "joe", group: str | None = None, **more: Any) -> Deferred[Any]:
        return move(self.keeper, Order(user, backend, group, "uid 0"), **more)

    def moved(self, *arguments: Any, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.successResultOf(self.begin(*arguments, **more))
        return answer

    def refused(self, *arguments: Any, **more: Any) -> str:
        return str(self.failureResultOf(self.begin(*arguments, **more), Refusal).value)

    def place(self, user: bytes = b"joe", pool: str = "imap") -> str:
        return self.successResultOf(Deferred.fromCoroutine(self.placing.placeOf(pool, user)))

    def slow(self) -> Any:
        """A session that does not end when it is kicked, nor when its connections are reset."""
        made: Any = self.processes.session(isSlow=True)
        made.stop = lambda: None
        return made

    def pumped(self, seconds: float) -> None:
        self.clock.pump([POLL / 2] * round(seconds / POLL * 2))


class MoveTests(MovesCase):
    """At once."""

    def test_moved(self) -> None:
        """The place is another one, in all groups that share it; sessions go on, and are counted."""
        joe = self.processes.session()
        self.processes.session(user=b"joe+lists", backend="10.0.0.2:110")
        self.assertEqual(
            self.moved("10.0.0.2:110", "Joe"),
            {
                "id": None,
                "state": "moved",
                "user": "Joe",
                "groups": ["imap", "pop3"],
                "backend": "10.0.0.2:110",
                "before": None,
                "sessions": 1,
                "ended": 0,
                "done": [],
            },
        )
        self.assertEqual(self.place(), "10.0.0.2:110")
        self.assertEqual(self.moved(ONE)["before"], "10.0.0.2:110")
        self.assertEqual((joe.session.outcome, self.limits.held), (None, []))

    def test_port(self) -> None:
        """Another server of the group at the same host is elsewhere; that of another protocol is not."""
        for gateways in self.processes.gateways.values():
            imap, pop3, *_ = gateways[0].upstreams.groups
            imap.peers[1].backend, pop3.peers[1].backend = "10.0.0.1:144", "10.0.0.1:111"
        for backend in ("10.0.0.1:143", "10.0.0.1:144", "10.0.0.1:110"):
            self.processes.session(backend=backend)
        self.assertEqual(self.moved("10.0.0.1:144")["sessions"], 1)

    def test_group(self) -> None:
        """A group may be named."""
        self.assertEqual(self.moved("10.9.0.1:143", group="FAR")["groups"], ["far"])
        self.assertIn("loose is no sticky group; those are imap, pop3; far", self.refused(TWO, group="loose"))
        self.assertIn("is in no sticky group: far has 10.9.0.1:143", self.refused(TWO, group="far"))

    def test_unknown(self) -> None:
        """A backend that no sticky group has is refused, with all that they have."""
        said = self.refused("10.0.0.3:143")
        self.assertEqual(
            said,
            "10.0.0.3:143 is in no sticky group: imap has 10.0.0.1:143, 10.0.0.2:143; pop3 has 10.0.0.1:110,"
            " 10.0.0.2:110; far has 10.9.0.1:143",
        )
        self.assertEqual(self.place(), "")

    def test_none(self) -> None:
        """Without sticky groups, or without the store, nobody moves."""
        self.store.switch(False)
        self.assertEqual(self.refused(), "the store does not answer: the store is down")
        for gateways in self.processes.gateways.values():
            gateways[0].upstreams.groups = []
        self.assertIn("no group of backends is sticky", self.refused())

    def test_service(self) -> None:
        """A user whose backend the service names is not moved; one who has a place, or none yet, is."""
        self.processes.stories = [{"user": "joe", "backend": "10.0.0.7:143"}]
        said = self.refused()
        self.assertIn("joe is at 10.0.0.7:143, which is in none of the groups imap, pop3: the", said)
        self.assertIn("authentication service, or another rule, names his backend, and must move him", said)
        self.assertEqual(self.place(), "")
        self.processes.session(user=b"joe", backend="10.0.0.2:110")
        self.assertEqual(self.moved()["state"], "moved")
        self.assertEqual(self.moved(TWO, "jane")["state"], "moved")

    def test_mistakes(self) -> None:
        """Times and names that are not valid."""
        for wait in (0.0, -1.0, 3601.0):
            self.failureResultOf(self.begin(whenQuiet=True, wait=wait), ValueError)
        self.failureResultOf(self.begin(TWO, " "), ValueError)
        self.failureResultOf(self.begin(TWO, "192.0.2.7", whenQuiet=True), ValueError)
        self.assertEqual((self.limits.held, self.placing.moves), ([], {}))


class QuietTests(MovesCase):
    """When the user is quiet."""

    def test_atOnce(self) -> None:
        """Logins are held first; then sessions end, the user moves, and the hold ends."""
        made = [self.processes.session(), self.processes.session("bbbbb", b"joe+lists")]
        other = self.processes.session(user=b"jane")
        self.processes.between = lambda: self.assertTrue(self.limits.held or "kick" not in dict(self.processes.asked))
        asked = self.begin(whenQuiet=True)
        self.clock.pump([0.01] * 10)
        answer = self.successResultOf(asked)
        self.assertEqual((answer["state"], answer["ended"], answer["sessions"]), ("moved", 2, 0))
        self.assertEqual(
            answer["done"],
            [
                "his logins were held",
                "2 of his sessions were ended",
                "he was moved to 10.0.0.2:143",
                "the hold has ended",
            ],
        )
        self.assertEqual({each.session.outcome for each in made}, {Outcome.KICKED})
        self.assertEqual({each.session.reason for each in made}, {f'"moves to {TWO}", by uid 0'})
        self.assertIsNone(other.session.outcome)
        self.assertEqual((self.place(), self.limits.held, self.limits.forgotten), (TWO, [], ["b1"]))

    def test_waits(self) -> None:
        """A session that takes its time is waited for; the first answer comes before that."""
        slow = self.slow()
        asked = self.begin(whenQuiet=True)
        self.assertNoResult(asked)
        self.pumped(FIRST_ANSWER)
        answer = self.successResultOf(asked)
        self.assertEqual((answer["state"], answer["sessions"], self.place()), ("waiting", 1, ""))
        (hold,) = self.limits.held
        self.assertEqual((hold.rule, hold.thing, hold.until - hold.since), (Rule.HOLD, "joe", 70.0))
        self.assertEqual(self.refused(whenQuiet=True), "joe is being moved already")
        followed = follow(self.keeper, "Joe", answer["id"])
        slow.end()
        self.pumped(POLL)
        self.assertEqual(self.successResultOf(followed)["state"], "moved")
        self.assertEqual((self.place(), self.limits.held), (TWO, []))
        again = self.successResultOf(follow(self.keeper, "joe", answer["id"]))
        self.assertEqual(again["state"], "moved")
        self.pumped(121)
        self.assertEqual((self.placing.moves, self.clock.getDelayedCalls()), ({}, []))

    def test_left(self) -> None:
        """A client who has asked and leaves is not waited for: no timer is left, and the move goes on."""
        slow = self.slow()
        asked = self.begin(whenQuiet=True)
        timers = len(self.clock.getDelayedCalls())
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(len(self.clock.getDelayedCalls()), timers - 1)
        slow.end()
        # The move ends before the first answer would have been due.
        self.pumped(POLL)
        self.assertEqual(self.place(), TWO)
        self.pumped(FIRST_ANSWER)

    def test_follow(self) -> None:
        """A move that is not known, or is another user's, is none."""
        self.slow()
        self.begin(whenQuiet=True)
        self.pumped(FIRST_ANSWER)
        (id,) = self.placing.moves
        for user, given in (("joe", "x"), ("jane", id)):
            self.assertRaises(KeyError, follow, self.keeper, user, given)

    def test_tooLong(self) -> None:
        """A session that does not end keeps the user where he is: the hold ends, and what was done is said."""
        self.slow()
        asked = self.begin(whenQuiet=True, wait=3.0)
        self.pumped(FIRST_ANSWER)
        id = self.successResultOf(asked)["id"]
        self.pumped(3)
        error = self.failureResultOf(follow(self.keeper, "joe", id), Refusal).value
        self.assertEqual(str(error), f"1 of his sessions are still at {ONE}")
        done = ["his logins were held", "1 of his sessions were ended", "the hold has ended"]
        self.assertEqual((error.done, self.place(), self.limits.held), (done, "", []))

    def test_unanswered(self) -> None:
        """A process that does not answer may have sessions: the user stays."""
        asked: list[Any] = []

        def late() -> None:
            if self.limits.held:
                self.processes.late.add("bbbbb")

        self.processes.session()
        self.processes.between = late
        asked.append(self.failureResultOf(self.begin(whenQuiet=True), Refusal).value)
        self.assertEqual(str(asked[0]), "not all his sessions could be ended: bbbbb has not answered")
        self.assertEqual((asked[0].done[-1], self.limits.held, self.place()), ("the hold has ended", [], ""))

    def test_storeFails(self) -> None:
        """If the store fails meanwhile, the hold ends, and the user stays."""
        slow = self.slow()
        asked = self.begin(whenQuiet=True)
        self.pumped(FIRST_ANSWER)
        id = self.successResultOf(asked)["id"]
        self.store.switch(False)
        slow.end()
        self.pumped(POLL)
        error = self.failureResultOf(follow(self.keeper, "joe", id), Refusal).value
        self.assertEqual(str(error), "the store does not answer: the store is down")
        self.assertEqual(self.limits.held, [])

    def test_bug(self) -> None:
        """An error that nobody expects ends the hold, too, and is logged."""
        self.processes.between = lambda: 1 / 0 if self.limits.held else None
        self.processes.session()
        self.assertIn("the log of the gateway has the reason", self.refused(whenQuiet=True))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.limits.held, self.place()), ([], ""))

    def test_holdStays(self) -> None:
        """If the hold cannot be ended, the operator hears its id."""
        self.limits.unblock = lambda thing: 1 / 0  # type: ignore
        answer = self.moved(whenQuiet=True)
        self.assertEqual(answer["done"][-1], "the hold b1 could not be ended; mailgate release ends it")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_blocked(self) -> None:
        """A block or hold of an operator that lasts long enough stays; one that ends too early is in the way."""
        for rule, seconds, isMoved in ((Rule.HOLD, 600, True), (Rule.BLOCK, 600, True), (Rule.HOLD, 30, False)):
            self.limits.held.clear()
            made = self.limits.add("joe", rule, seconds)
            if isMoved:
                self.assertIn(made.id, self.moved(whenQuiet=True)["done"][0])
            else:
                said = self.refused(whenQuiet=True)
                self.assertIn(f"joe is kept away by {made.id}, which ends too early: end it, or make it", said)
            self.assertEqual(self.limits.held, [made])

    def test_noLimits(self) -> None:
        """A gateway without limits cannot hold."""
        self.keeper.limits = None
        self.assertIn("this gateway has no limits", self.refused(whenQuiet=True))
