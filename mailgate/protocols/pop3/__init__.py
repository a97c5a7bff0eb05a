"""
POP3 (RFC 1939, 2449, 5034): the dialogue before login, the login at a backend, and their settings.
"""

from mailgate.frontend.protocol import MailProtocol
from mailgate.protocols.pop3.capabilities import learnable
from mailgate.protocols.pop3.client import POP3Client
from mailgate.protocols.pop3.server import POP3Server
from mailgate.protocols.pop3.settings import POP3Settings

__all__ = ["POP3"]

POP3 = MailProtocol(
    "pop3",
    (110, 995),
    POP3Server,
    POP3Client,
    POP3Settings,
    implicitPorts=(995,),
    own=("SASL", "STLS"),
    # CLIENTID is an extension of some clients, LANG and UTF8 are those of RFC 6856.
    unkept=("CLIENTID", "LANG", "UTF8", "XCLIENT"),
    learnable=learnable,
)
