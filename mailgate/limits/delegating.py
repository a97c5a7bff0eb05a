# -*- test-case-name: mailgate.test.limits.test_shared -*-
"""
What a gateway that shares a store does by itself, as one without a store does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

from mailgate.limits.attempt import Attempt, Block
from mailgate.limits.defence import Defence
from mailgate.limits.learning import Happened
from mailgate.limits.operators import Operators

__all__ = ["Delegating"]


class Delegating:
    """
    The part of an L{IDefence<mailgate.limits.interfaces.IDefence>} that another one does.

    @param defence: the other one.
    """

    def __init__(self, defence: Defence) -> None:
        self._local = defence

    @property
    def changed(self) -> Callable[[Any], object]:
        """See L{mailgate.limits.interfaces.IDefence}."""
        return self._local.changed

    @changed.setter
    def changed(self, react: Callable[[Any], object]) -> None:
        self._local.changed = react

    @property
    def happened(self) -> Happened:
        """See L{mailgate.limits.interfaces.IDefence}."""
        return self._local.happened

    @happened.setter
    def happened(self, react: Happened) -> None:
        self._local.happened = react

    @property
    def operators(self) -> Operators:
        """See L{mailgate.limits.interfaces.ILimitStore}."""
        return self._local.operators

    def passes(self, attempt: Attempt) -> None:
        """
        The store must be asked about each login. See L{mailgate.limits.interfaces.ILimitStore.passes}.

        @param attempt: the login.
        """

    def allowance(self, host: str) -> int:
        """See L{mailgate.limits.interfaces.ILimitStore.allowance}. C{host} is the address."""
        return self._local.allowance(host)

    def isKnown(self, host: str) -> bool:
        """See L{mailgate.limits.interfaces.ILimitStore.isKnown}. C{host} is the address."""
        return self._local.isKnown(host)

    def blockOf(self, host: str) -> Block | None:
        """See L{mailgate.limits.interfaces.ILimitStore.blockOf}. C{host} is the address."""
        return self._local.blockOf(host)

    def blocks(self) -> Sequence[Block]:
        """Return the blocks that hold, of all gateways, the latest first."""
        return self._local.blocks()

    def numbers(self) -> Mapping[str, Any]:
        """Return how full the tables of this gateway are."""
        return self._local.numbers()

    def explain(self, user: bytes, host: str, protocol: str) -> Mapping[str, Any]:
        """
        See L{mailgate.limits.interfaces.ILimitStore.explain}.

        @param user: the name.
        @param host: the address.
        @param protocol: the protocol.
        """
        return self._local.explain(user, host, protocol)

    def news(self) -> Iterable[Any]:
        """See L{mailgate.limits.interfaces.IDefence.news}."""
        return self._local.news()

    def adopt(self, rows: Iterable[Any]) -> None:
        """See L{mailgate.limits.interfaces.IDefence.adopt}. C{rows} are those of another process."""
        self._local.adopt(rows)

    def state(self, withCounters: bool = False) -> bytes:
        """See L{mailgate.limits.interfaces.IDefence.state}. C{withCounters} is as there."""
        return self._local.state(withCounters)

    def packing(self, withCounters: bool = False) -> Generator[None, None, bytes]:
        """See L{mailgate.limits.interfaces.IDefence.packing}. C{withCounters} is as there."""
        return self._local.packing(withCounters)
