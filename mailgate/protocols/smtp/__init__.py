"""
SMTP (RFC 5321): the dialogue before login or before the first recipient, the login at a backend, their settings, and
which rights a client gets there.
"""

from collections.abc import Sequence, Set

from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Method
from mailgate.protocols.smtp.client import SMTPClient
from mailgate.protocols.smtp.server import SMTPServer
from mailgate.protocols.smtp.settings import SMTPSettings

__all__ = ["SMTP"]


def _lacks(configured: Sequence[str], methods: Set[Method]) -> str:
    if configured or not methods - {Method.NONE}:
        return ""
    return (
        "is missing: mail programs then convert 8-bit mail, which breaks its signatures, and bounce mail that needs"
        " SMTPUTF8; copy your backend's list"
    )


SMTP = MailProtocol(
    "smtp",
    # Backends are at 25, not at submission's 587: behind a gateway that has taken the login over mostly stands an
    # ordinary mail server.
    (25, 465, 587),
    SMTPServer,
    SMTPClient,
    SMTPSettings,
    implicitPorts=(465,),
    own=("AUTH", "STARTTLS"),
    # CLIENTID is some clients' own, HELP that of RFC 5321; the others are Exchange's and Postfix's.
    unkept=("CLIENTID", "HELP", "X-ANONYMOUSTLS", "X-EXPS", "XCLIENT", "XFORWARD"),
    lacks=_lacks,
    wantsClientName=True,
)
