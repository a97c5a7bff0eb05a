# -*- test-case-name: mailgate.test.tls.test_clienthello -*-
"""
Finds the session tickets that a client offers in the first bytes of its connection. Does no I/O and no cryptography.

OpenSSL reports a ticket only after it has looked for the ticket's key. That is too late to choose among contexts with
different keys. So this module parses the ClientHello (RFC 8446, 4.1.2; RFC 5246, 7.4.1.2) as far as its tickets (RFC
5077, 3.2; RFC 8446, 4.2.11). It rejects nothing: a malformed ClientHello has no tickets here, and OpenSSL refuses it
later.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["LIMIT", "ClientHello"]

LIMIT = 16384
"""The largest ClientHello in bytes that is parsed. Clients send smaller ones, even with hybrid key shares."""

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
    The beginning of a TLS connection.

    @ivar received: all bytes fed so far. L{feed} wants no more beyond L{LIMIT} bytes.
    @ivar tickets: the tickets that the client offers, once the ClientHello is complete. A session that the server's
        cache holds has its identity in the place of a ticket.
    """

    __slots__ = ("_at", "_message", "received", "tickets")

    def __init__(self) -> None:
        self.received: bytes | bytearray = b""
        self.tickets: tuple[bytes, ...] = ()
        self._message = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> bool:
        """
        Parse more bytes.

        @param data: what was received.
        @return: whether L{tickets} is final, and no more bytes are needed.
        """
        # The first read usually has the whole ClientHello: do not copy it.
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
        """Whether C{message} needs no more bytes: it is a complete ClientHello, too long, or another message."""
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
    The tickets in C{body}, the body of a ClientHello. It creates no object for each vector, because handshakes wait for
    it.

    @raise IndexError: the lengths contradict one another.
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
    """
    The first and last index of the vector at C{at} in C{body}, after its two length bytes. It ends at C{limit} at most.
    """
    end = at + 2 + (body[at] << 8 | body[at + 1])
    if end > limit:
        raise IndexError(end)
    return at + 2, end


def _identities(body: bytes, at: int, limit: int) -> Iterator[bytes]:
    while at < limit:
        at, end = _bounds(body, at, limit)
        yield body[at:end]
        at = end + _AGE
