# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""
A protocol that holds a dialogue first, and whose connection a relay takes over later.
"""

from __future__ import annotations

from typing import Any
from typing import Protocol as Shape

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["RelayedProtocol", "Successor", "makeNoDelay"]


def makeNoDelay(transport: Any) -> None:
    """Send small writes at once (TCP_NODELAY), where C{transport} is TCP: with Nagle a reply waits 40 ms for an ACK."""
    try:
        transport.setTcpNoDelay(True)
    except (AttributeError, OSError):
        # A unix socket has no such option, and a peer may be gone before it is set.
        return


class Successor(Shape):
    """What receives the events of a connection from the moment on at which its dialogue is over."""

    def dataReceived(self, data: bytes) -> None:
        """Bytes have arrived."""

    def ended(self) -> None:
        """The peer sends no more."""

    def lost(self) -> None:
        """The connection has gone."""


@implementer(IHalfCloseableProtocol)
class RelayedProtocol(Protocol):
    """
    A protocol that holds a dialogue and then leaves its connection to a relay.

    Subclasses override the C{dialogue…} methods, which are called until then.
    """

    transport: Any
    inputEnded = False
    """Whether the peer has said that it sends no more, while the dialogue went on."""
    _successor: Successor | None = None

    @property
    def relayed(self) -> bool:
        """Whether the relay has the connection."""
        return self._successor is not None

    def handOverTo(self, successor: Successor) -> None:
        """The dialogue is over: from now on C{successor} receives what happens to the connection."""
        self._successor = successor

    def dialogueReceived(self, data: bytes) -> None:
        """Bytes have arrived while the dialogue goes on."""

    def dialogueEnded(self) -> None:
        """The peer will send no more, while the dialogue goes on."""

    def dialogueLost(self, reason: Failure) -> None:
        """The connection has gone while the dialogue went on."""

    def dataReceived(self, data: bytes) -> None:
        if self._successor is not None:
            self._successor.dataReceived(data)
        else:
            self.dialogueReceived(data)

    def readConnectionLost(self) -> None:
        if self._successor is not None:
            self._successor.ended()
        else:
            self.inputEnded = True
            self.dialogueEnded()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._successor is not None:
            self._successor.lost()
        else:
            self.dialogueLost(reason)
