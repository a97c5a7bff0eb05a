# -*- test-case-name: mailgate.test.limits.test_state -*-
"""
What outlives a process that counts failed logins, what other processes learn of it, and the time of both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from math import inf
from typing import Any

from mailgate.limits import news, state
from mailgate.limits.ledger import Ledger
from mailgate.limits.rules import Rules
from mailgate.limits.state import Times

__all__ = ["Lasting"]


class Lasting:
    """
    The tables of a L{mailgate.limits.defence.Defence}, and their time: that of the wall clock at its start, which goes
    on with the monotonic clock, so that a clock that is set moves no block and no window.

    @param ledger: the tables.
    @param monotonic: returns seconds that never go back.
    @param wall: returns the Unix time in seconds.
    @ivar ledger: as the argument.
    @ivar rules: the rules.
    @ivar changed: called with each row of L{news} that is new or has changed. Not before L{news} was read once.
    """

    def __init__(self, ledger: Ledger, monotonic: Callable[[], float], wall: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset = wall() - monotonic()
        self._tidyAt = -inf
        self.ledger = ledger
        self.rules = Rules(ledger)
        self.changed: Callable[[Any], object] = lambda row: None

    @property
    def now(self) -> float:
        """The time of all rows, in seconds."""
        return self._offset + self._monotonic()

    @property
    def offset(self) -> float:
        """What must be added to the times of rows for Unix times."""
        return self._wall() - self.now

    def _move(self, now: float) -> None:
        """Let the time of all rows be C{now}."""
        self._offset = now - self._monotonic()
        self._tidyAt = -inf

    def state(self, withCounters: bool = False) -> bytes:
        """
        Return what a later process must know: known networks, who has succeeded at which address, blocks that hold or
        would make the next one longer, the key of their hashes, and users with failures of many networks.

        @param withCounters: whether it has all counters, too, for a process that follows at once.
        """
        return state.packed(self.ledger, self._times, withCounters)

    def packing(self, withCounters: bool = False) -> Generator[None, None, bytes]:
        """
        Make a L{state} in short pieces, between which logins may be decided.

        @param withCounters: as for L{state}.
        @return: the state.
        """
        return state.packing(self.ledger, self._times, withCounters)

    def _times(self) -> Times:
        now = self.now
        return Times(now, self._wall(), max(0.0, self.rules.quietUntil - now))

    def restore(self, content: bytes) -> None:
        """
        Replace all rows by those of an earlier process.

        @param content: the result of its L{state}.
        @raise ValueError: it is damaged, or another version wrote it (L{mailgate.limits.interfaces.NewerState} if that
            is newer). Nothing is changed then.
        """
        read = state.unpacked(content)
        self.ledger.rekey(read.key)
        # The clock may have been set back since.
        self._move(read.now + max(0.0, self._wall() - read.wall))
        self.rules.quietUntil = self.now + read.quiet if read.quiet > 0 else -inf
        read.fill(self.ledger, self.now)

    # Other processes.

    def news(self) -> Iterator[Any]:
        """
        Yield what another process must know at once: the key of the hashes, operators' blocks, and who has succeeded at
        which address. Each row is a value of JSON. C{changed} is called with later rows.
        """
        quiet = max(0.0, self.rules.quietUntil - self.now)
        return news.rows(self.ledger, self.now, quiet)

    def _goodChanged(self, address: int, row: bytes) -> None:
        self.changed(news.goodRow(address, row))

    def _slowChanged(self, user: int, row: bytes) -> None:
        self.changed(news.slowRow(user, row))

    def adopt(self, rows: Iterable[Any]) -> None:
        """
        Take over rows of another process.

        @param rows: of L{news}, or what C{changed} was called with.
        @raise ValueError: a row is damaged. Those before it are taken over.
        """
        for row in rows:
            key = news.adopted(self.ledger, row, self.now)
            if key is not None:
                secret, now, quiet = key
                if secret != self.ledger.keys.secret:
                    self.ledger.rekey(secret)
                    self._move(now)
                self.ledger.operators.clear()
                self.rules.quietUntil = self.now + quiet if quiet > 0 else -inf
