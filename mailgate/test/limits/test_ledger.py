"""
Tests for L{mailgate.limits.ledger}: the memory that a flood takes, and what holds whatever happens.
"""

from __future__ import annotations

import random
import tracemalloc
import warnings

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Action, Attempt, Kind, Result, Verdict
from mailgate.limits.defence import Defence
from mailgate.limits.policy import LoginPolicy, Mode, Rate
from mailgate.limits.table import Shelf, Table
from mailgate.test.support.attacks import Scene, flood, login


class MemoryTests(SynchronousTestCase):
    """C{limit_memory}."""

    def test_flood(self) -> None:
        """Many more users and addresses than fit take no more memory than they may."""
        memory = 1 << 19
        for share in (0.0, 0.5, 1.0):
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                defence = Defence(memory=memory)
                flood(defence, 4000, random.Random(1), share)
                peak = tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()
            # Shelves take their memory from the system, which tracemalloc does not see.
            for _, table in defence.ledger.tables():
                if isinstance(table, Shelf):
                    peak += len(table._keys) + table._moments.nbytes + len(table._rows)
            self.assertTrue(peak < memory, peak)

    def test_settled(self) -> None:
        """Of more recent successes than there is room for, the latest are remembered."""
        ledger = Defence(memory=1 << 19).ledger
        most = (1 << 19) // 4096
        for pair in range(3 * most):
            ledger.settle(pair, 1000.0 + pair)
            self.assertLessEqual(len(ledger.settled), most)
        kept = [*ledger.settled]
        self.assertEqual(kept, [*range(kept[0], 3 * most)])
        self.assertGreater(len(kept), most * 9 // 10)

    def test_undecided(self) -> None:
        """The same of logins that no one ends."""
        memory = 1 << 19
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            defence = Defence(memory=memory)
            for number in range(3000):
                defence.check(login(f"10.{number >> 8}.{number & 255}.1", f"user{number}", "x"))
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()
        self.assertTrue(peak < memory, peak)

    def test_numbers(self) -> None:
        """How full the tables are is known, and what had to go."""
        defence = Defence(memory=1 << 18)
        flood(defence, 2000, random.Random(2))
        numbers = defence.numbers()
        self.assertEqual(set(numbers["entries"]), set(numbers["evictions"]))
        self.assertTrue(len(numbers["entries"]) <= 12)
        self.assertTrue(numbers["evictions"]["pairs"] > 0 and numbers["entries"]["pairs"] > 50, numbers)
        self.assertEqual(numbers["held"], 0)


HOSTS = ("192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "unix:")
USERS = ("joe", "ann", "bob")
CLEAN = "203.0.113.200"


class Machine(RuleBasedStateMachine):
    """Logins that begin, wait and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        policy = LoginPolicy(held=6, userSlow=8, addressDelay=6, addressBlock=12, addressUsers=2, networkDelay=9)
        self.scene = Scene(policy=policy, memory=1 << 18)
        self.open: list[tuple[Attempt, Verdict, str]] = []
        attempt = login(CLEAN, "owner", "right")
        self.scene.defence.record(attempt, self.scene.defence.check(attempt).ticket, Result.ACCEPTED)

    @rule(
        host=st.sampled_from(HOSTS),
        user=st.sampled_from(USERS),
        password=st.integers(0, 20),
        kind=st.sampled_from(Kind),
        mode=st.sampled_from([Mode.ON, Mode.ON, Mode.ON, Mode.DRY_RUN, Mode.OFF]),
        isExempt=st.booleans(),
        owner=st.sampled_from("AB"),
        isRated=st.booleans(),
    )
    def begin(self, host, user, password, kind, mode, isExempt, owner, isRated) -> None:
        rate = Rate(1.0, 2, isDelayed=True) if isRated else None
        attempt = login(host, user, str(password), kind=kind, mode=mode, isExempt=isExempt, rate=rate)
        self.verdict(attempt, self.scene.defence.check(attempt, 0, owner), owner)

    def verdict(self, attempt, verdict, owner) -> None:
        assert (verdict.action is Action.WAIT) == (verdict.seconds > 0), verdict
        assert verdict.seconds <= 60, verdict
        if verdict.action is Action.REFUSE:
            assert not verdict.ticket and verdict.rule is not None, verdict
            assert attempt.mode is Mode.ON or verdict.rule.value in ("limit_req login", "held logins"), verdict
        elif verdict.ticket:
            self.open.append((attempt, verdict, owner))
        else:
            assert attempt.kind is Kind.EXTERNAL or attempt.mode is Mode.OFF, attempt

    @rule(at=st.integers(0, 30), result=st.sampled_from(Result))
    def end(self, at, result) -> None:
        if at < len(self.open):
            attempt, verdict, owner = self.open.pop(at)
            if verdict.action is Action.WAIT:
                result = Result.UNDECIDED
            self.scene.defence.record(attempt, verdict.ticket, result, owner)

    @rule(at=st.integers(0, 30))
    def again(self, at) -> None:
        if at < len(self.open) and self.open[at][1].action is Action.WAIT:
            attempt, verdict, owner = self.open.pop(at)
            self.scene.run(verdict.seconds)
            self.verdict(attempt, self.scene.defence.check(attempt, verdict.ticket, owner), owner)

    @rule(seconds=st.sampled_from([1, 15, 61, 500, 1000, 4000, 90000]))
    def wait(self, seconds) -> None:
        self.scene.run(seconds)

    @rule(owner=st.sampled_from("AB"))
    def leave(self, owner) -> None:
        self.scene.defence.forget(owner)
        self.open = [each for each in self.open if each[2] != owner]

    @rule()
    def restart(self) -> None:
        later = self.scene.make(memory=1 << 18)
        later.restore(self.scene.defence.state(withCounters=True))
        assert later.numbers()["entries"] == self.scene.defence.numbers()["entries"]
        self.scene.defence = later
        self.open.clear()

    @invariant()
    def counts(self) -> None:
        """What is undecided is what has begun and not ended: never negative, never forgotten."""
        undecided = self.scene.defence.ledger.undecided
        asked = sum(each.isAsked for each in undecided.logins.values())
        assert undecided.held == len(undecided.logins) - asked
        assert 0 <= undecided.held <= 6
        assert all(count > 0 for count in undecided.counts.values())
        expected = sum((2 if each.isKnown else 4) for each in undecided.logins.values() if each.isAsked)
        assert sum(undecided.counts.values()) == expected
        assert len(undecided.logins) <= len(self.open)

    @invariant()
    def bounds(self) -> None:
        """No table is larger than it may be."""
        for name, table in self.scene.defence.ledger.tables():
            if isinstance(table, Table):
                assert 0 <= table._used <= table.most, name

    @invariant()
    def owner(self) -> None:
        """Whatever happens elsewhere, a known pair that nothing concerns passes at once."""
        if self.scene.now < 29 * 86400:
            attempt = login(CLEAN, "owner", "right")
            verdict = self.scene.defence.check(attempt)
            assert verdict.action is Action.GO, verdict
            self.scene.defence.record(attempt, verdict.ticket, Result.ACCEPTED)


class InvariantTests(SynchronousTestCase):
    """What holds whatever happens."""

    def test_machine(self) -> None:
        """Many random histories."""
        with warnings.catch_warnings():
            # Hypothesis compares bytes and numbers in a cache of its own.
            warnings.filterwarnings("ignore", category=BytesWarning, module="hypothesis")
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=60, stateful_step_count=40, deadline=None, database=None, derandomize=True
                ),
            )
