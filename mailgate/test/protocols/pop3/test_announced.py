"""
The capabilities that POP3 clients get when the gateway has learned them.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from mailgate.login import Denial, Trouble
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.capabilities import learnable
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.testing import Conversation, FakeAuthenticator
from mailgate.tls.settings import TLSSettings


class AnnouncedTests(SynchronousTestCase):
    """The reply to CAPA."""

    def converse(self, *offered: bytes, auth: tuple[str, ...] = ("plain",), starttls: str = "on") -> Conversation:
        """A conversation with a server whose backend offers C{offered}."""
        authenticator = FakeAuthenticator(Denial(Trouble.DENIED, b"no"))
        settings = (POP3Settings(auth=auth), TLSSettings(starttls=starttls))
        conversation = Conversation(POP3, *settings, authenticator=authenticator)
        conversation.factory.announcement.change(learnable([offered]), True)
        conversation.hear()
        return conversation

    def capabilities(self, conversation: Conversation) -> list[bytes]:
        """Its lines."""
        return conversation.says(b"CAPA").split(b"\r\n")[1:-2]

    def test_own(self) -> None:
        """SASL and STLS are the gateway's, whatever the backend has; so is USER."""
        conversation = self.converse(b"SASL GSSAPI", b"STLS", b"UIDL", b"UTF8", b"IMPLEMENTATION x")
        self.assertEqual(self.capabilities(conversation), [b"UIDL", b"USER", b"SASL PLAIN LOGIN", b"STLS"])

    def test_noPasswords(self) -> None:
        """USER is left out where the gateway does not take it."""
        self.assertEqual(
            self.capabilities(self.converse(b"USER", b"TOP", auth=("cram-md5",))), [b"TOP", b"SASL CRAM-MD5", b"STLS"]
        )
        self.assertEqual(self.capabilities(self.converse(b"USER", b"TOP", starttls="only")), [b"TOP", b"STLS"])

    def test_codes(self) -> None:
        """Refusals have [AUTH] if the gateway announces it (RFC 3206)."""
        for offered, refusal in ((b"AUTH-RESP-CODE", b"-ERR [AUTH] no\r\n"), (b"RESP-CODES", b"-ERR no\r\n")):
            conversation = self.converse(offered)
            conversation.says(b"USER joe")
            self.assertEqual(conversation.says(b"PASS x"), refusal)
