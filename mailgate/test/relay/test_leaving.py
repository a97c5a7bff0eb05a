"""Tests for L{mailgate.relay.leaving}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.lean.quickack import ANNOUNCED, BEGUN, LINE_END, NOTHING, SUSPECT, expectedAfter
from mailgate.relay.leaving import ENDED, LEAVING, expectsAfter

GOODBYES = (
    b"a1 LOGOUT\r\n",
    b"LOGOUT\r\n",
    b"A.0042 logout\r\n",
    b"QUIT\r\n",
    b"quit\r\n",
    b".\r\nQUIT\r\n",
    b"a CLOSE\r\nb LOGOUT\r\n",
)
OTHERS = (b"a1 IDLE\r\n", b"a LOGOUT\r\nb NOOP\r\n", b"QUIT", b"xLOGOUT x\r\n", b"x QUIT\r\n", b"\r\n", b"a ")


class StateTests(SynchronousTestCase):
    """L{expectsAfter}."""

    def test_goodbyes(self) -> None:
        """The last line counts, in any case of letters."""
        for line in GOODBYES:
            for state in (NOTHING, BEGUN, LEAVING, ENDED):
                self.assertEqual(expectsAfter(state, line), LEAVING, line)
            self.assertEqual(expectsAfter(NOTHING, memoryview(line)), LEAVING, line)

    def test_others(self) -> None:
        """Other lines are no goodbye."""
        for line in OTHERS:
            for state in (NOTHING, ANNOUNCED, BEGUN):
                self.assertEqual(expectsAfter(state, line), expectedAfter(state, line), line)

    def test_ends(self) -> None:
        """The end of a message counts only where a message may be."""
        for data in (b"text\r\n.\r\n", b".\r\n", memoryview(b"x" * 5000 + b"\r\n.\r\n")):
            for state in (ANNOUNCED, BEGUN, ENDED):
                self.assertEqual(expectsAfter(state, data), ENDED)
        self.assertEqual(expectsAfter(NOTHING, b".\r\n"), NOTHING)
        for data in (b"text.\r\n", b"..\r\n", b".\r\nmore\r\n"):
            self.assertEqual(expectsAfter(BEGUN, data), BEGUN)

    def test_lookedAt(self) -> None:
        """The relay looks closer at each goodbye anyway: it ends as a line that announces data may."""
        for line in GOODBYES:
            self.assertIn(line[-3], SUSPECT)
            self.assertEqual(line[-1], LINE_END)
