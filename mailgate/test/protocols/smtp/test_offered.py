"""
The question to an SMTP backend what it offers.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.errors import BackendError
from mailgate.login import BackendTLS
from mailgate.protocols.smtp import SMTP
from mailgate.test.backend.test_conversation import Talk
from mailgate.testing import resultOf


class OfferedTests(SynchronousTestCase):
    """L{SMTPClient.offered}."""

    def ask(self, reply: bytes) -> object:
        """Return what the client learns from C{reply} to its EHLO."""
        talk = Talk(SMTP)
        self.opened(talk)
        asked = resultOf(talk.client.offered())
        self.assertEqual(talk.says(), b"EHLO mx.test\r\n")
        talk.says(reply)
        return self.successResultOf(asked)

    def opened(self, talk: Talk) -> None:
        """Open the conversation in the clear."""
        opening = resultOf(talk.client.open(None, None))
        talk.accept()
        talk.says(b"220 ready\r\n")
        self.successResultOf(opening)

    def test_lines(self) -> None:
        """The lines behind the first, without their codes and as the backend writes them."""
        self.assertEqual(self.ask(b"250-mx 8BITMIME\r\n250-SIZE  10 \r\n250 8bitMIME\r\n"), (b"SIZE  10", b"8bitMIME"))
        self.assertEqual(self.ask(b"250-mx\n250-\n250 DSN\n"), (b"DSN",))
        self.assertEqual(self.ask(b"250 mx\r\n"), ())

    def test_noEhlo(self) -> None:
        """A backend that does not know EHLO offers nothing."""
        for code in (b"500", b"502"):
            self.assertEqual(self.ask(code + b" what\r\n"), ())

    def test_refused(self) -> None:
        """Another refusal says nothing about what it offers."""
        for reply in (b"421 busy\r\n", b"501 name\r\n", b"550-a\r\n550 b\r\n", b"* OK\r\n"):
            talk = Talk(SMTP)
            self.opened(talk)
            asked = resultOf(talk.client.offered())
            talk.says(reply)
            self.failureResultOf(asked, BackendError)

    def test_tooLong(self) -> None:
        """The reply has the bound of all replies."""
        talk = Talk(SMTP)
        self.opened(talk)
        asked = resultOf(talk.client.offered())
        talk.says(b"250-X\r\n" * 1000)
        self.failureResultOf(asked, BackendError)

    def test_startTLS(self) -> None:
        """What the backend offers in the clear does not count: another EHLO follows over TLS."""
        talk = Talk(SMTP, tls=BackendTLS.STARTTLS)
        opening = resultOf(talk.client.open(None, None))
        talk.accept()
        self.assertEqual(talk.says(b"220 ready\r\n"), b"EHLO mx.test\r\n")
        talk.says(b"250-mx\r\n250-CHUNKING\r\n250 STARTTLS\r\n", b"220 go\r\n250-mx\r\n250 CHUNKING\r\n")
        talk.transport.shakeHands()
        self.successResultOf(opening)
        asked = resultOf(talk.client.offered())
        self.assertEqual(talk.says(), b"EHLO mx.test\r\n")
        talk.says(b"250-mx\r\n250 DSN\r\n")
        self.assertEqual(self.successResultOf(asked), (b"DSN",))
