"""
ManageSieve (RFC 5804): the dialogue before login, the login at a backend, and their settings.
"""

from collections.abc import Sequence, Set

from mailgate.frontend.protocol import MailProtocol
from mailgate.login import Method
from mailgate.protocols.sieve.capabilities import learnable
from mailgate.protocols.sieve.client import SieveClient
from mailgate.protocols.sieve.server import SieveServer
from mailgate.protocols.sieve.settings import SieveSettings

__all__ = ["SIEVE"]


def _lacks(configured: Sequence[str], methods: Set[Method]) -> str:
    if any(item.split()[:1] == ["SIEVE"] for item in map(str.upper, configured)):
        return ""
    return "has no SIEVE: clients then show no rule that needs an extension"


SIEVE = MailProtocol(
    "sieve",
    (4190,),
    SieveServer,
    SieveClient,
    SieveSettings,
    # The registered name (RFC 7301's registry).
    alpn="managesieve",
    own=("IMPLEMENTATION", "OWNER", "SASL", "STARTTLS"),
    unkept=("UNAUTHENTICATE", "XCLIENT"),
    lacks=_lacks,
    learnable=learnable,
    mostErrors=3,
)
