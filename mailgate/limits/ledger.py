# -*- test-case-name: mailgate.test.limits.test_ledger -*-
"""
All that the rules for logins remember, within C{limit_memory}.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from mailgate.limits.addresses import Addresses
from mailgate.limits.blocks import Blocks
from mailgate.limits.keys import Keys
from mailgate.limits.known import Goods, Known
from mailgate.limits.loginrate import LoginRate
from mailgate.limits.operators import Operators
from mailgate.limits.pairs import Pairs
from mailgate.limits.policy import LoginPolicy, Prefixes
from mailgate.limits.table import Shelf, Table, dropOldest
from mailgate.limits.undecided import Undecided
from mailgate.limits.users import Users

__all__ = ["LEAST_MEMORY", "Ledger"]

LEAST_MEMORY = 1 << 16
"""The least C{limit_memory} in bytes with which the rules have some rows of each kind."""

_SHARES = {
    "known": 26,
    "goods": 11,
    "rates": 5,
    "pairs": 12,
    "addresses": 10,
    "networks": 3,
    "users": 7,
    "blocks": 5,
}
"""The parts of C{limit_memory} in percent. The others are for undecided logins and caches."""

_UNDECIDED = 10240
"""Bytes of C{limit_memory} for each login that is remembered as undecided: 800 with its counts."""

_KEY = 6144
"""Bytes of C{limit_memory} for each user and each address whose keys are remembered: 500 for both."""

_CACHED = 8192
"""Bytes of C{limit_memory} for each allowance that is remembered: 100."""

_SETTLED = 4096
"""Bytes of C{limit_memory} for each recent success that is remembered: 250."""

_SLOWED = 65536
"""Bytes of C{limit_memory} for each known pair that is slowed down."""


class Ledger:
    """
    The tables.

    @param secret: the key of the hashes.
    @param policy: the numbers.
    @param prefixes: C{limit_prefix}.
    @param memory: C{limit_memory} in bytes.
    @param chance: returns a random number from 0 to 1, without 1.
    @ivar settled: until when successes of a pair change nothing, by its key.
    @ivar slowed: when the next login of a known pair may pass that R2 slows down, by its key.
    """

    def __init__(
        self, secret: bytes, policy: LoginPolicy, prefixes: Prefixes, memory: int, chance: Callable[[], float]
    ) -> None:
        memory = max(LEAST_MEMORY, memory)
        self._memory = memory
        self.policy = policy
        self.keys = Keys(secret, prefixes, memory // _KEY)
        bytesOf = {name: memory * share // 100 for name, share in _SHARES.items()}
        self.known = Known(bytesOf["known"], policy)
        self.goods = Goods(bytesOf["goods"], policy, memory // _CACHED)
        self.rates = LoginRate(bytesOf["rates"])
        self.pairs = Pairs(bytesOf["pairs"], policy)
        self.sources = Addresses(bytesOf["addresses"], bytesOf["networks"], policy)

        def choose(tickets: Sequence[int]) -> int:
            return tickets[int(chance() * len(tickets))]

        self.users = Users(bytesOf["users"], policy, choose)
        self.blocks = Blocks(bytesOf["blocks"])
        self.operators = Operators()
        self.undecided = Undecided(memory // _UNDECIDED, int(chance() * (1 << 40)))
        self.slowed: dict[int, float] = {}
        self.settled: dict[int, float] = {}

    def configure(self, policy: LoginPolicy, prefixes: Prefixes, memory: int) -> None:
        """
        The numbers have changed. Rows are kept; with less memory, the latest.

        @param policy: the numbers.
        @param prefixes: C{limit_prefix}. If it has changed, the rows of before are found no more, and age.
        @param memory: C{limit_memory} in bytes.
        """
        self.policy = policy
        memory = max(LEAST_MEMORY, memory)
        if memory != self._memory:
            self._memory = memory
            for name, table in self.tables():
                table.resize(memory * _SHARES[name] // 100)
            self.undecided.most = memory // _UNDECIDED
        if prefixes != self.keys.prefixes:
            self.keys = Keys(self.keys.secret, prefixes, memory // _KEY)
        for part in (self.known, self.goods, self.pairs, self.sources, self.users):
            part.configure(policy)
        self.settled.clear()

    def slow(self, pair: int, until: float) -> None:
        """
        R2 slows a known pair down.

        @param pair: its key.
        @param until: when its next login may pass.
        """
        self.slowed.pop(pair, None)
        if len(self.slowed) >= self._memory // _SLOWED:
            del self.slowed[next(iter(self.slowed))]
        self.slowed[pair] = until

    def settle(self, pair: int, until: float) -> None:
        """
        A pair has succeeded.

        @param pair: its key.
        @param until: until when its further successes change nothing.
        """
        settled = self.settled
        # The oldest stands first.
        settled.pop(pair, None)
        if len(settled) >= self._memory // _SETTLED:
            dropOldest(settled)
        settled[pair] = until

    def tidy(self, now: float) -> None:
        """Forget what is over. C{now} is the time in seconds."""
        self.users.tidy(now)
        self.goods.forgetCached()
        self.operators.end(now)
        for pair in [pair for pair, until in self.slowed.items() if until <= now]:
            del self.slowed[pair]
        for pair, _ in [*takewhile(lambda each: each[1] <= now, self.settled.items())]:
            del self.settled[pair]

    def rekey(self, secret: bytes) -> None:
        """Forget all rows, since they are under another key. C{secret} is the new one."""
        self.keys = Keys(secret, self.keys.prefixes, self._memory // _KEY)
        for _, table in self.tables():
            table.clear()
        self.goods.forgetCached()
        self.operators.clear()
        self.slowed.clear()
        self.settled.clear()

    def tables(self) -> Iterator[tuple[str, Table | Shelf]]:
        """Yield all tables with their names."""
        yield "known", self.known.shelf
        yield "goods", self.goods.shelf
        yield "rates", self.rates.shelf
        yield "pairs", self.pairs.table
        yield "addresses", self.sources.addresses
        yield "networks", self.sources.networks
        yield "users", self.users.table
        yield "blocks", self.blocks.table

    def numbers(self) -> Mapping[str, Any]:
        """Return how full the tables are: see L{mailgate.limits.interfaces.ILimitStore.numbers}."""
        return {
            "entries": {name: len(table) for name, table in self.tables()},
            "evictions": {name: table.dropped for name, table in self.tables()},
            "held": self.undecided.held,
        }
