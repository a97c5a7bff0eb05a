# -*- test-case-name: mailgate.test.keeper.test_limitgauges -*-
"""
How full the tables of the limits are, and which blocks are in force, as metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

from mailgate.keeper.blockrows import countBlocks
from mailgate.keeper.past import Counted
from mailgate.keeper.sums import Values
from mailgate.limits.attempt import Rule
from mailgate.limits.interfaces import ILimitStore

__all__ = ["LimitGauges"]

_EVICTIONS = "mailgate_limit_evictions"


class LimitGauges:
    """
    Measures the limits.

    @param events: what the gateway itself has counted. Entries that were dropped early are counted there, as the limits
        of a successor begin at 0.
    """

    def __init__(self, events: Counted) -> None:
        self._events = events
        self._evicted: Mapping[str, int] = {}

    def measure(self, store: ILimitStore | None) -> Values:
        """
        Count what was dropped since the last call, and return the gauges.

        @param store: the limits; L{None} if there are none.
        """
        if store is None:
            return {}
        numbers = store.numbers()
        self._count(numbers["evictions"])
        blocks = countBlocks(store.blocks())
        return {
            "mailgate_blocks": {(rule.value,): blocks.get(rule.value, 0) for rule in _BLOCKING},
            "mailgate_limit_entries": {(table,): count for table, count in numbers["entries"].items()},
            "mailgate_delayed_logins": {(): numbers["held"]},
        }

    def _count(self, evictions: Mapping[str, int]) -> None:
        known = self._events.values.setdefault(_EVICTIONS, {})
        for table, count in evictions.items():
            dropped = max(0, count - self._evicted.get(table, 0))
            if dropped or (table,) not in known:
                known[table,] = known.get((table,), 0) + dropped
                self._events.text = ""
        self._evicted = dict(evictions)


_BLOCKING = (Rule.BLOCK, Rule.HOLD, Rule.PAIR_BLOCK, Rule.ADDRESS_BLOCK, Rule.USER_REFUSE)
"""The rules that make blocks."""
