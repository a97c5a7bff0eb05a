"""
A transport for tests of relays.
"""

from __future__ import annotations

from twisted.internet.address import IPv4Address

from mailgate.testing import FakeTransport

__all__ = ["RelayTransport"]


class RelayTransport(FakeTransport):
    """
    A transport that is as tolerant as Twisted's own: it may be resumed after its end, and C{unregisterProducer} needs
    no producer. C{calls} are the calls whose order matters.
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
