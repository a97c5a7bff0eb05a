"""
Tests for L{mailgate.system.lastwords}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from mailgate.system.lastwords import LastWords


class LastWordsTests(SynchronousTestCase):
    """What a process says on its standard error."""

    def setUp(self):
        self.reading, writing = os.pipe()
        self.addCleanup(os.close, self.reading)
        self.words = LastWords(writing)
        self.addCleanup(os.close, writing)

    def test_line(self):
        """The last line that is not blank counts; bytes that are no text, and controls, are escaped."""
        self.assertEqual(self.words.line, "")
        said = [b"x" * 5000, b"\nTraceback (most rec", b"ent call last):\nOSError: no \xff\x1b", b" in it\r\n\n"]
        for data in said:
            self.words.heard(data)
        self.assertEqual(self.words.line, "OSError: no \\xff\\x1b in it")
        self.assertEqual(os.read(self.reading, 65536), b"".join(said), "all of it is passed on")

    def test_endless(self):
        """Of a line without an end no more than 1000 bytes are kept."""
        for _ in range(3):
            self.words.heard(b"x" * 600)
        self.assertEqual(self.words.line, "x" * 1000)

    def test_deaf(self):
        """That standard error is closed changes nothing."""
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        os.close(reading)
        words = LastWords(writing)
        words.heard(b"ValueError: x\n")
        self.assertEqual(words.line, "ValueError: x")
