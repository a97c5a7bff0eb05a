# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
Tests for L{mailgate.keeper.keeper}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper import asking as askingModule
from mailgate.keeper import keeper as keeperModule
from mailgate.keeper.keeper import MOST_QUESTIONS, Collected, Keeper
from mailgate.test.keeper.processes import LOGIN, newView, story
from mailgate.watch.distinct import hashed, smallest

LOGINS = "mailgate_logins"


class Member:
    """A process that answers as a test says."""

    isRetiring = False

    def __init__(self, name: str, slot: int = 0) -> None:
        self.name = name
        self.slot = slot
        self.pid = 4711 + slot
        self.answer: Any = Collected()
        self.asked: list[Any] = []

    def ask(self, word: str, arguments: Any, within: float) -> Any:
        self.asked.append((word, dict(arguments), within))
        if callable(self.answer):
            return self.answer()
        return self.answer if isinstance(self.answer, Deferred) else succeed(self.answer)


def logins(number: int) -> Any:
    return {LOGINS: [[list(LOGIN), number]]}


class KeeperCase(SynchronousTestCase):
    """A keeper with a clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.keeper = Keeper(self.clock, "g1")

    def joined(self, name: str, slot: int = 0, total: int | None = None, keeper: Keeper | None = None) -> Member:
        member = Member(name, slot)
        where = keeper or self.keeper
        where.join(member)
        if total is not None:
            where.reported(member, logins(total), [])
        return member

    def total(self, keeper: Keeper | None = None) -> int:
        totals = self.successResultOf((keeper or self.keeper).scrape())
        return sum(value for _, value in totals.get(LOGINS, ()))


class SumsTests(KeeperCase):
    """Sums of processes that come and go."""

    def test_ended(self) -> None:
        """What a process has counted stays after its end; its gauges do not."""
        one, _ = self.joined("a", 0, 3), self.joined("b", 1, 4)
        users = smallest(map(hashed, (b"joe", b"ann")))
        self.keeper.reported(one, {**logins(5), "mailgate_users": [[[], users]]}, [])
        self.assertEqual(self.keeper.sums()["mailgate_users"], {(): users})
        self.keeper.left(one)
        self.assertEqual(self.total(), 9)
        self.assertNotIn("mailgate_users", self.keeper.sums())

    def test_back(self) -> None:
        """A process that has lost its link and comes back is not counted twice, however often."""
        for total in (3, 5, 5, 8):
            member = self.joined("a", 0, total)
            self.assertEqual(self.total(), total)
            self.keeper.left(member)
        self.assertEqual(self.total(), 8)

    def test_replaced(self) -> None:
        """An object of the same name replaces the earlier one, whose reports and end do not count any more."""
        earlier = self.joined("a", 0, 3)
        later = self.joined("a", 0, 4)
        self.keeper.reported(earlier, logins(100), [])
        self.keeper.left(earlier)
        self.assertEqual(self.keeper.members, [later])
        self.assertEqual(self.total(), 4)

    def test_lower(self) -> None:
        """A process that reports less does not make the sums fall."""
        member = self.joined("a", 0, 7)
        self.keeper.reported(member, logins(5), [])
        self.keeper.reported(member, {}, [])
        self.assertEqual(self.total(), 7)

    def test_folded(self) -> None:
        """Beyond a bound those that are gone are added up. One that comes back nevertheless is not counted twice."""
        self.patch(keeperModule, "MOST_GONE", 2)
        for name in "abcd":
            self.keeper.left(self.joined(name, 0, 10))
        self.assertEqual(self.total(), 40)
        again = self.joined("a", 0, 12)
        self.assertEqual(self.total(), 40)
        self.keeper.reported(again, logins(15), [])
        self.assertEqual(self.total(), 43)
        successor = Keeper(self.clock, "g1")
        successor.restore(self.keeper.state())
        self.joined("a", 0, 16, keeper=successor)
        self.clock.advance(2)
        self.assertEqual(self.total(successor), 44)

    def test_workers(self) -> None:
        """Members are counted by state, and the age of a report is that of the process's number."""
        self.joined("a", 0, 1)
        self.clock.advance(7)
        self.joined("b", 1, 1).isRetiring = True
        self.joined("c", 1)
        self.clock.advance(3)
        sums = self.keeper.sums()
        self.assertEqual(sums["mailgate_workers"], {("serving",): 2, ("retiring",): 1})
        self.assertEqual(sums["mailgate_worker_report_age_seconds"], {("0",): 10, ("1",): 3})

    def test_retiring(self) -> None:
        """What a retiring process knows of backends counts only if no other process does."""
        old, new = self.joined("a"), self.joined("b")
        old.isRetiring = True
        for member, up in ((old, 0), (new, 1)):
            self.keeper.reported(member, {"mailgate_backend_up": [[["a:143"], up]]}, [])
        self.assertEqual(self.keeper.sums()["mailgate_backend_up"], {("a:143",): 1})
        self.keeper.left(new)
        self.assertEqual(self.keeper.sums()["mailgate_backend_up"], {("a:143",): 0})

    def test_happened(self) -> None:
        """Events are counted, from 0 on; a successful reload has the time of the configuration."""
        self.assertEqual(self.keeper.sums()["mailgate_reloads"], {("ok",): 0, ("refused",): 0})
        restarts = self.keeper.sums()["mailgate_worker_restarts"]
        self.assertEqual(restarts, {("exit",): 0, ("signal",): 0, ("fork",): 0, ("zygote",): 0})
        self.clock.advance(5)
        self.keeper.happened("mailgate_reloads", ("ok",))
        self.clock.advance(5)
        for _ in range(2):
            self.keeper.happened("mailgate_reloads", ("refused",))
        sums = self.keeper.sums()
        self.assertEqual(sums["mailgate_reloads"], {("ok",): 1, ("refused",): 2})
        self.assertEqual(sums["mailgate_config_last_reload_success_timestamp_seconds"], {(): 1005})
        self.assertRaises(TypeError, self.keeper.happened, "mailgate_reloads", ())
        self.assertRaises(KeyError, self.keeper.happened, "mailgate_nothing", ())


class AskTests(KeeperCase):
    """Questions to all."""

    def test_all(self) -> None:
        """All are asked at once; the rows and what is missing come together."""
        one, other, broken = self.joined("a", 0), self.joined("b", 1), self.joined("c", 2)
        one.answer, other.answer = Deferred(), Collected([3], ["worker 4712 is late"])
        broken.answer = lambda: fail(RuntimeError())
        asked = self.keeper.ask("sessions", {"user": "j*"}, 1.5)
        self.assertEqual({str(each.asked) for each in (one, other, broken)}, {"[('sessions', {'user': 'j*'}, 1.5)]"})
        self.assertNoResult(asked)
        one.answer.callback(Collected([1, 2]))
        collected = self.successResultOf(asked)
        self.assertEqual(collected.rows, [1, 2, 3])
        self.assertEqual(
            collected.missing, ["worker 4712 is late", "process 4713 could not be asked; the log has the reason"]
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_forged(self) -> None:
        """A process answers for itself alone: otherwise one that is taken over could hide the sessions of others."""
        one, other = self.joined("a", 0), self.joined("b", 1)
        one.answer, other.answer = Collected([{"worker": "a"}]), Collected([{"worker": "a"}, {"worker": "b"}, {"x": 1}])
        rows = self.successResultOf(self.keeper.ask("sessions", {})).rows
        self.assertEqual(rows, [{"worker": "a"}, {"worker": "b"}, {"x": 1}])

    def test_none(self) -> None:
        """Without processes the answer is empty."""
        self.assertEqual(self.successResultOf(self.keeper.ask("sessions", {})), Collected([], []))

    def test_bounds(self) -> None:
        """Questions and rows are bounded, and room for questions comes back."""
        member = self.joined("a")
        waiting: Deferred[Any] = Deferred()
        member.answer = waiting
        asked = [self.keeper.ask("sessions", {}) for _ in range(MOST_QUESTIONS)]
        refused = self.successResultOf(self.keeper.ask("sessions", {}))
        self.assertEqual(refused.missing, ("too many questions wait for answers of the processes",))
        self.patch(askingModule, "MOST_ROWS", 5)
        waiting.callback(Collected(range(10)))
        collected = self.successResultOf(asked[0])
        self.assertEqual((collected.rows, collected.missing), ([0, 1, 2, 3, 4], ["the answer has more than 5 rows"]))
        member.answer = Collected([1])
        self.assertEqual(self.successResultOf(self.keeper.ask("sessions", {})).rows, [1])


class ScrapeTests(KeeperCase):
    """L{Keeper.scrape}."""

    def test_fresh(self) -> None:
        """Each process reports before the answer; of one that is late the last report counts."""
        fresh, late = self.joined("a", 0, 1), self.joined("b", 1, 10)

        def report() -> Any:
            self.keeper.reported(fresh, logins(2), [])
            return succeed(Collected())

        fresh.answer, late.answer = report, Deferred()
        scraped = self.keeper.scrape()
        self.assertEqual(late.asked, [("report", {}, 0.2)])
        self.assertNoResult(scraped)
        late.answer.callback(Collected((), ("worker 4712 is late",)))
        self.assertEqual(self.successResultOf(scraped)[LOGINS], [[list(LOGIN), 12]])

    def test_shared(self) -> None:
        """Scrapes at the same time ask once, and all have been saved before they are answered."""
        member = self.joined("a", 0, 1)
        member.answer = Deferred()
        saved: list[Any] = []
        scrapes = [self.keeper.scrape() for _ in range(3)]
        self.keeper.save = lambda: saved.append([each.called for each in scrapes])
        member.answer.callback(Collected())
        self.assertEqual(saved, [[False, False, False]])
        self.assertEqual(len(member.asked), 1)
        for each in scrapes:
            self.successResultOf(each)

    def test_failure(self) -> None:
        """A failure reaches all who wait, and the next scrape works."""

        def broken() -> None:
            raise RuntimeError

        self.keeper.save = broken
        self.failureResultOf(self.keeper.scrape(), RuntimeError)
        self.keeper.save = lambda: None
        self.assertEqual(self.total(), 0)


class SuccessionTests(KeeperCase):
    """L{Keeper.state}, L{Keeper.restore}, and the wait for both."""

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(5)
        self.successor = Keeper(self.clock, "g1")

    def test_everything(self) -> None:
        """A successor has sums, events, stories and times."""
        self.keeper.left(self.joined("a", 0, 3))
        self.keeper.happened("mailgate_reloads", ("refused",))
        self.keeper.reported(self.joined("b", 1, 4), None, [story(1), story(2, "ann", "connection")])
        self.successor.restore(self.keeper.state())
        self.clock.advance(2)
        self.assertEqual(self.total(self.successor), 7)
        self.assertEqual(self.successor.sums()["mailgate_reloads"], {("ok",): 0, ("refused",): 1})
        self.assertEqual(self.successor.recent(), self.keeper.recent())
        self.assertEqual((self.successor.began, self.successor.loaded), (1000, 1000))
        # Its workers are not there yet.
        self.assertEqual(self.successor.sums()["mailgate_workers"], {("serving",): 0, ("retiring",): 0})

    def test_twice(self) -> None:
        """What arrives twice is counted once: from the memory, and from the predecessor."""
        self.patch(keeperModule, "MOST_GONE", 1)
        for name in "abc":
            self.keeper.left(self.joined(name, 0, 10))
        self.keeper.happened("mailgate_reloads", ("ok",))
        early = self.keeper.state()
        self.keeper.left(self.joined("d", 0, 10))
        late = self.keeper.state()
        for state in (early, late, early, late):
            self.successor.restore(state)
            self.assertLessEqual(self.total(self.successor), 40)
        self.assertEqual(self.total(self.successor), 40)
        self.assertEqual(self.successor.sums()["mailgate_reloads"], {("ok",): 1, ("refused",): 0})

    def test_wait(self) -> None:
        """Answers wait for the predecessor's state and its processes."""
        self.successor.expectHandover()
        scraped, asked = self.successor.scrape(), self.successor.ask("sessions", {})
        self.clock.advance(0.5)
        here = self.joined("a", 0, 3, keeper=self.successor)
        self.assertTrue(self.successor.isHandoverDue)
        self.joined("a", 0, 3), self.joined("b", 1, 4)
        self.successor.handedOver(self.keeper.state(), ("a", "b", "c"))
        self.assertFalse(self.successor.isHandoverDue)
        for name in "bc":
            self.assertNoResult(scraped)
            self.assertEqual(here.asked, [])
            self.joined(name, 1, 4, keeper=self.successor)
        self.assertEqual(self.successResultOf(scraped)[LOGINS], [[list(LOGIN), 7]])
        self.assertEqual([word for word, *_ in here.asked], ["report", "sessions"])
        self.successResultOf(asked)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_patience(self) -> None:
        """After two seconds it answers without them, and does not wait again."""
        self.successor.expectHandover()
        scraped = self.successor.scrape()
        self.clock.advance(1.9)
        self.assertNoResult(scraped)
        self.clock.advance(0.1)
        self.successResultOf(scraped)
        self.joined("a", 0, 3)
        self.successor.handedOver(self.keeper.state(), ("a",))
        self.assertEqual(self.total(self.successor), 3)

    def test_loaded(self) -> None:
        """A keeper that follows at a reload has a newer configuration; one that follows a death does not."""
        self.successor.handedOver(self.keeper.state(), ())
        self.assertEqual(self.successor.loaded, 1005)
        again = Keeper(self.clock, "g1")
        again.restore(self.keeper.state())
        self.assertEqual(again.loaded, 1000)

    def test_save(self) -> None:
        """What a predecessor has handed over is saved at once."""
        saved: list[int] = []
        self.successor.save = lambda: saved.append(self.successor.sums()[LOGINS][LOGIN])
        self.keeper.left(self.joined("a", 0, 3))
        self.successor.handedOver(self.keeper.state(), ())
        self.assertEqual(saved, [3])

    def test_invalid(self) -> None:
        """What is not valid is ignored, line by line."""
        self.keeper.left(self.joined("a", 0, 3))
        state = self.keeper.state()
        for nothing in (b"", b"\0" * 100, b"\xff", b"[]", b"[" * 100000, state.replace(b'"keeper":1', b'"keeper":2')):
            self.successor.restore(nothing)
            self.assertEqual(self.total(self.successor), 0)
        spoilt = b"\n".join(
            (
                state.split(b"\n")[0].replace(b"1000.0", b'"x"'),
                b'{"past":3}',
                b'{"past":{"lines":3,"folded":3,"line":3}}',
                b'{"past":{"lines":{"x":{"folds":true},"y":[],"":{}},"folded":[3]}}',
                b'{"member":3}',
                b'{"member":"x"}',
                b'{"member":"x y","pid":1}',
                b'{"member":"x","pid":1,"isLinked":1,"values":[]}',
                b'{"story":3}',
                b"broken",
                *state.split(b"\n")[1:],
            )
        )
        self.successor.restore(spoilt)
        self.assertEqual(self.total(self.successor), 3)

    def test_bound(self) -> None:
        """A state has a few megabytes at most: stories are left out."""
        member = self.joined("a", 0, 3)
        for user in range(600):
            self.keeper.reported(
                member,
                None,
                [story(at, f"{user}", text="x" * 200, **dict.fromkeys("abcdefghi", "y" * 200)) for at in range(5)],
            )
        from mailgate.keeper import state as stateModule

        self.patch(stateModule, "MOST_STATE", 100_000)
        state = self.keeper.state()
        self.assertLessEqual(len(state), 100_000)
        self.successor.restore(state)
        self.assertGreater(len(self.successor.recent()), 30)
        self.clock.advance(2)
        self.assertEqual(self.total(self.successor), 3)

    def test_view(self) -> None:
        """A late report of a process that has gone to the successor does not count here."""
        member = self.joined("a", 0, 3)
        self.keeper.left(member)
        view = newView()
        view.login()
        self.keeper.reported(member, view.watcher.totals(), [story(1)])
        self.assertEqual((self.total(), self.keeper.recent()), (3, []))
