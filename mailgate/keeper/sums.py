# -*- test-case-name: mailgate.test.keeper.test_sums -*-
"""
Sums of the metrics of several processes.

Counters must not fall, not even by a rounding error: Prometheus would take that for a restart. So all counters here are
whole numbers, also the seconds of histograms, which are counted in microseconds. Whole numbers have the same sum in
whatever order they are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from mailgate.watch.distinct import isValid, union
from mailgate.watch.metrics import METRICS, Kind, Merge, Metric
from mailgate.watch.tally import Totals

__all__ = [
    "OTHER",
    "Admission",
    "Sums",
    "Values",
    "changes",
    "grown",
    "less",
    "readValues",
    "writeTotals",
    "writeValues",
]

Values: TypeAlias = dict[str, dict[tuple[str, ...], Any]]
"""
Values by metric and labels. A counter is a whole number, a gauge a number, or a text of
L{mailgate.watch.distinct} (L{Merge.UNION}). A histogram is a list of whole numbers: the
observations in each bucket, the last beyond all bounds, and then the microseconds of all.
"""

_MICRO = 1_000_000
_MOST = 2**62
_LONGEST_LABEL = 200
_SURPLUS = 4
"""A process may report so many times the bound of a metric. The bound holds for the sums."""

OTHER = "other"
"""The value of labels beyond the bound."""

_BY_NAME: Mapping[str, Metric] = {metric.name: metric for metric in METRICS}

_BOUNDS = {"auth": 8, "backend": 65, "cipher": 20, "name": 50, "server": 20, "table": 16, "worker": 64}
"""The most values of each label that configurations, services or peers choose, with L{OTHER}."""

_BOUNDED = {
    metric.name: tuple(index for index, label in enumerate(metric.labels) if label in _BOUNDS) for metric in METRICS
}
"""The places of these labels in each metric."""

_LEAST = frozenset(metric.name for metric in METRICS if metric.merge is Merge.LEAST)
_HIGHEST = frozenset(metric.name for metric in METRICS if metric.merge is Merge.MOST)

_NUMBERS = frozenset((int, float))


def _isNumber(value: Any) -> bool:
    return type(value) in _NUMBERS and -_MOST <= value <= _MOST


def _read(metric: Metric, value: Any, scale: int) -> Any:
    """Return C{value} as in L{Values}; L{None} if it is not valid."""
    if metric.merge is Merge.UNION:
        return value if isValid(value) else None
    if metric.kind is Kind.GAUGE:
        return value if _isNumber(value) else None
    if metric.kind is Kind.COUNTER:
        return int(value) if _isNumber(value) and value >= 0 else None
    if not isinstance(value, list) or len(value) != len(metric.buckets) + 2:
        return None
    # First the largest: the sum of a float and an int of hundreds of digits is an error. A NaN makes the sum one.
    if not (_NUMBERS.issuperset(map(type, value)) and min(value) >= 0 and max(value) <= _MOST >= sum(value)):
        return None
    return [*map(int, value[:-1]), round(value[-1] * scale)]


def _row(metric: Metric, row: Any, scale: int, worker: str | None) -> tuple[tuple[str, ...], Any] | None:
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], list):
        return None
    labels = row[0]
    if len(labels) != len(metric.labels):
        return None
    for label in labels:
        # Texts with surrogates are not printable: they could not be written as UTF-8.
        if not isinstance(label, str) or len(label) > _LONGEST_LABEL or not label.isprintable():
            return None
    value = _read(metric, row[1], scale)
    if worker is not None and "worker" in metric.labels:
        labels = [worker if name == "worker" else label for name, label in zip(metric.labels, labels, strict=True)]
    return None if value is None else (tuple(labels), value)


def readValues(totals: Any, areMicro: bool = False, worker: str | None = None) -> Values:
    """
    Read what a process has reported, or what L{writeValues} has written. What is not valid is left out.

    @param totals: L{Totals}, not checked.
    @param areMicro: whether the times of histograms are in microseconds, as L{writeValues} has them.
    @param worker: the value of the label C{worker}, which a process does not know; L{None}: what is there.
    """
    values: Values = {}
    if not isinstance(totals, dict):
        return values
    for name, rows in totals.items():
        metric = _BY_NAME.get(name)
        if metric is None or not isinstance(rows, list):
            continue
        found = (_row(metric, row, 1 if areMicro else _MICRO, worker) for row in rows[: _SURPLUS * metric.bound])
        values[name] = dict(row for row in found if row is not None)
    return values


def changes(before: Totals, now: Totals) -> Totals:
    """
    Return what of a process's values has changed: of counters and histograms those that differ, and all gauges if one
    of them differs. Most values are the same a second later.

    @param before: what it has reported already.
    @param now: its values now.
    """
    found: Totals = {}
    areGaugesNew = False
    for name, rows in now.items():
        earlier = before.get(name, [])
        if rows != earlier:
            isGauge = _BY_NAME[name].kind is Kind.GAUGE
            areGaugesNew = areGaugesNew or isGauge
            if not isGauge:
                different = [row for row, then in zip(rows, earlier, strict=False) if row != then]
                found[name] = different + rows[len(earlier) :]
    if areGaugesNew:
        found.update((name, rows) for name, rows in now.items() if _BY_NAME[name].kind is Kind.GAUGE)
    return found


def writeValues(values: Values) -> Totals:
    """
    Return counters and histograms as values of JSON, with times in microseconds. Gauges are left out.

    @param values: the values.
    """
    return {
        name: [[list(labels), value] for labels, value in rows.items()]
        for name, rows in values.items()
        if rows and _BY_NAME[name].kind is not Kind.GAUGE
    }


def writeTotals(values: Values) -> Totals:
    """
    Return the values as L{Totals}, with times in seconds.

    @param values: the values.
    """
    totals: Totals = {}
    for name, rows in values.items():
        if _BY_NAME[name].kind is Kind.HISTOGRAM:
            totals[name] = [[list(labels), [*value[:-1], value[-1] / _MICRO]] for labels, value in rows.items()]
        elif rows:
            totals[name] = [[list(labels), value] for labels, value in rows.items()]
    return totals


def grown(before: Values, after: Values) -> Values:
    """
    Return C{after}, in which no counter is lower than in C{before}: the counters of one process never fall.

    @param before: earlier values of the process.
    @param after: later ones, which change. They may lack what is as before.
    """
    for name, rows in after.items():
        kind, earlier = _BY_NAME[name].kind, before.get(name)
        if earlier and kind is not Kind.GAUGE:
            for labels, value in rows.items():
                then: Any = earlier.get(labels, value)
                if then != value:
                    rows[labels] = max(then, value) if kind is Kind.COUNTER else list(map(max, then, value))
            after[name] = {**earlier, **rows}
    for name, rows in before.items():
        if name not in after and _BY_NAME[name].kind is not Kind.GAUGE:
            after[name] = rows
    return after


def less(values: Values, base: Values) -> Values:
    """
    Return the counters and histograms of C{values} without those of C{base}.

    @param values: later values of a process.
    @param base: earlier ones.
    """
    result: Values = {}
    for name, rows in values.items():
        kind, without = _BY_NAME[name].kind, base.get(name, {})
        if kind is Kind.COUNTER:
            result[name] = {labels: value - without.get(labels, 0) for labels, value in rows.items()}
        elif kind is Kind.HISTOGRAM:
            result[name] = {
                labels: [now - then for now, then in zip(value, without.get(labels, [0] * len(value)), strict=True)]
                for labels, value in rows.items()
            }
    return result


class Admission:
    """
    Bounds how many values labels have. The first ones stay, further ones are L{OTHER}.

    @param isBounded: whether it does.
    @ivar admitted: for each bounded label its values, the first ones first.
    """

    def __init__(self, isBounded: bool = True) -> None:
        self.admitted: dict[str, dict[str, None]] = {label: {} for label in _BOUNDS}
        self._bounded = _BOUNDED if isBounded else {}

    def admit(self, label: str, value: str) -> bool:
        """
        Return whether a value is among the first ones of its label.

        @param label: the name of the label, one of those that are bounded.
        @param value: the value.
        """
        known = self.admitted[label]
        if value in known:
            return True
        if value == OTHER or len(known) >= _BOUNDS[label] - 1:
            return False
        known[value] = None
        return True

    def labels(self, metric: Metric, labels: tuple[str, ...]) -> tuple[str, ...]:
        """
        Return the labels under which the sums have a value.

        @param metric: the metric.
        @param labels: the labels of the value.
        """
        bounded = self._bounded.get(metric.name)
        if not bounded or all(labels[index] in self.admitted[metric.labels[index]] for index in bounded):
            return labels
        return tuple(
            value if index not in bounded or self.admit(metric.labels[index], value) else OTHER
            for index, value in enumerate(labels)
        )

    def restore(self, admitted: Any) -> None:
        """
        Continue with what a predecessor has admitted.

        @param admitted: its C{admitted} as a value of JSON, not checked.
        """
        for label in _BOUNDS:
            values = admitted.get(label) if isinstance(admitted, dict) else None
            for value in values if isinstance(values, list) else ():
                if isinstance(value, str) and len(value) <= _LONGEST_LABEL and value.isprintable():
                    self.admit(label, value)


class Sums:
    """
    Adds up the values of processes.

    @param admission: bounds the values of labels.
    @ivar values: the sums. Of a gauge that is a state, such as C{mailgate_backend_up}, the worst value.
    """

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.values: Values = {}

    def add(self, values: Values, names: Iterable[str] | None = None, hasStates: bool = True) -> None:
        """
        Add values.

        @param values: the values.
        @param names: the metrics to add; L{None} for all.
        @param hasStates: whether gauges that are states are added.
        """
        for name in values if names is None else names:
            rows = values.get(name)
            if rows and (hasStates or not (name in _LEAST or name in _HIGHEST)):
                self._addRows(_BY_NAME[name], rows)

    def _addRows(self, metric: Metric, rows: dict[tuple[str, ...], Any]) -> None:
        sums = self.values.setdefault(metric.name, {})
        isHistogram = metric.kind is Kind.HISTOGRAM
        for labels, value in rows.items():
            labels = self._admission.labels(metric, labels)
            now = sums.get(labels)
            if now is None:
                # Histograms are never changed in place: the processes' own may be the same lists.
                sums[labels] = value
            elif isHistogram:
                sums[labels] = [one + other for one, other in zip(now, value, strict=True)]
            elif metric.merge is Merge.UNION:
                sums[labels] = union((now, value))
            elif metric.name in _LEAST:
                sums[labels] = min(now, value)
            elif metric.name in _HIGHEST:
                sums[labels] = max(now, value)
            else:
                sums[labels] = now + value
