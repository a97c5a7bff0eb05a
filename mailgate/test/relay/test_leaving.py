"""Tests for L{mailgate.relay.leaving}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.lean.quickack import LINE_END, SUSPECT
from mailgate.relay.leaving import saysGoodbye

GOODBYES = (
    b"a1 LOGOUT\r\n",
    b"A.0042 logout\r\n",
    b"QUIT\r\n",
    b"quit\r\n",
    b".\r\nQUIT\r\n",
    b"a CLOSE\r\nb LOGOUT\r\n",
)


class GoodbyeTests(SynchronousTestCase):
    """L{saysGoodbye}."""

    def test_goodbyes(self) -> None:
        """The last line counts, in any case of letters."""
        for line in GOODBYES:
            self.assertTrue(saysGoodbye(line), line)
            self.assertTrue(saysGoodbye(memoryview(line)), line)

    def test_others(self) -> None:
        """Other lines are no goodbye."""
        for line in (
            b"a1 IDLE\r\n",
            b"a LOGOUT\r\nb NOOP\r\n",
            b"LOGOUT\r\n",
            b"QUIT",
            b"x QUIT\r\n",
            b"\r\n",
            b"",
            b"a ",
        ):
            self.assertFalse(saysGoodbye(line), line)

    def test_lookedAt(self) -> None:
        """The relay looks closer at each goodbye anyway: it ends as a line that announces data may."""
        for line in GOODBYES:
            self.assertIn(line[-3], SUSPECT)
            self.assertEqual(line[-1], LINE_END)
