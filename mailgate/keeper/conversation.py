# -*- test-case-name: mailgate.test.keeper.test_messages -*-
"""
One end of a connection to a keeper.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from twisted.internet.interfaces import IPushProducer
from twisted.protocols.basic import LineOnlyReceiver
from zope.interface import implementer

from mailgate.keeper.messages import Message, WireError, decode, encode

__all__ = ["Conversation"]


@implementer(IPushProducer)
class Conversation(LineOnlyReceiver):
    """
    One end of a connection to a keeper. It learns from the transport when the other end does not read, and sends
    messages only while it does: C{isFull}.

    @ivar isFull: whether the other end does not read what was sent. Messages that can wait should.
    @ivar size: bytes of the last message that was received.
    """

    delimiter = b"\n"
    kinds: Collection[Any] = ()
    transport: Any
    isFull = False
    size = 0
    _isOpen = False

    def connectionMade(self) -> None:
        self._isOpen = True
        self.transport.registerProducer(self, True)
        self.began()

    def send(self, message: Message) -> None:
        """
        Send a message, unless the connection is closed or closing.

        @param message: the message.
        """
        self.sendEncoded(encode(message))

    def sendEncoded(self, line: bytes) -> None:
        """
        Send a message that L{encode} has written.

        @param line: the message.
        """
        if self._isOpen:
            self.transport.write(line + b"\n")

    def close(self) -> None:
        """Close the connection when all is sent."""
        if self._isOpen:
            self._isOpen = False
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection now."""
        self._isOpen = False
        self.transport.abortConnection()

    def lineReceived(self, line: bytes) -> None:
        if not self._isOpen:
            return
        self.size = len(line)
        try:
            message = decode(line, self.kinds)
        except WireError as error:
            self.invalid(error)
        else:
            self.received(message)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.invalid(WireError(f"invalid message: longer than {self.MAX_LENGTH} bytes"))

    def pauseProducing(self) -> None:
        """The other end does not read."""
        self.isFull = True

    def resumeProducing(self) -> None:
        """The other end reads again."""
        self.isFull = False
        self.drained()

    def stopProducing(self) -> None:
        """The connection is lost; C{connectionLost} follows."""

    def connectionLost(self, reason: Any = None) -> None:
        self._isOpen = False
        self.ended()

    def began(self) -> None:
        """The connection is open."""

    def received(self, message: Any) -> None:
        """
        A message has arrived.

        @param message: the message, one of C{kinds}.
        """

    def invalid(self, error: WireError) -> None:
        """
        What has arrived is no message.

        @param error: why.
        """

    def drained(self) -> None:
        """The other end has read what was sent."""

    def ended(self) -> None:
        """The connection is closed."""
