"""
The texts of the three protocols for SASL.
"""

from __future__ import annotations

import base64
from typing import Any

from attrs import frozen

from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Method
from mailgate.protocols.imap4 import IMAP4
from mailgate.protocols.imap4.settings import IMAP4Settings
from mailgate.protocols.pop3 import POP3
from mailgate.protocols.pop3.settings import POP3Settings
from mailgate.protocols.smtp import SMTP
from mailgate.protocols.smtp.settings import SMTPSettings
from mailgate.testing import Conversation

__all__ = ["MECHANISMS", "REASON", "WORDINGS", "OAuth", "Wording"]

REASON = b"eyJzdGF0dXMiOiI0MDEifQ=="


@frozen
class OAuth:
    """One of the two OAuth mechanisms: the client's response, and its answer to a refusal."""

    method: Method
    response: bytes
    answer: bytes

    @property
    def name(self) -> bytes:
        name: str = self.method.value
        return name.upper().encode()

    @property
    def initial(self) -> bytes:
        return base64.b64encode(self.response)


MECHANISMS = (
    OAuth(Method.XOAUTH2, b"user=joe\x01auth=Bearer token\x01\x01", b""),
    OAuth(Method.OAUTHBEARER, b"n,a=joe,\x01host=x\x01auth=Bearer token\x01\x01", b"AQ=="),
)


@frozen
class Wording:
    """
    The texts of a protocol. C{challenge} precedes a challenge, C{goodbye} follows a refusal that ends the connection.
    """

    record: MailProtocol
    settings: type
    auth: bytes
    challenge: bytes
    unsupported: bytes
    cancelled: bytes
    notBase64: bytes
    malformed: bytes
    refusal: bytes
    capabilities: bytes
    accepted: bytes
    tooLong: bytes
    goodbye: bytes = b""

    def converse(self, *auth: str, **settings: Any) -> Conversation:
        """Return a conversation after the greeting, with the methods C{auth}; by default passwords and tokens."""
        groups = settings.pop("groups", ())
        passwords = ("plain", "login") if self.record is not POP3 else ("plain",)
        methods = auth or (*passwords, "xoauth2", "oauthbearer")
        conversation = Conversation(self.record, self.settings(auth=methods), *groups, **settings)
        conversation.hear()
        return conversation


WORDINGS = (
    Wording(
        IMAP4,
        IMAP4Settings,
        b"a AUTHENTICATE ",
        b"+ ",
        b"a NO [CANNOT] Unsupported authentication mechanism\r\n",
        b"a BAD Authentication cancelled\r\n",
        b"a BAD Invalid base64 data\r\n",
        b"a BAD Invalid authentication response\r\n",
        b"a NO no\r\n",
        b"a CAPABILITY",
        b"a OK hi\r\n",
        b"a BAD Authentication response is too long\r\n",
        b"* BYE Refused, closing connection\r\n",
    ),
    Wording(
        POP3,
        POP3Settings,
        b"AUTH ",
        b"+ ",
        b"-ERR Unsupported authentication mechanism\r\n",
        b"-ERR Authentication cancelled\r\n",
        b"-ERR Invalid base64 data\r\n",
        b"-ERR Invalid authentication response\r\n",
        b"-ERR [AUTH] no\r\n",
        b"CAPA",
        b"+OK logged in\r\n",
        b"-ERR Authentication response is too long\r\n",
    ),
    Wording(
        SMTP,
        SMTPSettings,
        b"AUTH ",
        b"334 ",
        b"504 5.5.4 Unsupported authentication mechanism\r\n",
        b"501 5.7.0 Authentication cancelled\r\n",
        b"501 5.5.2 Invalid base64 data\r\n",
        b"501 5.5.4 Invalid authentication response\r\n",
        b"535 5.7.0 no\r\n",
        b"EHLO c.test",
        b"235 2.0.0 OK\r\n",
        b"500 5.5.6 Authentication response is too long\r\n",
        b"421 4.7.0 Refused, closing connection\r\n",
    ),
)
