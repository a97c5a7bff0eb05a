"""
The complete input of an SMTP backend, for each configuration and each greeting of a client. It is nginx's sequence,
except that nginx sends AUTH after HELO: AUTH is an extension and has to follow EHLO (RFC 4954, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.client import ProxyClient
from mailgate.login import Client, Credentials, Envelope, Method
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.testing import Attempt, routeTo

REPLIES = {
    b"EHLO": b"250-mx\r\n250-XCLIENT NAME ADDR\r\n250 AUTH PLAIN\r\n",
    b"XCLIENT": b"220 mx\r\n",
    b"AUTH": b"235 2.7.0 ok\r\n",
}
"""Replies of a backend that accepts XCLIENT from us; all others are 250."""

UNTOLD = {**REPLIES, b"EHLO": b"250-mx\r\n250 AUTH PLAIN\r\n"}
"""Replies of a backend that does not."""

MAIL, RECIPIENT = b"MAIL FROM:<a@c.test>", b"RCPT TO:<b@c.test>"
AUTH = b"AUTH PLAIN AGpvZQBzZXNhbWU="
XCLIENT = {
    False: b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]",
    True: b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]",
}
"""With C{LOGIN}, unless AUTH follows or there is no login."""


def sequence(
    settings: SMTPSettings, greeting: bytes, withoutLogin: bool, replies: Mapping[bytes, bytes] = REPLIES
) -> list[bytes]:
    """The lines that reach a backend with these C{replies}, of a client that greeted with C{greeting}."""
    _, _, name = greeting.partition(b" ")
    extended = greeting.startswith(b"EHLO")
    if withoutLogin:
        envelope = Envelope(name, extended, MAIL, RECIPIENT)
        attempt = Attempt(
            SMTP,
            settings,
            route=routeTo(user=b"", password=None),
            credentials=Credentials(Method.NONE),
            envelope=envelope,
        )
    else:
        attempt = Attempt(SMTP, settings, envelope=Envelope(name, extended))
    attempt.accept()
    lines = []
    line = attempt.says(b"220 mx\r\n")
    while line:
        lines.append(line.removesuffix(b"\r\n"))
        line = attempt.says(replies.get(line.split()[0], b"250 ok\r\n"))
    return lines


class SequenceTests(SynchronousTestCase):
    """The lines and their order."""

    greetings = (b"", b"HELO laptop", b"EHLO laptop")

    def test_withoutXCLIENT(self) -> None:
        """Off: our own EHLO, which shows what the client may do, then the client's commands."""
        for proxyAuth, greeting, withoutLogin in product((False, True), self.greetings, (False, True)):
            settings = SMTPSettings(xclient="off", proxyAuth=proxyAuth)
            authenticates = proxyAuth and not withoutLogin
            tail = [*([AUTH] if authenticates else []), *([MAIL, RECIPIENT] if withoutLogin else [])]
            heard = sequence(settings, greeting, withoutLogin, UNTOLD)
            self.assertEqual(heard, [b"EHLO mx.test", *tail], (proxyAuth, greeting, withoutLogin))
            # A backend that trusts us to name clients gets no password.
            self.assertEqual(sequence(settings, greeting, withoutLogin), [b"EHLO mx.test"])

    def test_auto(self) -> None:
        """Auto: as with on if XCLIENT is offered; otherwise, for logins, as with off."""
        for proxyAuth, greeting, withoutLogin in product((False, True), self.greetings, (False, True)):
            settings = [SMTPSettings(xclient=xclient, proxyAuth=proxyAuth) for xclient in ("auto", "on", "off")]
            auto, on, off = (sequence(each, greeting, withoutLogin, UNTOLD) for each in settings)
            self.assertEqual(auto, [b"EHLO mx.test"] if withoutLogin else off)
            auto, on, off = (sequence(each, greeting, withoutLogin) for each in settings)
            # LOGIN is an attribute that this backend does not list.
            self.assertEqual(auto, [line.replace(b" LOGIN=joe", b"") for line in on])

    def test_withXCLIENT(self) -> None:
        """On: always EHLO, XCLIENT, and the client's own greeting, if it sent one."""
        for proxyAuth, greeting, withoutLogin in product((False, True), self.greetings, (False, True)):
            settings = SMTPSettings(xclient="on", proxyAuth=proxyAuth)
            authenticates = proxyAuth and not withoutLogin
            again = [greeting] if greeting else []
            if authenticates:
                again = [b"EHLO " + (greeting[5:] or b"mx.test")]
            expected = [
                b"EHLO mx.test",
                XCLIENT[proxyAuth or withoutLogin],
                *again,
                *([AUTH] if authenticates else []),
                *([MAIL, RECIPIENT] if withoutLogin else []),
            ]
            self.assertEqual(sequence(settings, greeting, withoutLogin), expected, (proxyAuth, greeting, withoutLogin))

    def test_token(self) -> None:
        """A token is sent in place of a password; nothing of the client's mechanism is left."""
        settings = SMTPSettings(xclient="off", proxyAuth=True)
        attempt = Attempt(
            SMTP,
            settings,
            credentials=Credentials(Method.OAUTHBEARER, b"joe", b"sesame"),
            client=Client("192.0.2.7"),
            envelope=Envelope(b"laptop", True),
        )
        attempt.accept()
        attempt.says(b"220 mx\r\n")
        self.assertEqual(attempt.says(UNTOLD[b"EHLO"]), AUTH + b"\r\n")
        attempt.says(UNTOLD[b"AUTH"])
        self.assertIsInstance(self.successResultOf(attempt.result), ProxyClient)
