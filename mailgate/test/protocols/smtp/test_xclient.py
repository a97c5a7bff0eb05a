"""
Tests of XCLIENT at an SMTP backend.
"""

from __future__ import annotations

from typing import Any

from mailgate.login import Client, Credentials, Envelope, Method, Refusal
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.protocols.smtp.trust import xtext
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.test.support.loginscripts import ANYBODY, OFFERING_XCLIENT, BackendTests
from mailgate.testing import Attempt, routeTo


class XCLIENTTests(BackendTests):
    """The client's address as a backend gets it."""

    def command(self, offers: bytes = OFFERING_XCLIENT, *groups: Any, **changes: Any) -> bytes:
        """The bytes that a backend gets that C{offers} this."""
        attempt = Attempt(SMTP, *groups, **changes)
        attempt.accept()
        attempt.says(b"220 ready\r\n")
        heard = attempt.says(offers)
        attempt.transport.lose()
        self.successResultOf(attempt.result)
        return heard

    def test_auto(self) -> None:
        """With C{auto} XCLIENT is sent if the backend offers it, otherwise not."""
        self.assertEqual(self.command(), b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]\r\n")
        self.assertEqual(self.command(b"250-mx\r\n250 SIZE\r\n"), b"")

    def test_notOffered(self) -> None:
        """The host's own name, or a word that only begins with XCLIENT, is not an offer."""
        self.assertEqual(self.command(b"250-XCLIENT ADDR\r\n250 XCLIENTS\r\n"), b"")

    def test_on(self) -> None:
        """With C{on} it is sent in full whatever the backend offers, as in nginx."""
        for offers in (b"250 mx\r\n", b"250-mx\r\n250 XCLIENT NAME ADDR\r\n"):
            heard = self.command(offers, SMTPSettings(xclient="on"))
            self.assertEqual(heard, b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]\r\n")

    def test_onNeedsEhlo(self) -> None:
        """EHLO comes first, even for a client that said HELO."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="on"), envelope=Envelope(b"laptop", False))
        attempt.accept()
        self.assertEqual(attempt.says(b"220 ready\r\n"), b"EHLO mx.test\r\n")

    def test_off(self) -> None:
        """With C{off} it is never sent."""
        self.assertEqual(self.command(b"250-mx\r\n250 SIZE\r\n", SMTPSettings(xclient="off")), b"")

    def test_attributes(self) -> None:
        """LOGIN is left out if the backend lists attributes without it, and kept if it lists none."""
        self.assertEqual(
            self.command(b"250-mx\r\n250 XCLIENT NAME ADDR PORT\r\n"),
            b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n",
        )
        self.assertIn(b" LOGIN=joe ", self.command(b"250-mx\r\n250 XCLIENT\r\n"))
        self.assertIn(b" LOGIN=joe ", self.command(b"250-mx\r\n250 xclient addr login\r\n"))

    def test_ipv6(self) -> None:
        """An IPv6 address is marked as such."""
        heard = self.command(client=Client("2001:db8::7", 40123))
        self.assertEqual(heard, b"XCLIENT ADDR=IPV6:2001:db8::7 LOGIN=joe NAME=[UNAVAILABLE]\r\n")

    def test_unix(self) -> None:
        """A client on a unix socket has no address that Postfix understands, and does not look like IPv6."""
        self.assertIn(b"ADDR=[UNAVAILABLE] ", self.command(client=Client("unix:")))

    def test_name(self) -> None:
        """NAME is the client's known name."""
        heard = self.command(client=Client("192.0.2.7", 1, name="laptop.example.com"))
        self.assertTrue(heard.endswith(b" NAME=laptop.example.com\r\n"))

    def test_xtext(self) -> None:
        """The login is encoded as xtext, byte by byte, so it cannot break the command."""
        self.assertIn(b" LOGIN=j+20o+3De+2B+C3+A9 ", self.command(route=routeTo(user="j o=e+é".encode())))

    def test_xtextBytes(self) -> None:
        """xtext keeps graphic ASCII except C{+} and C{=}, and encodes every other byte with capital digits."""
        for byte in range(256):
            raw = bytes([byte])
            kept = 0x21 <= byte <= 0x7E and raw not in (b"+", b"=")
            self.assertEqual(xtext(raw), raw if kept else b"+%02X" % byte)

    def test_withAuth(self) -> None:
        """If AUTH follows, LOGIN is left out."""
        heard = self.command(OFFERING_XCLIENT, SMTPSettings(proxyAuth=True))
        self.assertEqual(heard, b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n")

    def test_nobody(self) -> None:
        """Without a login there is no LOGIN."""
        self.assertEqual(self.command(**ANYBODY), b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n")

    def after(self, *groups: Any, **changes: Any) -> bytes:
        """The bytes after XCLIENT."""
        attempt = Attempt(SMTP, *groups, **changes)
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT)
        heard = attempt.says(b"220 ready\r\n")
        attempt.transport.lose()
        self.successResultOf(attempt.result)
        return heard

    def test_greetingAgain(self) -> None:
        """After XCLIENT the greeting is the client's, with the client's own name."""
        self.assertEqual(self.after(envelope=Envelope(b"laptop", True)), b"EHLO laptop\r\n")
        self.assertEqual(self.after(envelope=Envelope(b"laptop", False)), b"HELO laptop\r\n")

    def test_ungreeted(self) -> None:
        """For a client that has not greeted there is no greeting: the backend would take our name for the client's."""
        recipient = Envelope(b"", False, b"MAIL FROM:<>", b"RCPT TO:<a>")
        request = {"credentials": Credentials(Method.NONE), "envelope": recipient}
        self.assertEqual(self.after(**request), b"MAIL FROM:<>\r\n")
        self.assertEqual(self.after(SMTPSettings(proxyAuth=True)), b"EHLO mx.test\r\n")

    def test_greetingForAuth(self) -> None:
        """If AUTH follows it is EHLO."""
        heard = self.after(SMTPSettings(proxyAuth=True), envelope=Envelope(b"laptop", False))
        self.assertEqual(heard, b"EHLO laptop\r\n")

    def test_mechanismAfterXCLIENT(self) -> None:
        """The backend's offers after XCLIENT count."""
        attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True))
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT[:-2].replace(b"250 X", b"250-X") + b"\r\n250 AUTH PLAIN\r\n")
        attempt.says(b"220 ready\r\n")
        self.assertEqual(attempt.says(b"250-mx\r\n250 AUTH LOGIN\r\n"), b"AUTH LOGIN\r\n")

    def test_refused(self) -> None:
        """A refused XCLIENT is a temporary failure: it is not about the password."""
        attempt = Attempt(SMTP, PASS_ON)
        replies = (b"220 ready\r\n", OFFERING_XCLIENT, b"550 insufficient authorization\r\n")
        self.assertEqual(self.outcomeOf(attempt, *replies), Refusal(b"550 insufficient authorization\r\n", True))

    def test_250(self) -> None:
        """250 is accepted like 220."""
        attempt = Attempt(SMTP, envelope=Envelope(b"laptop", True))
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT)
        self.assertEqual(attempt.says(b"250 ok\r\n"), b"EHLO laptop\r\n")
