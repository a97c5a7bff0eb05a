"""
Tests for L{mailgate.keeper.moments}.
"""

from __future__ import annotations

from math import inf, nan
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.keeper.moments import LATEST, isMoment
from mailgate.keeper.stats import moment


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
