# -*- test-case-name: mailgate.test.backend.test_client -*-
"""
The lines of a conversation with a backend, as a coroutine sends and awaits them.
"""

from __future__ import annotations

from mailgate.backend.coroutine import Condition
from mailgate.backend.errors import BackendError
from mailgate.relay.protocol import RelayedProtocol

__all__ = ["Lines"]


class Lines(RelayedProtocol):
    """
    A connection that coroutines read. A L{mailgate.backend.coroutine.Task} runs them and this connection resumes them,
    so a line costs no Deferred.

    @ivar limit: the most bytes of a line (C{proxy_buffer}).
    """

    def __init__(self, limit: int) -> None:
        """@param limit: the most bytes of a line."""
        self.limit = limit
        self._buffer = b""
        self._changed = Condition()
        self._loss: Exception | None = None

    async def line(self) -> bytes:
        """
        Wait for the next line and return it, line end included.

        @raise BackendError: the line is too long, or the connection is lost.
        """
        while not self._buffer or (line := self.takeLine()) is None:
            if self._loss is not None:
                raise self._loss
            await self._changed
        return line

    def takeLine(self) -> bytes | None:
        """
        Return the next line, line end included, or L{None} if it is not complete. This takes a third of the time of
        L{line}. A line that has arrived alone, as nearly all do, is not copied.

        @raise BackendError: the line is longer than C{proxy_buffer}.
        """
        buffer = self._buffer
        end = buffer.find(b"\n") + 1
        if not end and len(buffer) < self.limit:
            return None
        if not 0 < end <= self.limit:
            raise BackendError("sent a reply longer than proxy_buffer")
        self._buffer = buffer[end:]
        return buffer[:end]

    def send(self, line: bytes) -> None:
        """
        Send a line.

        @param line: the line without its end.
        @raise BackendError: the backend has replied already. From then on replies could not be matched to commands.
        """
        if self._buffer and self.answersEarly(self._buffer):
            raise BackendError("replied before it received a command")
        self.transport.write(line + b"\r\n")

    def answersEarly(self, ahead: bytes) -> bool:
        """Return whether the bytes C{ahead}, received before our next command, could be mistaken for its reply."""
        return True

    async def _wait(self) -> None:
        """Wait for a change: the connection, the end of the handshake, or more input."""
        if self._loss is not None:
            raise self._loss
        await self._changed

    def dialogueReceived(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        self._changed.notify()

    def fail(self, reason: Exception) -> None:
        """Make the waiting coroutine raise C{reason}, or the next wait if none waits."""
        if self._loss is None:
            self._loss = reason
        self._changed.notify()
