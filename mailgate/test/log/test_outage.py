"""
Tests for L{mailgate.log.outage}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.log.journal import Journal
from mailgate.log.outage import Outage
from mailgate.log.seldom import PERIOD


class OutageTests(SynchronousTestCase):
    """The outages of one backend."""

    def test_once(self) -> None:
        """The first failure begins an outage, further ones are counted."""
        outage = Outage()
        self.assertFalse(outage.isOn)
        self.assertEqual([outage.failed(1000.0 + each) for each in range(4)], [True, False, False, False])
        self.assertTrue(outage.isOn)
        self.assertEqual(outage.over(1012.4), (12, 4))
        self.assertFalse(outage.isOn)

    def test_flapping(self) -> None:
        """Of several outages within a minute, one is logged; failures in the others are no known outage."""
        outage = Outage()
        self.assertTrue(outage.failed(1000.0))
        outage.over(1001.0)
        self.assertFalse(outage.failed(1002.0))
        self.assertFalse(outage.isOn)
        self.assertTrue(outage.failed(1000.0 + PERIOD))
        self.assertEqual(outage.over(1000.0 + PERIOD), (0, 1))

    def test_clockSetBack(self) -> None:
        """A clock that is set back makes no negative time."""
        outage = Outage()
        outage.failed(1000.0)
        self.assertEqual(outage.over(900.0), (0, 1))

    def test_logs(self) -> None:
        """Each log mentions an outage once, and the next one again."""
        outage, one, other = Outage(), Journal(), Journal()
        outage.failed(1000.0)
        self.assertEqual([outage.isKnownTo(log) for log in (one, other, one, other)], [False, False, True, True])
        self.assertEqual(outage.journals, [one, other])
        outage.over(1001.0)
        outage.failed(1000.0 + PERIOD)
        self.assertFalse(outage.isKnownTo(other))
        self.assertEqual(outage.journals, [other])
