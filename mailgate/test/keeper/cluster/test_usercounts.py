"""Tests for L{mailgate.keeper.cluster.usercounts} and L{mailgate.store.counts}."""

from __future__ import annotations

from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.cluster.usercounts import UserCounts
from mailgate.store.counts import MOST_PARTS, countsIn, packedCounts

JOE, ANN = b"j" * 16, b"a" * 16


class UserCountsTests(SynchronousTestCase):
    """The counts."""

    def setUp(self) -> None:
        self.counts = UserCounts()

    def told(self, user: bytes = JOE) -> dict[bytes, int]:
        return dict(countsIn(self.counts.reported(user)))

    def test_upAndDown(self) -> None:
        """A user without sessions is forgotten. The end of a session that is not known counts nothing."""
        self.counts.up(JOE, b"im0001")
        self.counts.up(JOE, b"im0001")
        self.counts.up(JOE, b"sm0001")
        self.counts.down(ANN, b"im0001")
        self.counts.down(JOE, b"im0002")
        self.assertEqual((self.counts.of(JOE), self.counts.of(ANN)), (3, 0))
        self.assertEqual(self.told(), {b"im0001": 2, b"sm0001": 1})
        for part in (b"im0001", b"sm0001", b"im0001"):
            self.assertIn(JOE, self.counts)
            self.counts.down(JOE, part)
        self.assertEqual((list(self.counts), len(self.counts), self.counts.reported(JOE)), ([], 0, b""))

    def test_random(self) -> None:
        """After any sequence the counts are those of a simple model, also with parts that look like counts."""
        random = Random(7)
        parts = [bytes(random.choices((0, 1), k=6)) for _ in range(12)]
        model: dict[bytes, Counter[bytes]] = {JOE: Counter(), ANN: Counter()}
        for _ in range(5000):
            user, part = random.choice((JOE, ANN)), random.choice(parts)
            if random.random() < 0.5:
                self.counts.up(user, part)
                model[user][part] += 1
            elif model[user][part]:
                self.counts.down(user, part)
                model[user][part] -= 1
            self.assertEqual(self.told(user), +model[user])
            self.assertEqual(self.counts.of(user), model[user].total())

    def test_many(self) -> None:
        """Of a user with very many addresses, no session is missing in what others are told."""
        for number in range(MOST_PARTS + 100):
            self.counts.up(JOE, b"im%04d" % number)
            self.counts.up(JOE, b"sm%04d" % number)
        self.counts.up(JOE, b"im0120")
        told = self.told()
        self.assertLessEqual(len(told), MOST_PARTS + 2)
        self.assertEqual(told[b"im0120"], 2)
        totals = [sum(count for part, count in told.items() if part[:2] == each) for each in (b"im", b"sm")]
        self.assertEqual(totals, [MOST_PARTS + 101, MOST_PARTS + 100])

    def test_packed(self) -> None:
        """Nothing is packed of none, and no count is too large for its place."""
        self.assertEqual(packedCounts({b"im0001": 0}), b"")
        self.assertEqual(
            dict(countsIn(packedCounts({b"im0001": 70000, b"im0002": 1}))), {b"im0001": 65535, b"im0002": 1}
        )
