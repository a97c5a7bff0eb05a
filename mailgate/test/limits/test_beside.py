# -*- test-case-name: mailgate.test.limits.test_beside -*-
"""
Tests for L{mailgate.limits.beside}: users who have logged in just now do not wait for the store, and nobody gains more
than one guess at each gateway by that.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from mailgate.limits.attempt import Action, Result, Rule, Verdict
from mailgate.limits.beside import FRESH, MOST_GATHERED, PAUSE
from mailgate.limits.learning import SETTLED
from mailgate.store.interfaces import Mark
from mailgate.test.support.attacks import login
from mailgate.test.support.gateways import KEYS, Gateway, GatewaysCase, answer
from mailgate.test.support.stores import beatOf

NEAR = "192.0.2.7"
FAR = "198.51.100.9"
OTHERS = "203.0.113.5"


class BesideCase(GatewaysCase):
    """Joe has logged in at the first gateway, whose store answers later."""

    def setUp(self) -> None:
        super().setUp()
        self.settle(self.first, "joe")
        self.first.store.calls.clear()
        self.first.store.late = 0.02

    def settle(self, gateway: Gateway, user: str, host: str = NEAR) -> None:
        late, gateway.store.late = gateway.store.late, 0.0
        self.end(gateway, host, user, "right", Result.ACCEPTED)
        self.pause()
        gateway.store.late = late

    def pause(self) -> None:
        """The store is asked, and answers."""
        self.clock.pump([0.01] * 5)

    def begin(self, user: str = "joe", host: str = NEAR, gateway: Gateway | None = None, **more: Any) -> Any:
        """What the limits say at once: a verdict, or that the store is asked before."""
        return (gateway or self.first).shared.check(login(host, user, "x", **more))

    def drop(self, verdict: Any, user: str = "joe", result: Result = Result.UNDECIDED) -> None:
        self.first.shared.record(login(NEAR, user, "x"), answer(verdict).ticket, result)

    def assertWaits(self, begun: Any) -> None:
        """A login waits for the store. It is not undecided after that."""
        self.assertIsInstance(begun, Deferred)
        self.clock.advance(0.02)
        self.drop(self.successResultOf(begun))

    def assertPasses(self, begun: Any, result: Result = Result.UNDECIDED) -> None:
        self.assertIsInstance(begun, Verdict)
        self.assertIs(begun.action, Action.GO)
        self.drop(begun, result=result)


class PassingTests(BesideCase):
    """Who waits for the store."""

    def test_again(self) -> None:
        """A user who logs in again does not wait. The store is asked a moment later, and then the next one passes."""
        for _ in range(3):
            self.assertPasses(self.begin(), Result.ACCEPTED)
            self.clock.advance(PAUSE / 2)
            self.assertEqual(self.first.store.calls, [])
            self.clock.advance(PAUSE / 2)
            self.assertEqual(self.first.store.calls, ["checkKnown"])
            self.clock.advance(0.02)
            self.first.store.calls.clear()

    def test_once(self) -> None:
        """Each answer lets one login pass: a second one at the same time asks by itself, and so does what follows."""
        self.assertPasses(self.begin())
        self.assertWaits(self.begin())
        self.assertEqual(self.first.store.calls.count("check"), 1)
        self.assertPasses(self.begin())
        self.assertWaits(self.begin())

    def test_otherProtocol(self) -> None:
        """Nor does a login by another protocol pass until the store has answered: that would be a guess more."""
        protocols = "pop3", "smtp", "sieve"
        for protocol in protocols:
            begun = self.begin(protocol=protocol)
            self.pause()
            self.drop(answer(begun))
        self.assertPasses(self.begin())
        waiting = [self.begin(protocol=protocol) for protocol in protocols]
        self.pause()
        for begun in waiting:
            self.assertIsInstance(begun, Deferred)
            self.drop(answer(begun))
        self.assertPasses(self.begin(protocol="pop3"))

    def test_others(self) -> None:
        """A login waits if its user has not logged in at this address, by this protocol, at this gateway, just now."""
        self.settle(self.second, "ann")
        for user, host in (("new", NEAR), ("joe", FAR), ("joe", "192.0.2.8"), ("ann", NEAR)):
            self.assertWaits(self.begin(user, host))
        self.assertWaits(self.begin(protocol="smtp"))
        # She is known here now, and has not logged in here.
        self.assertWaits(self.begin("ann"))
        self.assertNotIn("checkKnown", self.first.store.calls)

    def test_failed(self) -> None:
        """One whose login failed, or was never decided, has not logged in."""
        self.drop(self._waited("new"), "new", Result.FAILED)
        self.drop(self._waited("ann"), "ann")
        for user in ("new", "ann"):
            self.assertWaits(self.begin(user))

    def _waited(self, user: str) -> Verdict:
        begun = self.begin(user)
        self.clock.advance(0.02)
        return self.successResultOf(begun)  # type: ignore[no-any-return]

    def test_stale(self) -> None:
        """An answer is good for a minute, and a success for five."""
        self.clock.advance(FRESH + 1)
        self.assertWaits(self.begin())
        for _ in range(int(SETTLED // FRESH) - 1):
            self.clock.advance(FRESH - 1)
            self.assertPasses(self.begin())
            self.pause()
        self.clock.advance(FRESH - 1)
        self.assertWaits(self.begin())

    def test_suspect(self) -> None:
        """A login waits if a failure of its user, its address or its network is known here, or a block of a rule."""
        for user, host, failed in (
            ("amy", "198.51.100.1", ("amy", "10.0.0.1")),
            ("bob", "203.0.113.1", ("new", "203.0.113.1")),
            ("cat", "192.0.3.1", ("new", "192.0.3.200")),
        ):
            self.settle(self.first, user, host)
            self.first.shared.record(login(failed[1], failed[0], "wrong"), 0, Result.FAILED)
            self.assertIsInstance(self.begin(user, host), Deferred)
        self.assertPasses(self.begin())
        digests = self.first.shared._digests
        self.second.store.mark(Mark(digests.spot(NEAR).address, "R4", 600.0, 1), 60.0)
        self.pause()
        self.assertWaits(self.begin())

    def test_over(self) -> None:
        """Failures of long ago keep nobody waiting."""
        self.first.shared.record(login("192.0.2.200", "new", "wrong"), 0, Result.FAILED)
        self.clock.advance(3 * 86400)
        self.settle(self.first, "joe")
        self.assertPasses(self.begin())

    def test_webmail(self) -> None:
        """Of many users behind one address, those who were there just now pass, and each of them once."""
        users = [f"user{each}" for each in range(50)]
        for user in users:
            self.settle(self.first, user)
        for user in users:
            verdict = self.begin(user)
            self.assertIsInstance(verdict, Verdict)
            self.drop(verdict, user)
        self.assertIsInstance(self.begin(users[0]), Deferred)
        self.assertWaits(self.begin("new"))

    def test_elsewhere(self) -> None:
        """One with sessions at other gateways waits each time: those that have ended since must not count."""
        address = self.first.shared._digests.spot(NEAR).address[:4]
        part = KEYS.digest(b"protocol", b"imap")[:2] + address
        counts = {KEYS.digest(b"user", b"joe"): {part: 3}}
        self.successResultOf(self.second.store.beat(beatOf("g2", "run", isAll=True, counts=counts)))
        self.assertPasses(self.begin())
        self.pause()
        for _ in range(2):
            begun = self.begin()
            self.assertIsInstance(begun, Deferred)
            self.clock.advance(0.02)
            verdict = self.successResultOf(begun)
            self.assertEqual((verdict.elsewhere, verdict.elsewhereAddress), (3, 3))
            self.drop(verdict)

    def test_ordered(self) -> None:
        """Blocks and holds that were ordered at another gateway hold at once."""
        for isHold, expected in ((False, Action.REFUSE), (True, Action.WAIT)):
            self.second.shared.block("joe", 600, "", isHold)
            self.clock.advance(0)
            verdict = self.begin()
            assert isinstance(verdict, Verdict)
            self.assertIs(verdict.action, expected)
            if verdict.ticket:
                self.drop(verdict)
            self.second.shared.unblock("joe")
            self.settle(self.first, "joe")


class AttackTests(BesideCase):
    """One who guesses the password of a user at the user's own address."""

    def test_failureElsewhere(self) -> None:
        """Failures at another gateway hold from the second login on."""
        self.guess(self.second, NEAR, "joe", 5)
        self.assertPasses(self.begin())
        self.pause()
        begun = self.begin()
        self.assertIsInstance(begun, Deferred)
        self.clock.advance(0.02)
        self.assertIs(self.successResultOf(begun).rule, Rule.PAIR_DELAY)

    def test_void(self) -> None:
        """An answer that is void, because an operator has cleared something meanwhile, lets nobody pass."""
        self.guess(self.second, NEAR, "joe", 5)
        self.assertPasses(self.begin())
        self.clock.advance(PAUSE)
        self.first.shared.unblock("ann")
        self.pause()
        self.assertWaits(self.begin())

    def test_wrong(self) -> None:
        """After a wrong password, the user has not logged in just now."""
        self.assertPasses(self.begin(), Result.FAILED)
        for _ in range(3):
            self.assertWaits(self.begin())
            self.clock.advance(1)

    def test_alternating(self) -> None:
        """Guesses at two gateways by turns are held back as those of others are, after one more at each at most."""
        gateways = self.first, self.second
        for gateway in gateways:
            self.settle(gateway, "ann")
        self.first.store.late = 0.0
        counted = [self._guesses(user) for user in ("new", "ann")]
        self.assertEqual(counted[0], 4)
        self.assertLessEqual(counted[1], counted[0] + len(gateways))

    def _guesses(self, user: str) -> int:
        """How many guesses pass until one is held back."""
        for number in range(100):
            gateway = (self.first, self.second)[number % 2]
            attempt = login(NEAR, user, f"guess {number}")
            verdict = answer(gateway.shared.check(attempt))
            if verdict.action is not Action.GO:
                return number
            gateway.shared.record(attempt, verdict.ticket, Result.FAILED)
            self.pause()
        return 100

    def test_forgiven(self) -> None:
        """A success forgives failures elsewhere, if its password was right. A login that was given up does not."""
        for result, host, expected in (
            (Result.UNDECIDED, NEAR, 3),
            (Result.FAILED, FAR, 4),
            (Result.ACCEPTED, OTHERS, 0),
        ):
            user = f"user {result.value}"
            self.settle(self.first, user, host)
            self.guess(self.second, host, user, 3)
            attempt = login(host, user, "y")
            verdict = self.first.shared.check(attempt)
            assert isinstance(verdict, Verdict)
            self.first.shared.record(attempt, verdict.ticket, result)
            self.pause()
            self.first.store.late = 0.0
            self.assertEqual(self.failures(self.second, user, host), expected, result)


class StoreTests(BesideCase):
    """A store that is late, down, or broken."""

    def test_together(self) -> None:
        """Many questions are asked together, and not too many."""
        users = [f"user{each}" for each in range(MOST_GATHERED + 2)]
        for user in users:
            self.settle(self.first, user, OTHERS)
        asked: list[int] = []
        checkKnown = self.first.store.checkKnown

        def counted(questions: Any) -> Any:
            asked.append(len(questions))
            return checkKnown(questions)

        self.patch(self.first.store, "checkKnown", counted)
        for user in users:
            self.assertIsInstance(self.begin(user, OTHERS), Verdict)
        self.assertEqual(asked, [MOST_GATHERED])
        self.clock.advance(PAUSE)
        self.assertEqual(asked, [MOST_GATHERED, 2])
        self.clock.advance(1)
        self.assertEqual(len(asked), 2)

    def test_down(self) -> None:
        """Questions that wait while the store goes down are dropped. When it is back, each login asks first."""
        self.assertPasses(self.begin())
        self.first.store.switch(False)
        self.clock.advance(PAUSE)
        self.assertPasses(self.begin())
        self.assertEqual(self.first.store.calls, [])
        self.first.store.switch(True)
        self.pause()
        self.assertNotIn("checkKnown", self.first.store.calls)
        self.assertWaits(self.begin())

    def test_upAgain(self) -> None:
        """It is the same before it is known that messages are heard again."""
        self.settle(self.first, "ann")
        self.assertPasses(self.begin())
        self.first.store.isUp = False
        self.clock.advance(PAUSE)
        self.first.store.isUp = True
        self.assertWaits(self.begin("ann"))

    def test_resumed(self) -> None:
        """After a break, during which the store may have become another one, each login asks first."""
        self.assertPasses(self.begin())
        self.pause()
        self.first.store.resumed()
        self.assertWaits(self.begin())

    def test_late(self) -> None:
        """An answer that does not come delays nobody, and lets nobody pass."""
        self.first.store.late = 9.0
        self.assertPasses(self.begin())
        self.clock.advance(PAUSE + self.first.store.timeout)
        self.first.store.late = 0.02
        self.assertWaits(self.begin())
        self.assertEqual(self.first.shared._waiting, 0)

    def test_broken(self) -> None:
        """An error of the client is logged, and lets nobody pass."""
        question: Deferred[Any] = Deferred()
        self.patch(self.first.store, "checkKnown", lambda asked: question)
        self.assertPasses(self.begin())
        self.clock.advance(PAUSE)
        question.errback(RuntimeError("broken"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertWaits(self.begin())

    def test_stopped(self) -> None:
        """After its end it asks nothing."""
        self.assertPasses(self.begin())
        self.first.shared.stop()
        self.clock.advance(1)
        self.assertPasses(self.begin())
        self.clock.advance(1)
        self.assertEqual(self.first.store.calls, [])

    def test_restored(self) -> None:
        """The tables are others now: each login asks first."""
        self.first.shared.restore(self.first.shared.state())
        self.assertWaits(self.begin())
