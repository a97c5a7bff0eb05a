# -*- test-case-name: mailgate.test.keeper.test_stats -*-
"""
Quantiles of the metrics that are histograms.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailgate.watch.metrics import named

__all__ = ["quantile"]

_WAIT = "mailgate_login_seconds"


def quantile(counts: Sequence[float], share: float) -> float | None:
    """
    Estimate a quantile of the seconds of C{mailgate_login_seconds}, or of another histogram with its bounds, as
    Prometheus's C{histogram_quantile} does: linear between the bounds of a bucket, and the highest bound for what is
    beyond all.

    @param counts: the observations in each bucket.
    @param share: the quantile, from 0 to 1.
    @return: the seconds; L{None} without observations.
    """
    bounds = named(_WAIT).buckets
    rank, passed = share * sum(counts), 0.0
    if not rank:
        return None
    for index, count in enumerate(counts):
        if passed + count >= rank:
            if index >= len(bounds):
                break
            low = bounds[index - 1] if index else 0.0
            return round(low + (bounds[index] - low) * (rank - passed) / count, 6)
        passed += count
    return bounds[-1]
