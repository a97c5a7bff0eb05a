"""
Tests for L{mailgate.system.lastwords}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.system.lastwords import LastWords


class LastWordsTests(SynchronousTestCase):
    """Tests for L{LastWords}."""

    def setUp(self):
        self.reading, writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.words = LastWords(writing)
        self.addCleanup(os.close, writing)

    def test_line(self):
        """
        The result is the last line that is not blank. Control characters, and bytes that are not UTF-8, are escaped.
        """
        self.assertEqual(self.words.line, "")
        said = [b"x" * 5000, b"\nTraceback (most rec", b"ent call last):\nOSError: no \xff\x1b", b" in it\r\n\n"]
        for data in said:
            self.words.heard(data)
        self.assertEqual(self.words.line, "OSError: no \\xff\\x1b in it")
        self.assertEqual(os.read(self.reading, 65536), b"".join(said), "all of it is passed on")

    def test_endless(self):
        """Of a line without an end at most 1000 bytes are kept."""
        for _ in range(3):
            self.words.heard(b"x" * 600)
        self.assertEqual(self.words.line, "x" * 1000)

    def test_deaf(self):
        """It does not matter if standard error is closed."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        os.close(reading)
        words = LastWords(writing)
        words.heard(b"ValueError: x\n")
        self.assertEqual(words.line, "ValueError: x")
