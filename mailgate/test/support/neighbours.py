"""
Several gateways that share a store, each with processes of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock

from mailgate.keeper.cluster.answers import answersOf
from mailgate.keeper.cluster.others import Others
from mailgate.store.interfaces import Beat
from mailgate.store.memory import Memory
from mailgate.store.seal import Seal
from mailgate.test.support.processes import START, Processes
from mailgate.test.support.stores import SwitchedStore

__all__ = ["Neighbourhood", "OneGateway"]

KEY = bytes(range(32))


def _read(gateway: str, id: str, sealed: bytes) -> Any:
    return json.loads(sealed)


class OneGateway(Processes):
    """
    A gateway with the process C{aaaaa}, or another one.

    @ivar store: its way to the store.
    """

    def __init__(self, name: str, clock: Clock, memory: Memory, *members: str) -> None:
        super().__init__(*members)
        self.name = name
        self.common = clock
        self.store = SwitchedStore(clock, memory, name)
        self.seal = Seal(KEY)
        keeper: Any = self
        self.others: Any = Others(
            name,
            self.store,
            self.seal,
            answersOf(keeper),
            clock,
            _read,
        )
        self.store.heard = self.others.heard
        self.store.resumed = self.others.resumed
        self.store.changed = lambda isUp: self.others.neighbours.changed(isUp, "the store is down")
        self.store.start()
        self.others.start()

    def record(self, row: Mapping[str, Any]) -> None:
        """The store has a record of a session, from a beat."""
        sealed = json.dumps(row).encode("ascii")
        self.store.beat(Beat(self.name, f"run of {self.name}", {row["id"]: sealed}))

    def beat(self) -> None:
        """Say that it lives."""
        self.store.beat(Beat(self.name, f"run of {self.name}", isAll=True))

    def begun(self, **values: Any) -> Any:
        """Another session, whose id begins with the name of the gateway."""
        member = self.views[0].member
        return self.session(member, **{"id": f"{self.name}.{member}.{self._number + 1:04d}", **values})


class Neighbourhood:
    """
    Gateways that share a store.

    @ivar clock: their time.
    """

    def __init__(self, *names: str) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.memory = Memory()
        self.gateways = {
            name: OneGateway(name, self.clock, self.memory, f"{letter}" * 5)
            for name, letter in zip(names, "abcdefg", strict=False)
        }
        self.beat()
        self.turn()

    def beat(self) -> None:
        """Every gateway beats."""
        for each in self.gateways.values():
            each.beat()

    def turn(self, seconds: float = 0.0) -> None:
        """Let messages arrive, and time pass."""
        for _ in range(10):
            self.clock.advance(0)
            for each in self.gateways.values():
                each.clock.advance(0)
        if seconds:
            self.clock.advance(seconds)
            self.turn()
