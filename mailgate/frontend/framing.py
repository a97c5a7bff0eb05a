# -*- test-case-name: mailgate.test.frontend.test_framing -*-
"""
Commands out of a stream of bytes, one at a time, whatever the segments they come in; and no more of them than the
client takes replies to.
"""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from mailgate.lean.quickack import acknowledgeOn
from mailgate.relay.protocol import RelayedProtocol

__all__ = ["READ_AHEAD", "CommandReader"]

READ_AHEAD = 65536
"""Bytes of pipelined commands that are kept while none is obeyed; then the client is not read from any more."""


@implementer(IPushProducer)
class CommandReader(RelayedProtocol):
    """
    The receiving half of a dialogue: lines of bounded length, ended by CRLF or a bare LF, and literals. It is the
    producer of its own transport: while the client does not take our replies nothing more is obeyed or read.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._octets: int | None = None
        self._unwanted: int | None = None
        self._advancing = False
        self._outputFull = False
        self._paused = False

    @property
    def listening(self) -> bool:
        """Whether the next command may be obeyed now."""
        raise NotImplementedError

    @property
    def isMidway(self) -> bool:
        """Whether more has to come before anything can be answered."""
        return bool(self._buffer) or self._octets is not None or self._unwanted is not None

    def lineLimit(self) -> int:
        """The most bytes that the next line may have, its end included."""
        raise NotImplementedError

    def unitBegins(self) -> None:
        """A whole line, a whole literal, or a part of what is discarded has come."""

    def lineReceived(self, line: bytes) -> None:
        """Obey C{line}, which has lost its line end."""
        raise NotImplementedError

    def literalReceived(self, octets: bytes) -> None:
        """Take the bytes asked for by L{expectLiteral}."""
        raise NotImplementedError

    def discarded(self) -> None:
        """All bytes that L{discard} was asked to take have come, and are gone."""
        raise NotImplementedError

    def exhausted(self) -> None:
        """The client sends no more, and all whole commands that it has sent have been obeyed."""
        raise NotImplementedError

    def lineTooLong(self) -> None:
        """The next line is longer than L{lineLimit}. Nothing more will be read."""
        raise NotImplementedError

    def expectLiteral(self, octets: int) -> None:
        """Take the next C{octets} bytes as they are, instead of a line."""
        self._octets = octets

    def discard(self, octets: int) -> None:
        """Take the next C{octets} bytes, however many, and keep none of them; then L{discarded} is called."""
        self._unwanted = octets

    def advance(self) -> None:
        """Obey what has come, as far as that may be."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self.listening and not self._outputFull and self._take():
                pass
        finally:
            self._advancing = False
        if self.inputEnded and self.listening and not self._outputFull:
            self.exhausted()
        self._regulate()

    def takeBuffer(self) -> bytes:
        """What has come and has not been obeyed; it is the caller's now."""
        buffer = bytes(self._buffer)
        self._buffer.clear()
        return buffer

    def dialogueReceived(self, data: bytes) -> None:
        self._buffer += data
        self.advance()
        if self.listening and self.isMidway:
            # The client may wait for that before it sends the rest.
            acknowledgeOn(self.transport)

    def dialogueEnded(self) -> None:
        self.advance()

    def pauseProducing(self) -> None:
        """The client does not take our replies: obey no more commands until it does."""
        self._outputFull = True
        self._regulate()

    def resumeProducing(self) -> None:
        """It takes them again."""
        self._outputFull = False
        self.advance()

    def stopProducing(self) -> None:
        """It never will."""
        self._outputFull = True

    def _take(self) -> bool:
        """Obey the first command, or the first part of one, in the buffer; gives whether it was whole."""
        if self._octets is not None:
            if len(self._buffer) < self._octets:
                return False
            octets = self._cut(self._octets)
            self._octets = None
            self.literalReceived(octets)
            return True
        if self._unwanted is not None:
            return self._drop(self._unwanted)
        limit = self.lineLimit()
        newline = self._buffer.find(b"\n", 0, limit)
        if newline >= 0:
            self.lineReceived(self._cut(newline + 1)[:-1].removesuffix(b"\r"))
            return True
        if len(self._buffer) >= limit:
            self.lineTooLong()
        return False

    def _drop(self, octets: int) -> bool:
        """Throw away as many of the C{octets} as have come; gives whether these were all."""
        left = octets - len(self._buffer)
        if self._buffer:
            self.unitBegins()
            del self._buffer[:octets]
        self._unwanted = max(0, left)
        if left > 0:
            return False
        self._unwanted = None
        self.discarded()
        return True

    def _cut(self, length: int) -> bytes:
        # Out of the buffer before it is obeyed: what is in there when the login ends is the backend's.
        cut = bytes(self._buffer[:length])
        del self._buffer[:length]
        self.unitBegins()
        return cut

    def _regulate(self) -> None:
        """Read from the client unless our replies pile up, or its commands while none is obeyed."""
        full = self._outputFull or (len(self._buffer) > READ_AHEAD and not self.listening)
        if full is not self._paused and not self.relayed:
            self._paused = full
            if full:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()
