# -*- test-case-name: bench.test.test_comparison -*-
"""
The spread of figures, and the certainty of their median.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from statistics import quantiles

from attrs import frozen

__all__ = ["AFTER", "BEFORE", "Spread", "medianWithin"]

BEFORE = "before"
"""The column of another tree, with which this one is compared."""

AFTER = "after"

_DOUBT = 0.05
"""The probability that the true median lies outside of L{medianWithin}."""


@frozen
class Spread:
    """The distribution of figures: minimum, quartiles with the median between them, maximum."""

    least: float
    quarter: float
    middle: float
    threeQuarters: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of one or more figures."""
        first, middle, third = quantiles(figures, n=4, method="inclusive") if len(figures) > 1 else [*figures] * 3
        return cls(min(figures), first, middle, third, max(figures))


def medianWithin(figures: Sequence[float]) -> tuple[float, float] | None:
    """
    The range in which the median of the whole distribution lies in 95 of 100 cases, whatever the distribution (the
    interval of the sign test). L{None} for fewer than six figures, which are too few.
    """
    count, chance, rank = len(figures), 0.0, 0
    while (chance := chance + 2 * comb(count, rank) / 2**count) <= _DOUBT:
        rank += 1
    ordered = sorted(figures)
    return (ordered[rank - 1], ordered[-rank]) if rank else None
