"""
A reverse look-up of names, for tests.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

__all__ = ["FakeReverseDNS"]


class FakeReverseDNS:
    """Keeps the addresses of its queries. C{pending} are the answers to give, C{left} the cancelled ones."""

    longest = 60

    def __init__(self, known: str | None = None) -> None:
        self.known = known
        self.asked: list[str] = []
        self.pending: list[Deferred[str]] = []
        self.left: list[Deferred[str]] = []

    def nameOf(self, host: str) -> Deferred[str]:
        self.asked.append(host)
        if self.known is not None:
            return succeed(self.known)
        self.pending.append(Deferred(self.left.append))
        return self.pending[-1]
