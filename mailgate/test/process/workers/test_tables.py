"""Tests for L{mailgate.process.workers.tables}."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.sharedtables import SharedTables
from mailgate.process.workers.tables import TABLES, Tables


class TablesTests(SynchronousTestCase):
    """L{Tables}."""

    def setUp(self) -> None:
        self.tables = Tables()
        self.addCleanup(self.tables.close)

    def generation(self, workers: int) -> tuple[object, tuple[int, ...], list[str]]:
        """Begin a generation. Return it, its columns, and what is logged."""
        generation = object()
        with capturedLogs() as events:
            columns = self.tables.lease(workers)
        self.tables.give(generation, columns)
        return generation, columns, [formatEvent(event) for event in events]

    def test_columns(self) -> None:
        """No two workers have the same column, until one has exited."""
        self.tables.open(6)
        self.assertEqual(list(self.tables.descriptors), [TABLES])
        first, ofFirst, _ = self.generation(4)
        second, ofSecond, _ = self.generation(4)
        self.assertEqual(len({*ofFirst, *ofSecond}), 8)
        self.tables.free(first, 2)
        self.tables.free(first, 2)
        _, ofThird, _ = self.generation(10)
        _, ofFourth, logged = self.generation(1)
        self.assertEqual((len(ofThird), ofFourth, logged), (10, (ofFirst[2],), []))
        self.tables.freeAll(second)
        _, ofFifth, _ = self.generation(4)
        self.assertEqual(sorted(ofFifth), sorted(ofSecond))

    def test_tooFew(self) -> None:
        """If too few are free, the last workers have none, and the log says so."""
        self.tables.open(6)
        self.generation(17)
        _, columns, logged = self.generation(3)
        self.assertEqual(len(columns), 1)
        (line,) = logged
        self.assertIn("2 new workers count connections for limits alone", line)

    def test_lostZygote(self) -> None:
        """The columns of workers whose zygote has died are not free before they have exited; then they are cleared."""
        self.tables.open(6)
        generation, _, _ = self.generation(18)
        taken = self.tables.take(generation, 3)
        assert taken is not None
        self.tables.freeAll(generation)
        _, others, _ = self.generation(17)
        self.assertNotIn(taken, others)
        memory = SharedTables(self.tables.descriptors[TABLES])
        self.addCleanup(memory.close)
        column, other = memory.counts(taken).column, memory.counts(0).column
        assert column is not None and other is not None
        column.show(b"a", 1)
        self.assertEqual(other.others(b"a"), 1)
        self.tables.clear(taken)
        self.assertEqual(other.others(b"a"), 0)
        self.assertEqual(self.generation(1)[1], (taken,))
        # Where an orphan cannot be watched, no other gets its column.
        self.tables.clear(taken, isFree=False)
        self.tables.clear(None)
        self.assertEqual(self.generation(1)[1], ())

    def test_noMemory(self) -> None:
        """If the system makes no memory, each worker counts alone, and the log says so once."""

        def made(workers: int) -> SharedTables:
            raise OSError(24, "Too many open files")

        self.patch(SharedTables, "made", made)
        with capturedLogs() as events:
            self.tables.open(2)
        (event,) = events
        self.assertIn("Too many open files", formatEvent(event))
        generation, columns, logged = self.generation(2)
        self.assertEqual((self.tables.descriptors, columns, logged), ({}, (), []))
        self.tables.free(generation, 0)
        self.tables.freeAll(generation)
