"""
A defence for the keeper's tests: it answers as a test says, and lists what it was told.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mailgate.limits.attempt import Action, Attempt, Kind, Result, Verdict
from mailgate.limits.interfaces import NewerState
from mailgate.limits.policy import Mode, Rate
from mailgate.test.support.limitstore import StandInLimits

ATTEMPT = Attempt(
    "192.0.2.7", b"j\xf6e", Kind.DIGEST, b"\1" * 16, Mode.DRY_RUN, True, Rate(2.0, 3, True), Mode.OFF, "pop3"
)
"""No field has its default."""


class FakeDefence(StandInLimits):
    """
    Stands in for L{mailgate.limits.defence.Defence}.

    @ivar verdicts: what it answers next; then it lets pass, with tickets from 1 on.
    @ivar checked: attempt, ticket and owner of each check.
    @ivar recorded: attempt, ticket, result and owner of each record.
    @ivar forgotten: the owners that have left.
    @ivar adopted: the rows of others.
    @ivar known: what is in its state and its news.
    @ivar error: what C{check} and C{record} raise.
    """

    def __init__(self, *known: str) -> None:
        super().__init__()
        self.verdicts: list[Verdict] = []
        self.checked: list[tuple[Attempt, int, str]] = []
        self.recorded: list[tuple[Attempt, int, Result, str]] = []
        self.forgotten: list[str] = []
        self.adopted: list[Any] = []
        self.known = list(known)
        self.error: Exception | None = None
        self._tickets = 0

    def check(self, attempt: Attempt, ticket: int = 0, owner: str = "") -> Verdict:
        if self.error is not None:
            raise self.error
        self.checked.append((attempt, ticket, owner))
        if self.verdicts:
            return self.verdicts.pop(0)
        self._tickets += 1
        return Verdict(Action.GO, ticket or self._tickets)

    def record(self, attempt: Attempt, ticket: int, result: Result, owner: str = "") -> None:
        if self.error is not None:
            raise self.error
        self.recorded.append((attempt, ticket, result, owner))

    def forget(self, owner: str) -> None:
        self.forgotten.append(owner)

    def news(self) -> Iterable[Any]:
        return ["key", *self.known]

    def adopt(self, rows: Iterable[Any]) -> None:
        rows = list(rows)
        if "bad" in rows:
            raise ValueError("a row is not valid")
        self.adopted += rows

    def state(self, withCounters: bool = False) -> bytes:
        return json.dumps([*self.known, "counters"] if withCounters else self.known).encode("ascii")

    def restore(self, state: bytes) -> None:
        if state.startswith(b"2"):
            raise NewerState("it has version 2")
        self.known = json.loads(state)

    def allowance(self, host: str) -> int:
        return 3

    def isKnown(self, host: str) -> bool:
        return host in self.known
