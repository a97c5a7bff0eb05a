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
    """One that is wanted."""
    return Difference("a reason", side, where, old, new)


class ComparisonTests(SynchronousTestCase):
    """L{Comparison} finds every difference that is not wanted, and every wanted one that is not there."""

    def test_same(self):
        """What is the same needs no difference."""
        self.assertEqual(Comparison(()).report("imap login", SAME, SAME), "")

    def test_notWanted(self):
        """What differs on any side and is in no list is reported, with both versions."""
        for side in ("client", "auth", "backend"):
            report = Comparison(()).report("imap login", SAME, evolve(SAME, **{side: "x"}))
            self.assertIn(f"imap login: {side}", report)
            self.assertIn("+ x", report)
            self.assertIn(f"- {getattr(SAME, side)}", report)

    def test_wanted(self):
        """A difference that is in the list is none; all of what nginx says may be different."""
        for old in ("ready", WHOLE, re.compile("r.*y")):
            other = Transcript("steady" if old is WHOLE else "S: steady", SAME.auth, SAME.backend)
            self.assertEqual(Comparison([difference(old, "steady")]).report("imap login", SAME, other), "")

    def test_anotherSide(self):
        """It is wanted on its own side alone, and in conversations of its own names alone."""
        other = Transcript("S: steady", SAME.auth, SAME.backend)
        for wanted in (difference("ready", "steady", side="auth"), difference("ready", "steady", where=("pop3 *",))):
            self.assertNotEqual(Comparison([wanted]).report("imap login", SAME, other), "")

    def test_exactly(self):
        """It is wanted to the byte: anything else in its place is reported."""
        other = Transcript("S: heady", SAME.auth, SAME.backend)
        self.assertNotEqual(Comparison([difference("ready", "steady")]).report("imap login", SAME, other), "")

    def test_gone(self):
        """Where nginx and mailgate agree, a difference is reported that was wanted."""
        comparison = Comparison([difference("ready", "steady")])
        self.assertNotEqual(comparison.report("imap login", SAME, SAME), "")

    def test_unmet(self):
        """A difference that did not show in any conversation of one of its names is told of; no other is."""
        wanted = difference("ready", "steady", where=("imap a", "imap b", "imap c"))
        comparison = Comparison([wanted])
        comparison.report("imap a", SAME, Transcript("S: steady", SAME.auth, SAME.backend))
        (told,) = comparison.unmet(["imap a", "imap b", "imap d"])
        self.assertIn("imap b: client", told)
        self.assertIn("a reason", told)
