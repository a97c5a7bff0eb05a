"""
Limits that a test can look into: an L{IDefence} that decides nothing, and has no tables.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed

from mailgate.limits.attempt import GO, Attempt, Block, Result, Rule, Verdict
from mailgate.limits.interfaces import IDefence
from mailgate.limits.policy import LoginPolicy, Prefixes

__all__ = ["NOW", "StandInLimits"]

NOW = 1_800_000_000.0


class _Operators:
    """The part of L{mailgate.limits.operators.Operators} that says whether there are any blocks."""

    def __init__(self, limits: StandInLimits) -> None:
        self._limits = limits

    @property
    def isEmpty(self) -> bool:
        return not self._limits.held


class StandInLimits:
    """
    Keeps blocks in a list.

    @ivar held: the blocks, the latest first.
    @ivar forgotten: what was unblocked.
    @ivar asked: the arguments of each C{explain}.
    @ivar found: the members of the next explanations that are not the usual ones.
    @ivar counts: what C{numbers} returns.
    """

    def __init__(self) -> None:
        self.held: list[Block] = []
        self.forgotten: list[str] = []
        self.asked: list[tuple[bytes, str, str]] = []
        self.found: dict[str, Any] = {}
        self.counts: dict[str, Any] = {"entries": {"pairs": 3}, "evictions": {"pairs": 0}, "held": 0}
        self.changed: Callable[[Any], object] = lambda row: None
        self.happened: Callable[[Rule, str, str], object] = lambda rule, thing, words: None
        self._number = 0
        self.operators: Any = _Operators(self)

    def passes(self, attempt: Attempt) -> None:
        return None

    def check(self, attempt: Attempt, ticket: int = 0, owner: str = "") -> Verdict:
        return GO

    def record(self, attempt: Attempt, ticket: int, result: Result, owner: str = "") -> None:
        pass

    def configure(self, policy: LoginPolicy, prefixes: Prefixes, memory: int) -> None:
        pass

    def forget(self, owner: str) -> None:
        pass

    def news(self) -> Iterable[Any]:
        return ()

    def adopt(self, rows: Iterable[Any]) -> None:
        pass

    def state(self, withCounters: bool = False) -> bytes:
        return b""

    def packing(self, withCounters: bool = False) -> Generator[None, None, bytes]:
        yield
        return self.state(withCounters)

    def restore(self, state: bytes) -> None:
        pass

    def look(self, user: bytes, host: str) -> Deferred[None]:
        return succeed(None)

    def allowance(self, host: str) -> int:
        return 1

    def isKnown(self, host: str) -> bool:
        return False

    def blockOf(self, host: str) -> Block | None:
        return next((each for each in self.held if each.thing == host), None)

    def block(self, thing: str, seconds: float, reason: str, isHold: bool = False) -> Block:
        if thing == "bad":
            raise ValueError("bad is no user, address or network")
        return self.add(thing, Rule.HOLD if isHold else Rule.BLOCK, seconds, reason)

    def add(self, thing: str, rule: Rule = Rule.ADDRESS_BLOCK, seconds: float = 1800.0, reason: str = "") -> Block:
        """Add a block of a rule, and return it."""
        self._number += 1
        made = Block(f"b{self._number}", thing, rule, NOW, NOW + seconds, reason)
        self.held.insert(0, made)
        return made

    def unblock(self, thing: str) -> Sequence[Block]:
        ended = [each for each in self.held if thing in (each.id, each.thing)]
        self.held = [each for each in self.held if each not in ended]
        self.forgotten.append(thing)
        return ended

    def blocks(self) -> Sequence[Block]:
        return self.held

    def numbers(self) -> Mapping[str, Any]:
        return self.counts

    def explain(self, user: bytes, host: str, protocol: str) -> Mapping[str, Any]:
        self.asked.append((user, host, protocol))
        name = user.decode()
        return {
            "known": False,
            "lastSuccess": None,
            "allowance": 1,
            **{each: {"failures": 0, "limit": 50, "since": None} for each in ("pair", "address", "network", "user")},
            "users": {"failures": 0, "limit": 20, "since": None},
            "rule": None,
            "action": "go",
            "seconds": 0.0,
            "would": [],
            "blocks": [
                {
                    "id": each.id,
                    "thing": each.thing,
                    "rule": each.rule.value,
                    "since": each.since,
                    "until": each.until,
                    "reason": each.reason,
                    "count": each.count,
                }
                for each in self.held
                if each.thing in (name, host, f"{name} {host}")
            ],
            **self.found,
        }


_defence: IDefence = StandInLimits()
"""The type checker compares it with the interface."""
