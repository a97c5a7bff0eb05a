# -*- test-case-name: mailgate.test.watch.test_tally -*-
"""
Counters and histograms of one process, as plain dicts: an increment takes a tenth of a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, TypeAlias

from mailgate.watch.metrics import METRICS, Kind, named

__all__ = ["Tally", "Totals"]

Totals: TypeAlias = dict[str, list[list[Any]]]
"""
The state of a L{Tally} in JSON: for each metric a list of C{[[label, …], value]}. The value of a counter or a gauge is
a number. That of a histogram is a list: the observations in each bucket, the last beyond all bounds, and then their
sum.
"""


class Tally:
    """
    Counters and histograms from the start of the process on; they never fall.

    @ivar counters: for each counter its values by labels.
    @ivar histograms: for each histogram its values by labels, as in L{Totals}.
    """

    def __init__(self) -> None:
        self.counters: dict[str, dict[tuple[str, ...], float]] = {
            metric.name: {} for metric in METRICS if metric.kind is Kind.COUNTER
        }
        self.histograms: dict[str, dict[tuple[str, ...], list[float]]] = {
            metric.name: {} for metric in METRICS if metric.kind is Kind.HISTOGRAM
        }

    def count(self, name: str, labels: tuple[str, ...], by: float = 1) -> None:
        """
        Add to a counter.

        @param name: the name of the metric.
        @param labels: the values of its labels.
        @param by: how much.
        """
        values = self.counters[name]
        values[labels] = values.get(labels, 0) + by

    def observe(self, name: str, labels: tuple[str, ...], seconds: float) -> None:
        """
        Add an observation to a histogram.

        @param name: the name of the metric.
        @param labels: the values of its labels.
        @param seconds: the observed time.
        """
        values, buckets = self.histograms[name], named(name).buckets
        found = values.get(labels)
        if found is None:
            found = values[labels] = [0.0] * (len(buckets) + 2)
        found[bisect_left(buckets, seconds)] += 1
        found[-1] += seconds

    def totals(self) -> Totals:
        """Return all values."""
        kinds: tuple[Mapping[str, Mapping[tuple[str, ...], Any]], ...] = (self.counters, self.histograms)
        return {
            name: [[list(labels), value] for labels, value in values.items()]
            for each in kinds
            for name, values in each.items()
            if values
        }
