# -*- test-case-name: mailgate.test.integration.test_comparison -*-
"""
Tests for L{mailgate.test.integration.comparison}: these run everywhere.
"""

from __future__ import annotations

import re

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.integration.comparison import WHOLE, Comparison, Difference
from mailgate.test.integration.transcript import Transcript

SAME = Transcript("S: ready", "Auth-User: alice", "USER alice")


def difference(old, new, where=("imap *",), side="client"):
    """An intended difference."""
    return Difference("a reason", side, where, old, new)


class ComparisonTests(SynchronousTestCase):
    """L{Comparison} finds every unintended difference, and every intended one that does not occur."""

    def test_same(self):
        """Equal transcripts need no difference."""
        self.assertEqual(Comparison(()).report("imap login", SAME, SAME), "")

    def test_notWanted(self):
        """An unlisted difference on any side is reported, with both versions."""
        for side in ("client", "auth", "backend"):
            report = Comparison(()).report("imap login", SAME, evolve(SAME, **{side: "x"}))
            self.assertIn(f"imap login: {side}", report)
            self.assertIn("+ x", report)
            self.assertIn(f"- {getattr(SAME, side)}", report)

    def test_wanted(self):
        """A listed difference is accepted; it may replace everything that nginx sends."""
        for old in ("ready", WHOLE, re.compile("r.*y")):
            other = Transcript("steady" if old is WHOLE else "S: steady", SAME.auth, SAME.backend)
            self.assertEqual(Comparison([difference(old, "steady")]).report("imap login", SAME, other), "")

    def test_anotherSide(self):
        """It applies only to its side and its conversations."""
        other = Transcript("S: steady", SAME.auth, SAME.backend)
        for wanted in (difference("ready", "steady", side="auth"), difference("ready", "steady", where=("pop3 *",))):
            self.assertNotEqual(Comparison([wanted]).report("imap login", SAME, other), "")

    def test_exactly(self):
        """It must match exactly: anything else is reported."""
        other = Transcript("S: heady", SAME.auth, SAME.backend)
        self.assertNotEqual(Comparison([difference("ready", "steady")]).report("imap login", SAME, other), "")

    def test_gone(self):
        """If nginx and mailgate agree, a listed difference is reported."""
        comparison = Comparison([difference("ready", "steady")])
        self.assertNotEqual(comparison.report("imap login", SAME, SAME), "")

    def test_unmet(self):
        """A difference that does not occur in any conversation of one of its names is reported, and no other."""
        wanted = difference("ready", "steady", where=("imap a", "imap b", "imap c"))
        comparison = Comparison([wanted])
        comparison.report("imap a", SAME, Transcript("S: steady", SAME.auth, SAME.backend))
        (told,) = comparison.unmet(["imap a", "imap b", "imap d"])
        self.assertIn("imap b: client", told)
        self.assertIn("a reason", told)
