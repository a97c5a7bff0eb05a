"""
Tests for L{mailgate.watch.labels}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.watch.labels import OTHER, FirstNames


class FirstNamesTests(SynchronousTestCase):
    """L{FirstNames}."""

    def test_first(self) -> None:
        """The first ones keep their names, and all others have one."""
        names = FirstNames(2)
        self.assertEqual([names.of(name) for name in "abcab"], ["a", "b", OTHER, "a", "b"])

    def test_known(self) -> None:
        """Those of the configuration always have names, and take no room of the others."""
        names = FirstNames(1)
        names.know(["a", "b"])
        self.assertEqual([names.of(name) for name in "abcd"], ["a", "b", "c", OTHER])
        names.know(["d"])
        self.assertEqual(names.of("d"), "d")
