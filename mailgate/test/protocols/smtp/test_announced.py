"""
The extensions that SMTP clients get when the gateway has learned them, and the parameters that these allow.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from mailgate.backend.offers import UNKNOWN, Known
from mailgate.backend.settings import ProxySettings
from mailgate.login import Denial, Envelope
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.test.backend.test_conversation import JOE, Talk
from mailgate.test.support.loginscripts import ANYBODY
from mailgate.testing import Attempt, Conversation, FakeClient, FakeConnector, requestFor, resultOf
from mailgate.tls.settings import TLSSettings

LEARNED = (b"PIPELINING", b"CHUNKING", b"BINARYMIME", b"BURL imap", b"REQUIRETLS", b"SMTPUTF8")

PARAMETERS = (
    b"BODY=8BITMIME SMTPUTF8 SIZE=123 RET=HDRS ENVID=QQ314159+3D+2B AUTH=<> BY=120;R HOLDFOR=86400 MT-PRIORITY=3"
    b" REQUIRETLS"
)
"""One of all parameters of MAIL that the gateway may announce, except HOLDUNTIL, which excludes HOLDFOR."""


def announcing(
    *auth: str, ssl: bool = False, isLearned: bool = True, isComplete: bool = True, given: str = ""
) -> list[bytes]:
    """Return the extensions that a client gets if the gateway announces L{LEARNED}."""
    conversation = Conversation(SMTP, SMTPSettings(auth=auth), TLSSettings(starttls="on"), ssl=ssl)
    conversation.factory.announcement.change(LEARNED, isLearned)
    conversation.factory.announcement.isComplete = isComplete
    if ssl:
        conversation.transport.shakeHands()
    conversation.hear()
    lines: list[bytes] = conversation.says(b"EHLO c.test").split(b"\r\n")[1:-1]
    return [line[4:] for line in lines]


class AnnouncedTests(SynchronousTestCase):
    """The reply to EHLO."""

    def test_login(self) -> None:
        """A client that has to log in under TLS gets all; the gateway's own come last."""
        self.assertEqual(announcing("plain", ssl=True), [*LEARNED, b"AUTH PLAIN"])

    def test_inClear(self) -> None:
        """REQUIRETLS is for clients with TLS."""
        expected = [line for line in LEARNED if line != b"REQUIRETLS"]
        self.assertEqual(announcing("plain"), [*expected, b"AUTH PLAIN", b"STARTTLS"])

    def test_unasked(self) -> None:
        """A backend that is not known may have no CHUNKING, and would take the message for commands."""
        lines = announcing("plain", ssl=True, isComplete=False)
        self.assertEqual(lines[:3], [b"PIPELINING", b"REQUIRETLS", b"SMTPUTF8"])

    def test_chunks(self) -> None:
        """The login knows whether its client has got CHUNKING; a list of the operator stays as it is."""
        for isLearned, isComplete in ((True, True), (True, False), (False, True)):
            conversation = Conversation(SMTP, SMTPSettings(auth=("plain",)), ssl=True)
            conversation.factory.announcement.change(LEARNED, isLearned)
            conversation.factory.announcement.isComplete = isComplete
            conversation.transport.shakeHands()
            conversation.says(b"EHLO c.test")
            conversation.says(b"AUTH PLAIN AGpvZQBzZXNhbWU=")
            (request,) = conversation.requests
            self.assertEqual(request.envelope.chunks, isLearned and isComplete)

    def test_chunksLost(self) -> None:
        """
        A backend that no longer has CHUNKING would execute messages. A client that has got it is not relayed there.
        """
        for offers, chunks, isRefused in (
            (b"250-mx\r\n250 AUTH PLAIN\r\n", True, True),
            (b"250 mx\r\n", True, True),
            (b"250-mx\r\n250 chunking\r\n", True, False),
            (b"250-mx\r\n250 AUTH PLAIN\r\n", False, False),
        ):
            for groups in ((), (ProxySettings(proxyProtocol="on"),)):
                attempt = Attempt(SMTP, *groups, envelope=Envelope(b"c.test", True, chunks=chunks))
                attempt.accept()
                attempt.says(b"220 ready\r\n")
                attempt.says(offers)
                result = self.successResultOf(attempt.result)
                self.assertEqual(isinstance(result, Denial), isRefused, (offers, chunks))
                self.assertEqual(
                    any("offers no CHUNKING, which the client got" in line for line in attempt.log), isRefused
                )

    def test_withoutLogin(self) -> None:
        """Where mail needs no login the gateway may have to answer BDAT and BURL itself: it announces neither."""
        for auth in (("none",), ("none", "plain"), ("plain", "none")):
            lines = announcing(*auth, ssl=True)
            self.assertEqual(lines[:3], [b"PIPELINING", b"REQUIRETLS", b"SMTPUTF8"])

    def test_configured(self) -> None:
        """A list of the operator stays as it is."""
        self.assertEqual(announcing("none", isLearned=False), [*LEARNED, b"STARTTLS"])

    def test_changed(self) -> None:
        """What is learned during a connection holds from the next EHLO on."""
        conversation = Conversation(SMTP, SMTPSettings(capabilities=("backend", "DSN")))
        conversation.hear()
        self.assertIn(b"250-DSN\r\n", conversation.says(b"EHLO c.test"))
        conversation.factory.announcement.change((b"SIZE 7",), True)
        self.assertEqual(conversation.says(b"EHLO c.test"), b"250-mx.test\r\n250-SIZE 7\r\n250 AUTH PLAIN LOGIN\r\n")


class ParameterTests(SynchronousTestCase):
    """What the gateway reads itself under C{smtp_auth none}: the parameters reach the service and the backend."""

    def envelope(self, mail: bytes, recipient: bytes) -> Envelope:
        """Return what the gateway passes on if the client sends these in one segment."""
        conversation = Conversation(SMTP, SMTPSettings(auth=("none",)), connector=FakeConnector(FakeClient()))
        conversation.hear()
        conversation.says(b"EHLO c.test")
        self.assertEqual(conversation.says(mail, recipient), b"250 2.0.0 OK\r\n")
        (request,) = conversation.requests
        return request.envelope

    def test_unchanged(self) -> None:
        """They are passed on byte for byte."""
        for mail, recipient in (
            (b"MAIL FROM:<a@example.com> BODY=8BITMIME", b"RCPT TO:<b@example.com> NOTIFY=SUCCESS,FAILURE"),
            (b"MAIL FROM:<a@example.com> " + PARAMETERS, b"RCPT TO:<b@example.com> ORCPT=rfc822;b+2Bc@example.com"),
            (
                "MAIL FROM:<bjørn@blåbær.example> SMTPUTF8".encode(),
                "RCPT TO:<漢字@例え.example> NOTIFY=NEVER ORCPT=utf-8;\\x{6F22}@example".encode(),
            ),
            (b"MAIL FROM:<> SMTPUTF8", b'RCPT TO:<"b  c"@example.com>'),
            (b"MAIL FROM:<a@example.com> ENVID=" + b"x" * 100, b"RCPT TO:<b@example.com> ORCPT=rfc822;" + b"y" * 500),
        ):
            self.assertEqual(self.envelope(mail, recipient), Envelope(b"c.test", True, mail, recipient))

    def test_backend(self) -> None:
        """The backend gets them as they are."""
        envelope = Envelope(
            b"laptop",
            True,
            "MAIL FROM:<bjørn@example.com> ".encode() + PARAMETERS,
            "RCPT TO:<漢字@example.com> NOTIFY=NEVER".encode(),
        )
        attempt = Attempt(SMTP, **{**ANYBODY, "envelope": envelope})
        attempt.accept()
        attempt.says(b"220 ready\r\n", b"250-mx\r\n250 XCLIENT ADDR\r\n", b"220 ready\r\n")
        self.assertEqual(attempt.says(b"250 mx\r\n"), envelope.mail + b"\r\n")
        self.assertEqual(attempt.says(b"250 ok\r\n"), envelope.recipient + b"\r\n")


class DifferenceTests(SynchronousTestCase):
    """Each login shows what the backend offers to the gateway: a difference is learned without a question."""

    def login(self, known: tuple[bytes, ...], *replies: bytes, **changes: Any) -> list[tuple[bytes, ...]]:
        """Return what a login finds at a backend of which C{known} is known."""
        found: list[tuple[bytes, ...]] = []
        talk = Talk(SMTP, SMTPSettings(xclient=changes.pop("xclient", "auto")))
        talk.client.known = Known(lambda known, items: found.append(items))
        talk.client.known.greeted = b"\n".join(known)
        opening = resultOf(talk.client.open(None, None))
        talk.accept()
        talk.says(b"220 ready\r\n")
        self.successResultOf(opening)
        logged = resultOf(talk.client.login(JOE, requestFor("smtp", **changes)))
        talk.says(*replies)
        self.successResultOf(logged)
        return found

    def test_same(self) -> None:
        """Nothing is new."""
        self.assertEqual(self.login((b"SIZE 10", b"DSN"), b"250-mx\r\n250-SIZE 10\r\n250 DSN\r\n"), [])

    def test_other(self) -> None:
        """The lines are compared as they are written, with their blanks."""
        found = self.login((b"SIZE 10",), b"250-mx\r\n250-SIZE 20\r\n250 DSN\r\n")
        self.assertEqual(found, [(b"SIZE 20", b"DSN")])

    def test_behindXCLIENT(self) -> None:
        """What the backend offers to the client's address is not compared: it may depend on that address."""
        replies = (b"250-mx\r\n250 XCLIENT ADDR\r\n", b"220 ready\r\n", b"250-mx\r\n250 DSN\r\n")
        self.assertEqual(self.login((b"XCLIENT ADDR",), *replies, envelope=Envelope(b"c.test", True)), [])

    def test_unasked(self) -> None:
        """Where nothing is to be learned nothing is compared."""
        attempt = Attempt(SMTP, SMTPSettings(xclient="off"))
        attempt.accept()
        attempt.says(b"220 ready\r\n", b"250-mx\r\n250 DSN\r\n")
        self.assertEqual(self.successResultOf(attempt.result).known.items, None)


class ChunkingTests(SynchronousTestCase):
    """The warning that a backend has no CHUNKING, which the gateway announces."""

    def isWarned(self, *capabilities: str, known: Known = UNKNOWN) -> bool:
        """Whether the login has it among its concerns."""
        talk = Talk(SMTP, SMTPSettings(xclient="off", capabilities=capabilities))
        talk.client.known = known
        opening = resultOf(talk.client.open(None, None))
        talk.accept()
        talk.says(b"220 ready\r\n")
        self.successResultOf(opening)
        logged = resultOf(talk.client.login(JOE, requestFor("smtp", envelope=Envelope(b"c.test", True))))
        talk.says(b"250-mx\r\n250 DSN\r\n")
        self.successResultOf(logged)
        return any("offers no CHUNKING" in concern for concern in talk.client.concerns)

    def test_configured(self) -> None:
        """It is for lists of the operator, and for C{backend} where there is no backend to learn from."""
        self.assertTrue(self.isWarned("CHUNKING"))
        self.assertTrue(self.isWarned("backend", "CHUNKING"))

    def test_learned(self) -> None:
        """What the gateway learns is kept."""
        self.assertFalse(self.isWarned("backend", "CHUNKING", known=Known()))
        self.assertFalse(self.isWarned("backend"))
