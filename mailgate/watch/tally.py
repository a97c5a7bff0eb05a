# -*- test-case-name: mailgate.test.watch.test_tally -*-
"""
Counters and histograms of one process, as plain dicts: an increment takes a tenth of a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from operator import add, sub
from typing import Any, TypeAlias

from mailgate.watch.distinct import union
from mailgate.watch.metrics import METRICS, Kind, Merge, named

__all__ = ["Tally", "Totals", "merged"]

Totals: TypeAlias = dict[str, list[list[Any]]]
"""
The state of a L{Tally} in JSON: for each metric a list of C{[[label, …], value]}. The value of a counter or a gauge is
a number, except that of L{Merge.UNION}, which is a text of L{mailgate.watch.distinct}. The value of a histogram is a
list: the observations in each bucket, the last beyond all bounds, and then their sum.
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
        self._buckets = {metric.name: metric.buckets for metric in METRICS}

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
        @param seconds: the observed time. A negative one, after the system's clock was set back, counts as 0.
        """
        buckets = self._buckets[name]
        found = self.prepare(name, labels)
        found[bisect_left(buckets, seconds)] += 1
        if seconds > 0:
            found[-1] += seconds

    def observeAll(self, name: str, labels: tuple[str, ...], seconds: Sequence[float]) -> None:
        """
        Add several observations to a histogram.

        @param name: the name of the metric.
        @param labels: the values of its labels.
        @param seconds: the observed times, as for L{observe}; at least one.
        """
        found, ordered = self.prepare(name, labels), sorted(seconds)
        # To search each bound among the observations is faster than to search each observation among the bounds.
        within = [*map(bisect_right, repeat(ordered), self._buckets[name]), len(ordered)]
        found[:-1] = map(add, found, map(sub, within, [0, *within]))
        found[-1] += sum(ordered) if ordered[0] >= 0 else sum(each for each in ordered if each > 0)

    def prepare(self, name: str, labels: tuple[str, ...]) -> list[float]:
        """
        Make the value of a histogram, unless it exists, and return it.

        @param name: the name of the metric.
        @param labels: the values of its labels.
        """
        values = self.histograms[name]
        found = values.get(labels)
        if found is None:
            found = values[labels] = [0] * (len(self._buckets[name]) + 1) + [0.0]
        return found

    def totals(self) -> Totals:
        """Return all values."""
        return {
            **{name: _rows(values, values.values()) for name, values in self.counters.items() if values},
            **{name: _rows(values, map(list, values.values())) for name, values in self.histograms.items() if values},
        }


def _rows(labels: Iterable[tuple[str, ...]], values: Iterable[Any]) -> list[list[Any]]:
    return [*map(list, zip(map(list, labels), values, strict=True))]


_ONE: dict[Merge, Callable[[Any], Any]] = {Merge.SUM: sum, Merge.LEAST: min, Merge.MOST: max, Merge.UNION: union}


def merged(several: Iterable[Totals]) -> Totals:
    """
    Merge the values of several processes. Metrics that this release does not know are left out.

    @param several: the values of each process.
    """
    found: dict[str, dict[tuple[str, ...], list[Any]]] = {}
    for totals in several:
        for name, rows in totals.items():
            series = found.setdefault(name, {})
            for labels, value in rows:
                series.setdefault(tuple(labels), []).append(value)
    return {
        name: [[list(labels), _merge(name, values)] for labels, values in series.items()]
        for name, series in found.items()
        if name in _KNOWN
    }


_KNOWN = frozenset(metric.name for metric in METRICS)


def _merge(name: str, values: list[Any]) -> Any:
    metric = named(name)
    if metric.kind is Kind.HISTOGRAM:
        return [sum(parts) for parts in zip(*values, strict=True)]
    return _ONE[metric.merge](values)
