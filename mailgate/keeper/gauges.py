# -*- test-case-name: mailgate.test.keeper.test_gauges -*-
"""
What the keeper itself measures, as metrics: the processes, the configuration, the limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mailgate.keeper.blockrows import countBlocks
from mailgate.keeper.interfaces import IOthers
from mailgate.keeper.past import Counted
from mailgate.keeper.sums import Values
from mailgate.limits.attempt import Rule
from mailgate.limits.interfaces import ILimitStore
from mailgate.store.interfaces import DEAD
from mailgate.watch.metrics import LOG_LINES

__all__ = ["Gauges"]

_EVICTIONS = "mailgate_limit_evictions"


class Gauges:
    """
    Measures.

    @param events: what the gateway itself has counted. Entries that were dropped early are counted there, and lines of
        the log, as those of a successor begin at 0.
    """

    def __init__(self, events: Counted) -> None:
        self._events = events
        self._known: dict[str, Mapping[str, int]] = {}

    def read(self, linked: Sequence[Counted], now: float, loaded: float) -> Values:
        """
        Return the gauges of the processes and of the configuration.

        @param linked: the processes that have a link now.
        @param now: the time in seconds since 1970.
        @param loaded: when the configuration was loaded, as C{now}.
        """
        retiring = sum(counted.member.isRetiring for counted in linked)
        ages: dict[tuple[str, ...], float] = {}
        for counted in linked:
            slot = (str(getattr(counted.member, "slot", 0)),)
            ages[slot] = max(ages.get(slot, 0.0), now - counted.reported)
        return {
            "mailgate_workers": {("serving",): len(linked) - retiring, ("retiring",): retiring},
            "mailgate_worker_report_age_seconds": {**ages},
            "mailgate_config_last_reload_success_timestamp_seconds": {(): loaded},
        }

    def readLimits(self, store: ILimitStore | None) -> Values:
        """
        Count what the tables of the limits have dropped since the last call, and return their gauges. The sums of the
        keeper have that count only after this.

        @param store: the limits; L{None} if there are none.
        """
        if store is None:
            return {}
        numbers = store.numbers()
        self._count(_EVICTIONS, numbers["evictions"])
        blocks = countBlocks(store.blocks())
        return {
            "mailgate_blocks": {(rule.value,): blocks.get(rule.value, 0) for rule in _BLOCKING},
            "mailgate_limit_entries": {(table,): count for table, count in numbers["entries"].items()},
            "mailgate_delayed_logins": {(): numbers["held"]},
        }

    @staticmethod
    def readStore(others: IOthers | None) -> Values:
        """
        Return the gauges of the store and of the gateways that share it.

        @param others: the other gateways; L{None} without C{store}.
        """
        if others is None:
            return {}
        found = others.standing()
        silent = sum(each["age"] >= DEAD for each in found["gateways"])
        return {
            "mailgate_store_up": {(): int(found["up"])},
            "mailgate_gateways": {("living",): len(found["gateways"]) - silent, ("silent",): silent},
        }

    def readLines(self, lines: Mapping[Any, int]) -> None:
        """
        Count what the keeper's own process has logged since the last call.

        @param lines: the numbers of lines by Twisted's levels, from the start of the process on.
        """
        self._count(LOG_LINES, {level.name: number for level, number in lines.items()})

    def _count(self, name: str, numbers: Mapping[str, int]) -> None:
        """Add to a counter by how much the C{numbers} of its labels have grown in this process."""
        known, before = self._events.values.setdefault(name, {}), self._known.get(name, {})
        for label, count in numbers.items():
            more = max(0, count - before.get(label, 0))
            if more or (label,) not in known:
                known[label,] = known.get((label,), 0) + more
                self._events.text = ""
        self._known[name] = dict(numbers)


_BLOCKING = (Rule.BLOCK, Rule.HOLD, Rule.PAIR_BLOCK, Rule.ADDRESS_BLOCK, Rule.USER_REFUSE)
"""The rules that make blocks."""
