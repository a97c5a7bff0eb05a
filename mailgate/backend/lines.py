# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
The lines of a conversation with a backend, as a coroutine sends and awaits them.
"""

from __future__ import annotations

import re

from mailgate.backend.coroutine import Condition
from mailgate.backend.errors import BackendError
from mailgate.relay.protocol import RelayedProtocol

__all__ = ["Lines"]


class Lines(Condition, RelayedProtocol):
    """
    A connection that coroutines read. A L{mailgate.backend.coroutine.Task} runs them and this connection resumes them,
    so a line costs no Deferred. To await the connection itself is to wait for a change: the connection is made, a TLS
    handshake has ended, or bytes have arrived.

    @ivar limit: the most bytes of a line (C{proxy_buffer}).
    """

    _buffer = b""

    isIntroducing = False
    """Whether the reply to C{introduction} is still to be read."""

    usualReply: re.Pattern[bytes] | None = None
    """
    Matches the whole reply to C{introduction} of nearly all servers, which arrives long before the reply to the login.
    It is dropped: to resume the coroutine for it would double the cost of an introduction.
    """

    def __init__(self, limit: int) -> None:
        """@param limit: the most bytes of a line."""
        self.limit = limit

    async def line(self) -> bytes:
        """
        Wait for the next line and return it, line end included.

        @raise BackendError: the line is too long, or the connection is lost.
        """
        while not self._buffer or (line := self.takeLine()) is None:
            await self
        return line

    def takeLine(self) -> bytes | None:
        """
        Return the next line, line end included, or L{None} if it is not complete. This takes a third of the time of
        L{line}. A line that has arrived alone, as nearly all do, is not copied.

        @raise BackendError: the line is longer than C{proxy_buffer}.
        """
        buffer = self._buffer
        end = buffer.find(b"\n") + 1
        if end and end <= self.limit:
            self._buffer = buffer[end:]
            return buffer[:end]
        if end or len(buffer) >= self.limit:
            raise BackendError("sent a reply longer than proxy_buffer")
        return None

    def send(self, line: bytes) -> None:
        """
        Send a line.

        @param line: the line without its end.
        @raise BackendError: the backend has replied already. From then on replies could not be matched to commands.
        """
        if self._buffer:
            self.checkOrder()
        self.transport.write(line + b"\r\n")

    def checkOrder(self) -> None:
        """@raise BackendError: the backend has replied before our next command, as of L{send}."""
        if self.answersEarly(self._buffer):
            raise BackendError("replied before it received a command")

    def answersEarly(self, ahead: bytes) -> bool:
        """Return whether the bytes C{ahead}, received before our next command, could be mistaken for its reply."""
        return True

    def dataReceived(self, data: bytes) -> None:
        if self._successor is not None:
            self._successor.dataReceived(data)
            return
        if self._buffer:
            data = self._buffer + data
        elif self.isIntroducing and self.usualReply is not None:
            reply = self.usualReply.match(data)
            if reply is not None:
                self.isIntroducing = False
                data = data[reply.end() :]
                if not data:
                    return
        self._buffer = data
        task = self.task
        if task is not None:
            # As notify().
            self.task = None
            task.resume()

    def fail(self, reason: Exception) -> None:
        """Make the waiting coroutine raise C{reason}, or the next wait if none waits."""
        if self.loss is None:
            self.loss = reason
        self.notify()
