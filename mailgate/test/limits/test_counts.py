"""
Tests for L{mailgate.limits.counts}, L{mailgate.limits.cells} and L{mailgate.limits.sharedtables}: in one process, and
in forked ones.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailgate.limits.cells import CELLS, Cells
from mailgate.limits.counts import Counts
from mailgate.limits.sharedtables import COLUMNS, SharedTables, columnsFor

ANN, JOE = b"address imap ann", b"address imap joe"


def blocksOf(tables: SharedTables) -> int:
    """Return how many bytes of memory the tables have."""
    return os.fstat(tables.descriptor).st_blocks * 512


class Worker:
    """
    What one process counts, with the limits of others in view.

    @param counts: its counts.
    """

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def add(self, key: bytes, most: int | None = None) -> bool:
        """Count one more, unless there are C{most} in all workers."""
        if most is not None and self.of(key) >= most:
            return False
        self._change(key, 1)
        return True

    def drop(self, key: bytes) -> None:
        self._change(key, -1)

    def _change(self, key: bytes, change: int) -> None:
        numbers = self.counts.numbers
        numbers[key] = numbers.get(key, 0) + change
        if self.counts.column is not None:
            self.counts.column.show(key, change)

    def of(self, key: bytes) -> int:
        return self.counts.total(key, self.counts.numbers.get(key, 0))


class TablesCase(SynchronousTestCase):
    """Has tables of two workers."""

    def setUp(self) -> None:
        self.tables = SharedTables.made(2)
        self.addCleanup(os.close, self.tables.descriptor)
        self.addCleanup(self.tables.close)

    def worker(self, column: int | None) -> Worker:
        return Worker(self.tables.counts(column))

    def forked(self, act: Callable[[SharedTables], object]) -> None:
        """Do something in another process, with its own mapping of the memory."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                act(SharedTables(self.tables.descriptor))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        self.assertEqual(os.waitpid(pid, 0)[1], 0)


class CellsTests(SynchronousTestCase):
    """L{Cells}."""

    def test_places(self) -> None:
        """A key has a cell in each row, the same in all processes with the salt, and others with another salt."""
        keys = [b"%d" % number for number in range(5000)]
        places = list(map(Cells(b"a" * 16).of, keys))
        self.assertEqual(places, list(map(Cells(b"a" * 16).of, keys)))
        self.assertNotEqual(places, list(map(Cells(b"b" * 16).of, keys)))
        for first, second in places:
            self.assertTrue(0 <= first < CELLS <= second < 2 * CELLS)
        # Both rows are used evenly, and not the same way.
        self.assertGreater(len({first for first, _ in places}), 4900)
        self.assertNotEqual([first for first, _ in places], [second - CELLS for _, second in places])

    def test_bounded(self) -> None:
        """A flood of keys is not remembered."""
        cells = Cells(b"a" * 16)
        for number in range(20000):
            cells.of(b"%d" % number)
        self.assertLess(len(cells._known), 5000)


class CountsTests(TablesCase):
    """What all counts do."""

    def both(self) -> list[Worker]:
        return [Worker(Counts()), self.worker(0)]

    def test_counts(self) -> None:
        """Keys are counted apart."""
        for counts in self.both():
            self.assertTrue(counts.add(ANN))
            counts.add(ANN)
            counts.add(JOE)
            self.assertEqual((counts.of(ANN), counts.of(JOE), counts.of(b"other")), (2, 1, 0))
            counts.drop(ANN)
            counts.drop(ANN)
            self.assertEqual((counts.of(ANN), counts.of(JOE)), (0, 1))

    def test_most(self) -> None:
        """What would be too many is not counted."""
        for counts in self.both():
            self.assertEqual([counts.add(ANN, 3) for _ in range(5)], [True, True, True, False, False])
            self.assertEqual(counts.of(ANN), 3)
            counts.drop(ANN)
            self.assertEqual([counts.add(ANN, 3), counts.add(ANN, 3)], [True, False])
            self.assertTrue(counts.add(JOE, 1))

    def test_counter(self) -> None:
        """The counter of a key, and the sessions of a server, are the same for all who ask for them."""
        counts = Counts()
        counts.counter(b"new").count += 1
        counts.counter(b"other").count += 2
        self.assertEqual((counts.counter(b"new").count, counts.counter(b"other").count), (1, 2))
        counts.sessionsOf("imap")[b"joe"] = ["192.0.2.7:1"]
        self.assertEqual((counts.sessionsOf("imap"), counts.sessionsOf("pop3")), ({b"joe": ["192.0.2.7:1"]}, {}))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60))
    def test_exact(self, changes: list[tuple[bool, int]]) -> None:
        """The counts of one worker among few keys are those of a dict of numbers."""
        model = [0] * 4
        for counts in (Worker(Counts()), self.worker(1)):
            model = [0] * 4
            for isMore, key in changes:
                if isMore:
                    counts.add(b"%d" % key)
                    model[key] += 1
                elif model[key]:
                    counts.drop(b"%d" % key)
                    model[key] -= 1
            self.assertEqual([counts.of(b"%d" % key) for key in range(4)], model)
        self.tables.clear(1)


class SharedTests(TablesCase):
    """The counts of several processes."""

    def test_processes(self) -> None:
        """
        Each worker sees what all have. The column of one that has died is cleared, and leaves the others' as they are;
        another takes it. Workers of two generations count together.
        """
        here = self.worker(0)
        here.add(ANN)

        def worker(tables: SharedTables) -> None:
            counts = Worker(tables.counts(1))
            for _ in range(5):
                counts.add(ANN)
            assert counts.of(ANN) == 6, counts.of(ANN)
            assert not counts.add(ANN, 6)
            # It dies and drops nothing.

        self.forked(worker)
        self.assertEqual((here.of(ANN), here.of(JOE)), (6, 0))
        self.assertFalse(here.add(ANN, 6))

        def zygote(tables: SharedTables) -> None:
            tables.clear(1)

        self.forked(zygote)
        self.assertEqual(here.of(ANN), 1)

        def next(tables: SharedTables) -> None:
            old, new = Worker(tables.counts(1)), Worker(tables.counts(2))
            old.add(ANN)
            new.add(ANN)
            assert (old.of(ANN), new.of(ANN)) == (3, 3)
            old.drop(ANN)
            assert new.of(ANN) == 2

        self.forked(next)
        self.assertEqual(here.of(ANN), 2)
        here.drop(ANN)
        self.assertEqual(here.of(ANN), 1)

    def test_neverTooLittle(self) -> None:
        """A count is at least what there is, however full the table; only few keys read more."""
        workers = [self.worker(column) for column in range(4)]
        keys = [b"%d" % number for number in range(8000)]
        for number, key in enumerate(keys):
            workers[number % 4].add(key)
        read = [workers[0].of(key) for key in keys]
        self.assertGreaterEqual(min(read), 1)
        self.assertLess(sum(count > 1 for count in read), 80)

    def test_cleared(self) -> None:
        """A worker whose column was cleared while it runs counts on, and takes nothing from others."""
        one, other = self.worker(0), self.worker(1)
        one.add(ANN)
        other.add(ANN)
        self.tables.clear(0)
        self.assertEqual(other.of(ANN), 1)
        one.drop(ANN)
        self.assertEqual((one.of(ANN), other.of(ANN)), (1, 1))
        one.add(ANN)
        self.assertEqual(other.of(ANN), 2)

    def test_clearedLimit(self) -> None:
        """A worker whose column was cleared knows nevertheless how many it has itself."""
        one = self.worker(0)
        one.add(ANN)
        one.add(ANN)
        self.tables.clear(0)
        self.assertFalse(one.add(ANN, 2))
        self.assertTrue(one.add(ANN, 3))

    def test_large(self) -> None:
        """A number that no cell can hold is counted by its worker, and goes back to 0."""
        one, other = self.worker(0), self.worker(1)
        for _ in range(65540):
            one.add(ANN)
        self.assertEqual((one.of(ANN), other.of(ANN)), (65540, 65535))
        for _ in range(65539):
            one.drop(ANN)
        self.assertEqual((one.of(ANN), other.of(ANN)), (1, 1))

    def test_sparse(self) -> None:
        """Memory is taken for what is written alone, also when columns are cleared."""
        self.assertLess(blocksOf(self.tables), 20000)
        counts = self.worker(0)
        counts.add(ANN)
        for column in range(self.tables.columns):
            self.tables.clear(column)
        self.assertLess(blocksOf(self.tables), 40000)
        self.assertEqual(self.worker(1).of(ANN), 0)

    def test_noColumn(self) -> None:
        """A worker without a column counts for itself alone."""
        alone = self.worker(None)
        alone.add(ANN)
        self.assertEqual((alone.of(ANN), self.worker(0).of(ANN)), (1, 0))

    def test_columns(self) -> None:
        """There are columns for three generations."""
        self.assertEqual(list(map(columnsFor, (1, 2, 5, 8, 64))), [COLUMNS, COLUMNS, 15, 24, 192])
        self.assertEqual(self.tables.columns, COLUMNS)

    def test_foreign(self) -> None:
        """A file that is no such memory is refused."""
        for size in (10, 100000):
            descriptor = (
                os.memfd_create("other") if hasattr(os, "memfd_create") else os.open("x", os.O_RDWR | os.O_CREAT)
            )
            self.addCleanup(os.close, descriptor)
            os.ftruncate(descriptor, size)
            self.assertRaises(ValueError, SharedTables, descriptor)
