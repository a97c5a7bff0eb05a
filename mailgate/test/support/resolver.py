"""
A resolver of host names, for tests.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import (
    IHostnameResolver,
)
from zope.interface import implementer

__all__ = ["FakeResolver"]


@implementer(IHostnameResolver)
class FakeResolver:
    """Keeps its queries until L{answer} is called."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, str]] = []

    def resolveHostName(self, resolutionReceiver, hostName, portNumber=0, addressTypes=None, transportSemantics="TCP"):
        self.asked.append((resolutionReceiver, hostName))
        return None

    def answer(self, *hosts: str) -> None:
        """Answer the first query."""
        receiver, _ = self.asked.pop(0)
        for host in hosts:
            receiver.addressResolved(IPv4Address("TCP", host, 143))
        receiver.resolutionComplete()
