"""
Tests for L{mailgate.limits.state} and L{mailgate.limits.news}, by means of L{Defence}.
"""

from __future__ import annotations

import json
import random
import zlib
from math import inf, nan
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.attempt import Action, Result, Rule
from mailgate.limits.defence import Defence
from mailgate.limits.interfaces import NewerState
from mailgate.limits.policy import LoginPolicy
from mailgate.test.support.attacks import KEY, START, Scene, flood, login

NEAR, FAR = "192.0.2.7", "203.0.113.9"
OTHER = bytes(32)


class Case(SynchronousTestCase):
    """A defence, and one that follows it."""

    def setUp(self) -> None:
        self.scene = Scene()
        self.defence = self.scene.defence

    def follow(self, content: bytes) -> Defence:
        """A later defence, with a key of its own, that takes over a state."""
        later = self.scene.make(key=OTHER)
        later.restore(content)
        return later

    def rule(self, defence: Defence, host: str, user: str) -> tuple[Action, Rule | None]:
        """What a login would meet."""
        found = defence.explain(user.encode(), host, "imap")
        return Action(found["action"]), found["rule"] and Rule(found["rule"])


class StateTests(Case):
    """What outlives a process."""

    def test_kept(self) -> None:
        """Known networks, allowances, blocks of rules and of operators, and users near R6."""
        self.scene.succeed(NEAR, "joe")
        self.scene.succeed(NEAR, "ann")
        self.scene.fail(FAR, "joe", 10)
        self.defence.block("198.51.100.0/24", 600, "abuse")
        self.defence.block("sue", 600, "move", isHold=True)
        for each in range(50):
            self.scene.fail(f"10.0.{each}.1", "bob", 1)
        self.scene.run(60)
        self.scene.verdict("10.1.0.1", "bob")
        later = self.follow(self.defence.state())
        self.assertEqual((later.allowance(NEAR), later.isKnown(NEAR), later.isKnown(FAR)), (3, True, False))
        found = later.explain(b"joe", "192.0.2.99", "imap")
        self.assertEqual((found["known"], round(found["lastSuccess"] - START)), (True, 0))
        self.assertEqual(self.rule(later, FAR, "joe"), (Action.REFUSE, Rule.PAIR_BLOCK))
        self.assertEqual(self.rule(later, "198.51.100.5", "new"), (Action.REFUSE, Rule.BLOCK))
        self.assertEqual(self.rule(later, NEAR, "sue"), (Action.WAIT, Rule.HOLD))
        self.assertEqual(self.rule(later, FAR, "bob"), (Action.WAIT, Rule.USER_SLOW))
        self.assertEqual(later.explain(b"bob", FAR, "imap")["seconds"], 60.0)
        self.assertEqual(later.ledger.numbers()["entries"]["pairs"], 0)

    def test_hashes(self) -> None:
        """The names of users and addresses are not in it, except for those that operators have blocked."""
        for number in range(30):
            self.scene.succeed(f"192.0.2.{number}", f"someone{number}@example.org")
            self.scene.fail(FAR, f"someone{number}@example.org", 10)
        self.defence.block("blocked@example.org", 600, "why")
        for withCounters in (False, True):
            content = self.defence.state(withCounters)
            self.assertIn(b"blocked@example.org", content)
            if not withCounters:
                self.assertNotIn(b"someone", content)
                self.assertNotIn(b"203.0.113", content)
            self.assertNotIn(b"192.0.2.", content)
        (block,) = [each for each in self.follow(self.defence.state()).blocks() if each.rule is Rule.ADDRESS_BLOCK]
        self.assertRegex(block.thing, "^[0-9a-f]{15}$")
        self.assertTrue(self.follow(self.defence.state()).unblock(FAR))

    def test_counters(self) -> None:
        """For a process that follows at once, with all counters and names."""
        self.scene.fail(NEAR, "joe", 6)
        self.scene.fail(FAR, "joe", 10)
        self.scene.verdict("198.51.100.1", "new")
        later = self.follow(self.defence.state(withCounters=True))
        for host in (NEAR, FAR):
            self.assertEqual(dict(later.explain(b"joe", host, "")), dict(self.defence.explain(b"joe", host, "")))
        self.assertEqual([each.thing for each in later.blocks()], ["joe 203.0.113.9"])
        self.assertEqual(later.numbers()["entries"], self.defence.numbers()["entries"])

    def test_age(self) -> None:
        """Time passes while no process runs."""
        self.scene.succeed(NEAR, "joe")
        self.scene.fail(FAR, "ann", 10)
        content = self.defence.state()
        self.scene.run(600)
        self.assertEqual(self.rule(self.follow(content), FAR, "ann")[1], Rule.PAIR_BLOCK)
        self.scene.run(400)
        later = self.follow(content)
        self.assertEqual(self.rule(later, FAR, "ann"), (Action.GO, None))
        self.scene.run(7 * 86400)
        later = self.follow(content)
        self.assertEqual((later.allowance(NEAR), later.explain(b"joe", NEAR, "")["known"]), (1, True))
        self.scene.run(24 * 86400)
        self.assertFalse(self.follow(content).explain(b"joe", NEAR, "")["known"])

    def test_doubles(self) -> None:
        """A block that has ended makes the next one longer, also in a later process."""
        self.scene.fail(NEAR, "joe", 10)
        self.scene.run(4000)
        self.scene.defence = self.follow(self.defence.state())
        self.scene.fail(NEAR, "joe", 10)
        (block,) = self.scene.defence.blocks()
        self.assertEqual((block.count, round(block.until - block.since, -1)), (2, 1800))

    def test_clock(self) -> None:
        """A wall clock that is set moves no block and no window, and a state of before is still good."""
        self.scene.fail(NEAR, "joe", 10)
        ends = self.defence.blocks()[0].until
        for shift in (-5 * 86400.0, 5 * 86400.0):
            self.scene.wallShift = shift
            self.assertEqual(self.rule(self.defence, NEAR, "joe")[1], Rule.PAIR_BLOCK)
            self.assertAlmostEqual(self.defence.blocks()[0].until, ends + shift, 3)
            later = self.follow(self.defence.state())
            self.assertEqual(self.rule(later, NEAR, "joe")[1], Rule.PAIR_BLOCK)
            self.assertAlmostEqual(later.blocks()[0].until, ends + shift, 3)
        content = self.defence.state()
        # Set back between two processes: nothing lasts longer than it would have.
        self.scene.wallShift = -10 * 86400.0
        later = self.follow(content)
        self.assertEqual(self.rule(later, NEAR, "joe")[1], Rule.PAIR_BLOCK)
        self.scene.defence = later
        self.scene.run(901)
        self.assertEqual(self.rule(later, NEAR, "joe"), (Action.GO, None))

    def test_quiet(self) -> None:
        """A state ends the hour in which R6 only logs; one that was written in it does not."""
        fresh = self.scene.make(isFresh=True)
        self.assertTrue(fresh.rules.quietUntil > fresh.now)
        self.assertFalse(self.follow(self.defence.state()).rules.quietUntil > self.defence.now)
        self.assertTrue(self.follow(fresh.state()).rules.quietUntil > fresh.now + 3500)
        fresh.restore(self.defence.state())
        self.assertFalse(fresh.rules.quietUntil > fresh.now)

    def test_replaces(self) -> None:
        """What was there before is gone."""
        empty = self.defence.state()
        self.scene.succeed(NEAR, "joe")
        self.scene.fail(FAR, "joe", 10)
        self.defence.block("ann", 60, "")
        self.defence.restore(empty)
        self.assertEqual(list(self.defence.blocks()), [])
        self.assertEqual(self.defence.allowance(NEAR), 1)
        self.assertFalse(self.defence.explain(b"joe", NEAR, "")["known"])

    def test_bounded(self) -> None:
        """It is bounded by the memory, and one of more memory fits."""
        defence = Defence(memory=1 << 20, chance=random.Random(5).random)
        flood(defence, 6000, random.Random(6))
        content = defence.state(withCounters=True)
        self.assertTrue(len(content) < 1 << 20)
        small = Defence(memory=1 << 18)
        small.restore(content)
        self.assertTrue(len(small.state(withCounters=True)) < 1 << 18)
        self.assertTrue(small.numbers()["entries"]["known"] > 1000)

    def test_newer(self) -> None:
        """The state of a later release is told from a damaged one."""
        content = self.defence.state()
        error = self.assertRaises(NewerState, self.defence.restore, content.replace(b"limits 2\n", b"limits 3\n"))
        self.assertEqual(str(error), "the state of the limits has version 3, and this release knows 2 at most")
        error = self.assertRaises(ValueError, self.defence.restore, content.replace(b"limits 2\n", b"limits 1\n"))
        self.assertEqual(str(error), "the state of the limits has version 1, and this release needs 2")

    def test_damaged(self) -> None:
        """Whatever is damaged is refused with a sentence, and changes nothing."""
        self.scene.succeed(NEAR, "joe")
        self.scene.fail(FAR, "joe", 10)
        before, content = self.defence.state(True), self.defence.state(True)
        chance = random.Random(7)
        broken = [content[:at] for at in range(0, len(content), 97)]
        for _ in range(200):
            at = chance.randrange(len(content))
            broken.append(content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :])
        for each in [*broken, b"", b"x", content + b"x", b"mailgate limits " + b"9" * 5000]:
            self.assertRaises(ValueError, self.defence.restore, each)
        self.assertEqual(self.defence.state(True), before)

    def test_forged(self) -> None:
        """One with a right checksum and wrong rows is refused as well: it may come from a faulty program."""
        self.scene.succeed(NEAR, "joe")
        self.scene.fail(FAR, "joe", 10)
        first, header, body = self.defence.state(True)[:-4].split(b"\n", 2)
        good = json.loads(header)
        self.defence.block("ann", 60, "")

        def packed(header: object, body: bytes = body) -> bytes:
            content = b"\n".join((first, json.dumps(header).encode(), body))
            return content + zlib.crc32(content).to_bytes(4, "little")

        self.defence.restore(packed(good))
        changes: tuple[dict[str, Any], ...] = (
            {"key": "00"},
            {"key": 5},
            {"now": "x"},
            *({word: value} for word in ("now", "wall", "quiet") for value in (inf, nan, -1e12, 1e12)),
            {"operators": [{"id": "b1"}]},
            {"operators": [{"id": "b1", "thing": "a b", "rule": "block", "since": 1, "until": 2, "reason": ""}]},
            {"rows": {**good["rows"], "pairs": 99}},
            {"rows": {**good["rows"], "pairs": 0}},
            {"shelves": {**good["shelves"], "known": 5}},
            {"shelves": {**good["shelves"], "else": 0}},
            {"shelves": [], "rows": []},
        )
        for change in changes:
            self.assertRaises(ValueError, self.defence.restore, packed({**good, **change}))
        self.assertRaises(ValueError, self.defence.restore, packed([]))
        self.assertRaises(ValueError, self.defence.restore, packed(good, body + b"x"))


class NewsTests(Case):
    """What other processes know at once."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.scene.make(key=OTHER)
        self.rows: list[Any] = []

    def pass_(self) -> None:
        """Let the other process adopt what has changed, as JSON."""
        rows, self.rows[:] = json.loads(json.dumps(self.rows)), []
        self.other.adopt(rows)

    def test_all(self) -> None:
        """All rows, beginning with the key."""
        self.scene.succeed(NEAR, "joe")
        self.scene.succeed(NEAR, "ann")
        self.defence.block("198.51.100.0/24", 600, "abuse")
        self.other.block("10.0.0.1", 600, "of before")
        self.rows.extend(self.defence.news())
        self.assertEqual([row[0] for row in self.rows], ["key", "block", "good"])
        self.pass_()
        self.assertEqual(
            (self.other.allowance(NEAR), self.other.isKnown(NEAR), self.other.isKnown(FAR)), (3, True, False)
        )
        block = self.other.blockOf("198.51.100.77")
        assert block is not None
        self.assertEqual((block.thing, round(block.until - START), block.reason), ("198.51.100.0/24", 600, ""))
        self.assertIsNone(self.other.blockOf("10.0.0.1"))

    def test_changes(self) -> None:
        """Later rows: users who succeed, blocks that begin and end."""
        self.rows.extend(self.defence.news())
        self.defence.changed = self.rows.append
        self.scene.succeed(NEAR, "joe")
        self.scene.succeed(NEAR, "joe")
        self.assertEqual(len(self.rows), 2)
        self.defence.block("10.0.0.0/8", 60, "")
        self.pass_()
        self.assertEqual(self.other.allowance(NEAR), 2)
        self.assertIsNotNone(self.other.blockOf("10.9.9.9"))
        self.defence.unblock("10.0.0.0/8")
        self.pass_()
        self.assertIsNone(self.other.blockOf("10.9.9.9"))

    def test_slow(self) -> None:
        """
        A process that decides alone for a moment slows down the same users as this one, from the moment at which that
        begins, and no longer when an operator has cleared the user. A process that comes later learns it with all rows.
        """
        self.rows.extend(self.defence.news())
        self.pass_()
        self.defence.changed = self.rows.append
        for number in range(50):
            self.assertEqual(self.rows, [])
            self.scene.fail(f"10.{number}.0.1", "joe", 1)
        self.assertEqual([row[0] for row in self.rows], ["slow"])
        self.pass_()
        later = self.scene.make(key=OTHER)
        later.adopt(json.loads(json.dumps([*self.defence.news()])))
        for defence in (self.other, later):
            explained = defence.explain(b"joe", FAR, "imap")["user"]
            self.assertEqual((explained["failures"], defence.explain(b"ann", FAR, "imap")["user"]["failures"]), (50, 0))
        self.defence.unblock("joe")
        self.pass_()
        self.assertEqual(self.other.explain(b"joe", FAR, "imap")["user"]["failures"], 0)

    def test_merged(self) -> None:
        """What the other one knows itself stays."""
        self.other.adopt(self.defence.news())
        for user, defence in (("joe", self.defence), ("ann", self.other)):
            defence.record(login(NEAR, user), 0, Result.ACCEPTED)
        self.other.adopt(self.defence.news())
        self.assertEqual(self.other.allowance(NEAR), 3)
        self.assertTrue(self.other.explain(b"ann", NEAR, "")["known"])

    def test_quiet(self) -> None:
        """The other one only logs for R6 as long as this one does."""
        fresh = self.scene.make(isFresh=True)
        self.other.adopt(fresh.news())
        self.assertTrue(self.other.rules.quietUntil > fresh.now + 3500)
        self.other.adopt(self.defence.news())
        self.assertFalse(self.other.rules.quietUntil > self.other.now)

    def test_short(self) -> None:
        """No row is long."""
        self.defence.block("\u0416" * 110, 60, "\u0416" * 200)
        for number in range(12):
            self.scene.succeed(NEAR, f"user{number}")
        for row in self.defence.news():
            self.assertTrue(len(json.dumps(row)) < 900, row)

    def test_damaged(self) -> None:
        """What is no row is refused."""
        good = "00" * 36
        rows: list[Any] = [None, 5, [], ["x"], ["key"], ["key", "00", 1, 1], ["key", "x", 1, 1], ["unblock"]]
        rows += [["good", 0, good], ["good", 1 << 61, good], ["good", "5", good], ["good", 5, "00"]]
        rows += [["block", {}], ["block", 5], ["clear"], ["clear", ""]]
        rows += [["slow", 0, "00" * 12], ["slow", 5, "00" * 11], ["slow", 5, "00" * 13], ["slow", 5, "x"]]
        for row in rows:
            self.assertRaises(ValueError, self.other.adopt, [row])

    def test_key(self) -> None:
        """The key is that of this one, and the time."""
        self.other.adopt(self.defence.news())
        self.assertEqual(self.other.ledger.keys.secret, KEY)
        self.assertAlmostEqual(self.other.now, self.defence.now, 6)


class ReloadTests(Case):
    """A configuration that changes."""

    def test_memory(self) -> None:
        """Another C{limit_memory} keeps the rows that it has room for."""
        flood(self.defence, 3000, random.Random(8))
        before = self.defence.numbers()["entries"]
        prefixes = self.defence.ledger.keys.prefixes
        self.defence.configure(LoginPolicy(), prefixes, 1 << 25)
        self.assertEqual(self.defence.numbers()["entries"], before)
        self.defence.configure(LoginPolicy(), prefixes, 1 << 19)
        after = self.defence.numbers()["entries"]
        self.assertTrue(0 < after["pairs"] < before["pairs"] and 0 < after["known"] <= before["known"], after)
