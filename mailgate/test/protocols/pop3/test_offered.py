"""
The question to a POP3 backend what it offers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.errors import BackendError
from mailgate.protocols.pop3 import POP3
from mailgate.test.backend.test_conversation import Talk
from mailgate.testing import resultOf


class OfferedTests(SynchronousTestCase):
    """L{POP3Client.offered}."""

    def ask(self, *replies: bytes) -> Deferred[Any]:
        """Return a Deferred of what the client learns from C{replies} to its CAPA."""
        talk = Talk(POP3)
        opening = resultOf(talk.client.open(None, None))
        talk.accept()
        talk.says(b"+OK ready\r\n")
        self.successResultOf(opening)
        asked = resultOf(talk.client.offered())
        self.assertEqual(talk.says(), b"CAPA\r\n")
        talk.says(*replies)
        return asked

    def test_lines(self) -> None:
        """The lines up to the dot, in any segments."""
        for replies in (
            (b"+OK\r\nTOP\r\nEXPIRE 60\r\n.\r\n",),
            (b"+OK caps", b"\r\nTOP\r", b"\nEXPIRE 60\r\n", b".", b"\r\n"),
            (b"+OK\nTOP\nEXPIRE 60\n.\n",),
            (b"+OK\r\nTOP\r\n\r\nEXPIRE 60\r\n.\r\n",),
        ):
            self.assertEqual(self.successResultOf(self.ask(*replies)), (b"TOP", b"EXPIRE 60"))
        self.assertEqual(self.successResultOf(self.ask(b"+OK\r\n.\r\n")), ())

    def test_dots(self) -> None:
        """A dot at the beginning of a line is doubled (RFC 1939, section 3)."""
        self.assertEqual(self.successResultOf(self.ask(b"+OK\r\n..X\r\n.\r\n")), (b".X",))

    def test_unfinished(self) -> None:
        """Without the dot the list is not complete."""
        self.assertNoResult(self.ask(b"+OK\r\nTOP\r\n"))

    def test_noCommand(self) -> None:
        """What a backend offers that does not know CAPA is not known. It works nevertheless."""
        error = self.failureResultOf(self.ask(b"-ERR what\r\n"), BackendError).value
        self.assertEqual((str(error), error.counts), ("answers CAPA with -ERR", False))

    def test_garbage(self) -> None:
        """Another reply is an error."""
        for reply in (b"+OKAY\r\n", b"* OK\r\n", b"250 ok\r\n"):
            self.failureResultOf(self.ask(reply), BackendError)

    def test_tooLong(self) -> None:
        """The list has the bound of one reply."""
        for line in (b"X" * 40 + b"\r\n", b"\r\n", b"X" * 4096):
            self.failureResultOf(self.ask(b"+OK\r\n", line * 3000), BackendError)
