# -*- test-case-name: mailgate.test.frontend.test_findings -*-
"""
What can be found out of a client's connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import ref

from twisted.internet.address import IPv4Address, IPv6Address

from mailgate.login import TLSDetails
from mailgate.net.networks import unmapped
from mailgate.session import Phase

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["DialogueFindings", "hostAndPort"]

_INET = (IPv4Address, IPv6Address)
# Not a union: making one takes longer than all else that is found out of a connection.


def hostAndPort(address: Any) -> tuple[str, int]:
    """C{address} in the forms of L{mailgate.login.Client}."""
    return (unmapped(address.host), address.port) if isinstance(address, _INET) else ("unix:", 0)


class DialogueFindings:
    """
    L{mailgate.login.Findings} of the connection of C{dialogue}, as long as that has it. An authenticator may keep a
    request for long: neither the dialogue nor its connection stays alive for it.
    """

    __slots__ = ("_dialogue",)

    def __init__(self, dialogue: ProxyServer) -> None:
        self._dialogue = ref(dialogue)

    def _ongoing(self) -> ProxyServer | None:
        dialogue = self._dialogue()
        isOver = dialogue is None or dialogue.session.phase in (Phase.RELAY, Phase.END)
        return None if isOver else dialogue

    def local(self) -> tuple[str, int]:
        """The address that the client has connected to, which of a wildcard is one of many."""
        dialogue = self._ongoing()
        return ("", 0) if dialogue is None else hostAndPort(dialogue.transport.getHost())

    def details(self) -> TLSDetails | None:
        """What TLS knows besides the version and the cipher."""
        dialogue = self._ongoing()
        if dialogue is None or dialogue.factory.tls is None or dialogue.session.tls is None:
            return None
        return dialogue.factory.tls.details(dialogue.transport.getHandle())
