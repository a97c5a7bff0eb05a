"""
Tests for L{mailgate.upstream.verdicts}.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Backend
from mailgate.upstream.verdicts import Rest, Verdict, keyOf


class BodyTests(SynchronousTestCase):
    """Bodies of notices: JSON on the way, and checked when they arrive."""

    def test_ways(self):
        """What one process writes the other reads."""
        for value in (Verdict(True, "refused the connection", "0a"), Verdict(False), Rest(3, 9.5, "x"), Rest(1, 0.0)):
            self.assertEqual(type(value).of(json.loads(json.dumps(value.body))), value)

    def test_badVerdicts(self):
        """What is no verdict counts as none."""
        body: Any
        for body in (None, [], "down", {}, {"failing": 1}, {"failing": None}, {"reason": "x"}):
            self.assertIsNone(Verdict.of(body), body)

    def test_badRests(self):
        """What is no rest counts as none."""
        good = {"fails": 1, "seconds": 10}
        self.assertIsNotNone(Rest.of(good))
        for field, value in (
            ("seconds", -1),
            ("seconds", True),
            ("seconds", "10"),
            ("seconds", float("inf")),
            ("seconds", float("nan")),
            ("seconds", None),
            ("seconds", 10**400),
            ("fails", 10**400),
            ("fails", -(10**400)),
            ("fails", "3"),
            ("fails", float("nan")),
        ):
            self.assertIsNone(Rest.of({**good, field: value}), (field, value))
        for body in (None, [], 10, {"fails": 1}):
            self.assertIsNone(Rest.of(body), body)

    def test_bounds(self):
        """Numbers and texts have bounds, and control characters are escaped."""
        rest = Rest.of({"fails": 10**30, "seconds": 1, "reason": "x\r\n" * 1000})
        assert rest is not None
        self.assertEqual(rest.fails, 10**9)
        self.assertLess(len(rest.reason), 1000)
        self.assertNotIn("\n", rest.reason)
        self.assertEqual(Rest.of({"fails": -5, "seconds": 1, "reason": 7}), Rest(1, 1.0))
        self.assertEqual(Verdict.of({"failing": True, "reason": ["x"], "check": 1}), Verdict(True))

    def test_key(self):
        """A key has the group and the address; outside of groups the address only."""
        self.assertEqual(keyOf("store", Backend("2001:db8::1", 143)), "store/[2001:db8::1]:143")
        self.assertEqual(keyOf("", Backend("unix:/run/imap", 0)), "/unix:/run/imap")
