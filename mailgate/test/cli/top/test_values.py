"""Tests for L{mailgate.cli.top.values}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.top.values import ago, clockTime, mapping, number, rows, text
from mailgate.keeper.moments import secondsOf

ANY: tuple[Any, ...] = (None, True, 7, -1.5, "text", [], [1, None, "x"], {}, {"a": 1}, 10**400, float("nan"))


class ValuesTests(SynchronousTestCase):
    """Values of the wrong kind count as missing."""

    def test_kinds(self) -> None:
        """Each function returns its kind, whatever comes."""
        for value in ANY:
            self.assertIsInstance(mapping(value), dict)
            self.assertTrue(all(isinstance(row, dict) for row in rows(value)))
            self.assertIsInstance(text(value), str)
            self.assertIsNone(secondsOf(value))
            self.assertIsNone(ago(value, 5.0))
        self.assertEqual([number(value) for value in ANY], [None, None, 7, -1.5, *[None] * 7])
        self.assertEqual(rows([{"a": 1}, 2]), [{"a": 1}])

    def test_times(self) -> None:
        """Times of RFC 3339; one without a time zone is not known, and none is in the future."""
        self.assertEqual(secondsOf("1970-01-01T00:01:00Z"), 60.0)
        self.assertEqual(secondsOf("1970-01-01T00:01:00.500+00:00"), 60.5)
        self.assertIsNone(secondsOf("1970-01-01T00:01:00"))
        self.assertEqual(ago("1970-01-01T00:01:00Z", 100.0), 40.0)
        self.assertEqual(ago("1970-01-01T00:01:00Z", 10.0), 0.0)
        self.assertIsNone(ago("1970-01-01T00:01:00Z", None))

    def test_clockTime(self) -> None:
        """The time of day; a time that no clock shows is a hyphen."""
        self.assertRegex(clockTime(60.0), r"^\d\d:\d\d:\d\d$")
        self.assertEqual(clockTime(None), "-")
        self.assertEqual(clockTime(1e17), "-")
