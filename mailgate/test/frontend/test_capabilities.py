"""
The selection of configured capabilities that clients receive before the login, in each protocol.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.capabilities import announced, leftOut, whyLeftOut
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.registry import PROTOCOLS
from mailgate.testing import Conversation
from mailgate.tls.settings import TLSSettings

COPIED = {
    "imap": ("IMAP4rev1 ID", "STARTTLS", "AUTH=PLAIN", "auth=gssapi", "LOGINDISABLED", "LANGUAGE", "id", "UTF8=ACCEPT"),
    "pop3": ("TOP", "UTF8 USER", "lang", "SASL PLAIN GSSAPI", "stls", "top", "EXPIRE 60"),
    "smtp": ("SIZE 10", "AUTH PLAIN GSSAPI", "AUTH=LOGIN", "StartTLS", "XCLIENT NAME", "HELP", "size 10", "CHUNKING"),
}
"""Lists copied from a backend's reply."""
KEPT = {
    "imap": (b"IMAP4rev1", b"ID", b"UTF8=ACCEPT"),
    "pop3": (b"TOP", b"EXPIRE 60"),
    "smtp": (b"SIZE 10", b"CHUNKING"),
}


class AnnouncedTests(SynchronousTestCase):
    """L{announced}, L{leftOut}."""

    def test_copied(self) -> None:
        """
        The gateway leaves out its own capabilities, those that it does not support before the login, and duplicates.
        """
        for protocol, configured in COPIED.items():
            self.assertEqual(announced(PROTOCOLS[protocol], configured), KEPT[protocol])

    def test_leftOut(self) -> None:
        """Each capability that is left out has a reason. A duplicate is no reason for a warning."""
        reasons = dict(leftOut(POP3, COPIED["pop3"]))
        self.assertEqual(list(reasons), ["UTF8 USER", "lang", "SASL PLAIN GSSAPI", "stls"])
        self.assertIn("before the login", reasons["lang"])
        self.assertIn("announces it whenever", reasons["stls"])

    def test_wholeWords(self) -> None:
        """Words that only begin like these stay."""
        for protocol, word in ((IMAP4, "SASL-IR"), (IMAP4, "AUTHX"), (POP3, "AUTH-RESP-CODE"), (SMTP, "HELPER")):
            self.assertEqual(whyLeftOut(protocol, word), "")

    def test_tables(self) -> None:
        """No word is in both tables; all are capitals."""
        for protocol in PROTOCOLS.values():
            self.assertFalse(set(protocol.own).intersection(protocol.unkept))
            for word in (*protocol.own, *protocol.unkept):
                self.assertEqual(word, word.upper())

    def test_onTheWire(self) -> None:
        """The three lists on the wire, with the gateway's own. STARTTLS appears once, and not under TLS."""
        for tls in (False, True):
            imap = Conversation(IMAP4, IMAP4Settings(capabilities=COPIED["imap"]), TLSSettings(starttls="on"), ssl=tls)
            pop3 = Conversation(POP3, POP3Settings(capabilities=COPIED["pop3"]), TLSSettings(starttls="on"), ssl=tls)
            smtp = Conversation(SMTP, SMTPSettings(capabilities=COPIED["smtp"]), TLSSettings(starttls="on"), ssl=tls)
            for conversation in (imap, pop3, smtp) if tls else ():
                conversation.transport.shakeHands()
            for conversation in (imap, pop3, smtp):
                conversation.hear()
            self.assertEqual(
                imap.says(b"a CAPABILITY"),
                b"* CAPABILITY IMAP4rev1 ID UTF8=ACCEPT AUTH=PLAIN%s\r\na OK completed\r\n"
                % (b"" if tls else b" STARTTLS"),
            )
            self.assertEqual(
                pop3.says(b"CAPA"),
                b"+OK Capability list follows\r\nTOP\r\nEXPIRE 60\r\nSASL PLAIN LOGIN\r\n%s.\r\n"
                % (b"" if tls else b"STLS\r\n"),
            )
            self.assertEqual(
                smtp.says(b"EHLO c.test").split(b"\r\n", 1)[1],
                b"250-SIZE 10\r\n250-CHUNKING\r\n250 AUTH PLAIN LOGIN\r\n"
                if tls
                else b"250-SIZE 10\r\n250-CHUNKING\r\n250-AUTH PLAIN LOGIN\r\n250 STARTTLS\r\n",
            )
