# -*- test-case-name: mailgate.test.keeper.test_exposition -*-
"""
Writes the metrics for Prometheus, in the text format 0.0.4 or in OpenMetrics 1.0. This is the only module that needs
prometheus_client.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from functools import cache
from itertools import accumulate
from typing import Any

from OpenSSL import SSL

import twisted
from mailgate import __version__
from mailgate.keeper.ownprocess import HELP, ownProcess
from mailgate.watch.distinct import size
from mailgate.watch.labels import FirstNames
from mailgate.watch.metrics import METRICS, Kind, Merge, Metric
from mailgate.watch.tally import Totals, merged

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.exposition import generate_latest as writeText
    from prometheus_client.gc_collector import GCCollector
    from prometheus_client.openmetrics.exposition import generate_latest as writeOpenMetrics
    from prometheus_client.registry import CollectorRegistry
except ImportError as error:
    _missing: ImportError | None = error
else:
    _missing = None

__all__ = ["OPEN_METRICS", "TEXT", "Exposition", "MetricsMissing", "expose"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_MOST = {"backend": 64, "cipher": 20}
_MOST_OTHERS = 256
"""How many values of each label are exported besides those of the configuration; the rest are one value, C{other}."""


class MetricsMissing(Exception):
    """Metrics cannot be written: prometheus_client is not installed."""

    def __init__(self) -> None:
        super().__init__(f'the Python package prometheus_client is missing ({_missing}); install "mailgate[metrics]"')


class Exposition:
    """
    Writes the metrics of the gateway, and C{process_*} and C{python_gc_*} of the process that it runs in.

    @raise MetricsMissing: prometheus_client is not installed.
    """

    def __init__(self) -> None:
        if _missing is not None:
            raise MetricsMissing()
        self._names: dict[str, FirstNames] = {}
        self._totals: Totals = {}
        self._registry = CollectorRegistry()
        self._registry.register(_Collector(self._families))
        GCCollector(registry=self._registry)

    def write(self, totals: Totals, accept: str = "") -> tuple[bytes, str]:
        """
        Return the metrics, and their media type.

        @param totals: the metrics of the gateway, of all processes together.
        @param accept: the value of the header C{Accept} of the request; empty without one.
        """
        self._totals = self._bounded(totals)
        try:
            if "application/openmetrics-text" in accept.lower():
                return bytes(writeOpenMetrics(self._registry)), OPEN_METRICS
            return bytes(writeText(self._registry)), TEXT
        finally:
            self._totals = {}

    def _bounded(self, totals: Totals) -> Totals:
        """Replace further values of labels by C{other}. A worker keeps few of them, but each worker others."""
        known = [labels[0] for labels, _ in totals.get("mailgate_backend_up", ())]
        self._namesOf("backend").know(known)
        kept: Totals = {}
        for metric in METRICS:
            names = [self._namesOf(label) for label in metric.labels]
            kept[metric.name] = [
                [[name.of(str(value)) for name, value in zip(names, labels, strict=True)], value]
                for labels, value in totals.get(metric.name, ())
                if len(labels) == len(names)
            ]
        return merged([kept])

    def _namesOf(self, label: str) -> FirstNames:
        names = self._names.get(label)
        if names is None:
            names = self._names[label] = FirstNames(_MOST.get(label, _MOST_OTHERS))
        return names

    def _families(self) -> Iterator[Any]:
        for metric in METRICS:
            yield _family(metric, self._totals.get(metric.name, []))
        for name, value in ownProcess():
            make = CounterMetricFamily if name == "process_cpu_seconds" else GaugeMetricFamily
            yield make(name, HELP[name], value=value)
        build = GaugeMetricFamily(
            "mailgate_build_info",
            "The versions of this process; the value is always 1.",
            labels=("version", "python", "twisted", "openssl"),
        )
        openSSL = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii", "replace")
        build.add_metric((__version__, platform.python_version(), twisted.__version__, openSSL), 1)
        yield build


class _Collector:
    """What prometheus_client collects from."""

    def __init__(self, collect: Callable[[], Iterator[Any]]) -> None:
        self.collect = collect

    def describe(self) -> list[Any]:
        """Spare the registry a first collection."""
        return []


def _family(metric: Metric, rows: list[list[Any]]) -> Any:
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        bounds = [*map(str, metric.buckets), "+Inf"]
        for labels, (*counts, total) in rows:
            if len(counts) == len(bounds):
                histogram.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
        return histogram
    make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = make(metric.name, metric.help, labels=metric.labels)
    for labels, value in rows:
        family.add_metric(labels, size(value) if metric.merge is Merge.UNION else value)
    return family


@cache
def _ofProcess() -> Exposition:
    """That of this process: what it has exported once keeps its name."""
    return Exposition()


def expose(totals: Totals, accept: str) -> tuple[bytes, bytes]:
    """
    Return the metrics, and their media type, as L{Exposition.write} does.

    @param totals: the metrics of the gateway.
    @param accept: the value of the header C{Accept} of the request; empty without one.
    @raise MetricsMissing: prometheus_client is not installed.
    """
    written, kind = _ofProcess().write(totals, accept)
    return written, kind.encode("ascii")
