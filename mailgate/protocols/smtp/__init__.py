"""
SMTP (RFC 5321): the dialogue before login or before the first recipient, the login at a backend, their settings, and
which rights a client gets there.
"""

from mailgate.frontend.protocol import MailProtocol
from mailgate.protocols.smtp.client import SMTPClient
from mailgate.protocols.smtp.server import SMTPServer
from mailgate.protocols.smtp.settings import SMTPSettings

__all__ = ["SMTP"]

SMTP = MailProtocol("smtp", (25, 465, 587), SMTPServer, SMTPClient, SMTPSettings)
