# -*- test-case-name: mailgate.test.keeper.test_limits -*-
"""
Tests for L{mailgate.keeper.limits} and L{mailgate.keeper.judging}: a process that asks a keeper about its logins, over
the real link.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.attempts import writeAttempt
from mailgate.keeper.keeper import Keeper
from mailgate.keeper.limits import KEPT_FOR, MOST_RECORDS, KeeperStore
from mailgate.keeper.link import KeeperLink
from mailgate.keeper.messages import Check, Judged, Record
from mailgate.keeper.questions import DEADLINE, LOGGED_EVERY, MOST_WAITING, deadlineFor
from mailgate.limits.attempt import Action, Attempt, Result, Rule, Verdict
from mailgate.store.address import StoreAddress
from mailgate.store.settings import StoreSettings
from mailgate.test.keeper.defences import ATTEMPT, FakeDefence
from mailgate.test.keeper.processes import newView, turn
from mailgate.test.keeper.wires import End, Socket, WiredRendezvous


class AskingCase(SynchronousTestCase):
    """A keeper with a defence, and a process with another one as shadow."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.socket = Socket(self.clock, Random(1))
        self.defence = FakeDefence("10.0.0.1")
        self.keeper = Keeper(self.clock, "g1")
        self.keeper.limits = self.defence
        self.rendezvous = WiredRendezvous(self.keeper, self.socket)
        self.rendezvous.startService()
        self.shadow = FakeDefence()
        self.store = KeeperStore(self.shadow, self.clock, self.clock.seconds)
        self.ends: list[End] = []
        self.view = newView()
        endpoint: Any = self.socket.endpoint(4711, self.ends)
        self.link = KeeperLink(self.view, endpoint, self.clock, 0, 4711, self.store)
        self.link.startService()
        self.turns()

    def turns(self, number: int = 30) -> None:
        for _ in range(number):
            turn(self.clock)

    def asked(self, ticket: int = 0) -> Deferred[Verdict]:
        """Ask; the keeper must be asked, and not have answered yet."""
        answered = self.store.check(ATTEMPT, ticket)
        assert isinstance(answered, Deferred)
        self.assertNoResult(answered)
        return answered

    def judged(self, ticket: int = 0) -> Verdict:
        """Ask, and return the keeper's answer."""
        answered = self.asked(ticket)
        self.turns()
        return self.successResultOf(answered)

    def decided(self, ticket: int = 0) -> Verdict:
        """Ask; the shadow must answer at once."""
        verdict = self.store.check(ATTEMPT, ticket)
        assert isinstance(verdict, Verdict)
        return verdict

    def hang(self) -> None:
        """The keeper reads nothing."""
        self.ends[-1].other.isDeaf = True

    def wakeUp(self) -> None:
        """It reads again."""
        self.ends[-1].other.setDeaf(False)
        self.turns()


class AskingTests(AskingCase):
    """The keeper is there."""

    def test_judged(self) -> None:
        """The keeper decides, and both get the end of the login: the keeper with its ticket, under one owner."""
        verdict = self.judged()
        self.assertEqual((verdict.action, self.shadow.checked), (Action.GO, []))
        ((attempt, ticket, owner),) = self.defence.checked
        self.assertEqual((attempt, ticket, bool(owner)), (ATTEMPT, 0, True))
        self.store.record(ATTEMPT, verdict.ticket, Result.FAILED)
        self.turns()
        self.assertEqual(self.defence.recorded, [(ATTEMPT, 1, Result.FAILED, owner)])
        self.assertEqual(self.shadow.recorded, [(ATTEMPT, 0, Result.FAILED, "")])

    def test_wait(self) -> None:
        """A login that waits is checked again with the keeper's ticket; one that is refused has none."""
        self.defence.verdicts = [
            Verdict(Action.WAIT, 70000, 1.5, Rule.PAIR_DELAY),
            Verdict(Action.REFUSE, 0, 0, Rule.PAIR_BLOCK),
        ]
        verdict = self.judged()
        self.assertEqual((verdict.action, verdict.seconds, verdict.rule), (Action.WAIT, 1.5, Rule.PAIR_DELAY))
        refused = self.judged(verdict.ticket)
        self.assertEqual([ticket for _, ticket, _ in self.defence.checked], [0, 70000])
        self.assertEqual((refused.ticket, refused.rule), (0, Rule.PAIR_BLOCK))

    def test_side(self) -> None:
        """What must be known at once comes from the shadow."""
        self.assertEqual(self.store.allowance("192.0.2.7"), 3)
        self.assertFalse(self.store.isKnown("192.0.2.7"))
        self.assertIsNone(self.store.blockOf("192.0.2.7"))
        self.assertEqual(self.store.block("joe", 1, "").thing, "joe")
        self.assertEqual(self.store.unblock("joe")[0].thing, "joe")
        self.assertEqual(self.store.blocks(), [])
        self.assertEqual(self.store.explain(b"joe", "", "")["known"], False)
        self.assertEqual(self.store.numbers()["held"], 0)

    def test_news(self) -> None:
        """The process has the keeper's rows from the start, and each change, also if there are many."""
        self.assertEqual(self.shadow.adopted, ["key", "10.0.0.1"])
        self.shadow.adopted.clear()
        rows = [f"10.1.{number // 256}.{number % 256}" * 20 for number in range(1000)]
        for row in rows:
            self.defence.changed(row)
        self.turns()
        self.assertEqual(self.shadow.adopted, rows)

    def test_newsOfSlowReader(self) -> None:
        """A process that does not read gets all rows anew when it has missed too many, and nothing is stored for it."""
        self.shadow.adopted.clear()
        self.ends[0].isDeaf = True
        self.defence.known = ["10.0.0.2"]
        for number in range(20_000):
            self.defence.changed(f"row {number}" * 10)
            if not number % 100:
                self.turns(1)
        self.ends[0].setDeaf(False)
        self.turns(500)
        self.assertEqual(self.shadow.adopted[-2:], ["row 19998" * 10, "row 19999" * 10])
        self.assertIn("10.0.0.2", self.shadow.adopted)
        self.assertLess(len(self.shadow.adopted), 10_000)

    def test_badNews(self) -> None:
        """Rows that the process cannot use are logged, and the link stays."""
        self.defence.changed("bad")
        self.defence.changed("good")
        self.turns()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.defence.changed("good")
        self.turns()
        self.assertEqual(self.shadow.adopted[-1], "good")

    def test_cancelled(self) -> None:
        """The ticket of a login whose client has left is given back when the keeper answers."""
        answered = self.asked()
        answered.cancel()
        self.failureResultOf(answered, CancelledError)
        self.turns()
        self.assertEqual([each[1:3] for each in self.defence.recorded], [(1, Result.UNDECIDED)])

    def test_broken(self) -> None:
        """If the keeper's defence fails, logins go on, and its log has the reason."""
        self.defence.error = RuntimeError("broken")
        self.assertEqual(self.judged(), Verdict(Action.GO))
        self.store.record(ATTEMPT, 0, Result.FAILED)
        self.turns()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)
        self.assertTrue(self.link.isLinked)

    def test_invalid(self) -> None:
        """An invalid login or verdict ends the connection; the process links again, and goes on."""
        for message in (
            Check(1, 0, ["secret"]),
            Record(0, "accepted", []),
            Record(0, "unheard of", writeAttempt(ATTEMPT)),
        ):
            with capturedLogs() as events:
                self.ends[-1].protocol.send(message)
                self.turns(60)
            (event,) = events
            self.assertNotIn("secret", str(event))
            self.assertEqual(self.judged().action, Action.GO)
        with capturedLogs() as events:
            self.ends[-1].other.protocol.send(Judged(1, []))
            self.turns(60)
        self.assertEqual(len(events), 1)
        self.assertEqual(self.judged().action, Action.GO)

    def test_longName(self) -> None:
        """A name that no message has room for is decided by the shadow."""
        long = self.store.check(type(ATTEMPT)("192.0.2.7", b"x" * 2_000_000))
        assert isinstance(long, Verdict)
        self.store.record(type(ATTEMPT)("192.0.2.7", b"x" * 2_000_000), long.ticket, Result.FAILED)
        self.turns()
        self.assertEqual((len(self.shadow.checked), self.defence.recorded), (1, []))

    def test_left(self) -> None:
        """A process that is gone has no undecided logins any more; its next connection has another owner."""
        self.judged()
        owner = self.defence.checked[0][2]
        self.ends[0].end(ConnectionError())
        self.assertEqual(self.defence.forgotten, [owner])
        self.turns(60)
        self.judged()
        self.assertNotEqual(self.defence.checked[1][2], owner)


class SharedTests(AskingCase):
    """The keeper asks a store that several gateways share."""

    def setUp(self) -> None:
        super().setUp()
        self.verdicts: list[Deferred[Verdict]] = []
        self.patch(self.defence, "check", self.wait)

    def wait(self, attempt: Attempt, ticket: int = 0, owner: str = "") -> Deferred[Verdict]:
        self.defence.checked.append((attempt, ticket, owner))
        self.verdicts.append(Deferred())
        return self.verdicts[-1]

    def test_later(self) -> None:
        """The answers reach the logins, in whatever order they come, with the sessions at other gateways."""
        first, second = self.asked(), self.asked()
        self.turns()
        self.verdicts[1].callback(Verdict(Action.GO, 8, elsewhere=3, elsewhereAddress=1))
        self.turns()
        self.assertNoResult(first)
        found = self.successResultOf(second)
        self.assertEqual((found.elsewhere, found.elsewhereAddress), (3, 1))
        self.verdicts[0].callback(Verdict(Action.REFUSE, rule=Rule.PAIR_BLOCK))
        self.turns()
        self.assertIs(self.successResultOf(first).rule, Rule.PAIR_BLOCK)

    def test_broken(self) -> None:
        """A login of which the keeper cannot say anything passes."""
        answered = self.asked()
        self.turns()
        self.verdicts[0].errback(RuntimeError("broken"))
        self.turns()
        self.assertIs(self.successResultOf(answered).action, Action.GO)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_left(self) -> None:
        """The ticket of a login whose process has gone meanwhile is given back."""
        self.asked().addErrback(lambda _: None)
        self.turns()
        ((_, _, owner),) = self.defence.checked
        self.link.stopService()
        self.turns()
        self.verdicts[0].callback(Verdict(Action.GO, 8))
        self.turns()
        self.assertEqual(self.defence.recorded, [(ATTEMPT, 8, Result.UNDECIDED, owner)])

    def test_deadline(self) -> None:
        """The process waits a little longer than the keeper waits for the store."""
        address = StoreAddress(path="/run/store.sock")
        deadline = deadlineFor(StoreSettings(address=address, timeout=0.2))
        self.assertEqual(
            (deadlineFor(StoreSettings(address=address)), deadlineFor(StoreSettings())), (DEADLINE + 0.01, DEADLINE)
        )
        store = KeeperStore(self.shadow, self.clock, self.clock.seconds, deadline=deadline)
        self.link.limits = store
        store.attached(self.ends[-1].protocol)
        answered = store.check(ATTEMPT)
        assert isinstance(answered, Deferred)
        self.clock.advance(0.205)
        self.assertNoResult(answered)
        self.clock.advance(0.006)
        self.assertIs(self.successResultOf(answered).action, Action.GO)


class LateTests(AskingCase):
    """The keeper is late, gone, full or back."""

    def test_late(self) -> None:
        """
        After the deadline the shadow decides. Further logins do not wait, until the keeper has answered; one warning
        says so, and the ticket of the late answer is given back.
        """
        self.hang()
        first = self.asked()
        self.clock.advance(DEADLINE / 2)
        second = self.asked()
        with capturedLogs() as events:
            self.clock.advance(DEADLINE / 2)
            verdict = self.successResultOf(first)
            self.assertNoResult(second)
            self.assertEqual(self.decided().action, Action.GO)
            self.clock.advance(DEADLINE / 2)
            self.successResultOf(second)
        (event,) = events
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertEqual(len(self.shadow.checked), 3)
        self.store.record(ATTEMPT, verdict.ticket, Result.FAILED)
        with capturedLogs() as events:
            self.wakeUp()
        self.assertEqual([event["log_format"] for event in events], ["the keeper answers about limits again"])
        self.assertEqual(
            sorted((ticket, result.value) for _, ticket, result, _ in self.defence.recorded),
            [(0, "failed"), (1, "undecided"), (2, "undecided")],
        )
        self.assertEqual(self.shadow.recorded[0][1:3], (1, Result.FAILED))
        self.assertEqual(self.judged().action, Action.GO)

    def test_seldomWarned(self) -> None:
        """A keeper that is late again and again is warned of once a minute."""
        with capturedLogs() as events:
            for _ in range(3):
                self.hang()
                self.asked()
                self.clock.advance(DEADLINE)
                self.wakeUp()
            self.assertEqual(len(events), 2)
            self.clock.advance(LOGGED_EVERY)
            self.turns()
            self.hang()
            self.asked()
            self.clock.advance(DEADLINE)
            self.wakeUp()
        self.assertEqual(len(events), 4)

    def test_lateAgain(self) -> None:
        """
        A login that the keeper holds back, and that it does not check again in time, goes on with the shadow, and the
        keeper's ticket is given back. When the keeper answers again, the login goes on there.
        """
        self.defence.verdicts = [Verdict(Action.WAIT, 9, 1.0, Rule.PAIR_DELAY)]
        held = self.judged()
        self.hang()
        again = self.asked(held.ticket)
        self.shadow.verdicts = [Verdict(Action.WAIT, each, 1.0, Rule.USER_SLOW) for each in (5, 5)]
        with capturedLogs():
            self.clock.advance(DEADLINE)
            waits = self.successResultOf(again)
            waits = self.decided(waits.ticket)
            self.assertEqual([ticket for _, ticket, _ in self.shadow.checked], [0, 5])
            self.wakeUp()
        self.assertIn((ATTEMPT, 9, Result.UNDECIDED), [each[:3] for each in self.defence.recorded])
        self.assertEqual(self.judged(waits.ticket).action, Action.GO)
        self.assertEqual(self.defence.checked[-1][1], 0)
        self.assertEqual(self.shadow.recorded, [(ATTEMPT, 5, Result.UNDECIDED, "")])

    def test_gone(self) -> None:
        """If the keeper is killed, the logins that wait for it are decided at once, and further ones too."""
        first = self.asked()
        self.rendezvous.stopService()
        self.turns()
        self.assertEqual(self.successResultOf(first).action, Action.GO)
        self.assertEqual(self.decided().action, Action.GO)
        self.assertEqual(len(self.shadow.checked), 2)
        self.assertIsNone(self.store._questions._timer)

    def test_goneLate(self) -> None:
        """If the keeper is killed while its answers are overdue, no login is decided a second time."""
        self.hang()
        late, left = self.asked(), self.asked()
        left.addErrback(lambda failure: failure.trap(CancelledError))
        left.cancel()
        with capturedLogs():
            self.clock.advance(DEADLINE)
        self.assertEqual(self.successResultOf(late).action, Action.GO)
        self.rendezvous.stopService()
        self.turns()
        self.assertIsNone(self.store._conversation)
        self.assertEqual(len(self.shadow.checked), 1)

    def test_return(self) -> None:
        """
        The next keeper gets the ends of logins since, without tickets of the earlier one, and its news replace those of
        before.
        """
        held = self.judged()
        self.rendezvous.stopService()
        self.turns()
        self.store.record(ATTEMPT, held.ticket, Result.FAILED)
        self.store.record(ATTEMPT, 0, Result.UNDECIDED)
        following = FakeDefence("10.0.0.9")
        keeper = Keeper(self.clock, "g1")
        keeper.limits = following
        WiredRendezvous(keeper, self.socket).startService()
        for _ in range(10):
            self.clock.advance(0.1)
            self.turns()
        self.assertEqual([each[1:3] for each in following.recorded], [(0, Result.FAILED)])
        self.assertEqual(self.shadow.adopted[-2:], ["key", "10.0.0.9"])
        verdict = self.judged(held.ticket)
        self.assertEqual(following.checked[0][1], 0)
        self.store.record(ATTEMPT, verdict.ticket, Result.ACCEPTED)
        self.turns()
        self.assertEqual(following.recorded[-1][1:3], (1, Result.ACCEPTED))

    def test_missed(self) -> None:
        """What the keeper has missed is bounded in number and age."""
        self.rendezvous.stopService()
        self.turns()
        self.store.record(ATTEMPT, 0, Result.ACCEPTED)
        self.clock.advance(KEPT_FOR + 1)
        for _ in range(MOST_RECORDS - 1):
            self.store.record(ATTEMPT, 0, Result.FAILED)
        self.rendezvous.startService()
        for _ in range(10):
            self.clock.advance(0.2)
            self.turns()
        self.assertEqual({each[2] for each in self.defence.recorded}, {Result.FAILED})
        self.assertEqual(len(self.defence.recorded), MOST_RECORDS - 1)

    def test_full(self) -> None:
        """Of a keeper that does not read, no more is asked; what it has missed reaches it when it reads."""
        self.hang()
        while not self.ends[0].protocol.isFull:
            self.store.record(ATTEMPT, 0, Result.FAILED)
        self.assertEqual(self.decided().action, Action.GO)
        self.store.record(ATTEMPT, 0, Result.ACCEPTED)
        self.wakeUp()
        self.turns(100)
        self.assertEqual(self.defence.recorded[-1][2], Result.ACCEPTED)
        self.assertEqual(self.defence.checked, [])

    def test_manyWait(self) -> None:
        """Only so many logins wait for the keeper at the same time."""
        self.hang()
        for _ in range(MOST_WAITING):
            self.store._conversation.isFull = False  # type: ignore[union-attr]
            self.asked()
        self.decided()

    def test_moved(self) -> None:
        """A process that the keeper sends away decides alone until it has the next one."""
        self.rendezvous.stopAccepting()
        waiting = self.asked()
        self.rendezvous.sendAway()
        self.turns()
        self.successResultOf(waiting)
        self.decided()


class OtherReleaseTests(AskingCase):
    """Processes and keepers of releases without limits, and before the predecessor has handed over."""

    def test_olderKeeper(self) -> None:
        """A keeper that judges nothing is never asked, and gets no record."""
        self.keeper.limits = None
        self.rendezvous.stopService()
        self.turns()
        self.rendezvous.judging = None
        self.rendezvous.startService()
        with capturedLogs() as events:
            self.turns(60)
            self.assertTrue(self.link.isLinked)
            self.decided()
            self.store.record(ATTEMPT, 0, Result.FAILED)
            self.turns()
        self.assertEqual((events, self.defence.recorded), ([], []))

    def test_olderProcess(self) -> None:
        """A process that does not know limits declines, and reports as before, without an error or a message more."""
        endpoint: Any = self.socket.endpoint(4712, [])
        view = newView()
        with capturedLogs() as events:
            KeeperLink(view, endpoint, self.clock, 1, 4712).startService()
            self.turns(60)
            self.defence.changed("row")
            self.turns()
        self.assertEqual(events, [])
        self.assertIn(view.member, [each.name for each in self.keeper.members])

    def test_predecessor(self) -> None:
        """A keeper judges as soon as its predecessor has handed over."""
        self.rendezvous.stopService()
        self.turns()
        keeper = Keeper(self.clock, "g1")
        keeper.limits = following = FakeDefence()
        keeper.expectHandover()
        WiredRendezvous(keeper, self.socket).startService()
        for _ in range(4):
            self.clock.advance(0.1)
            self.turns()
        self.decided()
        keeper.handedOver(self.keeper.stateToHandOver(), [])
        self.turns()
        self.assertEqual(following.known, ["10.0.0.1", "counters"])
        self.judged()
        self.assertEqual(self.shadow.adopted[-3:], ["key", "10.0.0.1", "counters"])

    def test_unexpected(self) -> None:
        """A keeper without limits refuses what it has not offered."""
        self.rendezvous.judging = None
        with capturedLogs() as events:
            self.ends[0].protocol.send(Record(0, "failed", writeAttempt(ATTEMPT)))
            self.turns()
        self.assertIn("unexpected message: record", str(events[0]["error"]))
