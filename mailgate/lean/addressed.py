# -*- test-case-name: mailgate.test.lean.test_transport_contract -*-
"""
The addresses of a connection on a raw descriptor, and its options of TCP.
"""

from __future__ import annotations

import socket
from typing import Any

from mailgate.lean.descriptors import addressOf, ask

__all__ = ["Addressed"]


class Addressed:
    """
    The part of C{ITCPTransport} that is about the socket itself, not about its bytes.

    @ivar fd: the connected descriptor.
    @ivar family: its address family.
    @ivar rawPeer: the address of the peer, as the system has it.
    """

    fd: int
    family: int
    rawPeer: Any
    _noDelay: bool
    """Whether TCP_NODELAY is set."""

    def getPeer(self) -> Any:
        return addressOf(self.family, self.rawPeer)

    def getHost(self) -> Any:
        return addressOf(self.family, self._ask("getsockname"))

    def getTcpNoDelay(self) -> bool:
        return self.family != socket.AF_UNIX and bool(self._ask("getsockopt", socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        if enabled is not self._noDelay and self.family != socket.AF_UNIX:
            self._ask("setsockopt", socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)
            self._noDelay = enabled

    def getTcpKeepAlive(self) -> bool:
        return bool(self._ask("getsockopt", socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._ask("setsockopt", socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)

    def _ask(self, method: str, *arguments: int) -> Any:
        return ask(self.fd, self.family, method, *arguments)
