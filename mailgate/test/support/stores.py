"""
A store that can be made to fail, or to answer late.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from mailgate.store.counts import packedCounts
from mailgate.store.interfaces import Beat, StoreUnavailable
from mailgate.store.memory import Memory, MemoryStore

__all__ = ["SwitchedStore", "beatOf"]

_ASKED = (
    "check",
    "checkKnown",
    "failed",
    "succeeded",
    "mark",
    "clear",
    "lease",
    "put",
    "take",
    "notes",
    "place",
    "placeOf",
    "retain",
    "beat",
    "leave",
    "gateways",
    "sessionsAt",
    "sessionsOf",
    "publish",
)


def beatOf(
    gateway: str, run: str, *values: Any, counts: Mapping[bytes, Mapping[bytes, int]], isAll: bool = False
) -> Beat:
    """
    Return a beat with counts of sessions. The other arguments are those of L{Beat}.

    @param counts: how many sessions users have, by protocol and address.
    """
    packed = {user: packedCounts(parts) for user, parts in counts.items()}
    return evolve(Beat(gateway, run, *values), isAll=isAll, counts=packed)


class SwitchedStore(MemoryStore):
    """
    A L{MemoryStore} with switches.

    @ivar late: after how many seconds calls are answered; 0: at once. They have their effect at once.
    @ivar timeout: C{store_timeout}: calls that are answered later fail after so many seconds.
    @ivar calls: the name of each call so far.
    """

    def __init__(self, clock: IReactorTime, memory: Memory | None = None, gateway: str = "") -> None:
        super().__init__(clock, memory, gateway)
        self.late = 0.0
        self.timeout = 0.05
        self.calls: list[str] = []
        for name in _ASKED:
            setattr(self, name, self._switched(name, getattr(self, name)))

    def _switched(self, name: str, call: Any) -> Any:
        def switched(*arguments: Any, **named: Any) -> Deferred[Any]:
            self.calls.append(name)
            if not self.isUp:
                return fail(StoreUnavailable("the store is down"))
            answer: Deferred[Any] = call(*arguments, **named)
            if not self.late:
                return answer
            result: Deferred[Any] = Deferred()
            if self.late > self.timeout:
                late = StoreUnavailable("the store did not answer in time")
                self._clock.callLater(self.timeout, result.errback, late)
            else:
                self._clock.callLater(self.late, answer.chainDeferred, result)
            return result

        return switched

    def switch(self, isUp: bool) -> None:
        """Go down, or come up: then messages may have been missed. C{isUp} says which."""
        if isUp == self.isUp:
            return
        self.isUp = isUp
        self.changed(isUp)
        if isUp:
            self.resumed()

    def _hear(self, channel: str, message: bytes) -> None:
        if self.isUp:
            super()._hear(channel, message)
