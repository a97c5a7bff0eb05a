"""
Tests for L{mailgate.keeper.moments}.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.moments import LATEST, isMoment, moment, secondsOf


class MomentTests(SynchronousTestCase):
    """L{isMoment}."""

    def test_dates(self) -> None:
        """Those that are moments can be written as dates."""
        value: Any
        for value in (0, 1.5, 1e9, LATEST - 1):
            self.assertTrue(isMoment(value), value)
            self.assertRegex(moment(value), r"\A\d{4}-")
        self.assertRaises(ValueError, moment, LATEST)
        for value in (-1, LATEST, 2**40, 10**400, inf, nan, True, None, "1"):
            self.assertFalse(isMoment(value), value)

    def test_texts(self) -> None:
        """A text of RFC 3339 has its seconds back; what is none has none."""
        self.assertEqual(moment(1_800_000_000.9), "2027-01-15T08:00:00Z")
        for text, seconds in (
            ("2027-01-15T08:00:00Z", 1_800_000_000.0),
            ("2027-01-15T10:00:00.5+02:00", 1_800_000_000.5),
        ):
            self.assertEqual(secondsOf(text), seconds)
        value: Any
        for value in ("", "soon", "2027-01-15T08:00:00", "99999-01-01T00:00:00Z", None, 5, [], {}):
            self.assertIsNone(secondsOf(value), value)
