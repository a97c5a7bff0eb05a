"""
Logins at backends, step by step: what the backend sends, and what the gateway sends.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Backend, BackendTLS, Credentials, Denial, Envelope, Method, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.sieve import SIEVE
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.testing import Attempt, routeTo

__all__ = [
    "ANYBODY",
    "IMAP_LITERALS",
    "IMAP_QUOTED",
    "INITIAL_RESPONSE",
    "OFFERING_XCLIENT",
    "POP3_SCRIPT",
    "SCRIPTS",
    "SIEVE_CYRUS",
    "SIEVE_GREETING",
    "SIEVE_PLAIN",
    "SMTP_ANYBODY",
    "SMTP_LOGIN",
    "SMTP_PLAIN",
    "SMTP_TRUSTING",
    "SMTP_XCLIENT",
    "STARTTLS",
    "TEMPORARY",
    "BackendTests",
    "Script",
]

TEMPORARY = Denial(Trouble.TEMPORARY)
INITIAL_RESPONSE = base64.b64encode(b"\0joe\0sesame")
STARTTLS = Backend("192.0.2.99", 143, BackendTLS.STARTTLS)


@frozen
class Script:
    """A successful login. Each of C{steps} is what the backend sends and the gateway's reply to that."""

    record: MailProtocol
    steps: tuple[tuple[bytes, bytes], ...]
    groups: tuple[Any, ...] = ()
    changes: dict[str, Any] = {}  # noqa: RUF008

    def begin(self) -> Attempt:
        """Return the attempt of this script, connected."""
        attempt = Attempt(self.record, *self.groups, **self.changes)
        attempt.accept()
        return attempt

    @property
    def length(self) -> int:
        """The number of bytes that the backend sends."""
        return sum(len(sent) for sent, _ in self.steps)

    def cutAt(self, position: int) -> Iterator[tuple[tuple[bytes, ...], bytes]]:
        """Yield the steps; the backend's bytes come in two segments where C{position} is inside a step."""
        for sent, heard in self.steps:
            cut = max(0, min(len(sent), position))
            position -= len(sent)
            yield tuple(segment for segment in (sent[:cut], sent[cut:]) if segment), heard


IMAP_QUOTED = Script(
    IMAP4,
    (
        (b"* OK [CAPABILITY IMAP4rev1] ready\r\n", b'a1 LOGIN "joe" "sesame"\r\n'),
        (b"* CAPABILITY IMAP4rev1\r\n* NO disk is full\r\na1 OK done\r\n", b""),
    ),
)
IMAP_LITERALS = Script(
    IMAP4,
    (
        (b"* OK\r\n", b"a1 LOGIN {3}\r\n"),
        (b"* OK still here\r\n+ go ahead\r\n", b"jo\xe9 {7}\r\n"),
        (b"+\r\n", b"s\xc3\xa9same\r\n"),
        (b"a1 OK done\r\n", b""),
    ),
    changes={"route": routeTo(user=b"jo\xe9", password=b"s\xc3\xa9same")},
)
POP3_SCRIPT = Script(
    POP3,
    ((b"+OK ready\r\n", b"USER joe\r\n"), (b"+OK\r\n", b"PASS sesame\r\n"), (b"+OK 3 messages\r\n", b"")),
)
SMTP_TRUSTING = Script(
    SMTP,
    ((b"220-mx\r\n220 ready\r\n", b"EHLO mx.test\r\n"), (b"250-mx\r\n250 SIZE\r\n", b"")),
)
SMTP_XCLIENT = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (
            b"250-mx\r\n250-XCLIENT NAME ADDR LOGIN\r\n250 SIZE\r\n",
            b"XCLIENT ADDR=192.0.2.7 LOGIN=joe NAME=[UNAVAILABLE]\r\n",
        ),
        (b"220 ready\r\n", b"EHLO laptop\r\n"),
        (b"250-mx\r\n250 SIZE\r\n", b""),
    ),
    changes={"envelope": Envelope(b"laptop", True)},
)
SMTP_PLAIN = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (b"250-mx\r\n250 AUTH LOGIN PLAIN\r\n", b"AUTH PLAIN " + INITIAL_RESPONSE + b"\r\n"),
        (b"235-welcome\r\n235 ok\r\n", b""),
    ),
    (SMTPSettings(proxyAuth=True),),
)
SMTP_LOGIN = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (b"250-mx\r\n250 AUTH LOGIN\r\n", b"AUTH LOGIN\r\n"),
        (b"334 VXNlcm5hbWU6\r\n", base64.b64encode(b"joe") + b"\r\n"),
        (b"334 UGFzc3dvcmQ6\r\n", base64.b64encode(b"sesame") + b"\r\n"),
        (b"235 ok\r\n", b""),
    ),
    (SMTPSettings(proxyAuth=True),),
)
SIEVE_GREETING = b'"IMPLEMENTATION" "x"\r\n"SIEVE" "fileinto"\r\n"SASL" "LOGIN PLAIN"\r\n"VERSION" "1.0"\r\nOK "hi"\r\n'
"""The greeting of a ManageSieve server."""

SIEVE_PLAIN = Script(
    SIEVE,
    (
        (SIEVE_GREETING, b'AUTHENTICATE "PLAIN" "' + INITIAL_RESPONSE + b'"\r\n'),
        (b'OK "Logged in."\r\n', b""),
    ),
)
SIEVE_CYRUS = Script(
    SIEVE,
    (
        (
            b'"IMPLEMENTATION" "Cyrus timsieved 3.8"\r\n{5}\r\nSIEVE {3}\r\na b\r\n"SASL" "LOGIN"\r\nOK\r\n',
            b'AUTHENTICATE "LOGIN" "am9l"\r\n',
        ),
        (b"{12}\r\nUGFzc3dvcmQ6\r\n", b'"' + base64.b64encode(b"sesame") + b'"\r\n'),
        (b"OK\r\n", b'NOOP "mailgate"\r\n'),
        (b'"SIEVE" "a b"\r\n"UNAUTHENTICATE"\r\nOK\r\nOK (TAG {8}\r\nmailgate) "Done"\r\n', b""),
    ),
)
ANYBODY: dict[str, Any] = {
    "route": routeTo(user=b"", password=b""),
    "credentials": Credentials(Method.NONE),
    "envelope": Envelope(b"laptop", True, b"MAIL FROM:<a@example.com> SIZE=1", b"RCPT TO:<b@example.com>"),
}
SMTP_ANYBODY = Script(
    SMTP,
    (
        (b"220 ready\r\n", b"EHLO mx.test\r\n"),
        (b"250-mx\r\n250 XCLIENT NAME ADDR\r\n", b"XCLIENT ADDR=192.0.2.7 NAME=[UNAVAILABLE]\r\n"),
        (b"220 ready\r\n", b"EHLO laptop\r\n"),
        (b"250 mx\r\n", b"MAIL FROM:<a@example.com> SIZE=1\r\n"),
        (b"250 2.1.0 ok\r\n", b"RCPT TO:<b@example.com>\r\n"),
        (b"250-2.1.5 well\r\n250 2.1.5 ok\r\n", b""),
    ),
    changes=ANYBODY,
)
SCRIPTS = (
    IMAP_QUOTED,
    IMAP_LITERALS,
    POP3_SCRIPT,
    SMTP_TRUSTING,
    SMTP_XCLIENT,
    SMTP_PLAIN,
    SMTP_LOGIN,
    SMTP_ANYBODY,
    SIEVE_PLAIN,
    SIEVE_CYRUS,
)


class BackendTests(SynchronousTestCase):
    """Common code for tests of the protocols."""

    def outcomeOf(self, attempt: Attempt, *replies: bytes) -> Any:
        """Return the connector's result if the backend sends C{replies}."""
        if attempt.transport.protocol is None:
            attempt.accept()
        attempt.says(*replies)
        self.assertTrue(attempt.hasNoTimers())
        return self.successResultOf(attempt.result)


OFFERING_XCLIENT = b"250-mx\r\n250 XCLIENT NAME ADDR LOGIN\r\n"
