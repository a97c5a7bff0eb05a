# -*- test-case-name: mailgate.test.limits.test_ordering -*-
"""
Tests for L{mailgate.limits.ordering}: what operators and rules block at one gateway holds at all.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from mailgate.limits import ordering
from mailgate.limits.attempt import Action, Result, Rule
from mailgate.limits.ordering import BLOCKS, ENDED, READ_EVERY, SKEW, Ordering
from mailgate.limits.policy import LoginPolicy, Prefixes
from mailgate.store.seal import Seal
from mailgate.test.support.attacks import login
from mailgate.test.support.gateways import KEYS, GatewaysCase, answer

NEAR = "192.0.2.7"
FAR = "198.51.100.9"

BLOCK = {"by": "g9", "do": "block", "id": "x", "thing": "joe", "rule": "block", "reason": "", "seconds": 9, "left": 9}
"""The message of a block."""


BROKEN: tuple[Any, ...] = (
    7,
    {},
    {"by": "g9"},
    {"by": "g9", "do": "sell"},
    {"by": "g9", "do": ["block"]},
    {"by": "g9", "do": "block", "id": "g9.b1"},
    {**BLOCK, "rule": "R2"},
    {**BLOCK, "thing": "a b c"},
    {**BLOCK, "left": None},
    {"by": "g9", "do": "end", "id": "x", "ids": 7, "thing": ""},
    {"by": "g9", "do": "mark", "key": "x", "other": 7, "rule": "R2", "seconds": 9, "count": 1, "thing": ""},
    {"by": "g9", "do": "mark", "key": 7, "other": 7, "rule": "R1", "seconds": 9, "count": 1, "thing": ""},
    {"by": "g9", "do": "mark", "key": 7, "other": 7, "rule": "R2", "seconds": 1e300, "count": 1, "thing": ""},
)
"""Messages that a gateway with the secret would not send."""


class OrderingCase(GatewaysCase):
    """Two gateways, and messages between them."""

    sent = 0

    def hear(self) -> None:
        """Messages arrive."""
        self.clock.advance(0)

    def rule(self, host: str, user: str, gateway: Any = None) -> Rule | None:
        return self.check(gateway or self.second, host, user).rule

    def send(self, event: Any, place: bytes = b"events") -> None:
        """A message as of another gateway."""
        if isinstance(event, dict) and "by" in event:
            self.sent += 1
            event = {"at": self.clock.seconds(), "nonce": str(self.sent), **event}
        sealed = Seal(KEYS.derived(b"seal")).close(json.dumps(event).encode(), place)
        self.first.store.publish("events", sealed)
        self.hear()


class MessageTests(OrderingCase):
    """What is told at once."""

    def test_block(self) -> None:
        """A block holds at the other gateway and in its workers, under its id, for as long, and with its reason."""
        for thing, host, user in (("joe", NEAR, "joe"), (FAR, FAR, "x"), ("10.0.0.0/8", "10.1.2.3", "x")):
            block = self.first.shared.block(thing, 600, "abuse")
            self.hear()
            self.assertIs(self.rule(host, user), Rule.BLOCK, thing)
            found = {each.id: each for each in self.second.shared.blocks()}[block.id]
            self.assertEqual((found.thing, found.reason), (block.thing, "abuse"))
            self.assertAlmostEqual(found.until, block.until)
            self.assertAlmostEqual(found.since, block.since)
            self.assertEqual(self.second.news[-1][0], "block")
            self.clock.advance(1)
        self.assertEqual([each.id for each in self.second.shared.blocks()], ["g1.b3", "g1.b2", "g1.b1"])
        self.assertEqual(self.second.shared.block("ann", 60, "").id, "g2.b1")
        self.clock.advance(601)
        self.assertEqual((self.rule(NEAR, "joe"), self.second.shared.blocks()), (None, []))

    def test_connections(self) -> None:
        """An address that is blocked at one gateway cannot connect to the other."""
        self.first.shared.block(FAR, 600, "")
        self.hear()
        block = self.second.shared.blockOf(FAR)
        assert block is not None
        self.assertEqual(block.id, "g1.b1")

    def test_hold(self) -> None:
        """A hold holds at both, and its release at the other lets the login pass within a second."""
        block = self.first.shared.block("joe", 600, "", True)
        self.hear()
        attempt = login(NEAR, "joe")
        held = answer(self.second.shared.check(attempt))
        self.assertEqual((held.action, held.rule), (Action.WAIT, Rule.HOLD))
        self.assertEqual([each.id for each in self.second.shared.unblock(block.id)], [block.id])
        self.hear()
        self.assertEqual(self.first.shared.blocks(), [])
        self.assertEqual(self.first.news[-1], ["unblock", block.id])
        self.clock.advance(held.seconds)
        self.assertIs(answer(self.second.shared.check(attempt, held.ticket)).action, Action.GO)
        self.assertIsNone(self.rule(NEAR, "joe", self.first))

    def test_replaced(self) -> None:
        """A block in the place of another one ends that at all gateways, and in the store."""
        self.first.shared.block("joe", 600, "")
        self.hear()
        self.second.shared.block("joe", 900, "again")
        self.hear()
        self.assertEqual([each.id for each in self.first.shared.blocks()], ["g2.b1"])
        self.assertEqual([*self.successResultOf(self.first.store.notes(BLOCKS))], ["g2.b1"])
        self.clock.advance(READ_EVERY)
        self.assertEqual([each.id for each in self.first.shared.blocks()], ["g2.b1"])

    def test_mark(self) -> None:
        """What a rule blocks is listed at the other gateway at once, and refused there."""
        self.guess(self.first, FAR, "joe", 4)
        for _ in range(3):
            self.clock.advance(20)
            self.guess(self.second, FAR, "joe", 1)
        for each in range(10):
            self.first.shared.record(login(FAR, "joe", f"more {each}"), 0, Result.FAILED)
        self.hear()
        self.assertEqual((self.first.blocks, self.second.blocks), (["joe 198.51.100.9"], ["joe 198.51.100.9"]))
        self.second.store.switch(False)
        self.assertIs(self.rule(FAR, "joe"), Rule.PAIR_BLOCK)

    def test_named(self) -> None:
        """A gateway that has not heard of a block of a rule learns it with the next login, in words."""
        self.guess(self.first, FAR, "joe", 10)
        self.second.store.switch(False)
        self.hear()
        self.second.store.switch(True)
        self.assertEqual(self.second.blocks, [])
        self.assertIs(self.rule(FAR, "joe"), Rule.PAIR_BLOCK)
        self.assertEqual(self.second.blocks, ["joe 198.51.100.9"])

    def test_unblock(self) -> None:
        """An operator who ends what rules block ends it at all gateways, failures included, by name or by id."""
        for by in ("joe", f"joe {FAR}", FAR, "198.51.100.0/24", "id"):
            self.guess(self.first, FAR, "joe", 10)
            self.hear()
            self.assertIs(self.rule(FAR, "joe"), Rule.PAIR_BLOCK, by)
            (block,) = self.second.shared.blocks()
            ended = self.second.shared.unblock(block.id if by == "id" else by)
            self.hear()
            self.assertEqual([each.id for each in ended], [block.id])
            self.assertEqual((self.first.blocks, self.second.blocks), ([], []), by)
            for gateway in (self.first, self.second):
                self.assertIsNone(self.rule(FAR, "joe", gateway), by)
                self.assertEqual(self.failures(gateway, "joe", FAR), 0, by)
            self.clock.advance(2)

    def test_unblockUnnamed(self) -> None:
        """The end of a rule's block by its id holds, even if it is not known of what it was. A later block holds."""
        for user, host in (("j" * 200, FAR), ("j\x01oe", "203.0.113.1"), ("joe", "192.0.2.99")):
            self.guess(self.first, host, user, 10)
            self.hear()
            if user == "joe":
                # After a restart it is a hash.
                content = self.first.shared.state()
                self.first.shared.stop()
                self.first = self.gateway("g1")
                self.first.shared.restore(content)
            block = max(self.first.shared.blocks(), key=lambda each: each.since)
            self.first.shared.unblock(block.id)
            self.hear()
            for gateway in (self.second, self.first):
                self.assertIsNone(self.rule(host, user, gateway), user)
                self.assertEqual(self.failures(gateway, user, host), 0)
            for each in range(10):
                self.end(self.second, host, user, f"new {each}", Result.FAILED)
            self.hear()
            for gateway in (self.second, self.first, self.gateway("g3")):
                self.assertIs(self.rule(host, user, gateway), Rule.PAIR_BLOCK, user)
            self.clock.advance(10)

    def test_unblockWide(self) -> None:
        """C{limit_prefix} says what an address and a network are."""
        for gateway in (self.first, self.second):
            gateway.shared.configure(LoginPolicy(pairBlock=2), Prefixes(), 1 << 20)
        self.guess(self.first, "2001:db8::1", "joe", 2)
        self.hear()
        self.assertIs(self.rule("2001:db8::2", "joe"), Rule.PAIR_BLOCK)
        self.assertEqual(len(self.second.shared.unblock("2001:db8::/64")), 1)
        self.hear()
        self.assertIsNone(self.rule("2001:db8::2", "joe", self.first))

    def test_clearedKeepsOthers(self) -> None:
        """A block that was made after an order of before stays where that order arrives late, also in workers."""
        self.first.shared.block("joe", 600, "old")
        self.hear()
        self.second.store.switch(False)
        self.first.shared.unblock("joe")
        self.first.shared.block("joe", 600, "new")
        self.hear()
        self.second.store.switch(True)
        self.assertEqual([each.reason for each in self.second.shared.blocks()], ["new"])
        rows = [row[0] for row in self.second.news]
        self.assertTrue(len(rows) - rows[::-1].index("clear") <= len(rows) - rows[::-1].index("block"), rows)


class MissedTests(OrderingCase):
    """Gateways that were away."""

    def test_missed(self) -> None:
        """What was blocked and ended meanwhile is read when messages are heard again."""
        self.first.shared.block("joe", 600, "")
        self.hear()
        self.second.store.switch(False)
        self.first.shared.unblock("joe")
        self.first.shared.block("ann", 600, "")
        self.hear()
        self.assertEqual(self.second.blocks, ["joe"])
        self.second.store.switch(True)
        self.assertEqual(self.second.blocks, ["ann"])
        self.assertEqual(self.first.blocks, ["ann"])

    def test_polled(self) -> None:
        """A message that got lost is made up for within half a minute."""
        self.second.store.heard = lambda channel, message: None
        self.first.shared.block("joe", 600, "")
        self.hear()
        self.assertEqual(self.second.blocks, [])
        self.clock.advance(READ_EVERY)
        self.assertEqual(self.second.blocks, ["joe"])
        self.first.shared.unblock("joe")
        self.clock.advance(READ_EVERY)
        self.assertEqual(self.second.blocks, [])

    def test_alone(self) -> None:
        """What an operator does while the store is away is told when it is back."""
        self.first.shared.block("joe", 600, "")
        self.guess(self.first, FAR, "bob", 10)
        self.hear()
        self.first.store.switch(False)
        self.first.shared.unblock("joe")
        self.first.shared.unblock("bob")
        self.first.shared.block("ann", 600, "")
        self.hear()
        self.assertEqual(self.second.blocks, ["bob 198.51.100.9", "joe"])
        self.first.store.switch(True)
        self.hear()
        self.clock.advance(READ_EVERY)
        self.assertEqual((self.first.blocks, self.second.blocks), (["ann"], ["ann"]))
        self.assertIsNone(self.rule(FAR, "bob"))

    def test_emptied(self) -> None:
        """A store that was emptied gets the blocks back, and none that had ended."""
        self.first.shared.block("joe", 600, "")
        self.first.shared.block("ann", 600, "")
        self.hear()
        self.first.shared.unblock("ann")
        self.hear()
        self.memory.shelves.clear()
        self.clock.advance(READ_EVERY)
        self.assertEqual([*self.successResultOf(self.first.store.notes(BLOCKS))], ["g1.b1"])
        self.assertEqual((self.first.blocks, self.second.blocks), (["joe"], ["joe"]))

    def test_restarted(self) -> None:
        """A gateway that starts anew learns the blocks of before, its own too, and gives no id twice."""
        self.first.shared.block("joe", 600, "")
        self.hear()
        third = self.gateway("g1")
        self.hear()
        self.assertEqual(third.blocks, ["joe"])
        self.assertEqual(third.shared.block("ann", 600, "").id, "g1.b2")

    def test_ended(self) -> None:
        """A note ends with its block."""
        self.first.shared.block("joe", 20, "")
        self.hear()
        self.clock.advance(READ_EVERY)
        self.assertEqual(self.successResultOf(self.first.store.notes(BLOCKS)), {})
        self.assertEqual(self.second.blocks, [])

    def test_bounded(self) -> None:
        """Of many orders during a long outage, those that come first are told."""
        self.first.store.switch(False)
        for each in range(150):
            self.first.shared.unblock(f"user{each}")
        self.assertEqual(len(self.first.shared._ordering._unsent), 100)
        self.first.store.switch(True)
        self.assertEqual(len(self.successResultOf(self.first.store.notes(ENDED))), 100)
        self.assertEqual(len(self.first.shared._ordering._unsent), 0)


class BrokenTests(OrderingCase):
    """What strangers put into the store."""

    def test_messages(self) -> None:
        """What cannot be opened or understood changes nothing, and one line a minute says so."""
        start = "a message of another gateway about blocks cannot be used: "
        broken = "a value in the store is damaged, or sealed with another secret than that of store_secret_file here"
        with capturedLogs() as events:
            for message in (b"", b"x" * 50, b"\0" * 13):
                self.first.store.publish("events", message)
            self.hear()
            for event in BROKEN:
                self.send(event)
            self.send({"by": "g9", "do": "end", "id": "x", "ids": [], "thing": "joe"}, b"ask")
            self.assertEqual((self.first.blocks, self.second.blocks), ([], []))
            lines = [formatEvent(event) for event in events]
            self.assertEqual(lines, [start + broken] * 2)
            self.clock.advance(61)
            self.send({})
        self.assertEqual([formatEvent(event) for event in events[2:]], [start + "KeyError"] * 2)

    def test_again(self) -> None:
        """A copy of a message that someone sends again changes nothing, soon or later."""
        messages: list[bytes] = []
        self.first.store.heard = lambda channel, message: messages.append(message)
        self.first.shared.block("joe", 9000, "")
        self.hear()
        self.second.shared.unblock("joe")
        self.second.shared._ordering._ended.clear()
        for seconds in (1, 400):
            self.clock.advance(seconds)
            self.first.store.publish("events", messages[0])
            self.hear()
            self.assertEqual(self.second.blocks, [])

    def test_notes(self) -> None:
        """A note that is not sealed for its place is ignored; the others are read."""
        self.first.shared.block("joe", 600, "")
        notes = self.successResultOf(self.first.store.notes(BLOCKS))
        self.first.store.put(BLOCKS, "g1.b2", notes["g1.b1"][0], 600)
        self.first.store.put(BLOCKS, "g1.b3", b"x", 600)
        self.first.store.put(ENDED, "g1.1", notes["g1.b1"][0], 600)
        third = self.gateway("g3")
        self.hear()
        self.assertEqual(third.blocks, ["joe"])

    def test_prolonged(self) -> None:
        """A note that a stranger keeps in the store blocks for no longer than was ordered."""
        self.first.shared.block("joe", 600, "")
        ((id, (sealed, _)),) = self.successResultOf(self.first.store.notes(BLOCKS)).items()
        self.first.store.put(BLOCKS, id, sealed, 9e6)
        third = self.gateway("g3")
        self.hear()
        (block,) = third.shared.blocks()
        self.assertLessEqual(block.until - block.since, 600)
        self.clock.advance(600 + SKEW)
        fourth = self.gateway("g4")
        self.hear()
        self.assertEqual(fourth.blocks, [])

    def test_endedAgain(self) -> None:
        """What was ended is not ended again, however long a stranger keeps the note, and whatever else is there."""
        self.first.shared.unblock("joe")
        ((id, (sealed, _)),) = self.successResultOf(self.first.store.notes(ENDED)).items()
        self.patch(ordering, "_MOST", 5)
        for each in range(20):
            self.first.store.put(ENDED, f"x{each}", b"junk", 9e6)
        self.clock.advance(READ_EVERY)
        before = len(self.second.news)
        self.clock.advance(READ_EVERY)
        self.assertEqual(self.second.news[before:], [])
        self.first.store.put(ENDED, id, sealed, 9e6)
        self.clock.advance(3600 + SKEW + 1)
        third = self.gateway("g3")
        self.clock.advance(READ_EVERY)
        self.assertEqual(third.news, [])

    def test_own(self) -> None:
        """A gateway does not act on its own messages."""
        heard: list[Any] = []
        self.patch(Ordering, "_adopt", lambda *arguments: heard.append(arguments))
        self.first.shared.block("joe", 600, "")
        self.hear()
        self.assertEqual([arguments[0] for arguments in heard], [self.second.shared._ordering])
