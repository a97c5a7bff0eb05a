# -*- test-case-name: mailgate.test.frontend.test_findings -*-
"""
Reads details of a client's connection on demand: the local address and the parameters of TLS.
"""

from __future__ import annotations

from socket import AF_INET
from typing import TYPE_CHECKING, Any
from weakref import ref

from twisted.internet.address import IPv4Address, IPv6Address

from mailgate.login import Client, TLSDetails
from mailgate.net.networks import unmapped
from mailgate.session import Phase

if TYPE_CHECKING:
    from mailgate.frontend.dialogue import ProxyServer

__all__ = ["DialogueFindings", "clientOf", "hostAndPort", "peerOf"]


def hostAndPort(address: Any) -> tuple[str, int]:
    """Return host and port of a Twisted C{address}, in the form of L{mailgate.login.Client}."""
    if isinstance(address, IPv4Address):
        return address.host, address.port
    return (unmapped(address.host), address.port) if isinstance(address, IPv6Address) else ("unix:", 0)


def peerOf(transport: Any) -> tuple[str, int]:
    """Return the host and port of the client of C{transport}, in the form of L{mailgate.login.Client}."""
    if getattr(transport, "family", None) == AF_INET:
        # Of a lean transport. An object of Twisted's for the address would only be taken apart again.
        peer: tuple[str, int] = transport.rawPeer
        return peer
    return hostAndPort(transport.getPeer())


class DialogueFindings:
    """
    Implements L{mailgate.login.Findings} for the connection of C{dialogue}. It holds a weak reference: a request that
    an authenticator keeps does not keep the connection alive. After the dialogue nothing is known any more.
    """

    __slots__ = ("_dialogue",)

    def __init__(self, dialogue: ProxyServer) -> None:
        self._dialogue = ref(dialogue)

    def _ongoing(self) -> ProxyServer | None:
        dialogue = self._dialogue()
        isOver = dialogue is None or dialogue.session.phase in (Phase.RELAY, Phase.END)
        return None if isOver else dialogue

    def local(self) -> tuple[str, int]:
        """Return the host and port to which the client has connected; C{("", 0)} if they are not known."""
        dialogue = self._ongoing()
        return ("", 0) if dialogue is None else hostAndPort(dialogue.transport.getHost())

    def details(self) -> TLSDetails | None:
        """Return the details of the client's TLS; L{None} if they are not known."""
        dialogue = self._ongoing()
        if dialogue is None or dialogue.factory.tls is None or dialogue.session.tls is None:
            return None
        return dialogue.factory.tls.details(dialogue.transport.getHandle())


def clientOf(server: ProxyServer) -> Client:
    """
    Describe a client. Details that cost a system call or TLS work are read on first access.

    @param server: the dialogue with the client.
    """
    factory, session = server.factory, server.session
    tls = session.tls
    client = Client(
        server._host,
        server._port,
        tls,
        server._clientName,
        server._proxied,
        factory.localHost,
        factory.localPort,
        session.id,
        None,
        factory.name,
    )
    if factory.isWildcard or tls is not None:
        client.lookUpLater(DialogueFindings(server), factory.isWildcard, tls is not None)
    return client
