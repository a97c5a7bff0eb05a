"""
Tests for the blocks of operators, and for C{unblock}: L{mailgate.limits.operators} and L{mailgate.limits.clearing}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Action, Kind, Result, Rule
from mailgate.limits.blocks import Blocks
from mailgate.limits.operators import MOST_BLOCKS, Operators
from mailgate.limits.policy import Mode
from mailgate.test.support.attacks import START, Scene, login

NEAR, FAR = "192.0.2.7", "203.0.113.9"


class Case(SynchronousTestCase):
    """A scene for each test."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.defence = self.scene.defence

    def rule(self, host: str, user: str) -> Rule | None:
        """Which rule refuses a login, if any."""
        verdict = self.scene.verdict(host, user)
        self.assertEqual(verdict.action is Action.GO, verdict.rule is None)
        return verdict.rule


class BlockTests(Case):
    """C{mailgate block}."""

    def test_things(self) -> None:
        """Users, addresses, networks and pairs, in all spellings."""
        for thing, shown, blocked, free in (
            ("Joe+x@A.org", "joe@a.org", (NEAR, "joe@a.org"), (NEAR, "ann")),
            ("::ffff:192.0.2.7", "192.0.2.7", (NEAR, "ann"), (FAR, "ann")),
            ("64:ff9b::192.0.2.7", "192.0.2.7", ("::ffff:192.0.2.7", "ann"), ("192.0.2.8", "ann")),
            ("192.0.2.99/24", "192.0.2.0/24", (NEAR, "ann"), ("192.0.3.7", "ann")),
            ("2001:db8::/32", "2001:db8::/32", ("2001:db8:5::1", "ann"), ("2001:db9::1", "ann")),
            ("JOE 192.0.2.7", "joe 192.0.2.7", (NEAR, "joe"), (NEAR, "ann")),
            ("joe 192.0.2.0/24", "joe 192.0.2.0/24", (NEAR, "joe"), (FAR, "joe")),
        ):
            block = self.defence.block(thing, 60, "")
            self.assertEqual(block.thing, shown)
            self.assertEqual((self.rule(*blocked), self.rule(*free)), (Rule.BLOCK, None), thing)
            self.assertEqual([each.id for each in self.defence.unblock(thing)], [block.id])
            self.assertIsNone(self.rule(*blocked))

    def test_ends(self) -> None:
        """It ends by itself, and its times are Unix times."""
        self.scene.run(5)
        block = self.defence.block("joe", 60, "abuse\n")
        self.assertEqual((block.since - START, block.until - START, block.reason), (5, 65, "abuse"))
        self.assertEqual([*self.defence.blocks()], [block])
        self.scene.run(59)
        self.assertEqual(self.rule(NEAR, "joe"), Rule.BLOCK)
        self.scene.run(1)
        self.assertIsNone(self.rule(NEAR, "joe"))
        self.assertEqual([*self.defence.blocks()], [])

    def test_all(self) -> None:
        """It holds for known pairs and exempt networks, in all modes, and for logins without a password."""
        self.scene.succeed(NEAR, "joe")
        self.defence.block(NEAR, 60, "")
        for more in ({"isExempt": True}, {"mode": Mode.OFF}, {"mode": Mode.DRY_RUN}, {"kind": Kind.EXTERNAL}):
            verdict = self.scene.verdict(NEAR, "joe", **more)
            self.assertEqual((verdict.action, verdict.rule), (Action.REFUSE, Rule.BLOCK), more)

    def test_connections(self) -> None:
        """A block of an address or network keeps it from connecting; those of users and rules, and holds, do not."""
        self.scene.fail(NEAR, "joe", 10)
        self.defence.block("ann", 60, "")
        self.defence.block(f"ann {NEAR}", 60, "")
        self.defence.block(NEAR, 60, "", isHold=True)
        self.assertIsNone(self.defence.blockOf(NEAR))
        block = self.defence.block("192.0.0.0/16", 60, "why")
        self.assertIsNone(self.defence.blockOf(FAR))
        self.defence.unblock(NEAR)
        self.assertEqual(self.defence.blockOf(NEAR), block)
        self.assertIsNone(self.defence.blockOf("unix:"))

    def test_refused(self) -> None:
        """What is no thing, or no time, is refused."""
        for thing in ("", " ", "joe ann", "a b c", "joe 192.0.2.7/33", "x" * 200, "a\x00b"):
            self.assertRaises(ValueError, self.defence.block, thing, 60, "")
        for seconds in (0, -1, 1e9, float("nan")):
            self.assertRaises(ValueError, self.defence.block, "joe", seconds, "")
        self.assertEqual([*self.defence.blocks()], [])

    def test_misspelled(self) -> None:
        """What was meant as an address or a network blocks no user of that name. Odd names of users can be blocked."""
        things = "10.0.0.0/99", "10.0.0/24", "192.0.2.300", "10/8", "192.0.2.7/x", "2001:db8::/200", "2001:db8:::1"
        for thing in things:
            error = self.assertRaises(ValueError, self.defence.block, thing, 60, "")
            self.assertIn("is no address, no network such as 10.0.0.0/8, and no name of a user", str(error), thing)
        self.assertEqual([*self.defence.blocks()], [])
        for thing in ("joe/7", "1234", "10.5", "a:b", "joe@192.0.2.300", "fe", "192.0.2"):
            self.assertEqual(self.defence.block(thing, 60, "").thing, thing)

    def test_again(self) -> None:
        """A later block of the same thing replaces the earlier one."""
        self.defence.block("joe", 60, "")
        later = self.defence.block("Joe", 600, "", isHold=True)
        self.assertEqual([*self.defence.blocks()], [later])

    def test_bounded(self) -> None:
        """There are so many, and no more."""
        operators = Operators()
        for number in range(MOST_BLOCKS):
            operators.add(f"user{number}", Rule.BLOCK, 0, 60 + number, "")
        self.assertRaises(ValueError, operators.add, "more", Rule.BLOCK, 0, 60, "")
        operators.add("user5", Rule.BLOCK, 0, 60, "")
        operators.add("more", Rule.BLOCK, 61, 60, "")


class HoldTests(Case):
    """C{mailgate hold}."""

    def test_waits(self) -> None:
        """Logins wait for 20 s, and are then told to try again."""
        self.defence.block("joe", 600, "move", isHold=True)
        begun = self.scene.begin(login(NEAR, "joe", "right"), isRight=True)
        self.scene.run(19)
        self.assertIsNone(begun.ended)
        self.scene.run(2)
        self.assertEqual((begun.result, round(begun.ended or 0)), (Rule.HOLD, 20))

    def test_released(self) -> None:
        """When it ends, they pass within a second."""
        self.defence.block("joe", 600, "move", isHold=True)
        begun = [self.scene.begin(login(NEAR, "joe", f"{each}"), isRight=True) for each in range(3)]
        self.scene.run(5.5)
        self.defence.unblock("joe")
        self.scene.run(1)
        self.assertEqual([each.result for each in begun], [Result.ACCEPTED] * 3)
        self.assertEqual(self.defence.numbers()["held"], 0)

    def test_block(self) -> None:
        """A block is stronger than a hold."""
        self.defence.block("joe", 600, "", isHold=True)
        self.defence.block(NEAR, 600, "")
        self.assertEqual(self.rule(NEAR, "joe"), Rule.BLOCK)


class UnblockTests(Case):
    """C{mailgate unblock}."""

    def test_user(self) -> None:
        """A user: all pairs, and R6."""
        for each in range(60):
            self.scene.fail(f"10.0.{each}.1", "joe", 1)
        self.scene.fail(NEAR, "ann", 10)
        self.scene.run(61)
        self.assertEqual(len(self.defence.unblock("joe")), 0)
        for each in range(40):
            self.assertIsNone(self.rule(f"10.0.{each}.1", "joe"))
        self.assertEqual(self.rule(NEAR, "ann"), Rule.PAIR_BLOCK)
        (ended,) = self.defence.unblock("ann")
        self.assertEqual((ended.thing, ended.rule), ("ann 192.0.2.7", Rule.PAIR_BLOCK))
        self.assertIsNone(self.rule(NEAR, "ann"))

    def test_address(self) -> None:
        """An address: its block, and those of its pairs; another address stays blocked."""
        for host in (NEAR, "192.0.2.8"):
            self.scene.fail(host, "joe", 10)
            for number in range(19):
                self.scene.fail(host, f"user{number}", 1)
            self.assertEqual(self.rule(host, "new"), Rule.ADDRESS_BLOCK)
        ended = {(each.thing, each.rule) for each in self.defence.unblock(NEAR)}
        self.assertEqual(ended, {(NEAR, Rule.ADDRESS_BLOCK), (f"joe {NEAR}", Rule.PAIR_BLOCK)})
        self.assertEqual((self.rule(NEAR, "joe"), self.rule(NEAR, "user1")), (None, None))
        self.assertEqual(self.rule("192.0.2.8", "new"), Rule.ADDRESS_BLOCK)

    def test_network(self) -> None:
        """A network: all in it, whatever its length."""
        for network in ("192.0.2.0/24", "192.0.0.0/16"):
            for number in range(20):
                self.scene.fail(NEAR, f"user{number}", 1)
            self.defence.block(NEAR, 60, "")
            self.defence.block(FAR, 60, "")
            self.assertEqual(len(self.defence.unblock(network)), 2)
            if network.endswith("/24"):
                self.assertIsNone(self.rule(NEAR, "new"))
            self.assertIsNotNone(self.defence.blockOf(FAR))
            self.assertIsNone(self.defence.blockOf(NEAR))
            self.setUp()

    def test_pair(self) -> None:
        """A pair alone."""
        self.scene.fail(NEAR, "joe", 10)
        self.scene.fail("192.0.2.8", "joe", 10)
        (ended,) = self.defence.unblock(f"Joe {NEAR}")
        self.assertEqual(ended.thing, f"joe {NEAR}")
        self.assertIsNone(self.rule(NEAR, "joe"))
        self.assertEqual(self.rule("192.0.2.8", "joe"), Rule.PAIR_BLOCK)

    def test_id(self) -> None:
        """The id of a block, an operator's or a rule's."""
        self.scene.fail(NEAR, "joe", 10)
        self.defence.block("ann", 60, "")
        self.defence.block("bob", 60, "")
        ids = {each.thing: each.id for each in self.defence.blocks()}
        self.assertEqual(len(self.defence.unblock(ids["ann"])), 1)
        self.assertEqual(len(self.defence.unblock(ids[f"joe {NEAR}"])), 1)
        self.assertIsNone(self.rule(NEAR, "joe"))
        self.assertEqual([each.thing for each in self.defence.blocks()], ["bob"])

    def test_hashes(self) -> None:
        """After a restart, when the names are lost, the blocks of a user or of an address are found all the same."""
        for thing in ("joe", NEAR, "192.0.2.0/24"):
            self.setUp()
            self.scene.fail(NEAR, "joe", 10)
            for number in range(19):
                self.scene.fail(NEAR, f"user{number}", 1)
            later = self.scene.make()
            later.restore(self.defence.state())
            rules = {each.rule for each in later.unblock(thing)}
            self.assertIn(Rule.PAIR_BLOCK if thing == "joe" else Rule.ADDRESS_BLOCK, rules)
            self.assertEqual(later.explain(b"joe", NEAR, "")["rule"] == "R4", thing == "joe")

    def test_nothing(self) -> None:
        """What is not blocked ends nothing; what is no thing is refused."""
        self.assertEqual([*self.defence.unblock("joe")], [])
        self.assertEqual([*self.defence.unblock("10.0.0.0/8")], [])
        self.assertRaises(ValueError, self.defence.unblock, "a b c")


class RuleBlocksTests(SynchronousTestCase):
    """Blocks of rules that other gateways have made."""

    def test_raise(self) -> None:
        """The later end and the larger count hold, and words are kept; nothing changes for what is known."""
        blocks, now = Blocks(1 << 20), 1_800_000_000.0
        self.assertTrue(blocks.raiseTo(7, 8, Rule.PAIR_BLOCK, 900.0, 1, "", now))
        self.assertTrue(blocks.raiseTo(7, 8, Rule.PAIR_BLOCK, 800.0, 1, "joe 192.0.2.7", now))
        self.assertFalse(blocks.raiseTo(7, 8, Rule.PAIR_BLOCK, 899.5, 1, "joe 192.0.2.7", now + 1))
        ((_, block),) = blocks.items(now)
        self.assertEqual((block.thing, block.until, block.since), ("joe 192.0.2.7", now + 900, now))
        self.assertTrue(blocks.raiseTo(7, 8, Rule.PAIR_BLOCK, 1800.0, 2, "", now + 1))
        self.assertEqual((blocks.until(7, now), blocks.levelOf(7), blocks.words(7)), (now + 1801, 2, "joe 192.0.2.7"))

    def test_over(self) -> None:
        """One that has ended elsewhere does not hold here, and makes the next one longer."""
        blocks, now = Blocks(1 << 20), 1_800_000_000.0
        blocks.raiseTo(7, 8, Rule.PAIR_BLOCK, -60.0, 2, "joe", now)
        self.assertEqual((blocks.until(7, now), list(blocks.items(now))), (0.0, []))
        self.assertEqual(blocks.add(7, 8, Rule.PAIR_BLOCK, (900.0, 14400.0), "joe", now), 3600.0)
