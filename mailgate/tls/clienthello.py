# -*- test-case-name: mailgate.test.tls.test_clienthello -*-
"""
What a client offers to resume, found in the first bytes of its connection; no wire, no cryptography.

OpenSSL tells nobody of a ticket before it has looked for the key of it, which is too late to choose among keys. So this
reads a ClientHello by itself (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2), as far as to its tickets (RFC 5077, 3.2; RFC 8446,
4.2.11). It judges nothing: whatever is odd offers no ticket, and is for OpenSSL to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["LIMIT", "ClientHello"]

LIMIT = 16384
"""Bytes of a ClientHello that are looked at: more than those that are seen, hybrid key shares included."""

_HANDSHAKE = 22
_MAJOR = 3
_RECORD_HEADER = 5
_RECORD = 16384
_CLIENT_HELLO = 1
_MESSAGE_HEADER = 4
_VERSION_AND_RANDOM = 34
_SESSION_TICKET = 35
_PRE_SHARED_KEY = 41
_AGE = 4


class ClientHello:
    """
    The beginning of a connection.

    @ivar received: all bytes that were fed. They are bounded: beyond L{LIMIT} the ClientHello is given up.
    @ivar tickets: what it offers, once it is complete; sessions that the server keeps have an identity in their place.
    """

    __slots__ = ("_at", "_message", "received", "tickets")

    def __init__(self) -> None:
        self.received: bytes | bytearray = b""
        self.tickets: tuple[bytes, ...] = ()
        self._message = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> bool:
        """Take C{data}, which has come; whether nothing more is needed."""
        # As a rule the first that comes is all of it: that is not copied.
        self.received = received = self._joined(data) if self.received else data
        message = self._message
        while len(received) >= self._at + _RECORD_HEADER:
            header = received[self._at : self._at + _RECORD_HEADER]
            size = header[3] << 8 | header[4]
            if header[0] != _HANDSHAKE or header[1] != _MAJOR or not 0 < size <= _RECORD:
                return True
            end = self._at + _RECORD_HEADER + size
            if len(received) < end:
                break
            message += received[self._at + _RECORD_HEADER : end]
            self._at = end
            if self._understood(message):
                return True
        return len(received) >= LIMIT

    def _joined(self, data: bytes) -> bytearray:
        joined = self.received if isinstance(self.received, bytearray) else bytearray(self.received)
        joined += data
        return joined

    def _understood(self, message: bytearray) -> bool:
        """Whether C{message} is all that is needed; it is anything else than a ClientHello, too."""
        if message[0] != _CLIENT_HELLO:
            return True
        if len(message) < _MESSAGE_HEADER:
            return False
        end = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
        if end <= LIMIT and len(message) < end:
            return False
        if end <= LIMIT:
            try:
                self.tickets = tuple(_tickets(bytes(message[_MESSAGE_HEADER:end])))
            except IndexError:
                self.tickets = ()
        return True


def _tickets(body: bytes) -> Iterator[bytes]:
    """
    The tickets in C{body}, that of a ClientHello. Handshakes wait for this: it goes without an object for each vector.

    @raise IndexError: lengths do not fit into each other.
    """
    at = _VERSION_AND_RANDOM
    for width in (1, 2, 1):  # the session's identity, the cipher suites, the methods of compression
        at += width + int.from_bytes(body[at : at + width], "big")
    if at == len(body):
        return
    at, end = _bounds(body, at, len(body))
    while at < end:
        kind, start = body[at] << 8 | body[at + 1], at + 4
        at = start + (body[at + 2] << 8 | body[at + 3])
        if at > end:
            raise IndexError(at)
        if kind == _SESSION_TICKET and start < at:
            yield body[start:at]
        elif kind == _PRE_SHARED_KEY:
            yield from _identities(body, *_bounds(body, start, at))


def _bounds(body: bytes, at: int, limit: int) -> tuple[int, int]:
    """Where the vector in C{body} at C{at} begins and ends, behind its length of two bytes; not beyond C{limit}."""
    end = at + 2 + (body[at] << 8 | body[at + 1])
    if end > limit:
        raise IndexError(end)
    return at + 2, end


def _identities(body: bytes, at: int, limit: int) -> Iterator[bytes]:
    while at < limit:
        at, end = _bounds(body, at, limit)
        yield body[at:end]
        at = end + _AGE
