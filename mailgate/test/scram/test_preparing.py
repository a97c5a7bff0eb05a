"""Tests for L{mailgate.scram.preparing}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.scram.preparing import prepared


class PreparedTests(SynchronousTestCase):
    """Tests for L{prepared}."""

    def test_examples(self) -> None:
        """The examples of RFC 4013, section 3."""
        for given, expected in (
            ("I\u00adX", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u00aa", "a"),
            ("\u2168", "IX"),
        ):
            self.assertEqual(prepared(given.encode()), expected.encode())

    def test_spaces(self) -> None:
        """All spaces become that of ASCII."""
        self.assertEqual(prepared("a\u00a0b\u3000c d".encode()), b"a b c d")

    def test_forbidden(self) -> None:
        """A password that SASLprep does not allow stays as it is."""
        for given in (b"\x07", b"\xff", "\u0627\u0031".encode(), "a\u0627".encode(), b"", "\u00ad".encode()):
            self.assertEqual(prepared(given), given)
