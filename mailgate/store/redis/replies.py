# -*- test-case-name: mailgate.test.store.test_replies -*-
"""
Reads replies of the store: RESP2 (redis.io, "Redis serialization protocol specification").

That of txredisapi takes a turn of the reactor for each string: 25 us for a login, and seconds for many sessions.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ErrorReply", "Replies"]

_DEEPEST = 8
_MOST_ITEMS = 1 << 20
_MOST_BYTES = 1 << 26
_LONGEST_LINE = 1 << 16


class ErrorReply(Exception):
    """A reply that is an error. The text is the store's."""


class Replies:
    """Takes bytes as they come, and returns the replies that are complete."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = 0
        """How many bytes the text that is not complete has, with its length before it."""
        self._open: list[tuple[list[Any], int]] = []
        """Arrays that are not complete, and how many items each has."""

    def feed(self, data: bytes) -> list[Any]:
        """
        Return the replies that are complete now: bytes, int, L{None}, lists of these, or L{ErrorReply}.

        @param data: what has come.
        @raise ValueError: it is something else. Nothing can be read any more.
        """
        self._held += len(data)
        if self._held < self._needed:
            # Putting a long text together with each piece would take seconds.
            self._parts.append(data)
            return []
        buffer = b"".join([*self._parts, data]) if self._parts else data
        found: list[Any] = []
        at = self._needed = 0
        while True:
            end = buffer.find(b"\r\n", at)
            if end < 0:
                if len(buffer) - at > _LONGEST_LINE:
                    raise ValueError("a line of a reply is too long")
                break
            kind, text, after = buffer[at : at + 1], buffer[at + 1 : end], end + 2
            value: Any
            if kind == b"$":
                length = _lengthOf(text, _MOST_BYTES)
                value = None
                if length >= 0:
                    stop = after + length
                    if len(buffer) < stop + 2:
                        self._needed = stop + 2 - at
                        break
                    value, after = buffer[after:stop], stop + 2
            elif kind == b"*" and text not in (b"0", b"-1"):
                self._begin(_lengthOf(text, _MOST_ITEMS))
                at = after
                continue
            else:
                value = _simple(kind, text)
            at = after
            self._put(value, found)
        self._held = len(buffer) - at
        self._parts = [buffer[at:]] if self._held else []
        return found

    def _begin(self, length: int) -> None:
        if len(self._open) >= _DEEPEST or length < 0:
            raise ValueError("a reply is too deep, or has no length")
        self._open.append(([], length))

    def _put(self, value: Any, found: list[Any]) -> None:
        """A value is complete, and with it perhaps the arrays that it is in."""
        while self._open:
            items, length = self._open[-1]
            items.append(value)
            if len(items) < length:
                return
            self._open.pop()
            value = items
        found.append(value)


def _lengthOf(text: bytes, most: int) -> int:
    length = int(text)
    if not -1 <= length <= most:
        raise ValueError("a reply is too long")
    return length


def _simple(kind: bytes, text: bytes) -> Any:
    if kind == b":":
        return int(text)
    if kind == b"+":
        return text
    if kind == b"-":
        return ErrorReply(text.decode("utf-8", "replace"))
    if kind == b"*":
        return [] if text == b"0" else None
    raise ValueError("a reply has an unknown form")
