# -*- test-case-name: mailgate.test.frontend.test_framing -*-
"""
Cuts a stream of bytes into lines and literals, however the network splits it into segments.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["LONG", "Framing", "Unit"]

LONG = 2048
"""
Size in bytes from which the rest of a segment is not copied for each command: it may hold thousands of pipelined ones.
"""


class Unit(Enum):
    """What L{Framing.take} has found in the stream."""

    LINE = "line"
    LITERAL = "literal"
    PART = "part"
    """A part of the bytes that L{Framing.discard} discards. More must follow."""
    DISCARDED = "discarded"
    """The last of the bytes that L{Framing.discard} discards."""
    TOO_LONG = "too long"
    """The next line is longer than the limit. It stays in the buffer."""


class Framing:
    """
    Bytes from a client that are not obeyed yet. L{take} cuts them into lines, which end with CRLF or a bare LF, and
    into literals, whose length a line has announced.

    @ivar buffer: these bytes. It is the segment itself if that holds only complete commands.
    """

    buffer: bytes | bytearray = b""
    _octets: int | None = None
    """How many bytes come next: of a literal, or of what is still to be discarded; L{None} if a line comes next."""
    _isUnwanted = False
    """Whether these bytes are to be discarded."""

    @property
    def isMidway(self) -> bool:
        """Whether the buffer holds an incomplete unit. Valid after L{take} has returned L{None}."""
        return bool(self.buffer) or self._octets is not None

    def feed(self, data: bytes) -> None:
        """Add received C{data}."""
        buffer = self.buffer
        if not buffer:
            self.buffer = data
        elif isinstance(buffer, bytearray):
            buffer += data
        else:
            # From now on it grows in place, so many small segments stay cheap.
            self.buffer = bytearray(buffer)
            self.buffer += data

    def expectLiteral(self, octets: int) -> None:
        """Make the next unit a literal of C{octets} bytes."""
        self._octets = octets

    def discard(self, octets: int) -> None:
        """Discard the next C{octets} bytes as they arrive, whatever their number."""
        self._octets = octets
        self._isUnwanted = True

    def takeAll(self) -> bytes:
        """Return the buffer and empty it."""
        buffer, self.buffer = self.buffer, b""
        return bytes(buffer)

    def take(self, limit: int) -> tuple[Unit, bytes] | None:
        """
        Take the next unit from the buffer.

        @param limit: the longest line in bytes, its end included.
        @return: the kind of unit and its bytes, without the line end; L{None} if it is not complete.
        """
        if self._octets is not None:
            return self._drop(self._octets) if self._isUnwanted else self._takeLiteral(self._octets)
        buffer = self.buffer
        newline = buffer.find(b"\n", 0, limit)
        if newline < 0:
            return None if len(buffer) < limit else (Unit.TOO_LONG, b"")
        if newline + 1 < len(buffer):
            return Unit.LINE, self._cut(newline + 1)[:-1].removesuffix(b"\r")
        # The usual case: the client waits for the reply.
        self.buffer = b""
        return Unit.LINE, bytes(buffer[:newline]).removesuffix(b"\r")

    def _takeLiteral(self, octets: int) -> tuple[Unit, bytes] | None:
        if len(self.buffer) < octets:
            return None
        self._octets = None
        return Unit.LITERAL, self._cut(octets)

    def _drop(self, octets: int) -> tuple[Unit, bytes] | None:
        """Discard as many of the C{octets} bytes as the buffer has."""
        available = len(self.buffer)
        if available < octets:
            self._octets = octets - available
            self.buffer = b""
            return (Unit.PART, b"") if available else None
        self._octets = None
        self._isUnwanted = False
        self._cut(octets)
        return Unit.DISCARDED, b""

    def _cut(self, length: int) -> bytes:
        buffer = self.buffer
        cut = bytes(buffer[:length])
        if length == len(buffer):
            self.buffer = b""
        elif isinstance(buffer, bytearray):
            del buffer[:length]
        elif len(buffer) < LONG:
            self.buffer = buffer[length:]
        else:
            self.buffer = bytearray(buffer)
            del self.buffer[:length]
        return cut
