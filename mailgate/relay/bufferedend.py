# -*- test-case-name: mailgate.test.relay.test_stream -*-
"""
One connection of a relay between raw descriptors with TLS on at least one side: all bytes pass through buffers that all
sessions share.
"""

from __future__ import annotations

import os

from OpenSSL import SSL

from mailgate.lean.transport import StreamTransport
from mailgate.relay.streamend import LITTLE, OPEN, SAFE, RelayEnd
from mailgate.tls.engine import PeerClosed, TLSEngine

__all__ = ["MOST_WAITING", "BufferedEnd"]

MOST_WAITING = 4 * SAFE
"""The most bytes that may wait for a receiver that makes TLS add to them. Relayed bytes are about a quarter of that."""

SMALL = 1024
"""A burst of fewer bytes does not make buffers grow."""


class BufferedEnd(RelayEnd):
    """One connection, with or without TLS. At least one side of the relay uses TLS."""

    __slots__ = ("_engine",)

    def __init__(self, transport: StreamTransport, expected: int) -> None:
        """
        Take over the descriptor and the TLS engine of a transport.

        @param transport: see L{RelayEnd}.
        @param expected: see L{RelayEnd}.
        """
        tls = transport.tls
        super().__init__(transport, expected)
        self._engine: TLSEngine | None = None
        if tls is not None:
            self._engine = tls.engine
            tls.engine.forget()
            # Break the reference cycle.
            transport.tls = None

    @property
    def isEncrypted(self) -> bool:
        return self._engine is not None

    def begin(self, data: bytes) -> None:
        super().begin(data)
        engine = self._engine
        if engine is not None and not engine.isDry and self.fd >= 0:
            # The dialogue did not read all that the engine holds.
            self._received(b"", 0)

    def settle(self) -> None:
        if self._engine is not None:
            self._engine.settle()

    def _readMuch(self) -> None:
        target = self.relay.means.buffer[: self._size]
        count = os.readv(self.fd, (target,))
        if count:
            self._slowDown(count, len(target))
            self._received(target[:count], count, len(target))
        else:
            self._cut()

    def _received(self, data: bytes | memoryview, size: int, room: int = LITTLE) -> None:
        """
        Take what was read from the connection.

        @param data: the bytes.
        @param size: how many they are.
        @param room: how many it could have been.
        """
        engine = self._engine
        if engine is None:
            self._pass(data, size)
        else:
            engine.feed(data)
            try:
                plain = engine.read()
                while plain is not None:
                    self._pass(plain, len(plain))
                    plain = None if engine.isDry or self.finished else engine.read()
            except PeerClosed:
                self._ended()
            except SSL.Error:
                self._broken(engine)
            output = engine.output()
            if output:
                self._answer(output)
        if (size > SMALL or room > LITTLE) and self.fd >= 0:
            self.relay.means.flown(self.relay, size < room)

    def _cut(self) -> None:
        # Under TLS, the end of file without a close_notify may be an attack: the connection counts as lost.
        self.relay.lost(self) if self._engine is not None else self._ended()

    def _answer(self, data: bytes | memoryview) -> None:
        """Send what TLS itself answers, such as the answer to a KeyUpdate."""
        self.put(data)
        waiting = self.waiting
        if waiting is not None and len(waiting) > MOST_WAITING:
            # The peer keeps causing answers, and does not read them.
            self.relay.lost(self)

    def _broken(self, engine: TLSEngine) -> None:
        """The ciphertext is invalid: send the alert, and drop the connection."""
        self.put(engine.output())
        if self.fd >= 0:
            self.relay.lost(self)

    put = RelayEnd.send
    """Send what is encrypted already."""

    def send(self, data: bytes | memoryview) -> None:
        if self._engine is not None:
            if self._state != OPEN:
                return
            try:
                data = self._engine.encrypt(data)
            except SSL.Error:
                self.relay.lost(self)
                return
        self.put(data)

    def finishWriting(self) -> None:
        if self._engine is not None:
            self._sendCloseNotify(self._engine)
        super().finishWriting()

    def close(self) -> None:
        if self._engine is not None:
            self._sendCloseNotify(self._engine)
        super().close()

    def _sendCloseNotify(self, engine: TLSEngine) -> None:
        if self._state == OPEN:
            engine.closeNotify()
            self.put(engine.output())

    def release(self) -> None:
        if self._engine is not None and self.fd >= 0:
            self._engine.closeNotify()
        super().release()
