"""
The fuzz targets with a few examples, which are the same in each run.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.test.fuzz.frame import Looping, Target, exercise, mutations, pieces
from mailgate.test.fuzz.targets import TARGETS


class TargetTests(SynchronousTestCase):
    """All targets."""


def _test(target: Target) -> None:
    def test(self: SynchronousTestCase) -> None:
        exercise(target, target.examples)

    name = f"test_{target.name}"
    test.__doc__ = f"No input breaks the parser {target.name!r}, however it is cut."
    test.__name__ = name
    test.__qualname__ = f"TargetTests.{name}"
    setattr(TargetTests, name, test)


for each in TARGETS:
    _test(each)


class FrameTests(SynchronousTestCase):
    """The frame finds what it is for."""

    inputs = mutations([b"hello"], [b"x"])

    def fuzz(self, run: object, isCut: bool = True) -> None:
        exercise(Target("x", run, self.inputs, isCut=isCut), 200)  # type: ignore[arg-type]

    def test_error(self) -> None:
        """An error that is not part of the outcome."""

        def run(given: list[bytes]) -> int:
            return 1 // (b"x" not in b"".join(given))

        self.assertRaises(ZeroDivisionError, self.fuzz, run)

    def test_cuts(self) -> None:
        """An outcome that depends on the cuts."""
        self.assertRaises(AssertionError, self.fuzz, len)
        self.fuzz(len, isCut=False)

    def test_loop(self) -> None:
        """A parser that does not end."""
        self.patch(__import__("mailgate.test.fuzz.frame", fromlist=["x"]), "MOST_SECONDS", 0.05)

        def run(given: list[bytes]) -> None:
            while b"xx" in b"".join(given):
                pass

        self.assertRaises(Looping, self.fuzz, run)

    def test_pieces(self) -> None:
        """Pieces together are the whole, and none is empty."""
        self.assertEqual(pieces(b"abcdef", [2, 2, 4]), [b"ab", b"cd", b"ef"])
        self.assertEqual(pieces(b"abc", [1, -1]), [b"a", b"b", b"c"])
        self.assertEqual(pieces(b"", [3]), [])

    def test_same(self) -> None:
        """Each run has the same examples."""
        seen: list[list[bytes]] = [[], []]
        for some in seen:
            exercise(Target("x", lambda given, some=some: some.append(b"".join(given)), self.inputs), 50)  # type: ignore[misc]
        self.assertEqual(*seen)
        self.assertGreater(len(set(seen[0])), 20)
