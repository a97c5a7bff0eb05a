# -*- test-case-name: mailgate.test.relay.test_parted -*-
"""The connection of a client whose backend has closed, between raw descriptors, until the client is let go."""

from __future__ import annotations

import os

from mailgate.relay.bufferedend import BufferedEnd
from mailgate.relay.streamend import LITTLE, RelayEnd

__all__ = ["ParkedBufferedEnd", "ParkedEnd", "park"]


def park(end: RelayEnd) -> None:
    """
    Turn an end into a parked one.

    @param end: the client's end.
    """
    end.__class__ = ParkedBufferedEnd if isinstance(end, BufferedEnd) else ParkedEnd
    end.resume()


class _Parked(RelayEnd):
    """
    It still sends what waits. What the client sends is dropped without a look, encrypted or not. A class of its own, so
    that relaying has nothing to check.
    """

    __slots__ = ()

    def _received(self, data: bytes | memoryview, size: int, room: int = LITTLE) -> None:
        pass

    def _readMuch(self) -> None:
        if not os.readv(self.fd, (self.relay.means.buffer,)):
            self._cut()

    def _cut(self) -> None:
        self._ended()


class ParkedEnd(_Parked):
    """One of a relay without TLS."""

    __slots__ = ()


class ParkedBufferedEnd(_Parked, BufferedEnd):
    """One of a relay with TLS on at least one side."""

    __slots__ = ()
