"""Tests for L{mailgate.scram.names}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.scram.names import withBinding


class WithBindingTests(SynchronousTestCase):
    """Tests for L{withBinding}."""

    def test_order(self) -> None:
        """The mechanism with the binding is before the one without."""
        names = (b"PLAIN", b"SCRAM-SHA-256", b"SCRAM-SHA-1")
        bound = (b"PLAIN", b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256", b"SCRAM-SHA-1-PLUS", b"SCRAM-SHA-1")
        self.assertEqual(withBinding(names), bound)

    def test_none(self) -> None:
        """Other mechanisms have no binding."""
        self.assertEqual(withBinding((b"PLAIN", b"EXTERNAL")), ())
