"""Tests for L{mailgate.limits.defence.Defence.passes}: logins that need no check."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Action, Attempt, Result, Rule
from mailgate.limits.policy import LoginPolicy, Mode, Prefixes, Rate
from mailgate.test.support.attacks import Scene, login

FAR, NEAR = "203.0.113.9", "192.0.2.7"


class PassesTests(SynchronousTestCase):
    """One object stands for all logins that are alike, as L{mailgate.limits.loginguard.LoginGuard} keeps it."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.defence = self.scene.defence

    def known(self, user: str = "joe", host: str = NEAR, **more: Any) -> Attempt:
        """Return a login that has succeeded."""
        attempt = login(host, user, **more)
        self.defence.record(attempt, self.defence.check(attempt).ticket, Result.ACCEPTED)
        return attempt

    def passes(self, attempt: Attempt) -> Any:
        return self.defence.passes(attempt)

    def assertNothing(self) -> None:
        undecided = self.defence.ledger.undecided
        self.assertEqual((undecided.logins, undecided.counts, undecided.held), ({}, {}, 0))

    def test_known(self) -> None:
        """A pair passes once it has succeeded, for some minutes."""
        fresh = login(NEAR, "joe")
        self.assertIsNone(self.passes(fresh))
        attempt = self.known()
        for _ in range(3):
            ticket = self.passes(attempt)
            self.assertIsNotNone(ticket)
            self.defence.record(attempt, ticket, Result.ACCEPTED)
        self.assertIsNone(self.passes(login(FAR, "joe")))
        self.assertNothing()
        self.scene.run(310)
        self.defence.allowance(NEAR)
        self.assertIsNone(self.passes(attempt))
        self.assertIsNotNone(self.passes(self.known()))

    def test_failed(self) -> None:
        """After a failure its logins are checked again."""
        attempt = self.known()
        tagged = login(NEAR, "joe", "wrong")
        self.defence.record(tagged, self.passes(attempt), Result.FAILED)
        self.assertIsNone(self.passes(attempt))
        self.assertEqual(self.defence.explain(b"joe", NEAR, "imap")["pair"]["failures"], 1)
        self.assertNothing()

    def test_failedElsewhere(self) -> None:
        """A failure of the pair at another server, with another object, counts as well."""
        attempt = self.known()
        self.scene.fail(NEAR, "joe", 1)
        self.assertIsNone(self.passes(attempt))

    def test_temporary(self) -> None:
        """A temporary failure changes nothing."""
        attempt = self.known()
        self.defence.record(attempt, self.passes(attempt), Result.UNDECIDED)
        self.assertIsNotNone(self.passes(attempt))

    def test_operators(self) -> None:
        """While there are blocks or holds of operators, all are checked."""
        attempt = self.known()
        for isHold in (False, True):
            self.defence.block("ann", 60, "", isHold)
            self.assertIsNone(self.passes(attempt))
            self.defence.unblock("ann")
            self.assertIsNotNone(self.passes(attempt))

    def test_modes(self) -> None:
        """With C{dry_run}, or a rate alone, they are checked, as the log has what would have been done."""
        for mode, rate in ((Mode.DRY_RUN, None), (Mode.OFF, Rate(1.0))):
            self.assertIsNone(self.passes(self.known(mode=mode, rate=rate)))

    def test_free(self) -> None:
        """Without limits of logins each passes, and counts for nothing. Blocks of operators are the exception."""
        attempt = login(NEAR, "joe", mode=Mode.OFF)
        for result in (Result.FAILED, Result.ACCEPTED, Result.ACCEPTED):
            self.assertEqual(self.passes(attempt), 0)
            self.assertNothing()
            self.defence.record(attempt, 0, result)
        self.assertEqual(self.defence.explain(b"joe", NEAR, "imap")["pair"]["failures"], 0)
        self.assertTrue(self.defence.isKnown(NEAR))
        self.defence.block("ann", 60, "")
        self.assertIsNone(self.passes(attempt))

    def test_freeSuccess(self) -> None:
        """A success without limits forgives the failures at a server with limits, however often it has come before."""
        attempt = login(NEAR, "joe", mode=Mode.OFF)
        for _ in range(2):
            self.defence.record(attempt, 0, Result.ACCEPTED)
            self.scene.fail(NEAR, "joe", 1)
            self.assertTrue(self.defence.explain(b"joe", NEAR, "imap")["pair"]["failures"])
            self.defence.record(attempt, 0, Result.ACCEPTED)
            self.assertFalse(self.defence.explain(b"joe", NEAR, "imap")["pair"]["failures"])

    def test_pairBound(self) -> None:
        """They count as undecided: no more than C{undecidedPair} pass, also by a check."""
        attempt = self.known()
        tickets = [self.passes(attempt) for _ in range(11)]
        self.assertEqual([ticket is None for ticket in tickets], [False] * 10 + [True])
        verdict = self.defence.check(login(NEAR, "joe"))
        self.assertEqual((verdict.action, verdict.rule), (Action.WAIT, Rule.UNDECIDED))
        self.defence.record(attempt, tickets[0], Result.UNDECIDED)
        self.assertIs(self.defence.check(login(NEAR, "joe"), verdict.ticket).action, Action.GO)

    def test_addressBound(self) -> None:
        """The same for an address; beyond C{undecidedAddress} the check knows its allowance."""
        self.defence.configure(LoginPolicy(undecidedAddress=4), Prefixes(), 16 << 20)
        attempts = [self.known(f"user{number}") for number in range(6)]
        tickets = [self.passes(attempt) for attempt in attempts]
        self.assertEqual([ticket is None for ticket in tickets], [False] * 4 + [True] * 2)
        self.assertIs(self.defence.check(attempts[4]).action, Action.GO)

    def test_reload(self) -> None:
        """Other numbers, and other keys, have each pair checked once. What was undecided ends nevertheless."""
        attempt = self.known()
        ticket = self.passes(attempt)
        self.defence.configure(LoginPolicy(), Prefixes(network4=16), 16 << 20)
        self.assertIsNone(self.passes(attempt))
        self.defence.restore(self.scene.make(key=bytes(32)).state())
        self.assertIsNone(self.passes(attempt))
        self.defence.record(attempt, ticket, Result.ACCEPTED)
        self.assertNothing()

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from([*Result, None]), st.sampled_from([0, 0, 1, 200])),
            max_size=60,
        )
    )
    def test_exact(self, events: list[tuple[int, Result | None, int]]) -> None:
        """In whatever order logins pass, are checked and end, nothing is left, and no pair has more than its bound."""
        self.setUp()
        attempts = [login(host, user) for host in (NEAR, FAR) for user in ("joe", "ann")]
        begun: list[tuple[Attempt, Any]] = []
        for number, result, seconds in events:
            self.scene.now += seconds
            if result is None and begun:
                self.defence.record(*begun.pop(0), Result.ACCEPTED)
                continue
            attempt = attempts[number]
            ticket = self.passes(attempt)
            if ticket is None:
                verdict = self.defence.check(attempt)
                if verdict.action is not Action.GO:
                    self.defence.record(attempt, verdict.ticket, Result.UNDECIDED)
                    continue
                ticket = verdict.ticket
            begun.append((attempt, ticket))
            self.assertLessEqual(max(self.defence.ledger.undecided.counts.values()), 20)
            if result is not None and number % 2:
                self.defence.record(*begun.pop(), result)
        for attempt, ticket in begun:
            self.defence.record(attempt, ticket, Result.UNDECIDED)
        self.assertNothing()
