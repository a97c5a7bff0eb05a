"""
The selection of the capabilities that all backends have.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.intersection import intersection, plain, same

RULES = {b"TOP": plain, b"LEVEL": same, b"NEVER": lambda parameters: None}


class IntersectionTests(SynchronousTestCase):
    """L{intersection}."""

    def test_none(self) -> None:
        """Without a backend there is nothing to announce."""
        self.assertEqual(intersection([], RULES), ())

    def test_everyBackend(self) -> None:
        """A capability that one backend lacks is left out. The order is that of the first backend."""
        first = (b"LEVEL 1", b"TOP")
        self.assertEqual(intersection([first, (b"TOP", b"LEVEL 1")], RULES), (b"LEVEL 1", b"TOP"))
        self.assertEqual(intersection([first, (b"LEVEL 1",)], RULES), (b"LEVEL 1",))
        self.assertEqual(intersection([first, ()], RULES), ())

    def test_unknown(self) -> None:
        """A capability without a rule is left out, and one whose rule refuses it."""
        self.assertEqual(intersection([(b"XTOP", b"TOP-X", b"TOP=1", b"NEVER")], RULES), ())

    def test_rules(self) -> None:
        """C{plain} drops parameters; C{same} wants the same ones."""
        self.assertEqual(intersection([(b"TOP 1",), (b"TOP 2",)], RULES), (b"TOP",))
        self.assertEqual(intersection([(b"LEVEL a  b",), (b"LEVEL A B",)], RULES), (b"LEVEL A B",))
        self.assertEqual(intersection([(b"LEVEL 1",), (b"LEVEL 2",)], RULES), ())

    def test_spelling(self) -> None:
        """Case and blanks do not matter, empty lines are skipped, and of repeated words the first counts."""
        lines = (b"", b"  ", b" top", b"Level 1", b"LEVEL 2", b"TOP")
        self.assertEqual(intersection([lines, (b"level\t1", b"Top")], RULES), (b"TOP", b"LEVEL 1"))

    def test_unfit(self) -> None:
        """A line with control characters or other bytes, or that is too long for a client, is not read."""
        for line in (
            b"LEVEL \0",
            b"LEVEL a\rTOP",
            b"LEVEL a\nTOP",
            b"LEVEL \xff",
            b"LEVEL \x7f",
            b"LEVEL " + b"x" * 500,
        ):
            self.assertEqual(intersection([(line,)], RULES), ())
