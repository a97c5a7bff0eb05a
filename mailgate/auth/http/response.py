# -*- test-case-name: mailgate.test.auth.http.test_response -*-
"""
A parser for HTTP/1.x responses to GET whose answer is in the head (RFC 9112). It does no I/O.

Lines may end with a bare LF, as section 2.2 allows. A head that is invalid or too long is an error. A body is only
measured, to find out whether the connection can be used again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import lru_cache
from itertools import repeat

from attrs import define, field

__all__ = ["NotHTTP", "ProtocolError", "ResponseHead", "ResponseParser", "Stage"]

MAX_LINE = 16384
MAX_HEAD = 65536
"""
Bytes of a response head; L{MAX_LINE} are those of one line in it. nginx allows 1024 in all, Twisted and most proxies 8
to 64 KiB.
"""

MAX_BODY = 1024 * 1024
"""Bytes of a body that are read to keep a connection. To read more costs more than a new connection."""


class ProtocolError(Exception):
    """The bytes are no valid head of an HTTP/1.x response, or exceed a limit."""


class NotHTTP(ProtocolError):
    """The bytes do not begin like an HTTP/1.x response."""


class Stage(Enum):
    """How far a response has been read."""

    HEAD = "head"
    BODY = "body"
    WHOLE = "whole"
    """The response is complete, and its connection can be used again."""
    LAST = "last"
    """The head is complete, and nothing more can be read from this connection."""


@define
class ResponseHead:
    """
    The head of a response.

    @ivar minor: the minor version of HTTP/1.x.
    @ivar code: the status code.
    @ivar phrase: the reason phrase.
    @ivar values: the values of the header fields in their order, without spaces around them, by name in lower case. One
        may be a password.
    """

    minor: int
    code: int
    phrase: bytes
    values: dict[bytes, tuple[bytes, ...]] = field(repr=False)


_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([^\r\n\0]*))?\r?")
_FIELD = re.compile(rb"^([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?::([^\r\n]*))?\r?\n", re.MULTILINE)
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_PREFIX = b"HTTP/1."


class _CountedBody:
    """A body of C{left} bytes."""

    def __init__(self, left: int) -> None:
        self._left = left

    def skip(self, data: bytes) -> bytes | None:
        """Return the bytes after the body, or L{None} if the body is not complete."""
        self._left -= len(data)
        if self._left > 0:
            return None
        return data[self._left :] if self._left else b""


class _ChunkedBody:
    """A chunked body (RFC 9112, section 7.1). Extensions and trailers are ignored."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0
        self._read: Callable[[bytes], bool] = self._readSize

    def skip(self, data: bytes) -> bytes | None:
        """
        Return the bytes after the body, or L{None} if the body is not complete.

        @raise ProtocolError: the chunks are invalid.
        """
        buffer = self._buffer
        buffer += data
        while True:
            taken = min(self._left, len(buffer))
            self._left -= taken
            del buffer[:taken]
            if self._left:
                return None
            end = buffer.find(b"\n")
            if (len(buffer) if end < 0 else end) > MAX_LINE:
                raise ProtocolError("a chunk's line is too long")
            if end < 0:
                return None
            line = bytes(buffer[:end]).removesuffix(b"\r")
            del buffer[: end + 1]
            if self._read(line):
                return bytes(buffer)

    def _readSize(self, line: bytes) -> bool:
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise ProtocolError("a chunk has no size")
        self._left = int(match[1], 16)
        self._read = self._readGap if self._left else self._readTrailer
        return False

    def _readGap(self, line: bytes) -> bool:
        if line:
            raise ProtocolError("a chunk is longer than its size")
        self._read = self._readSize
        return False

    def _readTrailer(self, line: bytes) -> bool:
        return not line


class ResponseParser:
    """
    Finds the head of a response to GET and the end of its body. The bytes may arrive in pieces of any size.

    An invalid or too large body is no error, but the connection cannot be used again. Responses with a status of 1xx
    are skipped.

    @ivar head: the head; L{None} until it is complete.
    @ivar surplus: whether bytes followed the end of a response whose connection could be used again. They belong to no
        request.
    @ivar stage: how far the response has been read.
    """

    head: ResponseHead | None = None
    surplus = False
    stage = Stage.HEAD
    _lineStart = 0
    _passedOver = 0
    _bodySize = 0
    _length: int | None = 0
    _body: _CountedBody | _ChunkedBody | None = None
    _buffer: bytes | bytearray = b""

    @property
    def untouched(self) -> bool:
        """Whether no byte of a response has arrived."""
        return self.stage is Stage.HEAD and not self._buffer and not self._passedOver

    def feed(self, data: bytes) -> None:
        """
        Read the next bytes.

        @param data: the bytes.
        @raise ProtocolError: the head is invalid.
        """
        if self.head is None:
            data = self._feedHead(data)
        if not data:
            return
        if self.stage is Stage.BODY:
            self._feedBody(data)
        elif self.stage is Stage.WHOLE:
            self.surplus = True
            self.stage = Stage.LAST

    def _feedHead(self, data: bytes) -> bytes:
        """Return the bytes after the head."""
        # A head usually arrives in one piece, and is read without a copy.
        unread: bytes | bytearray = data
        scanned = 0
        if self._buffer:
            scanned = max(0, len(self._buffer) - 2)
            self._buffer += data
            unread = self._buffer
        while True:
            if not unread.startswith(_PREFIX) and not _PREFIX.startswith(unread):
                raise NotHTTP("the response is not HTTP/1.x")
            match = _HEAD_END.search(unread, scanned)
            if match is None:
                self._bound(unread, len(unread))
                if unread is not self._buffer:
                    self._buffer = bytearray(unread)
                return b""
            end = match.end()
            if end > MAX_LINE or self._passedOver:
                self._bound(unread, end)
            head = _headOf(bytes(unread[: match.start() + 1]))
            if head.code >= 200:
                given = head.values.get
                self.stage, self._length = _framing(
                    head.minor, head.code, given(b"content-length"), given(b"transfer-encoding"), given(b"connection")
                )
                self.head = head
                return bytes(unread[end:])
            unread = unread[end:]
            scanned = self._lineStart = 0
            self._passedOver += end

    def _bound(self, unread: bytes | bytearray, end: int) -> None:
        """Check the length of a head and of its lines, complete or not."""
        if self._passedOver + end > MAX_HEAD:
            raise ProtocolError(f"the response head is longer than {MAX_HEAD} bytes")
        feed = unread.find(b"\n", self._lineStart, end)
        while feed >= 0 and feed - self._lineStart <= MAX_LINE:
            self._lineStart = feed + 1
            feed = unread.find(b"\n", feed + 1, end)
        if feed >= 0 or end - self._lineStart > MAX_LINE:
            raise ProtocolError(f"a line of the response head is longer than {MAX_LINE} bytes")

    def _feedBody(self, data: bytes) -> None:
        if self._body is None:
            self._body = _ChunkedBody() if self._length is None else _CountedBody(self._length)
        self._bodySize += len(data)
        if self._bodySize > MAX_BODY:
            self.stage = Stage.LAST
            return
        try:
            rest = self._body.skip(data)
        except ProtocolError:
            self.stage = Stage.LAST
        else:
            if rest is not None:
                self.surplus = bool(rest)
                self.stage = Stage.LAST if rest else Stage.WHOLE


def _headOf(block: bytes) -> ResponseHead:
    """
    Return the head in C{block}, which has complete lines without the empty one at the end.

    @raise ProtocolError: it is invalid.
    """
    line, _, lines = block.partition(b"\n")
    minor, code, phrase = _statusOf(line)
    fields = _FIELD.findall(lines)
    if len(fields) != lines.count(b"\n"):
        # One of them is no field.
        raise ProtocolError("the response has an invalid header")
    return ResponseHead(minor, code, phrase, _valuesOf(fields) if fields else {})


@lru_cache(32)
def _statusOf(line: bytes) -> tuple[int, int, bytes]:
    """
    Return the minor version, the status code and the reason phrase in a status line. The results are cached: a service
    writes the same in nearly all responses.

    @param line: the line without its LF.
    @raise ProtocolError: it is invalid, or switches protocols.
    """
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        raise ProtocolError("the response has an invalid status line")
    minor, code, phrase = status.groups(b"")
    if code == b"101":
        raise ProtocolError("the response switches protocols (101), which the gateway did not request")
    return int(minor), int(code), phrase


def _valuesOf(fields: list[tuple[bytes, bytes]]) -> dict[bytes, tuple[bytes, ...]]:
    """Return the values of C{fields} as L{ResponseHead} has them."""
    # As in nginx, a line without a colon is a header without a value: such an Auth-Status is not "OK".
    names, texts = zip(*fields, strict=True)
    keys = list(map(bytes.lower, names))
    # Made without a loop, as names seldom occur twice.
    singles = zip(map(bytes.strip, texts, repeat(b" ")), strict=True)
    values: dict[bytes, tuple[bytes, ...]] = dict(zip(keys, singles, strict=True))
    if len(values) < len(keys):
        every: dict[bytes, list[bytes]] = {}
        for key, text in zip(keys, texts, strict=True):
            every.setdefault(key, []).append(text.strip(b" "))
        return {key: tuple(given) for key, given in every.items()}
    return values


_Given = tuple[bytes, ...] | None


@lru_cache(32)
def _framing(minor: int, code: int, length: _Given, coding: _Given, connection: _Given) -> tuple[Stage, int | None]:
    """
    Determine where the body of a response ends (RFC 9112, sections 6.3 and 9.3). The results are cached: a service
    frames nearly all responses alike.

    @param minor: the minor version of HTTP/1.x.
    @param code: the status code.
    @param length: the values of C{Content-Length}.
    @param coding: the values of C{Transfer-Encoding}.
    @param connection: the values of C{Connection}.
    @return: the stage after the head, and the length of the body; L{None} for a chunked one.
    @raise ProtocolError: C{Content-Length} is invalid.
    """
    lengths, codings, options = _items(length or ()), _items(coding or ()), _items(connection or ())
    if lengths and (len(set(lengths)) > 1 or not _LENGTH.fullmatch(lengths[0])):
        raise ProtocolError("the response has an invalid Content-Length")
    size = int(lengths[0]) if lengths else MAX_BODY + 1
    if minor == 0 or b"close" in options:
        return Stage.LAST, 0
    if code in (204, 304) or (size == 0 and not codings):
        return Stage.WHOLE, 0
    if codings == [b"chunked"] and not lengths:
        return Stage.BODY, None
    return (Stage.LAST, 0) if codings or size > MAX_BODY else (Stage.BODY, size)


def _items(values: Iterable[bytes]) -> list[bytes]:
    """Return the items of a header that is a list, in lower case."""
    return [item.strip(b" \t").lower() for value in values for item in value.split(b",")]
