# -*- test-case-name: mailgate.test.limits.test_interfaces -*-
"""
Where failures, rates and blocks are kept: in this process, in the keeper, and in a store that several gateways share
(L{mailgate.store.interfaces.IStore}).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from mailgate.limits.attempt import Attempt, Block, Result, Rule, Verdict
from mailgate.limits.operators import Operators
from mailgate.limits.policy import LoginPolicy, Prefixes

__all__ = ["IBucket", "IDefence", "ILimitStore", "IRates", "NewerState"]


class NewerState(ValueError):
    """The state of a L{IDefence} has a version that this release does not know."""


class ILimitStore(Protocol):
    """
    The rules R1 to R7, C{limit_req login}, and the blocks.

    L{mailgate.limits.defence.Defence} decides in this process, and answers at once.
    L{mailgate.keeper.limits.KeeperStore} asks the keeper, and decides by its own L{IDefence} if the keeper is late.
    L{mailgate.limits.shared.SharedDefence} asks a store that several gateways share.
    """

    def check(self, attempt: Attempt, ticket: int = 0) -> Verdict | Deferred[Verdict]:
        """
        Say what a login must do. Never fails, and answers within 50 ms, or C{store_timeout} and 10 ms.

        @param attempt: the login.
        @param ticket: that of the verdict C{WAIT} that has sent it here again; 0 the first time. A login counts for the
            rate once.
        """

    def passes(self, attempt: Attempt) -> Any:
        """
        Let a login pass at once if it needs no L{check}: the pair has succeeded a moment ago, and nothing is counted
        against it.

        @param attempt: the login. One object may stand for all logins that are alike, so that what is known about them
            is found at once.
        @return: the ticket of the login, for L{record} in this process; L{None} if it must be checked.
        """

    def record(self, attempt: Attempt, ticket: int, result: Result) -> None:
        """
        Say how a login ended. Nothing waits for this.

        @param attempt: the login, as it was checked.
        @param ticket: that of its last verdict.
        @param result: how it ended.
        """

    @property
    def operators(self) -> Operators:
        """The blocks of operators that this process knows. It is always the same object."""

    def allowance(self, host: str) -> int:
        """
        Return C{a} of an address: 1 and the distinct users who have succeeded there lately, 10 at most. At once, from
        what this process knows.

        @param host: the address, canonical.
        """

    def isKnown(self, host: str) -> bool:
        """Return whether any user has succeeded from this address lately. At once. C{host} is canonical."""

    def blockOf(self, host: str) -> Block | None:
        """
        Return the block that keeps an address from connecting, an operator's or L{None}. (Blocks of R4 let known pairs
        log in, so that they are checked at the login.) At once. C{host} is canonical.
        """

    def block(self, thing: str, seconds: float, reason: str, isHold: bool = False) -> Block:
        """
        Block for an operator.

        @param thing: a user, an address, a network in CIDR form, or C{USER ADDRESS}.
        @param seconds: for how long.
        @param reason: why: one printable line; may be empty.
        @param isHold: whether logins are held for a move, rather than refused for abuse. They wait, and are then told
            to try again.
        @raise ValueError: C{thing} is none of these.
        """

    def unblock(self, thing: str) -> Sequence[Block]:
        """
        End blocks, an operator's or those of rules, and forget the failures of C{thing}, so that no rule acts at once.

        @param thing: as for L{block}, or the id of a block.
        @return: the blocks that have ended; empty if there were none.
        """

    def blocks(self) -> Sequence[Block]:
        """Return the blocks that hold, the latest first."""

    def numbers(self) -> Mapping[str, Any]:
        """
        Return how full the tables are, for metrics. Values of JSON: C{entries} and C{evictions} (what was dropped early
        since the start), both by the name of the table, and C{held} (the logins that are held back now).
        """

    def look(self, user: bytes, host: str) -> Deferred[None]:
        """
        Learn what other gateways know about a login, before L{explain}. Nothing is counted. It never fails, and fires
        within C{store_timeout}.

        @param user: the name, canonical; may be empty.
        @param host: the address, canonical; may be empty.
        """

    def explain(self, user: bytes, host: str, protocol: str) -> Mapping[str, Any]:
        """
        Return which rule would act on a login and its counters, free of side effects. Values of JSON:

          - C{known} (flag), C{lastSuccess} (Unix time or null), C{allowance};
          - C{pair}, C{address}, C{network}, C{user}: each with C{failures}, C{limit} and C{since};
            while R6 and R7 only log, C{user} has C{quiet}: for how many seconds more;
          - C{users} (failed users of the address) and its C{limit};
          - C{rule} (value of L{Rule} or null), C{action} (value of L{mailgate.limits.attempt.Action}), C{seconds};
          - C{would} (list of texts): what each rule that has a dry run would do;
          - C{blocks} (list of blocks that concern it).

        @param user: the name, canonical; may be empty.
        @param host: the address, canonical; may be empty.
        @param protocol: the protocol; may be empty.
        """


class IDefence(ILimitStore, Protocol):
    """
    A store that decides by its own tables. The keeper has one for all processes, and each of them one as its shadow.

    @ivar changed: called with each row of L{news} that is new or has changed.
    @ivar happened: called with the rule, what it acts on, and words, when a rule blocks or begins to slow a user down.
    """

    changed: Callable[[Any], object]
    happened: Callable[[Rule, str, str], object]

    def configure(self, policy: LoginPolicy, prefixes: Prefixes, memory: int) -> None:
        """
        Change the rules. The tables are kept.

        @param policy: the rules.
        @param prefixes: what an address and a network are.
        @param memory: bytes that all tables together may take.
        """

    def check(self, attempt: Attempt, ticket: int = 0, owner: str = "") -> Verdict | Deferred[Verdict]:
        """
        See L{ILimitStore.check}.

        @param attempt: the login.
        @param ticket: that of its last verdict, or 0.
        @param owner: names the process with the login, for L{forget}.
        """

    def record(self, attempt: Attempt, ticket: int, result: Result, owner: str = "") -> None:
        """
        See L{ILimitStore.record}.

        @param attempt: the login.
        @param ticket: that of its last verdict. With 0, and with one that is not known, the result counts, and no
            ticket is freed.
        @param result: how it ended.
        @param owner: names the process with the login.
        """

    def forget(self, owner: str) -> None:
        """Free the tickets of a process that has ended. C{owner} names it."""

    def news(self) -> Iterable[Any]:
        """
        Return what others must know at once when a client connects: rows, each a value of JSON. The first one is the
        key of the others.
        """

    def adopt(self, rows: Iterable[Any]) -> None:
        """
        Take over rows of another one's L{news}.

        @param rows: the rows.
        @raise ValueError: one is not valid.
        """

    def state(self, withCounters: bool = False) -> bytes:
        """
        Return what must survive a restart: known networks, allowances and blocks.

        @param withCounters: whether to add the counters of failures, for a successor that goes on at once.
        """

    def packing(self, withCounters: bool = False) -> Generator[None, None, bytes]:
        """
        Make a L{state} in pieces of few milliseconds at most, so that logins can be decided between them.

        @param withCounters: as for L{state}.
        @return: the state.
        """

    def restore(self, state: bytes) -> None:
        """
        Replace all tables.

        @param state: what L{state} has returned.
        @raise NewerState: a later release has written it.
        @raise ValueError: it is damaged, or something else.
        """


class IBucket(Protocol):
    """
    The leaky bucket of one key.

    @ivar due: the monotonic time in seconds at which the next event would be in time; in the past if the bucket is
        empty. It may only be set to a later time.
    """

    due: float


class IRates(Protocol):
    """Leaky buckets (L{mailgate.limits.rates}), by key, over all workers."""

    def at(self, key: bytes) -> IBucket:
        """Return the bucket of a key. C{key} is any bytes."""
