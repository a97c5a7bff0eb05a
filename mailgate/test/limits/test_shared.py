# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
Tests for L{mailgate.limits.shared}, L{mailgate.limits.merging}, L{mailgate.limits.leasing}, L{mailgate.limits.reports},
L{mailgate.limits.digests} and L{mailgate.limits.names}: two gateways with one store decide as one would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Action, Kind, Result, Rule, Verdict
from mailgate.limits.beside import PAUSE
from mailgate.limits.defence import QUIET, Defence
from mailgate.limits.policy import LoginPolicy, Mode, Prefixes, Rate
from mailgate.limits.shared import MOST_WAITING
from mailgate.store.interfaces import Mark, Standing, StoreUnavailable
from mailgate.test.support.attacks import KEY, START, Scene, login
from mailgate.test.support.gateways import KEYS, GatewaysCase, SplitScene, answer
from mailgate.test.support.stores import beatOf

NEAR = "192.0.2.7"
FAR = "198.51.100.9"


class SplitTests(SynchronousTestCase):
    """What one gateway says to logins, and what two say to the same logins in turn."""

    def compare(self, run: Callable[[Any], Any], **more: Any) -> Any:
        """Return what C{run} finds out in a scene, which must be the same with two gateways."""
        alone = run(Scene(**more))
        self.assertEqual(run(SplitScene(**more)), alone)
        return alone

    @staticmethod
    def told(scene: Any, host: str, user: str, password: str = "x", **more: Any) -> tuple[Any, ...]:
        verdict = scene.verdict(host, user, password, **more)
        scene.defence.record(login(host, user, password, **more), verdict.ticket, Result.UNDECIDED)
        return verdict.action, verdict.rule, round(verdict.seconds, 1)

    def test_pair(self) -> None:
        """R1 and R2: the tenth failure of a pair blocks it, wherever the others were. Each time is longer."""

        def run(scene: Any) -> Any:
            found: list[Any] = [[each.result for each in scene.fail(FAR, "joe", 12)]]
            found.append(self.told(scene, FAR, "joe"))
            scene.run(901)
            found.append([each.result for each in scene.fail(FAR, "joe", 1)])
            found.append([(round((each.until - each.since) / 60), each.count) for each in scene.defence.blocks()])
            return found

        first, refused, _, blocks = self.compare(run)
        self.assertEqual((first.count(Result.FAILED), refused[1], blocks), (10, Rule.PAIR_BLOCK, [(30, 2)]))

    def test_pairDelays(self) -> None:
        """R1: the delays grow as with one gateway, and end with a success at either."""

        def run(scene: Any) -> Any:
            delays = [round((each.asked or 0) - each.began, 1) for each in scene.fail(FAR, "joe", 7)]
            scene.run(2)
            scene.succeed(FAR, "joe")
            return delays, self.told(scene, FAR, "joe", "y"), self.told(scene, FAR, "joe", "z")

        delays, *after = self.compare(run)
        self.assertEqual((delays[-1], after), (4.0, [(Action.GO, None, 0.0)] * 2))

    def test_repeat(self) -> None:
        """An old password counts once, also if the phone reaches another gateway each time."""

        def run(scene: Any) -> Any:
            results = [scene.once(login(FAR, "joe", "old")).result for _ in range(40)]
            return results, scene.defence.explain(b"joe", FAR, "imap")["pair"]["failures"]

        self.assertEqual(self.compare(run)[1], 1)

    def test_digest(self) -> None:
        """Failures of digest methods count a third, and are counted once, as they are in the store and here."""

        def run(scene: Any) -> Any:
            results = [each.result for each in scene.fail(FAR, "joe", 31, kind=Kind.DIGEST)]
            return results.count(Result.FAILED), results[-1]

        self.assertEqual(self.compare(run), (30, Rule.PAIR_BLOCK))

    def test_address(self) -> None:
        """R3 and R4: the failures of an address."""

        def run(scene: Any) -> Any:
            found = []
            for number in range(34):
                found += [each.result for each in scene.fail(FAR, f"user{number}", 3)]
            return found, self.told(scene, FAR, "new"), self.told(scene, NEAR, "new")

        found, refused, elsewhere = self.compare(run, policy=LoginPolicy(addressUsers=0))
        self.assertEqual((found.count(Result.FAILED), refused[1], elsewhere[1]), (100, Rule.ADDRESS_BLOCK, None))

    def test_spraying(self) -> None:
        """R4: the twentieth user without a success."""

        def run(scene: Any) -> Any:
            return [scene.fail(FAR, f"user{number}", 1)[0].result for number in range(22)]

        self.assertEqual(self.compare(run).count(Result.FAILED), 20)

    def test_office(self) -> None:
        """Users with old passwords behind one address are counted once each, though each reaches both gateways."""

        def run(scene: Any) -> Any:
            found = []
            for turn in range(4):
                found += [scene.fail(FAR, f"user{number}", 1)[0].result for number in range(9)]
                # The other gateway is next.
                scene.fail(NEAR, f"other{turn}", 1)
            return found, scene.defence.explain(b"new", FAR, "imap")["users"]["failures"]

        found, users = self.compare(run)
        self.assertEqual((set(found), users), ({Result.FAILED}, 9))

    def test_network(self) -> None:
        """R5: the failures of a network."""

        def run(scene: Any) -> Any:
            for number in range(50):
                scene.fail(f"198.51.100.{number}", f"user{number}", 1)
            return self.told(scene, "198.51.100.200", "new"), self.told(scene, "198.51.101.200", "new")

        found = self.compare(run, policy=LoginPolicy(networkDelay=50))
        self.assertEqual(found, ((Action.WAIT, Rule.NETWORK_DELAY, 5.0), (Action.GO, None, 0.0)))

    def test_user(self) -> None:
        """R6: after 50 failures from unknown networks one login passes a minute, at all gateways together."""

        for scene in (Scene(), SplitScene()):
            scene.succeed(NEAR, "joe")
            results = [scene.fail(f"10.0.{each}.1", "joe", 1)[0].result for each in range(60)]
            self.assertEqual((results.count(Result.FAILED), results[-1]), (51, Rule.USER_SLOW))
            began = scene.asked("joe")
            for each in range(600):
                scene.begin(login(f"10.1.{each % 250}.1", "joe", f"{each}"))
                scene.run(1)
            self.assertTrue(9 <= scene.asked("joe") - began <= 11, (scene, scene.asked("joe") - began))
            scene.succeed(NEAR, "joe")

    def test_userRefused(self) -> None:
        """R7."""

        def run(scene: Any) -> Any:
            results = [scene.fail(f"10.0.{each}.1", "joe", 1)[0].result for each in range(12)]
            return results, self.told(scene, FAR, "joe")

        results, refused = self.compare(run, policy=LoginPolicy(userSlow=0, userRefuse=10))
        self.assertEqual((results.count(Result.FAILED), refused[1]), (10, Rule.USER_REFUSE))

    def test_known(self) -> None:
        """R2 lets one login of a known pair pass a minute, at all gateways together."""

        def run(scene: Any) -> Any:
            scene.succeed(NEAR, "joe")
            scene.fail(NEAR, "joe", 10)
            for each in range(300):
                scene.begin(login(NEAR, "joe", f"again {each}"))
                scene.run(1)
            return scene.asked("joe") - 11, [block.rule for block in scene.defence.blocks()]

        for scene in (Scene(), SplitScene()):
            asked, blocks = run(scene)
            self.assertTrue(4 <= asked <= 6, (scene, asked))
            self.assertEqual(blocks, [])

    def test_rate(self) -> None:
        """C{limit_req login} of an address, whose allowance has grown by successes at both gateways."""

        def run(scene: Any) -> Any:
            rate = Rate(1.0, 2)
            first = [self.told(scene, FAR, f"new{each}", rate=rate)[:2] for each in range(5)]
            for number in range(4):
                scene.succeed(NEAR, f"user{number}")
            return first, [self.told(scene, NEAR, f"new{each}", rate=rate)[:2] for each in range(14)]

        first, then = self.compare(run)
        self.assertEqual([rule for _, rule in first], [None, None, None, Rule.REQ_LOGIN, Rule.REQ_LOGIN])
        self.assertEqual([rule for _, rule in then].count(None), 11)

    def test_delayed(self) -> None:
        """Logins over the rate wait as long as at one gateway."""

        def run(scene: Any) -> Any:
            rate = Rate(1.0, 30, isDelayed=True)
            return [self.told(scene, FAR, f"new{each}", rate=rate) for each in range(9)]

        self.assertEqual([seconds for _, _, seconds in self.compare(run)], [float(each) for each in range(9)])


class MergingTests(GatewaysCase):
    """What the tables of a gateway take over."""

    def test_keys(self) -> None:
        """Tables have keys of the store: a failed user, an address and a network are the same at all gateways."""
        self.assertEqual(self.first.local.ledger.keys.secret, KEYS.secret)
        user = self.first.local.ledger.keys.user(b"joe")
        self.assertEqual(user, int.from_bytes(KEYS.digest(b"user", b"joe")[:8], "little") & (1 << 60) - 1)

    def test_known(self) -> None:
        """A success makes the network known and the allowance larger at the other gateway, and workers hear of that."""
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.assertEqual(self.second.shared.allowance(NEAR), 1)
        self.check(self.second, NEAR, "joe")
        self.assertTrue(self.second.shared.explain(b"joe", NEAR, "imap")["known"])
        self.assertEqual(self.second.shared.allowance(NEAR), 2)
        self.assertEqual([row[0] for row in self.second.news], ["good"])
        self.end(self.second, NEAR, "joe", "right", Result.ACCEPTED)
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.check(self.second, NEAR, "ann")
        self.assertEqual((self.first.shared.allowance(NEAR), self.second.shared.allowance(NEAR)), (2, 2))

    def test_settled(self) -> None:
        """
        A further success of the pair within minutes is not told: a login costs one question. It is told if it forgives
        failures at other gateways, also if they are heard of after it.
        """
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.first.store.calls.clear()
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.clock.advance(PAUSE)
        self.assertEqual(self.first.store.calls, ["checkKnown"])
        self.end(self.second, NEAR, "joe", "wrong", Result.FAILED)
        self.clock.advance(2)
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.clock.advance(PAUSE)
        self.assertEqual(self.first.store.calls, ["checkKnown", "checkKnown", "succeeded"])
        self.assertEqual(self.failures(self.second, "joe", NEAR), 0)

    def test_slowHeard(self) -> None:
        """R6 that begins elsewhere is known to workers and operators here."""
        happened: list[Any] = []
        self.second.shared.happened = lambda *event: happened.append(event)
        for each in range(50):
            self.end(self.first, f"10.0.{each}.1", "joe", f"{each}", Result.FAILED)
        self.check(self.second, FAR, "joe")
        self.assertEqual([row[0] for row in self.second.news], ["slow"])
        self.assertEqual([(rule, thing) for rule, thing, _ in happened], [(Rule.USER_SLOW, "joe")])

    def test_newer(self) -> None:
        """An answer that was given before something has changed here does not undo that."""
        self.guess(self.second, FAR, "joe", 3)
        self.first.store.late = 0.02
        asked: Any = self.first.shared.check(login(FAR, "joe", "a"))
        self.first.shared.record(login(FAR, "joe", "b"), 0, Result.FAILED)
        self.first.shared.unblock("ann")
        self.clock.advance(0.03)
        self.successResultOf(asked)
        self.assertEqual(self.first.shared.explain(b"joe", FAR, "imap")["pair"]["failures"], 1)
        self.first.store.late = 0.0
        self.assertEqual(self.failures(self.first, "joe", FAR), 4)

    def test_ordered(self) -> None:
        """A failure that is told while a login waits for the store counts once."""
        self.first.store.late = 0.02
        waiting: Any = self.first.shared.check(login(FAR, "joe", "a"))
        self.first.shared.record(login(FAR, "joe", "b"), 0, Result.FAILED)
        self.clock.advance(0.03)
        verdict = self.successResultOf(waiting)
        self.first.shared.record(login(FAR, "joe", "a"), verdict.ticket, Result.FAILED)
        self.clock.advance(0.03)
        self.first.store.late = 0.0
        self.assertEqual((self.failures(self.first, "joe", FAR), self.failures(self.second, "joe", FAR)), (2, 2))

    def test_quiet(self) -> None:
        """A gateway without earlier successes slows nobody down, until the store knows enough."""
        fresh = self.gateway("g3", isFresh=True)
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.check(fresh, NEAR, "joe")
        self.assertIn("quiet", fresh.shared.explain(b"joe", NEAR, "imap")["user"])
        self.clock.advance(QUIET + 1)
        later = self.gateway("g4", isFresh=True)
        self.check(later, NEAR, "joe")
        self.assertNotIn("quiet", later.shared.explain(b"joe", NEAR, "imap")["user"])

    def test_otherKey(self) -> None:
        """A state of before the store has another key: only blocks of operators are taken over from it."""
        alone = Defence(monotonic=self.clock.seconds, wall=lambda: START + self.clock.seconds(), key=KEY)
        attempt = login(NEAR, "joe")
        alone.record(attempt, alone.check(attempt).ticket, Result.ACCEPTED)
        alone.block("ann", 600, "abuse")
        self.first.shared.restore(alone.state())
        self.assertEqual(self.first.local.ledger.keys.secret, KEYS.secret)
        self.assertEqual(self.first.blocks, ["ann"])
        found = self.first.shared.explain(b"joe", NEAR, "imap")
        self.assertEqual((found["known"], "quiet" in found["user"]), (False, True))
        self.second.shared.restore(self.first.shared.state())
        self.assertEqual(self.second.blocks, ["ann"])

    def test_configured(self) -> None:
        """A reload changes what an address is, for the store as well."""
        self.first.shared.configure(LoginPolicy(pairBlock=2), Prefixes(address4=24), 1 << 20)
        self.second.shared.configure(LoginPolicy(pairBlock=2), Prefixes(address4=24), 1 << 20)
        self.guess(self.first, "198.51.100.1", "joe", 1)
        self.guess(self.second, "198.51.100.2", "joe", 1)
        self.assertIs(self.check(self.first, "198.51.100.3", "joe").rule, Rule.PAIR_BLOCK)

    def test_exempt(self) -> None:
        """Addresses of C{limit_exempt} and unix sockets count for pairs and users, and not for the address."""
        cases: Any = (NEAR, {"isExempt": True}), ("unix:", {})
        for host, more in cases:
            for each in range(10):
                gateway = (self.first, self.second)[each % 2]
                self.end(gateway, host, f"joe{host}", f"{each}", Result.FAILED, **more)
            self.assertIs(self.check(self.first, host, f"joe{host}", **more).rule, Rule.PAIR_BLOCK)
            self.assertEqual(self.failures(self.second, "new", host, "address"), 0)

    def test_off(self) -> None:
        """With C{limit_login = off} nothing is counted."""
        self.end(self.first, FAR, "joe", "x", Result.FAILED, mode=Mode.OFF)
        self.assertEqual(self.failures(self.second, "joe", FAR), 0)

    def test_absurd(self) -> None:
        """What a stranger has written into the store blocks here for no longer than the rules do."""
        policy = LoginPolicy()
        self.guess(self.first, FAR, "joe", 12)
        standing = Standing(marks=[Mark(b"x" * 16, "R2", 1e9, 1), Mark(b"x" * 16, "R4", 1e9, 1)], turn=1e9)
        self.second.store.check = lambda question: succeed(standing)  # type: ignore[method-assign]
        answer(self.second.shared.check(login(FAR, "joe", "y")))
        now = self.second.shared.blocks()[0].since
        longest = max(policy.pairMost, policy.addressMost)
        self.assertEqual(len(self.second.shared.blocks()), 2)
        for block in self.second.shared.blocks():
            self.assertLessEqual(block.until, now + longest + 2)
        (due,) = self.second.local.ledger.users.queues().values()
        self.assertLessEqual(due, self.second.local.now + policy.userInterval)

    def test_shortWait(self) -> None:
        """R6: of logins that wait for less than a second at both gateways, one passes."""
        for each in range(50):
            self.end(self.first, f"10.0.{each}.1", "joe", f"{each}", Result.FAILED)
        policy, gateways = LoginPolicy(), (self.first, self.second)
        passing = answer(self.first.shared.check(login(FAR, "joe", "y")))
        self.assertIs(passing.action, Action.GO)
        self.clock.advance(policy.userInterval - 0.5)
        logins = [login(host, "joe", "z") for host in ("10.1.1.1", "10.2.2.2")]
        held = [answer(at.shared.check(each)) for at, each in zip(gateways, logins, strict=True)]
        self.assertEqual([each.rule for each in held], [Rule.USER_SLOW] * 2)
        self.clock.advance(max(each.seconds for each in held) + 0.01)
        now = [
            answer(at.shared.check(each, before.ticket)).action
            for at, each, before in zip(gateways, logins, held, strict=True)
        ]
        self.assertEqual(now.count(Action.GO), 1)


class ElsewhereTests(GatewaysCase):
    """Sessions of a user at other gateways."""

    def beat(self, gateway: str, counts: dict[tuple[str, str], int]) -> None:
        found = {}
        for (protocol, host), count in counts.items():
            address = self.first.shared._digests.spot(host).address[:4]
            found[KEYS.digest(b"protocol", protocol.encode())[:2] + address] = count
        beat = beatOf(gateway, "run", isAll=True, counts={KEYS.digest(b"user", b"joe"): found})
        self.successResultOf(self.first.store.beat(beat))

    def test_counted(self) -> None:
        """A login hears of those of its protocol, and of those from its address; own ones are counted by workers."""
        self.beat("g2", {("imap", NEAR): 2, ("imap", FAR): 1, ("smtp", NEAR): 5})
        self.beat("g3", {("imap", NEAR): 4})
        verdict = self.check(self.first, NEAR, "joe")
        self.assertEqual((verdict.action, verdict.elsewhere, verdict.elsewhereAddress), (Action.GO, 7, 6))
        verdict = self.check(self.second, FAR, "joe", kind=Kind.EXTERNAL)
        self.assertEqual((verdict.elsewhere, verdict.elsewhereAddress), (4, 0))
        self.assertEqual(self.check(self.first, NEAR, "ann").elsewhere, 0)

    def test_waited(self) -> None:
        """A login that was held back hears of them, too."""
        self.beat("g2", {("imap", FAR): 3})
        self.guess(self.first, FAR, "joe", 4)
        attempt = login(FAR, "joe", "y")
        verdict = answer(self.first.shared.check(attempt))
        self.assertIs(verdict.rule, Rule.PAIR_DELAY)
        self.first.store.switch(False)
        self.clock.advance(verdict.seconds)
        verdict = answer(self.first.shared.check(attempt, verdict.ticket))
        self.assertEqual((verdict.action, verdict.elsewhere), (Action.GO, 3))
        self.first.shared.record(attempt, verdict.ticket, Result.ACCEPTED)
        self.assertEqual(self.first.shared._held, {})


class AwayTests(GatewaysCase):
    """A store that is late, down, or broken."""

    def test_down(self) -> None:
        """The gateway decides at once, counts go on, and nobody is refused for it. Nothing is told later."""
        self.guess(self.second, FAR, "joe", 5)
        self.check(self.first, FAR, "joe")
        self.first.store.switch(False)
        verdict = self.first.shared.check(login(FAR, "joe", "y"))
        assert isinstance(verdict, Verdict)
        self.assertIs(verdict.rule, Rule.PAIR_DELAY)
        self.first.shared.record(login(FAR, "joe", "y"), verdict.ticket, Result.FAILED)
        self.assertEqual(self.first.shared.explain(b"joe", FAR, "imap")["pair"]["failures"], 6)
        self.successResultOf(self.first.shared.look(b"joe", FAR))
        self.assertIs(self.check(self.first, NEAR, "ann").action, Action.GO)
        self.first.store.switch(True)
        self.clock.advance(2)
        self.assertEqual((self.failures(self.first, "joe", FAR), self.failures(self.second, "joe", FAR)), (6, 5))
        self.guess(self.second, FAR, "joe", 7)
        self.assertEqual(self.failures(self.first, "joe", FAR), 8)

    def test_late(self) -> None:
        """A login waits no longer than C{store_timeout}, whatever it asks for."""
        for each in range(50):
            self.end(self.second, f"10.0.{each}.1", "joe", f"{each}", Result.FAILED)
        self.first.store.late, self.first.store.timeout = 0.04, 9.0
        waiting: Any = self.first.shared.check(login(FAR, "joe"))
        self.clock.advance(0.04)
        self.assertNoResult(waiting)
        self.clock.advance(0.011)
        self.assertIs(self.successResultOf(waiting).action, Action.GO)
        self.first.store.timeout = 0.03
        waiting = self.first.shared.check(login(FAR, "ann"))
        self.clock.advance(0.03)
        self.assertIs(self.successResultOf(waiting).action, Action.GO)
        self.assertEqual(self.first.shared._waiting, 0)

    def test_lateAgain(self) -> None:
        """A login that is held back, and asks again, waits for C{store_timeout} in all, and then asks no more."""
        self.guess(self.first, FAR, "joe", 6)
        self.first.store.late, self.first.store.timeout = 0.03, 9.0
        attempt = login(FAR, "joe", "y")
        waiting: Any = self.first.shared.check(attempt)
        self.clock.advance(0.03)
        ticket = self.successResultOf(waiting).ticket
        self.clock.advance(1.0)
        waiting = self.first.shared.check(attempt, ticket)
        self.clock.advance(0.015)
        self.assertNoResult(waiting)
        self.clock.advance(0.006)
        self.assertIs(self.successResultOf(waiting).action, Action.WAIT)
        self.clock.advance(1.0)
        self.first.store.calls.clear()
        self.assertIsInstance(self.first.shared.check(attempt, ticket), Verdict)
        self.assertEqual((self.first.store.calls, self.first.shared._waiting), ([], 0))

    def test_broken(self) -> None:
        """An error of the client is logged, and the gateway decides."""
        question: list[Deferred[Any]] = [Deferred()]
        self.patch(self.first.store, "check", lambda asked: question[0])
        waiting: Any = self.first.shared.check(login(FAR, "joe"))
        question[0].errback(RuntimeError("broken"))
        self.assertIs(self.successResultOf(waiting).action, Action.GO)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        question[0] = Deferred()
        waiting = self.first.shared.check(login(FAR, "joe"))
        question[0].callback(None)
        self.assertIs(self.successResultOf(waiting).action, Action.GO)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_manyWait(self) -> None:
        """So many wait for the store that further ones are decided without it."""
        self.first.store.late = 0.02
        for _ in range(MOST_WAITING):
            self.assertIsInstance(self.first.shared.check(login(FAR, "joe", kind=Kind.EXTERNAL)), Deferred)
        self.assertIsInstance(self.first.shared.check(login(FAR, "joe", kind=Kind.EXTERNAL)), Verdict)
        self.clock.advance(0.02)
        self.assertIsInstance(self.first.shared.check(login(FAR, "joe", kind=Kind.EXTERNAL)), Deferred)

    def test_cancelled(self) -> None:
        """A login that is cancelled while the store is asked has no ticket, and frees its place."""
        self.first.store.late = 0.02
        waiting: Any = self.first.shared.check(login(FAR, "joe"))
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.clock.advance(0.03)
        self.assertEqual((self.first.local.ledger.undecided.logins, self.first.shared._waiting), ({}, 0))

    def test_notTold(self) -> None:
        """A success that the store did not hear is told with the next one."""
        self.first.store.switch(False)
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.first.store.switch(True)
        self.end(self.first, NEAR, "joe", "right", Result.ACCEPTED)
        self.check(self.second, NEAR, "joe")
        self.assertTrue(self.second.shared.explain(b"joe", NEAR, "imap")["known"])

    def test_lost(self) -> None:
        """A failure of which the store did not hear stays here."""
        self.patch(self.first.store, "failed", lambda failure: _unavailable())
        self.guess(self.first, FAR, "joe", 2)
        self.clock.advance(2)
        self.assertEqual((self.failures(self.first, "joe", FAR), self.failures(self.second, "joe", FAR)), (2, 0))

    def test_stopped(self) -> None:
        """After its end it asks and tells nothing."""
        self.first.shared.stop()
        self.first.store.calls.clear()
        self.guess(self.first, FAR, "joe", 11)
        self.end(self.first, NEAR, "ann", "right", Result.ACCEPTED)
        self.first.shared.block("bob", 60, "")
        self.first.shared.unblock("bob")
        self.assertEqual(self.first.store.calls, [])

    def test_owner(self) -> None:
        """The logins of a process that has gone are decided."""
        self.guess(self.first, FAR, "joe", 4)
        attempt = login(FAR, "joe", "y")
        self.assertIs(answer(self.first.shared.check(attempt, 0, "w1")).action, Action.WAIT)
        self.first.shared.forget("w1")
        self.assertEqual((self.first.local.ledger.undecided.logins, self.first.shared._held), ({}, {}))

    def test_asksSeldom(self) -> None:
        """A login that is held back asks the store again after a second, and not each time that it looks."""
        self.guess(self.first, FAR, "joe", 4)
        attempt = login(FAR, "joe", "y")
        ticket = answer(self.first.shared.check(attempt)).ticket
        self.first.store.calls.clear()
        for _ in range(4):
            self.clock.advance(0.2)
            self.assertIs(answer(self.first.shared.check(attempt, ticket)).action, Action.WAIT)
        self.assertEqual(self.first.store.calls, [])
        self.guess(self.second, FAR, "joe", 1)
        self.clock.advance(0.3)
        self.assertIs(answer(self.first.shared.check(attempt, ticket)).action, Action.WAIT)
        self.assertEqual(self.first.store.calls, ["check"])


def _unavailable() -> Deferred[Any]:
    failed: Deferred[Any] = Deferred()
    failed.errback(StoreUnavailable("it is away"))
    return failed
