"""
Tests for L{mailgate.store.redis.replies}.
"""

from __future__ import annotations

import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.redis.replies import ErrorReply, Replies

TEXT = b"$5\r\na\r\nbc\r\n:-7\r\n+OK\r\n$-1\r\n$0\r\n\r\n*3\r\n$1\r\nx\r\n*2\r\n:1\r\n*0\r\n$-1\r\n*-1\r\n*0\r\n"
VALUES = [b"a\r\nbc", -7, b"OK", None, b"", [b"x", [1, []], None], None, []]


class RepliesTests(SynchronousTestCase):
    """L{Replies}."""

    def test_whole(self):
        """Replies of all forms are read."""
        self.assertEqual(Replies().feed(TEXT), VALUES)

    def test_pieces(self):
        """However the bytes come, the replies are the same, and none comes early."""
        for size in range(1, 12):
            replies, found = Replies(), []
            for at in range(0, len(TEXT), size):
                found += replies.feed(TEXT[at : at + size])
            self.assertEqual(found, VALUES)
        self.assertEqual(Replies().feed(TEXT[:-1]), VALUES[:-1])

    def test_error(self):
        """An error is told from a text."""
        (found,) = Replies().feed(b"-OOM no memory \xff\r\n")
        self.assertIsInstance(found, ErrorReply)
        self.assertEqual(str(found), "OOM no memory \ufffd")

    def test_others(self):
        """What is no reply is refused, and so is what would never end."""
        for text in (
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"$x\r\n",
            b"$-2\r\n",
            b"*-2\r\n",
            b":\r\n",
            b"$99999999999\r\n",
            b"*99999999999\r\n",
            b"*1\r\n" * 20,
            b"+" + b"x" * 70000,
        ):
            self.assertRaises(ValueError, Replies().feed, text)

    def test_long(self):
        """A long text is put together once, not with each of its pieces: a stranger may have written it."""
        replies, piece = Replies(), b"x" * 4096
        self.assertEqual(replies.feed(b"+OK\r\n$%d\r\n" % (1024 * 4096)), [b"OK"])
        tracemalloc.start()
        try:
            for _ in range(1023):
                self.assertEqual(replies.feed(piece), [])
            self.assertTrue(tracemalloc.get_traced_memory()[1] < 100000)
        finally:
            tracemalloc.stop()
        self.assertEqual(replies.feed(piece + b"\r\n:1\r\n"), [1024 * piece, 1])

    def test_announced(self):
        """What is only announced takes no memory."""
        replies = Replies()
        tracemalloc.start()
        try:
            self.assertEqual(replies.feed(b"*1000000\r\n$60000000\r\nx"), [])
            self.assertTrue(tracemalloc.get_traced_memory()[0] < 100000)
        finally:
            tracemalloc.stop()
