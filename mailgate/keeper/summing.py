# -*- test-case-name: mailgate.test.keeper.test_keeper -*-
"""
Adds up what the processes of a gateway have counted: those of the past, which change seldom, and those with a link.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mailgate.keeper.past import Counted, Past
from mailgate.keeper.sums import Admission, Sums, Values

__all__ = ["Summing"]


class Summing:
    """
    The sums of a keeper.

    @param admission: bounds the values of labels.
    @param past: the processes of which the keeper knows the sum alone.
    @param events: what the keeper itself has counted.
    """

    def __init__(self, admission: Admission, past: Past, events: Counted) -> None:
        self._admission = admission
        self._past = past
        self._events = events
        self._constant: Values | None = None

    def changed(self) -> None:
        """A process without a link has other values now, or there is one more, or one less."""
        self._constant = None

    def values(self, processes: Collection[Counted], names: Sequence[str] | None = None) -> Values:
        """
        Return the sums.

        @param processes: those with a link, and those without one whose values are not in the past.
        @param names: the metrics; L{None} for all.
        """
        linked = [counted for counted in processes if counted.member is not None]
        if self._constant is None:
            constant = Sums(self._admission)
            for past in self._past.sums:
                constant.add(past)
            for counted in processes:
                if counted.member is None:
                    constant.add(counted.own)
            self._constant = constant.values
        sums = Sums(self._admission)
        sums.add(self._constant, names)
        sums.add(self._events.values, names)
        hasServing = any(not counted.member.isRetiring for counted in linked)
        for counted in linked:
            sums.add(counted.own, names)
            # What a retiring process knows of backends is out of date.
            sums.add(counted.gauges, names, hasStates=not (hasServing and counted.member.isRetiring))
        return sums.values
