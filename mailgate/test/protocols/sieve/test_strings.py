"""
Tests for L{mailgate.protocols.sieve.strings}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.protocols.sieve.command import quotedText
from mailgate.protocols.sieve.strings import LONGEST_QUOTED, isQuotable, quoted, string, unquoted


class QuotedTests(SynchronousTestCase):
    """L{quoted}: texts of others for clients."""

    def test_escaped(self) -> None:
        """Quotes and backslashes are escaped, and control characters become blanks: no text ends its string."""
        for text, expected in (
            (b"", b'""'),
            (b'say "no"\\', b'"say \\"no\\"\\\\"'),
            (b'a\r\nOK "x"\r\n', b'"a OK \\"x\\""'),
            (b"\x1b[2J\0\x7fx\t", b'"[2J x"'),
            ("zurück".encode(), '"zurück"'.encode()),
            (b"\xfcber", '"über"'.encode()),
        ):
            self.assertEqual(quoted(text), expected)

    def test_cut(self) -> None:
        """A string has at most 1,024 octets (erratum 2655), and ends neither in an escape nor in a character."""
        for text in (b"x" * 5000, b'"' * 5000, b"x" + b'"' * 5000, "ü".encode() * 5000, b"x" + "ü".encode() * 5000):
            for before in range(3):
                inside = quoted(b"y" * before + text)[1:-1]
                self.assertLessEqual(len(inside), LONGEST_QUOTED)
                self.assertGreater(len(inside), LONGEST_QUOTED - 3)
                inside.decode("utf-8")
                self.assertIsNotNone(quotedText(b'"' + inside + b'"'))

    def test_unquoted(self) -> None:
        """The text comes back."""
        for text in (b"", b'a"b', b"a\\", b'\\"', "ü".encode()):
            self.assertEqual(unquoted(quoted(text)[1:-1]), text)


class StringTests(SynchronousTestCase):
    """L{string}: bytes that must arrive unchanged."""

    def test_forms(self) -> None:
        """What no quoted string can hold is a literal."""
        self.assertEqual(string(b'a"b'), b'"a\\"b"')
        self.assertEqual(string(b"a\r\nb"), b"{4}\r\na\r\nb")
        self.assertEqual(string(b"x" * 1024), b'"' + b"x" * 1024 + b'"')
        self.assertEqual(string(b"x" * 1025), b"{1025}\r\n" + b"x" * 1025)
        self.assertEqual(string(b'"' * 600), b"{600}\r\n" + b'"' * 600)

    def test_quotable(self) -> None:
        """The octets between the quotes count."""
        self.assertTrue(isQuotable(b'"' * 512))
        for text in (b'"' * 513, b"a\nb", b"a\0", b"x" * 1025):
            self.assertFalse(isQuotable(text))
