"""
Tests of L{mailgate.store.redis.answers}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.store.redis.answers import codeOf, encoded, errorWords


class AnswersTests(SynchronousTestCase):
    """Commands and error replies."""

    def test_encoded(self) -> None:
        """The lengths are those of the bytes."""
        self.assertEqual(
            encoded(["GET", "\u00e4", b"\r\n", 5]), b"*4\r\n$3\r\nGET\r\n$2\r\n\xc3\xa4\r\n$2\r\n\r\n\r\n$1\r\n5\r\n"
        )
        self.assertEqual(encoded((b"",)), b"*1\r\n$0\r\n\r\n")

    def test_words(self) -> None:
        """Known codes have words, also where a script was refused, by servers of both ages."""
        old = "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -OOM command not allowed when"
        for reply, expected in (
            ("OOM command not allowed when used memory > 'maxmemory'.", "is out of memory"),
            ("OOM command not allowed. script: 1, on @user_script:1.", "is out of memory"),
            (old, "is out of memory"),
            ("READONLY You can't write against a read only replica.", "is a replica, which cannot be written to"),
            ("LOADING Redis is loading the dataset in memory", "is still loading its data"),
        ):
            self.assertEqual(errorWords(reply), expected)
        self.assertEqual(codeOf("NOSCRIPT No matching script."), "NOSCRIPT")

    def test_unknown(self) -> None:
        """Other texts come from the network: they are cut, and have no control characters."""
        self.assertEqual(errorWords("ERR a\nb"), 'has answered "ERR a\\nb"')
        self.assertLess(len(errorWords("ERR " + "x" * 1000)), 150)
        self.assertIn("the rights that the gateway needs: NOPERM this user", errorWords("NOPERM this user"))
