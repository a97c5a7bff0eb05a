# -*- test-case-name: mailgate.test.auth.http.test_response -*-
"""
HTTP/1.x responses to GET whose answer is in the head (RFC 9112), and a parser for them, which does no I/O.

Lines may end with a bare LF, as section 2.2 allows. A head that is invalid or too long is an error. A body is only
measured, to find out whether the connection can be used again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple, cast

from twisted.internet.interfaces import IProtocol, IPushProducer, ITransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IClientRequest, IResponse
from zope.interface import implementer

from mailgate.auth.http.headers import FieldHeaders, Values

__all__ = ["HTTPResponse", "NotHTTP", "ProtocolError", "ResponseParser", "Stage", "Status"]

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


class Status(NamedTuple):
    """The status line of a response: the version of HTTP, the status code and the reason phrase."""

    version: tuple[bytes, int, int]
    code: int
    phrase: bytes


@implementer(IResponse, IPushProducer)
class HTTPResponse:
    """
    A response without its body: delivering the body delivers nothing.

    @param status: its status line.
    @param values: the values of the header fields in their order, without spaces around them, by name in lower case.
    @ivar request: the request that it answers, once that is known.
    """

    length = 0
    request: IClientRequest | None = None
    previousResponse: IResponse | None = None

    def __init__(self, status: Status, values: Values) -> None:
        self.version, self.code, self.phrase = status
        self.headers: Headers = FieldHeaders(values)

    def deliverBody(self, protocol: IProtocol) -> None:
        """
        See L{IResponse}: deliver an empty body.

        @param protocol: its C{connectionLost} is called at once.
        """
        protocol.makeConnection(cast(ITransport, self))
        protocol.connectionLost(_DONE)

    def setPreviousResponse(self, response: IResponse) -> None:
        """
        See L{IResponse}.

        @param response: the redirect that led to this response.
        """
        self.previousResponse = response

    def pauseProducing(self) -> None:
        """Do nothing: there is no body."""

    def resumeProducing(self) -> None:
        """Do nothing: there is no body."""

    def stopProducing(self) -> None:
        """Do nothing: there is no body."""


_DONE = Failure(ResponseDone())

_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9][0-9])(?: ([^\r\n\0]*))?\r?")
_LINE = re.compile(rb"^(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)(?::([^\r\n]*))?\r?\n|(?!\r?\n).*\n)", re.MULTILINE)
"""Matches a line of a head that is not empty. A line that is no field has no name."""

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_PREFIX = b"HTTP/1."
_NOT_HTTP = "the response is not HTTP/1.x"
_SPACES = repeat(b" ")
_FRAMING = (b"content-length", b"transfer-encoding", b"connection")


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

    @ivar surplus: whether bytes followed the end of a response whose connection could be used again. They belong to no
        request.
    @ivar stage: how far the response has been read.
    """

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

    def feed(self, data: bytes) -> HTTPResponse | None:
        """
        Read the next bytes.

        @param data: the bytes.
        @return: the response, if these bytes complete its head.
        @raise ProtocolError: the head is invalid.
        """
        if self.stage is not Stage.HEAD:
            self._feedBody(data)
            return None
        # A head usually arrives in one piece, and is read without a copy.
        unread: bytes | bytearray = data
        scanned = 0
        if self._buffer:
            scanned = max(0, len(self._buffer) - 2)
            self._buffer += data
            unread = self._buffer
        while True:
            match = _HEAD_END.search(unread, scanned)
            if match is None:
                self._bound(unread, len(unread))
                if unread is not self._buffer:
                    self._buffer = bytearray(unread)
                return None
            end = match.end()
            if end > MAX_LINE or self._passedOver:
                self._bound(unread, end)
            status, values = _headOf(bytes(unread[:end]))
            if status.code >= 200:
                break
            unread = unread[end:]
            scanned = self._lineStart = 0
            self._passedOver += end
        self.stage, self._length = _framing(status, *map(values.get, _FRAMING))
        if len(unread) > end:
            self._feedBody(bytes(unread[end:]))
        return HTTPResponse(status, values)

    def _bound(self, unread: bytes | bytearray, end: int) -> None:
        """Check the beginning of a head, its length and that of its lines, complete or not."""
        if not unread.startswith(_PREFIX) and not _PREFIX.startswith(unread):
            raise NotHTTP(_NOT_HTTP)
        if self._passedOver + end > MAX_HEAD:
            raise ProtocolError(f"the response head is longer than {MAX_HEAD} bytes")
        feed = unread.find(b"\n", self._lineStart, end)
        while feed >= 0 and feed - self._lineStart <= MAX_LINE:
            self._lineStart = feed + 1
            feed = unread.find(b"\n", feed + 1, end)
        if feed >= 0 or end - self._lineStart > MAX_LINE:
            raise ProtocolError(f"a line of the response head is longer than {MAX_LINE} bytes")

    def _feedBody(self, data: bytes) -> None:
        if data and self.stage is Stage.WHOLE:
            self.surplus = True
            self.stage = Stage.LAST
        if self.stage is not Stage.BODY:
            return
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


def _headOf(block: bytes) -> tuple[Status, dict[bytes, tuple[bytes, ...]]]:
    """
    Return the status in a head, and the values of its fields as L{HTTPResponse} has them.

    @param block: the head, with the empty line at the end.
    @raise ProtocolError: it is invalid.
    """
    line, _, lines = block.partition(b"\n")
    status = _statusOf(line)
    fields = _LINE.findall(lines)
    if not fields:
        return status, {}
    # As in nginx, a line without a colon is a header without a value: such an Auth-Status is not "OK".
    names, texts = zip(*fields, strict=True)
    if b"" in names:
        raise ProtocolError("the response has an invalid header")
    # Made without a loop, as names seldom occur twice.
    singles = zip(map(bytes.strip, texts, _SPACES), strict=True)
    values: dict[bytes, tuple[bytes, ...]] = dict(zip(map(bytes.lower, names), singles, strict=True))
    return status, values if len(values) == len(fields) else _together(fields)


def _together(fields: list[tuple[bytes, bytes]]) -> dict[bytes, tuple[bytes, ...]]:
    """Return the values of C{fields} among which a name occurs more than once."""
    values: dict[bytes, list[bytes]] = {}
    for name, text in fields:
        values.setdefault(name.lower(), []).append(text.strip(b" "))
    return {name: tuple(given) for name, given in values.items()}


@lru_cache(32)
def _statusOf(line: bytes) -> Status:
    """
    Return the status in a status line. The results are cached: a service writes the same in nearly all responses.

    @param line: the line without its LF.
    @raise ProtocolError: it is invalid, or switches protocols.
    """
    status = _STATUS_LINE.fullmatch(line)
    if not line.startswith(_PREFIX):
        raise NotHTTP(_NOT_HTTP)
    if status is None:
        raise ProtocolError("the response has an invalid status line")
    minor, code, phrase = status.groups(b"")
    if code == b"101":
        raise ProtocolError("the response switches protocols (101), which the gateway did not request")
    return Status((b"HTTP", 1, int(minor)), int(code), phrase)


_Given = tuple[bytes, ...] | None


@lru_cache(32)
def _framing(status: Status, length: _Given, coding: _Given, connection: _Given) -> tuple[Stage, int | None]:
    """
    Determine where the body of a response ends (RFC 9112, sections 6.3 and 9.3). The results are cached: a service
    frames nearly all responses alike.

    @param status: the status line.
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
    if status.version == (b"HTTP", 1, 0) or b"close" in options:
        return Stage.LAST, 0
    if status.code in (204, 304) or (size == 0 and not codings):
        return Stage.WHOLE, 0
    if codings == [b"chunked"] and not lengths:
        return Stage.BODY, None
    return (Stage.LAST, 0) if codings or size > MAX_BODY else (Stage.BODY, size)


def _items(values: Iterable[bytes]) -> list[bytes]:
    """Return the items of a header that is a list, in lower case."""
    return [item.strip(b" \t").lower() for value in values for item in value.split(b",")]
