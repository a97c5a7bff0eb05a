"""Tests for L{mailgate.cli.figures}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.cli.figures import count, isNumber, rate, seconds, share


class FiguresTests(SynchronousTestCase):
    """Numbers as texts."""

    def test_texts(self) -> None:
        """Each kind of number has its unit."""
        for text, expected in (
            (count(48211), "48 211"),
            (count(0), "0"),
            (rate(2.14), "2.1/s"),
            (rate(1234.5), "1234/s"),
            (seconds(0.0182), "18 ms"),
            (seconds(1.54), "1.5 s"),
            (share(0.824), "82 %"),
        ):
            self.assertEqual(text, expected)

    def test_others(self) -> None:
        """What is no number of a reasonable size is a hyphen."""
        values: tuple[Any, ...] = (None, "7", True, [1], {}, float("nan"), float("inf"), 10**400, -(10**400))
        for value in values:
            self.assertFalse(isNumber(value), value)
            for function in (count, rate, seconds, share):
                self.assertEqual(function(value), "-")
