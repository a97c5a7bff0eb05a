"""
Tests for L{mailgate.limits.table}.
"""

from __future__ import annotations

import random
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.table import Shelf, Table


class TableTests(SynchronousTestCase):
    """Rows of different lengths."""

    def test_oldest(self) -> None:
        """When it is full, the rows that were not written for the longest time go."""
        table = Table(100 * 300)
        for key in range(1, 2000):
            table.put(key, b"x" * 20)
            table.put(1, b"first")
        self.assertTrue(80 < len(table) <= 110, len(table))
        self.assertEqual(sorted(table.rows)[1:], list(range(2000 - len(table) + 1, 2000)))
        self.assertEqual(table.rows[1], b"first")
        self.assertEqual(table.dropped, 1999 - len(table))

    def test_memory(self) -> None:
        """It takes no more memory than it may, whatever the lengths, also while it grows."""
        chance = random.Random(1)
        for length in (8, 40, 150):
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                table = Table(1 << 20)
                for _ in range(12_000):
                    table.put(chance.getrandbits(60), bytes(length))
                peak = tracemalloc.get_traced_memory()[1] - before
            finally:
                tracemalloc.stop()
            self.assertTrue(1 << 19 < peak < 1 << 20, (length, peak))

    def test_accounts(self) -> None:
        """What was replaced, dropped and cleared does not count."""
        table = Table(1 << 20)
        for _ in range(3):
            for key in range(100):
                table.put(key, b"x" * key)
        for key in range(100):
            table.drop(key)
            table.drop(key)
        self.assertEqual((table.rows, table._used, table.dropped), ({}, 0, 0))
        table.put(1, b"x")
        table.clear()
        self.assertEqual((len(table), table._used), (0, 0))

    def test_resize(self) -> None:
        """With less memory, the latest rows stay."""
        table = Table(1 << 20)
        for key in range(1000):
            table.put(key, b"x")
        table.resize(1 << 16)
        self.assertTrue(100 < len(table) < 300)
        self.assertEqual(list(table.rows)[-1], 999)


class ShelfTests(SynchronousTestCase):
    """Rows of one length."""

    def test_likeDict(self) -> None:
        """As long as nothing has to go, it has what was written last."""
        chance = random.Random(3)
        keys = [chance.getrandbits(60) or 1 for _ in range(300)]
        shelf, expected = Shelf(1 << 16, 3), {}
        for moment in range(1, 2000):
            key, row = chance.choice(keys), chance.randbytes(3)
            shelf.put(key, moment, row)
            expected[key] = (moment, row)
        self.assertEqual((len(shelf), shelf.dropped), (len(expected), 0))
        self.assertEqual({key: (moment, row) for key, moment, row in shelf.items()}, expected)
        for key, (moment, row) in expected.items():
            place = shelf.find(key)
            self.assertEqual((shelf.moment(place), shelf.row(place)), (moment, row))
        self.assertEqual(shelf.find(1 << 61), -1)

    def test_unaligned(self) -> None:
        """The end of one key and the beginning of the next are no key."""
        shelf = Shelf(96)
        first, second = (
            int.from_bytes(b"\1\2\3\4\5\6\7\1", "little"),
            int.from_bytes(b"\x0a\x0b\x0c\x0d\1\2\3\1", "little"),
        )
        shelf.put(first, 1)
        shelf.put(second, 1)
        across = int.from_bytes(b"\5\6\7\1\x0a\x0b\x0c\x0d", "little")
        self.assertEqual(shelf._buckets, 1)
        self.assertEqual((shelf.find(first), shelf.find(second), shelf.find(across)), (0, 1, -1))

    def test_full(self) -> None:
        """Of eight places, the oldest goes."""
        shelf = Shelf(96)
        for key in range(1, 9):
            shelf.put(key, 100 - key)
        shelf.put(99, 200)
        self.assertEqual(shelf.find(8), -1)
        self.assertEqual(sorted(key for key, _, _ in shelf.items()), [1, 2, 3, 4, 5, 6, 7, 99])
        self.assertEqual((len(shelf), shelf.dropped), (8, 1))

    def test_holds(self) -> None:
        """At half of its size, it has lost hardly a row."""
        chance = random.Random(2)
        shelf = Shelf(12 * 8000)
        for _ in range(4000):
            shelf.put(chance.getrandbits(60) or 1, 5)
        self.assertTrue(len(shelf) > 3900, len(shelf))
        for _ in range(40_000):
            shelf.put(chance.getrandbits(60) or 1, 6)
        self.assertTrue(7900 < len(shelf) <= 8000, len(shelf))

    def test_packed(self) -> None:
        """A shelf of another size takes over as many rows as it has places for; none is later than allowed."""
        chance = random.Random(4)
        rows = {chance.getrandbits(60) or 1: chance.randrange(1, 100) for _ in range(200)}
        shelf = Shelf(1 << 15, 2)
        for key, moment in rows.items():
            shelf.put(key, moment, moment.to_bytes(2, "big"))
        content = shelf.packed()
        for size, least in ((1 << 15, 200), (1 << 16, 200), (1400, 70)):
            other = Shelf(size, 2)
            other.verify(content)
            other.unpack(content, 50)
            self.assertTrue(least <= len(other) <= 200, len(other))
            for key, moment, row in other.items():
                self.assertEqual((moment, int.from_bytes(row, "big")), (min(50, rows[key]), rows[key]))
        self.assertRaises(ValueError, shelf.verify, content + b"x")
        self.assertEqual(Shelf(1 << 15, 2).packed(), b"")

    def test_resize(self) -> None:
        """Another size keeps the rows; clearing does not."""
        shelf = Shelf(1 << 14, 1)
        for key in range(1, 50):
            shelf.put(key << 20, key, bytes([key]))
        for size in (1 << 16, 1 << 12):
            shelf.resize(size)
            self.assertEqual(len(shelf) + shelf.dropped, 49)
        shelf.clear()
        self.assertEqual((len(shelf), list(shelf.items())), (0, []))

    def test_since(self) -> None:
        """Rows can be listed from a moment on."""
        shelf = Shelf(1 << 12)
        for key in range(1, 9):
            shelf.put(key, key)
        self.assertEqual(sorted(key for key, _, _ in shelf.items(6)), [6, 7, 8])
