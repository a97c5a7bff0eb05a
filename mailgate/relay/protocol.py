# -*- test-case-name: mailgate.test.relay.test_portable -*-
"""The base class of protocols whose connection a relay takes over after a dialogue."""

from __future__ import annotations

from typing import Any
from typing import Protocol as Shape

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["RelayedProtocol", "Successor"]


class Successor(Shape):
    """Receives the events of a connection after the dialogue."""

    def dataReceived(self, data: bytes) -> None:
        """C{data} have arrived."""

    def ended(self) -> None:
        """The peer sends no more."""

    def lost(self) -> None:
        """The connection is closed."""


@implementer(IHalfCloseableProtocol)
class RelayedProtocol(Protocol):
    """
    A protocol that holds a dialogue, and then leaves its connection to a relay.

    Until then it calls the C{dialogue…} methods, which subclasses override.
    """

    transport: Any
    inputEnded = False
    """Whether the peer sent its end of file during the dialogue."""
    _successor: Successor | None = None

    @property
    def relayed(self) -> bool:
        """Whether the relay has the connection."""
        return self._successor is not None

    def handOverTo(self, successor: Successor) -> None:
        """End the dialogue: from now on C{successor} receives the events of the connection."""
        self._successor = successor

    def dialogueReceived(self, data: bytes) -> None:
        """C{data} have arrived during the dialogue."""

    def dialogueEnded(self) -> None:
        """The peer sent its end of file during the dialogue."""

    def dialogueLost(self, reason: Failure) -> None:
        """The connection was closed during the dialogue, for C{reason}."""

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
