"""
Tests of the login at an SMTP backend.
"""

from __future__ import annotations

import base64
from itertools import product
from typing import Any

from mailgate.login import Denial, Envelope, Refusal, Route, Trouble
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.backend.test_backendtls import leftOver
from mailgate.test.backend.test_client import FIRST, SECOND
from mailgate.test.backend.test_connector import PASS_ON
from mailgate.test.support.loginscripts import (
    ANYBODY,
    INITIAL_RESPONSE,
    OFFERING_XCLIENT,
    STARTTLS,
    TEMPORARY,
    BackendTests,
)
from mailgate.testing import Attempt, routeTo

GREETED = (b"220 ready\r\n", b"250 mx\r\n")


class SMTPClientTests(BackendTests):
    """The login at an SMTP backend that trusts us or accepts AUTH."""

    def heard(self, attempt: Attempt, *replies: bytes) -> list[bytes]:
        """The bytes that the backend got after each of its C{replies}."""
        attempt.accept()
        return [attempt.says(reply) for reply in replies]

    def test_ehlo(self) -> None:
        """For a client that said EHLO we send EHLO with our own name."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), envelope=Envelope(b"laptop", True))
        self.assertEqual(self.heard(attempt, *GREETED), [b"EHLO mx.test\r\n", b""])
        self.assertEqual(leftOver(self.successResultOf(attempt.result)), b"")

    def test_helo(self) -> None:
        """EHLO is also sent for a client that said HELO; HELO only if a backend has no EHLO and nothing requires it."""
        for xclient, code in product(("auto", "off"), (b"500", b"502")):
            attempt = Attempt(SMTP, SMTPSettings(xclient=xclient), envelope=Envelope(b"laptop", False))
            heard = self.heard(attempt, b"220 ready\r\n", code + b" what\r\n", b"250 mx\r\n")
            self.assertEqual(heard, [b"EHLO mx.test\r\n", b"HELO mx.test\r\n", b""])
            self.successResultOf(attempt.result)

    def test_ehloNotNow(self) -> None:
        """A backend that has EHLO but refuses this one is not used: its offers are unknown."""
        for xclient, code in product(("auto", "off"), (b"421", b"450", b"501", b"504", b"550", b"554")):
            attempt = Attempt(SMTP, SMTPSettings(xclient=xclient), envelope=Envelope(b"laptop", False))
            self.assertEqual(self.heard(attempt, b"220 ready\r\n", code + b" no\r\n"), [b"EHLO mx.test\r\n", b""])
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_authNeedsEhlo(self) -> None:
        """AUTH requires EHLO, whatever the client said."""
        settings = SMTPSettings(xclient="off", proxyAuth=True)
        attempt = Attempt(SMTP, settings, envelope=Envelope(b"laptop", False))
        self.assertEqual(self.heard(attempt, *GREETED)[0], b"EHLO mx.test\r\n")

    def test_ehloRefused(self) -> None:
        """If EHLO is required there is no second try, and the refusal is not about the password."""
        attempt = Attempt(SMTP, PASS_ON, envelope=Envelope(b"laptop", True))
        heard = self.heard(attempt, b"220 ready\r\n", b"550 no\r\n")
        self.assertEqual(heard, [b"EHLO mx.test\r\n", b""])
        self.assertEqual(self.successResultOf(attempt.result), Refusal(b"550 no\r\n", True))

    def test_badGreetings(self) -> None:
        """A greeting other than 220 is a failure: the next backend is tried."""
        for greeting in (b"421 busy\r\n", b"554-no\r\n554 service\r\n", b"250 hello\r\n", b"+OK\r\n"):
            attempt = Attempt(SMTP, route=routeTo(FIRST, SECOND))
            attempt.accept()
            self.assertEqual(attempt.says(greeting), b"")
            self.assertEqual(len(attempt.tried), 2)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)

    def test_malformedReplies(self) -> None:
        """Invalid codes, and invalid replies of several lines, are failures."""
        for reply in (b"2500 mx\r\n", b"150 mx\r\n", b"690 mx\r\n", b"25 mx\r\n", b"250_mx\r\n", b"250-mx\r\nSIZE\r\n"):
            attempt = Attempt(SMTP)
            self.assertEqual(self.outcomeOf(attempt, b"220 ready\r\n", reply), TEMPORARY)

    def test_codeAlone(self) -> None:
        """A code without text is a reply."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"))
        self.assertEqual(self.heard(attempt, b"220\r\n", b"250\r\n"), [b"EHLO mx.test\r\n", b""])
        self.successResultOf(attempt.result)

    def test_lastLineDecides(self) -> None:
        """If the lines of a reply have several codes, that of the last line counts."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), envelope=Envelope(b"x", True))
        self.assertEqual(self.outcomeOf(attempt, b"220 ready\r\n", b"250-mx\r\n550 no\r\n"), TEMPORARY)

    def test_nothingToAuthenticate(self) -> None:
        """A backend that trusts us gets no password, even if we know one."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), route=routeTo(password=None))
        self.heard(attempt, *GREETED)
        self.successResultOf(attempt.result)

    def test_noPassword(self) -> None:
        """With proxy_smtp_auth on and an unknown password the login fails, and the log has the reason."""
        attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True), route=routeTo(password=None))
        self.assertEqual(self.heard(attempt, *GREETED), [b"EHLO mx.test\r\n", b""])
        self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)
        self.assertIn("needs a password", attempt.log[0])

    def test_unjudged(self) -> None:
        """If no authenticator has judged the password, AUTH is used whatever proxy_smtp_auth says."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"), route=routeTo(judged=False))
        heard = self.heard(attempt, *GREETED, b"535 no\r\n")
        self.assertEqual(heard[1], b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n")
        self.assertEqual(self.successResultOf(attempt.result), Denial(Trouble.DENIED, answer=b"535 no"))

    def test_mechanism(self) -> None:
        """AUTH is PLAIN, or LOGIN if the backend offers only that."""
        offers = {
            b"250 mx\r\n": b"AUTH PLAIN",
            b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n": b"AUTH PLAIN",
            b"250-mx\r\n250 auth login\r\n": b"AUTH LOGIN",
            b"250-mx\r\n250-AUTH CRAM-MD5\r\n250 SIZE\r\n": b"AUTH PLAIN",
        }
        for offer, command in offers.items():
            attempt = Attempt(SMTP, SMTPSettings(xclient="off", proxyAuth=True))
            heard = self.heard(attempt, b"220 ready\r\n", offer)[1]
            self.assertTrue(heard.startswith(command), heard)
            attempt.transport.lose()
            self.successResultOf(attempt.result)

    def test_specialCredentials(self) -> None:
        """Base64 carries any byte of a password."""
        attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True), route=routeTo(user=b"jo\xe9", password=b"\x7f \xff"))
        heard = self.heard(attempt, *GREETED)[1]
        self.assertEqual(base64.b64decode(heard.split()[2]), b"\0jo\xe9\0\x7f \xff")

    def assertAuthAnswer(self, reply: bytes, temporary: bool, goesOn: bool = False) -> None:
        for settings in (SMTPSettings(xclient="off", proxyAuth=True), SMTPSettings(proxyAuth=True)):
            attempt = Attempt(SMTP, settings, PASS_ON, route=routeTo(FIRST, SECOND))
            if goesOn:
                attempt.accept()
                attempt.says(*GREETED, reply)
                attempt.accept()
            self.assertEqual(self.outcomeOf(attempt, *GREETED, reply), Refusal(reply, temporary))
            self.assertEqual(len(attempt.tried), 1 + goesOn)

    def test_authRefused(self) -> None:
        """A permanent refusal of AUTH is one of the credentials; no other backend is tried."""
        for reply in (b"535 5.7.8 no\r\n", b"534 5.7.9 too weak\r\n", b"554 no\r\n", b"535-5.7.8 no\r\n535 no\r\n"):
            self.assertAuthAnswer(reply, temporary=False)

    def test_authTemporarilyRefused(self) -> None:
        """4yz is not, and another backend is tried then; nor is a refusal about the command or the connection."""
        for code in (b"454", b"421", b"432", b"500", b"501", b"502", b"503", b"504", b"530", b"538"):
            self.assertAuthAnswer(code + b" later\r\n", temporary=True, goesOn=code in (b"454", b"421"))

    def test_otherAnswers(self) -> None:
        """250, or a challenge, instead of 235 is not a success."""
        for reply in (b"250 ok\r\n", b"334 \r\n"):
            attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True))
            self.assertNotIsInstance(self.outcomeOf(attempt, *GREETED, reply), SMTP.client)

    def test_loginRefused(self) -> None:
        """A refusal within AUTH LOGIN is one of the credentials too."""
        settings = SMTPSettings(xclient="off", proxyAuth=True)
        for step in range(3):
            attempt = Attempt(SMTP, settings, PASS_ON)
            replies = (b"220 mx\r\n", b"250-mx\r\n250 AUTH LOGIN\r\n", *[b"334 \r\n"] * step, b"535 no\r\n")
            self.assertEqual(self.outcomeOf(attempt, *replies), Refusal(b"535 no\r\n", False))

    def test_startTLS(self) -> None:
        """EHLO, STARTTLS, TLS and EHLO again: offers in the clear do not count."""
        settings = SMTPSettings(proxyAuth=True)
        attempt = Attempt(SMTP, settings, route=routeTo(STARTTLS))
        heard = self.heard(attempt, b"220 ready\r\n", b"250-mx\r\n250-XCLIENT ADDR\r\n250 STARTTLS\r\n")
        self.assertEqual(heard, [b"EHLO mx.test\r\n", b"STARTTLS\r\n"])
        attempt.says(b"220 go\r\n250-forged\r\n250 AUTH LOGIN\r\n")
        attempt.transport.shakeHands()
        self.assertEqual(attempt.hears(), b"EHLO mx.test\r\n")
        self.assertEqual(attempt.says(b"250 mx\r\n"), b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n")
        self.assertEqual(leftOver(self.outcomeOf(attempt, b"235 ok\r\n")), b"")

    def test_failuresBeforeTheLogin(self) -> None:
        """A backend that refuses EHLO or STARTTLS gets no password, and the next one is tried."""
        refusals = (
            (b"220 ready\r\n", b"421 going down\r\n"),
            (b"220 ready\r\n", b"554 no\r\n"),
            (b"220 ready\r\n", b"250 mx\r\n", b"454 no TLS now\r\n"),
            (b"220 ready\r\n", b"250 mx\r\n", b"502 what\r\n"),
        )
        for replies in refusals:
            attempt = Attempt(SMTP, SMTPSettings(proxyAuth=True), route=routeTo(STARTTLS, SECOND))
            attempt.accept()
            self.assertNotIn(b"AUTH", attempt.says(*replies))
            self.assertEqual(attempt.transport.tls, [])
            self.assertEqual(len(attempt.tried), 2)
            attempt.refuse()
            self.assertEqual(self.successResultOf(attempt.result), TEMPORARY)


class WithoutLoginTests(BackendTests):
    """C{smtp_auth none}: the client's MAIL and RCPT are repeated at the backend."""

    def begin(self, *groups: Any, **changes: Any) -> Attempt:
        """An attempt at a backend that has the client's address and gets MAIL."""
        attempt = Attempt(SMTP, *groups, **{**ANYBODY, **changes})
        attempt.accept()
        attempt.says(b"220 ready\r\n", OFFERING_XCLIENT, b"220 ready\r\n")
        self.assertEqual(attempt.says(b"250 mx\r\n"), b"MAIL FROM:<a@example.com> SIZE=1\r\n")
        return attempt

    def test_recipientRefused(self) -> None:
        """The backend's reply to RCPT goes to the client, and the session continues."""
        attempt = self.begin()
        attempt.says(b"250 ok\r\n")
        client = self.outcomeOf(attempt, b"550-no such\r\n550 user\r\n")
        self.assertEqual(client.reply, b"550-no such\r\n550 user\r\n")

    def test_mailRefused(self) -> None:
        """
        The backend's reply to the sender becomes the reply to the recipient, without an error in the log, judged or not
        and whatever proxy_pass_error_message says. RCPT is not sent.
        """
        refusals = (
            (Trouble.DENIED, b"552-5.3.4 too\r\n552 5.3.4 large\r\n"),
            (Trouble.TEMPORARY, b"452 4.3.1 full\r\n"),
        )
        for groups, judged, (trouble, said) in product(((), (PASS_ON,)), (True, False), refusals):
            attempt = self.begin(*groups, route=routeTo(FIRST, SECOND, user=b"", password=b"", judged=judged))
            self.assertEqual(attempt.says(said), b"")
            self.assertEqual(self.successResultOf(attempt.result), Denial(trouble, answer=said.strip()))
            self.assertEqual(len(attempt.tried), 1)
            self.assertEqual(attempt.log, [])

    def test_neverAuthenticates(self) -> None:
        """There is no AUTH, whatever proxy_smtp_auth says and whether or not a service has judged."""
        route = Route((FIRST,), b"", b"", judged=False)
        for settings in (SMTPSettings(proxyAuth=True), SMTPSettings()):
            attempt = self.begin(settings, route=route)
            attempt.says(b"250 ok\r\n")
            self.assertEqual(self.outcomeOf(attempt, b"250 ok\r\n").reply, b"250 ok\r\n")
