"""
A client that waits for answers, over a real connection.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

__all__ = ["Talk"]


class Talk(Protocol):
    """A client. C{heard} is all that it received, C{lost} fires when its connection ends."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Deferred[None] = Deferred()
        self._awaited: tuple[bytes, Deferred[bytes]] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data
        self._look()

    def connectionLost(self, reason: object = None) -> None:
        self.lost.callback(None)

    def _look(self) -> None:
        if self._awaited is not None and self._awaited[0] in self.heard:
            awaited, self._awaited = self._awaited[1], None
            awaited.callback(self.heard)

    def hears(self, awaited: bytes) -> Deferred[bytes]:
        """Return a Deferred that fires when the client has received C{awaited}."""
        waiting: Deferred[bytes] = Deferred()
        self._awaited = (awaited, waiting)
        self._look()
        return waiting

    def asks(self, line: bytes, awaited: bytes) -> Deferred[bytes]:
        """Send C{line}, and wait for C{awaited}."""
        assert self.transport is not None
        self.transport.write(line + b"\r\n")
        return self.hears(awaited)
