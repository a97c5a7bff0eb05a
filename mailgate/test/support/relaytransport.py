"""
A connection for relays under test.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address

from mailgate.testing import FakeTransport

__all__ = ["RelayTransport"]


class RelayTransport(FakeTransport):
    """
    A transport as forgiving as Twisted's own, which may be resumed after its end and have no producer to unregister.
    C{calls} are those that matter to the order of things.
    """

    def __init__(self) -> None:
        super().__init__(IPv4Address("TCP", "192.0.2.7", 40123))
        self._lenient = True
        self.calls: list[str] = []

    def unregisterProducer(self) -> None:
        self.calls.append("unregisterProducer")
        self.producer = None

    def resumeProducing(self) -> None:
        self.calls.append("resumeProducing")
        super().resumeProducing()

    def loseWriteConnection(self) -> None:
        self.calls.append("loseWriteConnection")
        super().loseWriteConnection()

    def loseConnection(self) -> None:
        self.calls.append("loseConnection")
        super().loseConnection()
