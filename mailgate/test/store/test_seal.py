"""Tests for L{mailgate.store.seal}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.seal import Seal, SealBroken


class SealTests(SynchronousTestCase):
    """A value that one gateway seals, and another one opens."""

    def setUp(self) -> None:
        self.seal = Seal(b"k" * 32)
        self.sealed = self.seal.close(b"joe@example.org", b"note:blocks")

    def test_open(self) -> None:
        """A gateway with the same secret can read it."""
        self.assertEqual(Seal(b"k" * 32).open(self.sealed, b"note:blocks"), b"joe@example.org")

    def test_unreadable(self) -> None:
        """Nobody else can, and the same value is never sealed twice alike."""
        self.assertNotIn(b"joe", self.sealed)
        self.assertNotEqual(self.sealed, self.seal.close(b"joe@example.org", b"note:blocks"))

    def test_broken(self) -> None:
        """With another secret, at another place, changed, cut or empty it is refused."""
        changed = self.sealed[:-1] + bytes([self.sealed[-1] ^ 1])
        for seal, sealed, place in (
            (Seal(b"l" * 32), self.sealed, b"note:blocks"),
            (self.seal, self.sealed, b"note:kicks"),
            (self.seal, changed, b"note:blocks"),
            (self.seal, self.sealed[:20], b"note:blocks"),
            (self.seal, b"", b"note:blocks"),
        ):
            self.assertRaises(SealBroken, seal.open, sealed, place)
