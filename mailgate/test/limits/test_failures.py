"""
Tests for the counters of failures: L{mailgate.limits.windows}, L{mailgate.limits.pairs},
L{mailgate.limits.addresses} and L{mailgate.limits.users}.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.addresses import Addresses
from mailgate.limits.keys import Place
from mailgate.limits.pairs import Pairs
from mailgate.limits.policy import LoginPolicy
from mailgate.limits.users import Users
from mailgate.limits.windows import UNIT, Window, weightOf

NOW = 1_800_000_000.0
MEMORY = 1 << 20


class WindowTests(SynchronousTestCase):
    """Counts in a sliding window."""

    def test_slides(self) -> None:
        """What is older than a window counts less and less, and then not at all."""
        window = Window(100)
        row = None
        for _ in range(10):
            row = window.add(row, 6, NOW)
        assert row is not None
        for passed, count in ((0, 60), (99, 60), (100, 60), (150, 30), (199, 0), (200, 0), (9999, 0)):
            self.assertEqual(window.count(row, NOW + passed), count, passed)
        row = window.add(row, 40, NOW + 150)
        self.assertEqual(window.count(row, NOW + 150), 70)
        self.assertEqual(window.since(row, NOW + 150), NOW)
        self.assertEqual(window.count(row, NOW + 199), 40)
        row = window.add(row, 1, NOW + 400)
        self.assertEqual((window.count(row, NOW + 400), window.since(row, NOW + 400)), (1, NOW + 400))

    def test_atLeast(self) -> None:
        """Of what others know and what is known here, the larger weighs."""
        window = Window(100)
        row = window.atLeast(None, 60, NOW)
        assert row is not None
        self.assertEqual((window.count(row, NOW), window.since(row, NOW)), (60, NOW))
        self.assertIsNone(window.atLeast(row, 60, NOW + 1))
        self.assertIsNone(window.atLeast(None, 0, NOW))
        row = window.atLeast(row, 90, NOW + 1)
        assert row is not None
        self.assertEqual(window.count(row, NOW + 1), 90)

    def test_bounds(self) -> None:
        """A count does not overflow."""
        window = Window(0.2)
        row = window.add(window.add(None, 1 << 31, NOW), 1 << 31, NOW)
        self.assertEqual(window.count(row, NOW), (1 << 32) - 1)

    def test_weights(self) -> None:
        """A share of a failure is at least something, and never more than all."""
        self.assertEqual([weightOf(share) for share in (0, 1, 3, 100)], [60, 60, 20, 1])


class PairsTests(SynchronousTestCase):
    """The failures of pairs."""

    def setUp(self) -> None:
        self.pairs = Pairs(MEMORY, LoginPolicy())

    def add(self, tag: bytes, now: float = NOW, isDigest: bool = False) -> int:
        return self.pairs.add(7 ^ 9, 7, tag, isDigest, now)

    def test_repeats(self) -> None:
        """The same tag counts once, as long as it goes on; another one counts."""
        self.assertEqual([self.add(b"aa"), self.add(b"ab"), self.add(b"aa")], [UNIT, UNIT, 0])
        self.assertEqual(self.pairs.count(7 ^ 9, NOW), 2 * UNIT)
        self.assertEqual(self.add(b"aa", NOW + 3000), 0)
        self.assertEqual(self.pairs.count(7 ^ 9, NOW + 4000), UNIT)
        self.assertEqual(self.add(b"aa", NOW + 6000), 0)
        self.assertEqual(self.add(b"aa", NOW + 9601), UNIT)
        self.assertEqual(self.pairs.since(7 ^ 9, NOW + 9601), NOW + 9601)

    def test_untagged(self) -> None:
        """Digest attempts never repeat, and do not repeat a password whose tag is 0."""
        self.assertEqual([self.add(b"\0\0"), self.add(b"", isDigest=True), self.add(b"", isDigest=True)], [60, 20, 20])
        self.assertEqual(self.add(b"\0\0"), 0)

    def test_bounded(self) -> None:
        """A row does not grow beyond what can matter."""
        for number in range(1000):
            self.add(number.to_bytes(2, "big"), NOW + number / 10)
        self.assertEqual(len(self.pairs.table.rows[7 ^ 9]), 4 + 8 * 32)

    def test_forgiven(self) -> None:
        """After a success an old password does not count again, and others do."""
        self.add(b"aa")
        self.add(b"", isDigest=True)
        self.pairs.forgive(7 ^ 9, NOW)
        self.assertEqual(self.pairs.count(7 ^ 9, NOW), 0)
        self.assertIsNone(self.pairs.since(7 ^ 9, NOW))
        self.assertEqual((self.add(b"aa", NOW + 10), self.add(b"ab", NOW + 10)), (0, UNIT))
        self.pairs.forgive(7 ^ 9, NOW + 7200)
        self.assertEqual(len(self.pairs.table), 0)

    def test_merge(self) -> None:
        """What others know replaces what they were told of; what they were not told of stays, and counts once."""
        now = int(NOW)
        self.add(b"aa")
        self.add(b"bb")
        self.add(b"", isDigest=True)
        aa, bb, cc = (int.from_bytes(tag, "little") for tag in (b"aa", b"bb", b"cc"))
        self.pairs.merge(7 ^ 9, 7, [(now, aa, 0), (now, cc, 60)], now, NOW)
        self.assertEqual(self.pairs.count(7 ^ 9, NOW), 60)
        self.assertEqual([self.add(tag, NOW + 1) for tag in (b"aa", b"bb", b"cc")], [0, UNIT, 0])
        self.pairs.merge(7 ^ 9, 7, [(now, bb, 0), (now, 0, 20), (now, 0, 20)], now + 9, NOW + 2)
        self.assertEqual(self.pairs.count(7 ^ 9, NOW + 2), 60 + 60 + 40)
        self.add(b"", NOW + 2, isDigest=True)
        for _ in range(2):
            self.pairs.merge(7 ^ 9, 7, [(now, 0, 20), (now, 0, 20)], now + 9, NOW + 2)
            self.assertEqual(self.pairs.count(7 ^ 9, NOW + 2), 60 + 60 + 60)
        self.pairs.merge(7 ^ 9, 7, [], now, NOW + 2)
        self.assertEqual(len(self.pairs.table), 0)

    def test_forget(self) -> None:
        """The pairs of a user, and those of an address, can be found."""
        for user, address in ((7, 9), (7, 10), (8, 9), (8, 10)):
            self.pairs.add(user ^ address << 8, user, b"aa", False, NOW)
        self.pairs.forgetUser(7)
        self.assertEqual(set(self.pairs.table.rows), {8 ^ 9 << 8, 8 ^ 10 << 8})
        self.pairs.forgetAddresses(frozenset({9 << 8}))
        self.assertEqual(set(self.pairs.table.rows), {8 ^ 10 << 8})


class AddressesTests(SynchronousTestCase):
    """The failures of addresses and networks."""

    def setUp(self) -> None:
        self.sources = Addresses(MEMORY, MEMORY, LoginPolicy())

    def test_counts(self) -> None:
        """An address, its network, and its users are counted."""
        for user, address in ((1, 10), (2, 10), (2, 10), (3, 11)):
            self.sources.add(Place(address, 99, True), user, UNIT, NOW)
        found = [self.sources.ofAddress(10, NOW), self.sources.ofAddress(11, NOW), self.sources.ofNetwork(99, NOW)]
        self.assertEqual(found, [180, 60, 240])
        self.assertEqual([self.sources.usersOf(address, NOW) for address in (10, 11, 12)], [2, 1, 0])
        self.assertEqual(self.sources.usersOf(10, NOW + 3601), 0)
        self.assertEqual([self.sources.since(key, NOW) for key in (10, 99, 12)], [NOW, NOW, None])

    def test_bounded(self) -> None:
        """So many users are kept as can matter."""
        for user in range(1000):
            self.sources.add(Place(10, 99, True), user, UNIT, NOW)
        self.assertEqual(self.sources.usersOf(10, NOW), 21)

    def test_raise(self) -> None:
        """Failures and users that others know count; one that fails here, too, counts once."""
        place = Place(10, 99, True)
        for user in (1 << 20, 1 << 21):
            self.sources.add(place, user, UNIT, NOW)
        self.sources.raiseTo(place, (300, 600), 5, NOW)
        self.assertEqual((self.sources.ofAddress(10, NOW), self.sources.ofNetwork(99, NOW)), (300, 600))
        self.assertEqual(self.sources.usersOf(10, NOW), 5)
        self.sources.add(place, 1 << 22, UNIT, NOW)
        self.sources.raiseTo(place, (360, 660), 5, NOW)
        self.assertEqual((self.sources.ofAddress(10, NOW), self.sources.usersOf(10, NOW)), (360, 5))
        self.sources.raiseTo(place, (0, 0), 0, NOW)
        self.assertEqual((self.sources.ofAddress(10, NOW), self.sources.usersOf(10, NOW)), (360, 3))
        self.sources.raiseTo(Place(11, 99, True), (0, 0), 1000, NOW)
        self.assertEqual((self.sources.ofAddress(11, NOW), self.sources.usersOf(11, NOW)), (0, 21))

    def test_forget(self) -> None:
        """The addresses of a network can be found."""
        for address, network in ((10, 98), (11, 99), (12, 99)):
            self.sources.add(Place(address, network, True), 1, UNIT, NOW)
        self.assertEqual(self.sources.within(99), {11, 12})
        self.sources.forgetAddresses(frozenset({11, 12}))
        self.assertEqual(set(self.sources.addresses.rows), {10})


class UsersTests(SynchronousTestCase):
    """The failures of users, and the queues of those that are slowed down."""

    def setUp(self) -> None:
        self.choices: list[int] = []
        self.users = Users(MEMORY, LoginPolicy(), self.choose)

    def choose(self, tickets: Sequence[int]) -> int:
        """The first, unless the test says which."""
        return tickets[self.choices.pop(0) if self.choices else 0]

    def turn(self, ticket: int, now: float) -> float | None:
        return self.users.turn(1, ticket + 1000, ticket, now)

    def test_tags(self) -> None:
        """One tag counts once, until the window is over."""
        self.assertEqual(
            [self.users.add(1, tag, UNIT, NOW) for tag in (b"aa", b"ab", b"aa", b"", b"")], [1, 1, 0, 1, 1]
        )
        self.assertEqual(self.users.count(1, NOW), 4 * UNIT)
        self.assertTrue(self.users.add(1, b"aa", UNIT, NOW + 3 * 86400))
        self.assertEqual(self.users.count(1, NOW + 3 * 86400), UNIT)

    def test_bounded(self) -> None:
        """A row does not grow with its count."""
        for number in range(2000):
            self.users.add(1, number.to_bytes(2, "big"), UNIT, NOW)
        self.assertEqual(self.users.count(1, NOW), 2000 * UNIT)
        self.assertEqual(len(self.users.table.rows[1]), 12 + 2 * 64)

    def test_pushedOut(self) -> None:
        """Many users with one failure each do not push out one who is attacked; after the window they do."""
        users = Users(1 << 16, LoginPolicy(), self.choose)
        for number in range(50):
            users.add(1, number.to_bytes(2, "big"), UNIT, NOW)
        for number in range(2000):
            users.add(1000 + number, b"xx", UNIT, NOW + number)
        self.assertTrue(users.table.dropped > 1500)
        self.assertEqual(users.count(1, NOW + 2000), 50 * UNIT)
        for number in range(2000):
            users.add(10000 + number, b"xx", UNIT, NOW + 3 * 86400 + number)
        self.assertNotIn(1, users.table.rows)

    def test_turns(self) -> None:
        """One passes, the next waits for a minute after it, and which one is drawn."""
        self.assertEqual(self.turn(1, NOW), 0.0)
        self.assertIsNone(self.turn(2, NOW + 39))
        self.assertEqual([self.turn(ticket, NOW + 41) for ticket in (2, 3, 4)], [19.0] * 3)
        self.choices = [2]
        self.assertEqual(self.turn(2, NOW + 60), 0.25)
        self.assertEqual([self.turn(3, NOW + 60.1), self.turn(4, NOW + 60.1)], [0.25, 0.0])
        self.assertIsNone(self.turn(3, NOW + 61))
        self.assertIsNone(self.turn(3, NOW + 61))

    def test_gone(self) -> None:
        """If the one that was drawn does not come, another one is drawn."""
        self.turn(1, NOW)
        for ticket in (2, 3):
            self.turn(ticket, NOW + 45)
        self.choices = [0]
        self.assertEqual(self.turn(3, NOW + 60), 0.25)
        self.choices = [1]
        self.assertEqual(self.turn(3, NOW + 62.1), 0.0)

    def test_oneOfANetwork(self) -> None:
        """A network that has had its chance has no other until one has passed."""
        self.turn(1, NOW)
        self.assertEqual(self.users.turn(1, 99, 2, NOW + 45), 15.0)
        self.assertIsNone(self.users.turn(1, 99, 3, NOW + 45))
        self.users.leave(1, 2)
        self.assertEqual(self.users.turn(1, 99, 4, NOW + 45), 15.0)

    def test_fair(self) -> None:
        """Who comes when all places are taken may take one."""
        self.turn(1, NOW)
        for ticket in range(2, 12):
            self.assertEqual(self.turn(ticket, NOW + 45), 15.0)
        self.choices = [10]
        self.assertIsNone(self.turn(12, NOW + 45))
        self.choices = [9, 3]
        self.assertEqual(self.turn(13, NOW + 45), 15.0)
        self.assertIsNone(self.turn(5, NOW + 46))
        self.assertEqual(self.turn(4, NOW + 46), 14.0)

    def test_tidy(self) -> None:
        """Queues that no one needs go; those that hold stay, and can be taken over."""
        self.turn(1, NOW)
        self.users.tidy(NOW + 30)
        self.assertEqual(self.users.queues(), {1: NOW + 60})
        other = Users(MEMORY, LoginPolicy(), self.choose)
        other.resume(1, NOW + 60)
        self.assertIsNone(other.turn(1, 5, 1, NOW + 30))
        self.users.tidy(NOW + 61)
        self.assertEqual(self.users.queues(), {})
