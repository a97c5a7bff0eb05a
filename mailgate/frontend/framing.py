# -*- test-case-name: mailgate.test.frontend.test_framing -*-
"""
Commands out of a stream of bytes, one at a time, whatever the segments they come in.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["LONG", "Framing", "Unit"]

LONG = 2048
"""Bytes from which on a segment is not copied for each command that is cut off it: there may be thousands."""


class Unit(Enum):
    """What L{Framing.take} takes from the stream."""

    LINE = "line"
    LITERAL = "literal"
    PART = "part"
    """Some of the bytes that L{Framing.discard} was asked to take. They are gone, and more of them have to come."""
    DISCARDED = "discarded"
    """The last of them, or none where there were to be none."""
    TOO_LONG = "too long"
    """No unit: the next line is longer than it may be, and stays where it is."""


class Framing:
    """
    What a client has sent and is not obeyed yet. It is cut into lines, ended by CRLF or a bare LF, and into literals,
    whose lengths lines have announced.

    @ivar buffer: these bytes. A segment that holds whole commands alone is cut where it lies.
    """

    __slots__ = ("_octets", "_unwanted", "buffer")

    def __init__(self) -> None:
        self.buffer: bytes | bytearray = b""
        self._octets: int | None = None
        self._unwanted: int | None = None

    @property
    def isMidway(self) -> bool:
        """Whether more has to come before the next unit is whole, once L{take} has returned L{None}."""
        return bool(self.buffer) or self._octets is not None or self._unwanted is not None

    def feed(self, data: bytes) -> None:
        """Add C{data}, which has come."""
        buffer = self.buffer
        if not buffer:
            self.buffer = data
        elif isinstance(buffer, bytearray):
            buffer += data
        else:
            # It grows in place from now on, however small the segments are.
            self.buffer = bytearray(buffer)
            self.buffer += data

    def expectLiteral(self, octets: int) -> None:
        """Have the next unit be a literal of C{octets} bytes."""
        self._octets = octets

    def discard(self, octets: int) -> None:
        """Have the next C{octets} bytes, however many, thrown away as they come."""
        self._unwanted = octets

    def takeAll(self) -> bytes:
        """Return what has come, as it is, and forget it."""
        buffer, self.buffer = self.buffer, b""
        return bytes(buffer)

    def take(self, limit: int) -> tuple[Unit, bytes] | None:
        """
        Take the next unit; of a line the bytes before its end. Return L{None} where it has not come whole.

        @param limit: the most bytes that a line may have, its end included.
        """
        if self._octets is not None:
            if len(self.buffer) < self._octets:
                return None
            length, self._octets = self._octets, None
            return Unit.LITERAL, self._cut(length)
        if self._unwanted is not None:
            return self._drop(self._unwanted)
        newline = self.buffer.find(b"\n", 0, limit)
        if newline >= 0:
            return Unit.LINE, self._cut(newline + 1)[:-1].removesuffix(b"\r")
        return None if len(self.buffer) < limit else (Unit.TOO_LONG, b"")

    def _drop(self, octets: int) -> tuple[Unit, bytes] | None:
        """Throw away as many of the C{octets} as have come."""
        come = len(self.buffer)
        if come < octets:
            self._unwanted = octets - come
            self.buffer = b""
            return (Unit.PART, b"") if come else None
        self._unwanted = None
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
