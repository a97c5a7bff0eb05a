"""Tests for L{mailgate.keeper.cluster.usercounts}."""

from __future__ import annotations

from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.cluster.usercounts import MOST_PARTS, UserCounts

JOE, ANN = b"j" * 16, b"a" * 16


class UserCountsTests(SynchronousTestCase):
    """The counts."""

    def setUp(self) -> None:
        self.counts = UserCounts()

    def test_upAndDown(self) -> None:
        """A user without sessions is forgotten. The end of a session that is not known counts nothing."""
        self.counts.up(JOE, b"im0001")
        self.counts.up(JOE, b"im0001")
        self.counts.up(JOE, b"sm0001")
        self.counts.down(ANN, b"im0001")
        self.counts.down(JOE, b"im0002")
        self.assertEqual((self.counts.of(JOE), self.counts.of(ANN)), (3, 0))
        self.assertEqual(self.counts.reported(JOE), {b"im0001": 2, b"sm0001": 1})
        for part in (b"im0001", b"sm0001", b"im0001"):
            self.assertIn(JOE, self.counts)
            self.counts.down(JOE, part)
        self.assertEqual((list(self.counts), len(self.counts), self.counts.reported(JOE)), ([], 0, {}))

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
            self.assertEqual(self.counts.reported(user), +model[user])
            self.assertEqual(self.counts.of(user), model[user].total())

    def test_many(self) -> None:
        """Of a user with very many addresses, no session is missing in what others are told."""
        for number in range(MOST_PARTS + 100):
            self.counts.up(JOE, b"im%04d" % number)
            self.counts.up(JOE, b"sm%04d" % number)
        told = self.counts.reported(JOE)
        self.assertLessEqual(len(told), MOST_PARTS + 2)
        for protocol in (b"im", b"sm"):
            total = sum(count for part, count in told.items() if part.startswith(protocol))
            self.assertEqual(total, MOST_PARTS + 100)
