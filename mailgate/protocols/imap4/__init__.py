"""
IMAP4 (RFC 3501, 9051): the dialogue before login, the login at a backend, and their settings.
"""

from collections.abc import Sequence, Set

from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Method
from mailgate.protocols.imap4.capabilities import learnable
from mailgate.protocols.imap4.client import IMAP4Client
from mailgate.protocols.imap4.server import IMAP4Server
from mailgate.protocols.imap4.settings import IMAP4Settings

__all__ = ["IMAP4"]

_REVISIONS = {"IMAP4REV1", "IMAP4REV2"}
"""A server must announce one of them (RFC 3501, section 6.1.1; RFC 9051, section 6.1.1)."""


def _lacks(configured: Sequence[str], methods: Set[Method]) -> str:
    if any(word.upper() in _REVISIONS for item in configured for word in item.split()):
        return ""
    return "has no IMAP4rev1: clients then do not use the server"


IMAP4 = MailProtocol(
    "imap",
    (143, 993),
    IMAP4Server,
    IMAP4Client,
    IMAP4Settings,
    implicitPorts=(993,),
    own=("AUTH", "LOGINDISABLED", "STARTTLS"),
    # CLIENTID is an extension of some clients, LANGUAGE is that of RFC 5255.
    unkept=("CLIENTID", "LANGUAGE"),
    parted=" ",
    lacks=_lacks,
    learnable=learnable,
)
