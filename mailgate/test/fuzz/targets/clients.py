"""
What clients send before their login, for each protocol, and behind it for the backend.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from mailgate.frontend.intake import READ_AHEAD
from mailgate.frontend.protocol import MailProtocol
from mailgate.frontend.settings import DialogueSettings
from mailgate.interfaces import IAuthenticator
from mailgate.login import Denial, LoginRequest, Route, Trouble
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.command import LONGEST_ID
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.registry import PROTOCOLS
from mailgate.test.fuzz.frame import Run, Target, mutations
from mailgate.testing import ROUTE, Conversation, FakeClient, FakeConnector

__all__ = ["TARGETS"]

_DENIED = Denial(Trouble.DENIED, b"no")
_DIALOGUE = DialogueSettings(serverName="mx.test", maxResponse=1024, authzid="pass", maxErrors=20)
_BUFFER = 256

PLAIN = base64.b64encode(b"\0joe\0sesame")
ACCEPTED = base64.b64encode(b"\0in\0sesame")
XOAUTH2 = base64.b64encode(b"user=joe\1auth=Bearer token\1\1")
OAUTHBEARER = base64.b64encode(b"n,a=joe,\1host=x\1auth=Bearer token\1\1")

_RESPONSES = (
    *(PLAIN, ACCEPTED, XOAUTH2, OAUTHBEARER, b"am9l", b"=", b"*", b"AQ==", b"A" * 2000),
    *(b" ", b"\r\n", b"\n", b"\r", b"\0", b"\x80", b"PLAIN", b"LOGIN", b"CRAM-MD5", b"EXTERNAL"),
    *(b"XOAUTH2", b"OAUTHBEARER", b"x" * 300),
)
_IMAP = (
    *(b"a ", b"a1 LOGIN ", b"AUTHENTICATE ", b"CAPABILITY", b"NOOP", b"ID ", b"LOGOUT", b"STARTTLS", b"SELECT ", b"+"),
    *(b'"', b"\\", b"{3}", b"{3+}", b"{400+}", b"{99999999999999999999999+}", b"{0}", b"(", b")", b"NIL", b"in"),
)
_IMAP_EXAMPLES = (
    b"a CAPABILITY\r\nb NOOP\r\nc LOGIN joe sesame\r\nd LOGIN in x\r\ne SELECT INBOX\r\n",
    b'a LOGIN "jo\\"e" {6}\r\nsesame\r\nb LOGIN {2+}\r\nin {1+}\r\nx\r\nc IDLE\r\n',
    b'a ID ("name" "x" "version" {2+}\r\n12 "y" NIL)\r\nb ID NIL\r\nc LOGOUT\r\n',
    b"a AUTHENTICATE PLAIN\r\n" + PLAIN + b"\r\nb AUTHENTICATE PLAIN " + ACCEPTED + b"\r\nc IDLE\r\n",
    b"a AUTHENTICATE XOAUTH2 " + XOAUTH2 + b"\r\n\r\nb AUTHENTICATE OAUTHBEARER " + OAUTHBEARER + b"\r\nc NOOP\r\n",
    b"a APPEND x {5+}\r\nhello\r\nb STARTTLS\r\nc AUTHENTICATE LOGIN\r\nam9l\r\n*\r\n",
)
_POP3 = (
    *(b"USER ", b"PASS ", b"APOP ", b"AUTH ", b"CAPA", b"NOOP", b"QUIT", b"STLS", b"STAT", b"in", b"joe"),
    b"0123456789abcdef" * 2,
)
_POP3_EXAMPLES = (
    b"CAPA\r\nUSER joe\r\nPASS sesame\r\nUSER in\r\nPASS x y\r\nSTAT\r\n",
    b"AUTH\r\nAUTH PLAIN\r\n" + PLAIN + b"\r\nAUTH PLAIN " + ACCEPTED + b"\r\nSTAT\r\n",
    b"APOP joe 0123456789abcdef0123456789abcdef\r\nNOOP hops=3\r\nQUIT\r\n",
    b"AUTH OAUTHBEARER " + OAUTHBEARER + b"\r\nSTAT\r\nAUTH XOAUTH2 " + XOAUTH2 + b"\r\nAQ==\r\nSTLS\r\n",
)
_SMTP = (
    *(b"EHLO x", b"HELO ", b"AUTH ", b"MAIL FROM:<a@b>", b"RCPT TO:<c@d>", b"DATA", b"BDAT 5", b"BDAT 5 LAST"),
    *(b"BDAT 99999999999999999999", b"RSET", b"NOOP ", b"VRFY x", b"STARTTLS", b"QUIT", b"BURL", b"HELP", b"EXPN x"),
)
_SMTP_EXAMPLES = (
    b"EHLO c.test\r\nAUTH PLAIN " + PLAIN + b"\r\nAUTH PLAIN " + ACCEPTED + b"\r\nMAIL FROM:<a@b>\r\n",
    b"EHLO c.test\r\nMAIL FROM:<a@b> SIZE=5\r\nRCPT TO:<c@d>\r\nDATA\r\nBDAT 5\r\nhelloBDAT 3 LAST\r\nabcQUIT\r\n",
    b"HELO c\r\nRSET\r\nNOOP hops=2\r\nVRFY joe\r\nAUTH LOGIN am9l\r\nc2VzYW1l\r\nSTARTTLS\r\nNOOP\r\n",
    b"EHLO c\r\nAUTH XOAUTH2\r\n" + XOAUTH2 + b"\r\n*\r\nAUTH OAUTHBEARER AQ==\r\nQUIT\r\n",
)


@implementer(IAuthenticator)
class _Judge:
    """Accepts the user C{in} alone, and C{smtp_auth none}."""

    def __init__(self) -> None:
        self.requests: list[LoginRequest] = []

    def authenticate(self, request: LoginRequest) -> Deferred[Route | Denial]:
        self.requests.append(request)
        return succeed(ROUTE if request.credentials.user == b"in" or request.envelope.recipient else _DENIED)

    def close(self) -> None:
        pass


def _dialogue(record: MailProtocol, settings: Any) -> Run:
    """A whole connection: what the client hears, what is judged, what reaches the backend, and the end."""

    def run(pieces: Sequence[bytes]) -> Any:
        backend = FakeClient(b"in\r\n")
        backendTransport: Any = backend.transport
        conversation = Conversation(
            record, settings, _DIALOGUE, authenticator=_Judge(), connector=FakeConnector(backend)
        )
        heard = conversation.hear()
        for piece in pieces:
            dialogue = conversation.server
            heard += conversation.send(piece)
            if hasattr(dialogue, "intake"):
                bound = max(READ_AHEAD, LONGEST_ID) + len(piece)
                assert len(dialogue.buffer) <= bound, "the buffer is longer than its limit"
        session = conversation.server.session
        asked = [(request.credentials, request.tag, request.envelope) for request in conversation.requests]
        return heard, session.phase, session.outcome, asked, backendTransport.value(), conversation.closed

    return run


_METHODS = ("plain", "cram-md5", "external", "xoauth2", "oauthbearer")

TARGETS: tuple[Target, ...] = (
    Target(
        "imap",
        _dialogue(IMAP4, IMAP4Settings(auth=(*_METHODS, "login"), clientBuffer=_BUFFER)),
        mutations(_IMAP_EXAMPLES, (*_IMAP, *_RESPONSES)),
    ),
    Target(
        "pop3",
        _dialogue(POP3, POP3Settings(auth=(*_METHODS, "apop"), clientBuffer=_BUFFER)),
        mutations(_POP3_EXAMPLES, (*_POP3, *_RESPONSES)),
    ),
    Target(
        "smtp",
        _dialogue(SMTP, SMTPSettings(auth=(*_METHODS, "login", "none"), clientBuffer=_BUFFER)),
        mutations(_SMTP_EXAMPLES, (*_SMTP, *_RESPONSES)),
    ),
)

_SIEVE = (
    *(b"AUTHENTICATE ", b'"PLAIN" ', b'"', b"\\", b"{3}", b"{3+}", b"{400+}", b"{99999999999999999999}", b"CAPABILITY"),
    *(b"STARTTLS", b"LOGOUT", b"NOOP ", b"LISTSCRIPTS", b'PUTSCRIPT "x" {5+}', b"UNAUTHENTICATE", b"HAVESPACE "),
)
_SIEVE_EXAMPLES = (
    b'CAPABILITY\r\nNOOP "tag"\r\nAUTHENTICATE "PLAIN" "' + PLAIN + b'"\r\nLOGOUT\r\n',
    b'AUTHENTICATE "PLAIN"\r\n"' + PLAIN + b'"\r\nAUTHENTICATE "PLAIN" "' + ACCEPTED + b'"\r\nLISTSCRIPTS\r\n',
    b'AUTHENTICATE "LOGIN"\r\n{4+}\r\nam9l\r\n"c2VzYW1l"\r\nAUTHENTICATE "XOAUTH2"\r\n"*"\r\n',
    b'AUTHENTICATE "OAUTHBEARER" {%d+}\r\n' % len(OAUTHBEARER)
    + OAUTHBEARER
    + b'\r\n""\r\nPUTSCRIPT "x" {2+}\r\nok\r\n',
)

if "sieve" in PROTOCOLS:
    _sieve = PROTOCOLS["sieve"]
    TARGETS += (
        Target(
            "sieve",
            _dialogue(_sieve, _sieve.settings(auth=("plain", "login", "xoauth2", "oauthbearer"), clientBuffer=_BUFFER)),
            mutations(_SIEVE_EXAMPLES, (*_SIEVE, *_RESPONSES)),
        ),
    )
