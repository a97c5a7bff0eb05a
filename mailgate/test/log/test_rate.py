"""
Tests for L{mailgate.log.rate}.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.rate import MOST_KINDS, LineLimit, Rate, logRate


class DirectiveTests(SynchronousTestCase):
    """The values of C{log_rate}."""

    def test_values(self) -> None:
        """
        The form is that of nginx's rates, per second or per minute. The same rate has the same value in both forms.
        """
        for value, expected in (
            ("100r/s", Rate(100, 1.0)),
            ("1r/s", Rate(1, 1.0)),
            ("6000r/m", Rate(100, 1.0)),
            ("30r/m", Rate(1, 2.0)),
            ("1r/m", Rate(1, 60.0)),
            ("off", None),
        ):
            self.assertEqual(logRate(value, "/"), expected, value)
        rate = logRate("90r/m", "/")
        assert rate is not None
        self.assertAlmostEqual(rate.lines / rate.seconds, 1.5)

    def test_refused(self) -> None:
        """Other forms are refused."""
        for value in ("", "0r/s", "100", "100r/h", "-1r/s", "on", "1.5r/s", "100 r/s", "1000000000r/s", "off off"):
            self.assertRaises(ValueError, logRate, value, "/")


class LimitTests(SynchronousTestCase):
    """Tests for L{LineLimit}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, int, str]] = []
        self.begin(Rate(3, 1.0))

    def begin(self, rate: Rate) -> None:
        def tell(level: LogLevel, count: int, beginning: str) -> None:
            self.told.append((level.name, count, beginning))

        self.limit = LineLimit(rate, self.clock, tell)

    def come(self, count: int, format: str = "x {y}", level: LogLevel = LogLevel.info) -> int:
        """Return how many of C{count} lines are logged."""
        return sum(self.limit.admits(format, level) for _ in range(count))

    def test_burst(self) -> None:
        """Of a burst the first lines are logged; after the period one line says how many were suppressed."""
        self.assertEqual(self.come(10), 3)
        self.assertEqual(self.told, [])
        self.clock.advance(1)
        self.assertEqual(self.told, [("info", 7, "x {y}")])
        self.assertEqual(self.clock.getDelayedCalls(), [], "nothing wakes a gateway that is idle")

    def test_lasting(self) -> None:
        """While a flood lasts, each second has the same number of lines, and one with the number of the others."""
        logged = 0
        for _ in range(40):
            logged += self.come(25)
            self.clock.advance(0.25)
        self.assertEqual(logged + sum(count for _, count, _ in self.told), 1000)
        self.assertLessEqual(logged, 3 * 10 + 3)
        self.assertEqual(len(self.told), 10)

    def test_slow(self) -> None:
        """Lines at a slower rate are never suppressed, however long they last, and need no timer."""
        for _ in range(200):
            self.assertEqual(self.come(3), 3)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.clock.advance(1)
        self.assertEqual(self.told, [])

    def test_rare(self) -> None:
        """A rate below one per second admits one line in several seconds."""
        self.begin(Rate(1, 60.0))
        self.assertEqual(self.come(5), 1)
        self.clock.advance(59)
        self.assertEqual(self.come(5), 0)
        self.clock.advance(1)
        self.assertEqual(self.told, [("info", 9, "x {y}")])
        self.assertEqual(self.come(1), 1)

    def test_kinds(self) -> None:
        """Each kind has its own limit and its own count, with its own level."""
        self.assertEqual(self.come(5, "a"), 3)
        self.clock.advance(0.5)
        self.assertEqual(self.come(9, "b", LogLevel.error), 3)
        self.clock.advance(0.5)
        self.clock.advance(1)
        self.assertEqual(sorted(self.told), [("error", 6, "b"), ("info", 2, "a")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_beginning(self) -> None:
        """The line quotes only the beginning of a long format."""
        self.come(4, "y" * 200)
        self.limit.flush()
        self.assertEqual(self.told, [("info", 1, "y" * 60 + "...")])

    def test_most(self) -> None:
        """Formats that are not constants use a bounded amount of memory. Beyond a thousand they share one limit."""
        logged = sum(self.come(1, f"format {number}") for number in range(3 * MOST_KINDS))
        self.assertEqual(logged, MOST_KINDS + 3)
        self.assertEqual(self.come(1, "format 7"), 1)
        self.limit.flush()
        self.assertEqual(self.told, [("info", 2 * MOST_KINDS - 3, "others")])

    def test_setBack(self) -> None:
        """If the clock is set back, lines are not suppressed."""
        self.clock.advance(1000)
        self.come(5)
        self.clock.rightNow -= 500
        self.assertEqual(self.come(3), 3)
