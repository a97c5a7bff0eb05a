"""
IMAP4 (RFC 3501, 9051): the dialogue before login, the login at a backend, and their settings.
"""

from mailgate.frontend.protocol import MailProtocol
from mailgate.protocols.imap4.client import IMAP4Client
from mailgate.protocols.imap4.server import IMAP4Server
from mailgate.protocols.imap4.settings import IMAP4Settings

__all__ = ["IMAP4"]

IMAP4 = MailProtocol("imap", (143, 993), IMAP4Server, IMAP4Client, IMAP4Settings)
