"""
SMTP (RFC 5321): the dialogue before login or before the first recipient, the login at a backend, their settings, and
the check of the rights that a client gets at a backend.
"""

from collections.abc import Sequence, Set

from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Method
from mailgate.protocols.smtp.capabilities import learnable
from mailgate.protocols.smtp.client import SMTPClient
from mailgate.protocols.smtp.server import SMTPServer
from mailgate.protocols.smtp.settings import SMTPSettings

__all__ = ["SMTP"]


def _lacks(configured: Sequence[str], methods: Set[Method]) -> str:
    if configured or not methods - {Method.NONE}:
        return ""
    return (
        "announces nothing: mail programs then convert 8-bit mail, which breaks its signatures, and bounce mail that"
        " needs SMTPUTF8; copy your backend's list"
    )


SMTP = MailProtocol(
    "smtp",
    # The first is the default for backends. It is 25, not 587: the gateway has done the login, so the backend is mostly
    # an ordinary mail server.
    (25, 465, 587),
    SMTPServer,
    SMTPClient,
    SMTPSettings,
    implicitPorts=(465,),
    own=("AUTH", "STARTTLS"),
    # CLIENTID is an extension of some clients, HELP is that of RFC 5321. The others are from Exchange and Postfix.
    unkept=("CLIENTID", "HELP", "X-ANONYMOUSTLS", "X-EXPS", "XCLIENT", "XFORWARD"),
    lacks=_lacks,
    wantsClientName=True,
    learnable=learnable,
)
