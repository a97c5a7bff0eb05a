# -*- test-case-name: mailgate.test.relay.test_parted -*-
"""The connection of a client whose backend has closed, between raw descriptors, until the client is let go."""

from __future__ import annotations

from mailgate.lean.poller import READABLE, WRITABLE
from mailgate.relay.bufferedend import BufferedEnd
from mailgate.relay.streamend import LITTLE, RelayEnd

__all__ = ["ParkedEnd"]


class ParkedEnd(BufferedEnd):
    """
    It still sends what waits. What the client sends is dropped without a look, encrypted or not. A class of its own, so
    that relaying has nothing to check.
    """

    __slots__ = ()

    @staticmethod
    def replace(end: RelayEnd) -> None:
        """
        Turn an end into a parked one.

        @param end: the client's end.
        """
        end.__class__ = ParkedEnd
        end._want(READABLE if end.waiting is None else READABLE | WRITABLE)

    def _received(self, data: bytes | memoryview, room: int = LITTLE) -> None:
        pass

    def _cut(self) -> None:
        self._ended()
