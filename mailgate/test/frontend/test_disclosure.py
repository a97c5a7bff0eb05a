"""
Tests for L{mailgate.frontend.disclosure}: what the log shows of commands.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.disclosure import HIDDEN, disclosed, mechanismOf
from mailgate.frontend.mechanisms import MECHANISMS

KNOWN = (b"NOOP", b"AUTH", b"EHLO")


class DisclosedTests(SynchronousTestCase):
    """Commands."""

    def test_words(self) -> None:
        """A known word is shown in capitals; anything else is hidden as a whole."""
        for line, shown in (
            (b"noop", b"NOOP"),
            (b"  noop  ", b"NOOP"),
            (b"noop x y", b"NOOP ***"),
            (b"sesame", HIDDEN),
            (b"sesame NOOP", HIDDEN),
            (b"noop\tx", HIDDEN),
            (b"", HIDDEN),
            (b"  ", HIDDEN),
        ):
            self.assertEqual(disclosed(line, KNOWN), shown, line)

    def test_mechanisms(self) -> None:
        """The name of a mechanism is shown if it is one."""
        for name in MECHANISMS:
            self.assertEqual(disclosed(b"auth " + name.lower(), KNOWN), b"AUTH " + name)
            self.assertEqual(disclosed(b"AUTH " + name + b" c2VzYW1l x", KNOWN), b"AUTH " + name + b" ***")
        self.assertEqual(disclosed(b"AUTH c2VzYW1l", KNOWN), b"AUTH ***")
        self.assertEqual(disclosed(b"AUTH c2VzYW1l PLAIN", KNOWN), b"AUTH ***")
        self.assertEqual((mechanismOf(b"Plain"), mechanismOf(b"sesame")), (b"PLAIN", HIDDEN))

    def test_harmless(self) -> None:
        """The first argument is shown if the protocol calls it harmless, further ones never."""
        asked: list[tuple[bytes, bytes]] = []

        def harmless(word: bytes, argument: bytes) -> bool:
            asked.append((word, argument))
            return argument == b"laptop"

        for line, shown in (
            (b"EHLO laptop", b"EHLO laptop"),
            (b"ehlo laptop laptop", b"EHLO laptop ***"),
            (b"EHLO sesame laptop", b"EHLO ***"),
        ):
            self.assertEqual(disclosed(line, KNOWN, harmless), shown)
        self.assertEqual(asked, [(b"EHLO", b"laptop"), (b"EHLO", b"laptop"), (b"EHLO", b"sesame")])
